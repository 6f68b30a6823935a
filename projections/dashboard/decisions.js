// Decisions with their reasons, newest first, and the reservations.

import { $, count, el, empty, fill, jobLink, moment, plural, span, time } from "./dom.js";

const NAMES = { AttemptStarted: "start", JobClaimed: "claim", PreemptionDecided: "preempt" };
const TIERS = ["reserved", "premium", "standard", "basic"];
const CAUSES = {
  reclaim: "quota is reclaimed",
  tier: "a higher tier within its quota",
  reservation: "a reservation begins",
  operator: "an operator asked",
};

export function drawDecisions(decisions) {
  const rows = decisions.map((decision) => {
    const { event, subject, at_ms: at, round, body } = decision;
    const who = linked(subject, body.cause);
    const line = el("div", { class: "line" },
      el("span", { class: `tag ${event}` }, NAMES[event] ?? event),
      el("span", { class: "grow" }, who, " ", outcome(event, body)),
      el("span", { class: "when", title: `round ${round}` }, time(at)));
    return el("li", {}, line, el("div", { class: "why" }, why(event, body)));
  });
  fill($("decisions"), rows.length ? rows : [empty("Nothing has been decided yet.")]);
}

function linked(subject, cause) {
  if (!subject) return "an operator";
  return cause === "reservation" ? subject : jobLink(subject);
}

function outcome(event, body) {
  if (event === "PreemptionDecided") return `displaces ${plural(body.victims.length, "job")}`;
  const names = [...new Set((body.nodes ?? []).map(([node]) => node))];
  const first = names.slice(0, 3).join(", ");
  const where = names.length > 3 ? `${first} and ${names.length - 3} more` : first;
  return where ? `on ${where}` : "on the nodes that it had claimed";
}

function why(event, body) {
  if (event === "PreemptionDecided") {
    const cost = body.victims.reduce((sum, victim) => sum + victim.cost_slot_s, 0);
    const other = body.runner_up_cost_slot_s;
    const next = other === undefined ? "" : `; the next best cost ${count(other)}`;
    return `${CAUSES[body.cause] ?? body.cause}; it costs ${count(cost)} slot-seconds, `
      + `least of ${plural(body.candidates, "candidate")}${next}`;
  }
  const reason = body.why;
  if (!reason) return "what it waited for has become free";
  const ahead = reason.runner_up ? `, ahead of ${reason.runner_up}` : "";
  return `${reason.chosen}: best of ${plural(reason.candidates, "candidate")}${ahead}; tier `
    + `${TIERS[reason.tier] ?? reason.tier}, queue's share ${(reason.share_ppm / 10000).toFixed(1)} %`;
}

export function drawReservations(reservations) {
  const open = reservations.filter((r) => r.status !== "ended").sort((a, b) => a.start_ms - b.start_ms);
  const ended = reservations.length - open.length;
  const rows = open.map((r) => {
    const line = el("div", { class: "line" },
      el("b", { class: "grow" }, r.reservation), el("span", { class: `tag ${r.status}` }, r.status));
    const lasts = span((r.end_ms - r.start_ms) / 1000);
    const short = r.shortfall_slots ? `; ${r.shortfall_slots} slots are missing` : "";
    return el("li", {}, line, el("div", { class: "why" },
      `${r.count} × ${r.slots} ${r.accelerator} for ${r.account}, from ${moment(r.start_ms)} `
      + `for ${lasts}${short}`));
  });
  if (ended) rows.push(el("li", { class: "why" }, `${plural(ended, "reservation")} ended`));
  fill($("reservations"), rows.length ? rows : [empty("Nothing is reserved.")]);
}
