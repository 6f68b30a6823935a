// The account tree with its quota by accelerator type, and the queues.

import { $, bar, count, el, empty, fill, slots } from "./dom.js";

const INDENT_PX = 18;

export function drawQuota(accounts) {
  const children = {};
  for (const account of accounts) (children[account.parent ?? ""] ??= []).push(account);
  const rows = [];
  const walk = (parent, depth) => {
    const siblings = children[parent] ?? [];
    const scale = scales(siblings);
    for (const account of siblings) {
      rows.push(drawAccount(account, depth, scale));
      walk(account.account, depth + 1);
    }
  };
  walk("", 0);
  fill($("quota"), rows.length ? rows : [empty("No account has been made.")]);
}

/** Siblings share a scale for each type, so that their bars compare. */
function scales(accounts) {
  const scale = {};
  for (const { quotas } of accounts) {
    for (const [type, q] of Object.entries(quotas)) {
      scale[type] = Math.max(scale[type] ?? 1, q.subtree_milli, q.used_milli);
    }
  }
  return scale;
}

function drawAccount({ account, weight, quotas }, depth, scale) {
  const heavy = weight === 1000 ? "" : el("span", { class: "quiet" }, `weight ${weight / 1000}`);
  const head = el("div", { class: "line" }, el("b", {}, account), heavy);
  const lines = Object.entries(quotas).map(([type, q]) => drawType(account, type, q, scale[type]));
  const row = el("div", { class: "account" }, head, ...lines);
  row.style.marginLeft = `${depth * INDENT_PX}px`;
  return row;
}

function drawType(account, type, quota, scale) {
  const { subtree_milli: share, used_milli: used, borrowed_milli: borrowed } = quota;
  const own = Math.max(0, used - borrowed);
  const lent = Math.min(quota.lent_milli, Math.max(0, share - own));
  const parts = [
    ["used", 0, own / scale],
    ["lent", own / scale, (own + lent) / scale],
    ["borrowed", Math.max(own, share) / scale, (Math.max(own, share) + borrowed) / scale],
  ].filter(([, from, to]) => to > from);
  if (share > 0 && share < scale) parts.push(["nominal", share / scale]);
  const told = el("span", { class: "told" },
    el("b", {}, slots(used)), ` of ${slots(share)}`,
    borrowed ? el("span", { class: "borrowed" }, ` · ${slots(borrowed)} borrowed`) : "",
    lent ? el("span", { class: "lent" }, ` · ${slots(lent)} lent`) : "");
  const label = `${account} ${type}: ${slots(used)} used of ${slots(share)}`;
  return el("div", { class: "quota" }, el("span", {}, type), bar(parts, label), told);
}

export function drawQueues(queues, { slots: total = {} }) {
  const rows = queues
    .map((queue) => ({ ...queue, ...dominant(queue.usage_milli, total) }))
    .sort((a, b) => b.share - a.share || b.waiting - a.waiting)
    .map(drawQueue);
  const none = el("tr", {}, el("td", { colspan: 4, class: "empty" }, "No queue has been made."));
  fill($("queues").tBodies[0], rows.length ? rows : [none]);
}

/** The largest share that a queue has of any accelerator type. */
function dominant(usage, total) {
  let found = { share: 0, type: "" };
  for (const [type, milli] of Object.entries(usage)) {
    const share = total[type] ? milli / 1000 / total[type] : 0;
    if (share > found.share) found = { share, type };
  }
  return found;
}

function drawQueue({ queue, account, strict, waiting, usage_milli: usage, share, type }) {
  const used = Object.values(usage).reduce((sum, milli) => sum + milli, 0);
  const told = `${Math.round(share * 100)} %${type ? ` of ${type}` : ""}`;
  return el("tr", {},
    el("td", {}, queue, el("small", {}, account + (strict ? ", in strict order" : ""))),
    el("td", { class: "n" }, count(waiting)),
    el("td", { class: "n" }, slots(used)),
    el("td", {}, bar([["", 0, share]], told), el("small", {}, told)));
}
