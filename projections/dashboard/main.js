// Asks for the summary; when its round has moved, reads and draws everything else.

import { Refused, all, get } from "./api.js";
import { drawCapacity } from "./capacity.js";
import { drawDecisions, drawReservations } from "./decisions.js";
import { follow } from "./detail.js";
import { $, bar, count, el, fill, moment } from "./dom.js";
import { drawPolicies } from "./policies.js";
import { drawPool } from "./pool.js";
import { drawQueues, drawQuota } from "./quota.js";
import { drawWaiting } from "./waiting.js";

const QUIET_MS = 1500;
const SHARE = 4; // of the time, at most one part in so many goes to reading

let shown = null;

async function refresh() {
  const summary = await get("summary");
  if (summary.round === shown) return;
  const [accounts, queues, nodes, shapes, reservations, policies, regions, rights, decisions] = await Promise.all([
    all("accounts"),
    all("queues"),
    all("nodes"),
    all("shapes", { waiting: true }),
    all("reservations"),
    all("policies"),
    all("pool/regions"),
    all("pool/rights"),
    get("decisions", { limit: 60 }),
  ]);
  drawHead(summary);
  drawFigures(summary, nodes);
  drawCapacity(nodes);
  drawWaiting(shapes);
  drawQuota(accounts);
  drawQueues(queues, summary);
  drawDecisions(decisions.items);
  drawReservations(reservations);
  drawPolicies(policies);
  drawPool(regions, rights);
  shown = summary.round;
  $("page").setAttribute("aria-busy", "false");
}

function drawHead(summary) {
  $("cell").textContent = `cell ${summary.cell}`;
  $("round").textContent = `round ${count(summary.round)}`;
  $("clock").textContent = summary.at_ms ? `${moment(summary.at_ms)} UTC` : "";
}

function drawFigures(summary, nodes) {
  const { slots = {}, jobs_live: live = 0, jobs_waiting: waiting = 0 } = summary;
  const cards = Object.entries(slots).map(([type, total]) => {
    const of = nodes.filter((n) => n.accelerator === type);
    const used = of.reduce((sum, n) => sum + n.used, 0);
    const told = `${type}: ${used} of ${total} slots in use`;
    return figure(`${type} in use`, count(used), `/ ${count(total)}`, bar([["", 0, used / total]], told));
  });
  const ready = nodes.filter((n) => n.status === "ready").length;
  fill($("figures"), [
    ...cards,
    figure("Jobs running", count(live - waiting), "", `${count(summary.jobs_admitted ?? 0)} admitted so far`),
    figure("Jobs waiting", count(waiting), "", waiting ? "each with its reason" : "nothing waits"),
    figure("Nodes ready", count(ready), `/ ${count(nodes.length)}`, rest(nodes.length - ready)),
  ]);
}

const rest = (n) => (n ? `${count(n)} cordoned, drained or lost` : "all of them");

function figure(name, value, of, note) {
  const told = el("div", { class: "value" }, value, of ? " " : "", of ? el("small", {}, of) : "");
  const below = typeof note === "string" ? el("div", { class: "name" }, note) : note;
  return el("div", { class: "figure" }, el("div", { class: "name" }, name), told, below);
}

function tell(state, text) {
  $("live").className = `live ${state}`;
  $("live").textContent = text;
}

async function forever() {
  for (;;) {
    const begin = performance.now();
    try {
      await refresh();
      tell("on", "live");
    } catch (error) {
      const stranger = error instanceof Refused && error.status === 401;
      $("sign-in").hidden = !stranger;
      if (stranger) $("page").setAttribute("aria-busy", "true");
      tell("off", error instanceof Refused ? error.message : "the API does not answer");
    }
    const took = performance.now() - begin;
    await new Promise((resolve) => setTimeout(resolve, Math.max(QUIET_MS, took * SHARE)));
  }
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  $("sign-in").hidden = true;
});

follow();
forever();
