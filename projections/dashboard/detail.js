// One job or node, named by the address (#job=… or #node=…), so that it can be linked to.

import { get } from "./api.js";
import { $, el, fill, jobLink, moment, nodeLink, time } from "./dom.js";

const JOB = ["queue", "account", "tier", "slots", "accelerator", "attempts", "preemptions", "failures"];
const NODE = ["accelerator", "kind", "slots", "used", "region", "cluster", "block", "rack"];

export function follow() {
  window.addEventListener("hashchange", show);
  $("detail").addEventListener("close", () => history.replaceState(null, "", location.pathname));
  show();
}

async function show() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const [kind, name] = [...asked.entries()][0] ?? [];
  const draw = { job: drawJob, node: drawNode }[kind];
  if (!draw) return;
  const body = await get(`${kind}s/${encodeURIComponent(name)}`).then(draw, (error) => [
    el("h2", {}, name), el("p", {}, error.message),
  ]);
  fill($("detail-body"), body);
  if (!$("detail").open) $("detail").showModal();
}

function facts(of, names) {
  return el("dl", {}, ...names
    .filter((name) => of[name] !== null && of[name] !== "")
    .flatMap((name) => [el("dt", {}, name), el("dd", {}, String(of[name]))]));
}

function drawJob(job) {
  const waits = job.waiting
    ? el("p", {}, `It waits: ${job.waiting.reason.replaceAll("_", " ")}`
      + `${job.waiting.bound ? ` (${job.waiting.bound})` : ""}.`)
    : "";
  const events = job.events.map((event) => el("li", {},
    el("div", { class: "line" },
      el("span", { class: `tag ${event.event}` }, event.event),
      el("span", { class: "grow" }),
      el("span", { class: "when" }, `round ${event.round} · ${time(event.at_ms)}`)),
    el("div", { class: "why" }, told(event.body))));
  return [
    el("h2", {}, job.job, " ", el("span", { class: "tag" }, job.state)),
    el("div", { class: "quiet" }, `submitted ${moment(job.submitted_ms)} UTC`),
    facts(job, JOB), waits,
    el("div", {}, ...job.nodes.flatMap(([node]) => [nodeLink(node), " "])),
    ...drawRules(job.rules),
    el("h3", {}, "All that happened"), el("ol", { class: "rows" }, ...events),
  ];
}

function drawRules(rules) {
  if (!rules.length) return [];
  const items = rules.map((rule) => el("li", {},
    el("div", { class: "line" },
      el("span", { class: "tag" }, rule.phase),
      el("span", { class: "grow" }, rule.rule),
      el("span", { class: "when" }, rule.counts ? `version ${rule.version}` : "another rule counts")),
    el("div", { class: "why" }, does(rule)),
    rule.when && rule.when !== "true" ? el("div", { class: "why" }, `when ${rule.when}`) : ""));
  return [el("h3", {}, "Rules in force for it"), el("ol", { class: "rows" }, ...items)];
}

function does(rule) {
  if (rule.places) {
    const where = rule.places.map((place) => `${place.accelerator} ${place.labels.cluster}: ${place.value}`);
    return `${rule.effect} on ${where.join(", ") || "no class of nodes that it asks for"}`;
  }
  return `${rule.effect}${typeof rule.value === "boolean" ? "" : ` ${rule.value}`}`
    + `${rule.reason ? `: ${rule.reason}` : ""}`;
}

function told(body) {
  return Object.entries(body)
    .filter(([name, value]) => name !== "job" && name !== "command" && value !== null)
    .map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(" · ");
}

function drawNode(node) {
  const labels = Object.entries(node.labels).map(([name, value]) => `${name}=${value}`).join(", ");
  return [
    el("h2", {}, node.node, " ", el("span", { class: "tag" }, node.status)),
    facts(node, NODE),
    labels ? el("p", { class: "quiet" }, labels) : "",
    el("h3", {}, node.jobs.length ? "Jobs on it" : "No job is on it"),
    el("div", {}, ...node.jobs.flatMap((job) => [jobLink(job), " "])),
  ].filter((part) => part !== "");
}
