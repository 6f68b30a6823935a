// What waits: groups of equal jobs, the most wanted slots first, each with the rule that binds.

import { $, count, el, empty, fill, plural, slots } from "./dom.js";

const SHOWN = 200;
const HUES = 6;
const WORDS = {
  quota_exceeded: "others use the quota that is left",
  over_quota: "larger than the quota ever allows",
  no_capacity: "too few free slots",
  fragmented: "enough free slots, but not together",
  never_fits: "no place of this cell is large enough",
  no_matching_nodes: "no node matches",
  reservation_not_active: "its reservation has not begun",
  reservation_full: "its reservation is full",
  waits_for_flavour: "an accelerator type that it may use later",
  behind_in_queue: "behind the first of a strict queue",
  round_is_full: "the next round decides",
  "": "not decided yet",
};

export function drawWaiting(shapes) {
  const jobs = shapes.reduce((sum, shape) => sum + shape.waiting, 0);
  $("waiting-note").textContent = jobs
    ? `${plural(jobs, "job")} of ${plural(shapes.length, "shape")}`
    : "";
  drawReasons(shapes, jobs);
  const sorted = [...shapes].sort((a, b) => b.waiting * size(b) - a.waiting * size(a));
  fill($("waiting"), jobs ? sorted.slice(0, SHOWN).map(row) : [empty("Nothing waits.")]);
}

function drawReasons(shapes, jobs) {
  const byReason = {};
  for (const { reason, waiting } of shapes) byReason[reason] = (byReason[reason] ?? 0) + waiting;
  const sorted = Object.entries(byReason).sort((a, b) => b[1] - a[1]);
  fill($("reasons"), sorted.map(([reason, n], i) => {
    const part = el("i", { class: hue(i), title: `${reason}: ${count(n)}` });
    part.style.flexGrow = n / jobs;
    return part;
  }));
  fill($("reason-key"), sorted.map(([reason, n], i) =>
    el("li", {}, el("i", { class: `sample ${hue(i)}` }), `${plain(reason)} ${count(n)}`)));
}

const hue = (i) => `hue${Math.min(i, HUES - 1)}`;
const plain = (reason) => (reason || "undecided").replaceAll("_", " ");

function row(shape) {
  const what = el("span", { class: "grow" },
    el("b", {}, `${count(shape.waiting)} × `), gang(shape.spec), ` · ${shape.queue}`);
  const line = el("div", { class: "line" }, what, el("span", { class: "tag" }, shape.tier));
  return el("li", {}, line, el("div", { class: "why" }, reason(shape)));
}

/** A gang in words: 4 × 8 h100 is four replicas of eight slots each. */
export function gang(spec) {
  const groups = (spec.groups ?? [{}]).map(({ count: n = 1, slots: each = 1, share_milli: part }) =>
    `${n > 1 ? `${n} × ` : ""}${part ? `${part / 1000}` : each}`);
  const types = (spec.flavours ?? []).map((flavour) => flavour.accelerator);
  return `${groups.join(" + ")} ${types.join(" or ")}`;
}

function size(shape) {
  return (shape.spec.groups ?? [{}]).reduce((sum, g) => sum + (g.count ?? 1) * (g.slots ?? 1), 0);
}

function reason({ reason: code, needed_milli: needed, available_milli: available, bound }) {
  const where = bound ? ` (${bound})` : "";
  const numbers = needed ? `: needs ${slots(needed)}, there are ${slots(available)}` : "";
  return `${WORDS[code] ?? plain(code)}${where}${numbers}`;
}
