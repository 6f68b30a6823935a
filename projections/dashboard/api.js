// Reading the API: what did not change since the last answer is not sent again (ETag).

const PAGE = 1000;
const PAGES = 20;
const known = new Map(); // by URL: [ETag, body]

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
  }
}

export async function get(path, query = {}) {
  const asked = new URLSearchParams(query).toString();
  const url = asked ? `/v1/${path}?${asked}` : `/v1/${path}`;
  const [etag, before] = known.get(url) ?? [];
  const headers = etag ? { "If-None-Match": etag } : {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(url, { headers, cache: "no-store" });
  if (response.status === 304) return before;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  if (!query.cursor) known.set(url, [response.headers.get("ETag"), body]);
  return body;
}

/** All items, page by page; `PAGES` pages at most. */
export async function all(path, query = {}) {
  const items = [];
  let cursor = null;
  for (let page = 0; page < PAGES; page += 1) {
    const more = cursor ? { cursor } : {};
    const answer = await get(path, { limit: PAGE, ...query, ...more });
    items.push(...answer.items);
    cursor = answer.next;
    if (!cursor) break;
  }
  return items;
}
