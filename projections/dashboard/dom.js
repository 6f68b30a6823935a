// Small helpers. Text from the API only ever becomes a text node: there is no markup to inject.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export function fill(parent, children) {
  const scrolled = parent.scrollTop;
  parent.replaceChildren(...children);
  parent.scrollTop = scrolled;
}

/** Parts of a bar: [class, from, to] in parts of one. */
export function bar(parts, label) {
  const made = el("div", { class: "bar", role: "img", "aria-label": label, title: label });
  for (const [name, from, to] of parts) {
    const part = el("i", { class: name });
    part.style.left = percent(from);
    if (to !== undefined) part.style.width = percent(Math.max(0, to - from));
    made.append(part);
  }
  return made;
}

const percent = (part) => `${(Math.min(1, part) * 100).toFixed(2)}%`;

export const count = (n) => n.toLocaleString("en");
export const slots = (milli) => count(Math.round(milli / 100) / 10);
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export const moment = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
export const time = (ms) => new Date(ms).toISOString().slice(11, 19);

export function span(s) {
  if (s < 120) return `${count(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} d`;
}

export const jobLink = (job) => el("a", { href: `#job=${encodeURIComponent(job)}` }, job);
export const nodeLink = (node) => el("a", { href: `#node=${encodeURIComponent(node)}` }, node);
export const empty = (text) => el("div", { class: "empty" }, text);
