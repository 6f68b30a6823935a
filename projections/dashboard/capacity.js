// The heat map: each node a square, in its rack, block and cluster; the fuller the darker.

import { $, count, el, fill, plural } from "./dom.js";

const STEPS = 8;
const MANY = 160; // nodes: from here on squares are too small for a number
const MASSES = 700;
const LEGEND = [
  ["scale", "idle to full"],
  ["held", "reserved"],
  ["cordoned", "cordoned or draining"],
  ["lost", "lost or unhealthy"],
];

let drawn = "";
const squares = new Map(); // by node

export function drawCapacity(nodes) {
  const places = JSON.stringify(nodes.map((n) => [n.node, n.region, n.cluster, n.block, n.rack]));
  if (places !== drawn) {
    lay(nodes);
    drawn = places;
  }
  for (const node of nodes) paint(squares.get(node.node), node);
  for (const [name, of] of Object.entries(grouped(nodes, clusterOf))) {
    $(`cluster ${name}`).textContent = told(of);
  }
  const idle = nodes.filter((n) => n.status === "ready" && n.used === 0).length;
  $("capacity-note").textContent = nodes.length
    ? `${plural(nodes.length, "node")}, ${count(idle)} of them idle${numbered(nodes)}`
    : "no node is registered";
}

const numbered = (nodes) => (nodes.length > MANY ? "" : "; a number is free slots");

function lay(nodes) {
  squares.clear();
  for (const node of nodes) {
    const href = `#node=${encodeURIComponent(node.node)}`;
    const square = el("a", { href, class: "node" });
    squares.set(node.node, square);
  }
  fill($("legend"), LEGEND.map(([name, text]) =>
    el("li", {}, el("i", { class: `sample ${name}` }), text)));
  const box = $("capacity");
  const size = nodes.length > MASSES ? "masses" : nodes.length > MANY ? "many" : "";
  box.className = `clusters ${size}`;
  fill(box, Object.entries(grouped(nodes, clusterOf)).map(([name, of]) => cluster(name, of)));
}

const clusterOf = (n) => `${n.region}/${n.cluster}`;

function cluster(name, nodes) {
  const blocks = Object.entries(grouped(nodes, (n) => n.block)).map(([label, of]) => {
    const racks = Object.entries(grouped(of, (n) => n.rack)).map(([rack, inside]) =>
      el("div", { class: "rack", title: `rack ${rack}` }, ...inside.map((n) => squares.get(n.node))));
    return el("div", { class: "block" },
      el("div", { class: "label" }, label), el("div", { class: "racks" }, ...racks));
  });
  return el("div", { class: "cluster" },
    el("h3", {}, name, el("small", { id: `cluster ${name}` })),
    el("div", { class: "blocks" }, ...blocks));
}

function told(nodes) {
  return Object.entries(grouped(nodes, (n) => n.accelerator)).map(([type, of]) => {
    const ready = of.filter((n) => n.status === "ready");
    const free = ready.reduce((sum, n) => sum + n.slots - n.used, 0);
    const total = of.reduce((sum, n) => sum + n.slots, 0);
    return `${type}: ${count(free)} of ${count(total)} slots free`;
  }).join(" · ");
}

function paint(square, node) {
  const free = node.slots - node.used;
  const step = node.used === 0 ? 0 : Math.max(1, Math.floor((node.used / node.slots) * STEPS));
  const held = Object.keys(node.reservations).length > 0 ? " held" : "";
  const name = `node u${step} ${node.status}${held}`;
  const title = `${node.node} (${node.accelerator}), ${node.status}: `
    + `${count(node.used)} of ${count(node.slots)} slots used by ${plural(node.jobs.length, "job")}`;
  if (square.title === title && square.className === name) return;
  square.className = name;
  square.title = title;
  square.textContent = free > 0 ? String(free) : "";
}

function grouped(items, key) {
  const groups = {};
  for (const item of items) (groups[key(item)] ??= []).push(item);
  return groups;
}
