// Policies: which version counts, what is on trial, and who brought each version.

import { $, el, empty, fill, moment, plural } from "./dom.js";

export function drawPolicies(policies) {
  const rows = policies.map((policy) => el("li", {},
    el("div", { class: "line" },
      el("span", { class: "tag" }, policy.active ? `version ${policy.active}` : "not in force"),
      el("span", { class: "grow" }, policy.policy, " ", policy.document?.title ?? ""),
      el("span", { class: "when" }, plural(policy.document?.rules?.length ?? 0, "rule"))),
    policy.trial ? el("div", { class: "why" }, tried(policy.trial)) : "",
    el("div", { class: "why" }, policy.versions
      .map((v) => `${v.version} ${v.status.replaceAll("_", " ")} by ${v.author}`).join(" · "))));
  fill($("policies"), rows.length ? rows : [empty("No policy has been drafted.")]);
}

function tried({ version, mode, slice_ppm: part, until_ms: until }) {
  const how = mode === "slice" ? `for ${part / 10_000} % of the queues` : mode;
  return `version ${version} is on trial (${how}) until ${moment(until)}`;
}
