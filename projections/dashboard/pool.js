// The pool: this region and its peers, how fresh each is, and which jobs go where.

import { $, count, el, fill, moment } from "./dom.js";

const STATES = {
  own: "this region", fresh: "fresh", stale: "stale", forgotten: "forgotten", "never heard": "never heard",
  "held for lost": "held for lost",
};

export function drawPool(regions, rights) {
  $("pool").hidden = regions.length === 0;
  if (!regions.length) return;
  const stale = regions.filter((r) => !["own", "fresh"].includes(r.inventory)).length;
  $("pool-note").textContent = stale
    ? `${count(stale)} of ${count(regions.length)} regions were not heard lately`
    : "all regions are heard";
  fill($("regions").tBodies[0], regions.map(drawRegion));
  fill($("rights"), rights.map(drawRights));
}

function drawRegion(region) {
  const flows = region.flows ?? {};
  return el("tr", { class: `region ${region.inventory.replaceAll(" ", "-")}` },
    el("td", {}, region.region),
    el("td", {}, STATES[region.inventory], heard(region)),
    el("td", { class: "n" }, ...amounts(region.free)),
    el("td", { class: "n" }, ...amounts(region.most_on_a_node)),
    ...["offered", "on_their_way", "came_from"].map((step) =>
      el("td", { class: "n" }, region.own ? "" : count(flows[step] ?? 0))),
    el("td", { class: "n" }, ...amounts(region.to_spare_milli, 1000)));
}

const heard = ({ own, heard_ms: at }) => (own || !at ? "" : el("small", {}, ` ${moment(at)}`));

function amounts(by, unit = 1) {
  const told = Object.entries(by ?? {}).map(([name, n]) => el("div", {}, `${name} ${count(n / unit)}`));
  return told.length ? told : ["–"];
}

function drawRights({ account, accelerator, held_milli: held, granted_milli: granted }) {
  return el("li", {}, el("div", { class: "line" },
    el("b", {}, account), el("span", { class: "grow" }, accelerator),
    el("span", {}, `${count(held / 1000)} slots held, ${count(granted / 1000)} granted here`)));
}
