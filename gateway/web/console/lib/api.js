// Requests to the gateway that serves these pages, and data that stays fresh while they are looked at.
import { useCallback, useEffect, useRef, useState } from "../vendor/htm-preact.js";

const SAME_ORIGIN = { "x-gateway-console": "1" };
const KNOWN_MAX = 16;
export const SIGNED_OUT = "signed-out";
export const POLL_MS = 10_000;
const PATIENCE_MS = 60_000;

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `The gateway answered ${status}.`);
    this.status = status;
    this.code = error.code || "";
    this.param = error.param || "";
  }
}

// `base` is "/admin/v1" or "/me".
export function client(base) {
  // The latest answers that have a tag, by path: one that is still the same is not sent again.
  const known = new Map();

  async function ask(method, path, { body, token } = {}) {
    const headers = { ...SAME_ORIGIN };
    if (token) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const before = method === "GET" ? known.get(path) : undefined;
    if (before) headers["if-none-match"] = before.tag;
    const [answer, given] = await answered(base + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    if (answer.status === 304 && before) return before.data;
    if (answer.ok) {
      if (method === "GET") keep(path, answer.headers.get("etag"), given);
      return given;
    }
    const failed = new ApiError(answer.status, given.error || { message: (given.problems || []).join("\n") });
    failed.body = given;
    if (answer.status === 401 && !token) {
      known.clear();
      window.dispatchEvent(new CustomEvent(SIGNED_OUT, { detail: failed }));
    }
    throw failed;
  }

  function keep(path, tag, data) {
    known.delete(path);
    if (tag) known.set(path, { tag, data });
    if (known.size > KNOWN_MAX) known.delete(known.keys().next().value);
  }

  return { ask, get: (path) => ask("GET", path) };
}

// An answer and its JSON, unless either takes too long.
async function answered(address, request) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(address, { ...request, signal: late.signal });
    const given = await answer.json().catch((error) => { if (late.signal.aborted) throw error; return {}; });
    return [answer, given];
  } catch {
    const message = late.signal.aborted
      ? `The gateway did not answer within ${PATIENCE_MS / 1000} seconds.`
      : "The gateway does not answer. Is it running, and is this machine connected to it?";
    throw new ApiError(0, { message });
  } finally {
    clearTimeout(timer);
  }
}

// The query of a path, without what is empty.
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// What `load` gives, again whenever `key` changes, and each POLL_MS, both while the page can be seen; once if `poll` is false.
// What took several `pages` is asked again after as many times POLL_MS: a viewer asks for one of them in each.
// What is not answered yet is not asked again by the clock. A failure keeps what was there. `key` null: nothing is asked. `keep`: of another key there is the last data until its own is there.
export function useData(load, key, { poll = true, keep = false } = {}) {
  const [state, setState] = useState({ data: undefined, error: null, key: undefined });
  const latest = useRef(0);
  const asked = useRef(null);
  const pages = useRef(1);
  const passed = useRef(0);
  const current = useRef(load);
  current.current = load;

  const reload = useCallback(async () => {
    const turn = ++latest.current;
    asked.current = turn;
    try {
      const data = await current.current();
      if (turn === latest.current) {
        pages.current = (data && data.pages) || 1;
        passed.current = 0;
        setState({ data, error: null, key });
      }
    } catch (error) {
      if (turn === latest.current) setState((before) => ({ data: before.key === key ? before.data : undefined, error, key }));
    } finally {
      if (asked.current === turn) asked.current = null;
    }
  }, [key]);

  useEffect(() => {
    if (key === null) return undefined;
    if (!poll || !document.hidden) reload();
    if (!poll) return undefined;
    const shown = () => document.hidden || asked.current !== null || reload();
    const due = () => (passed.current = (passed.current + 1) % pages.current) || shown();
    const timer = setInterval(due, POLL_MS);
    document.addEventListener("visibilitychange", shown);
    return () => {
      latest.current++;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [key, poll]);

  const fresh = state.key === key || (keep && !state.error);
  return { data: fresh ? state.data : undefined, error: fresh ? state.error : null, reload };
}

// Every page of a list that has them, up to `most` entries; `more`: whether there are others; `pages`: how many were asked for.
export async function all(get, path, parameters = {}, most = 5000) {
  const found = [];
  let cursor = "", pages = 0;
  do {
    const page = await get(path + query({ ...parameters, cursor, limit: "1000" }));
    found.push(...page.data);
    pages++;
    cursor = page.next;
  } while (cursor && found.length < most);
  return { data: found, more: Boolean(cursor), pages };
}
