// Calls of this page's own scheduler. Paths are relative to these files, so that any base path will do.

export const BASE = new URL("../../", import.meta.url);
const TIMEOUT_MS = 15_000;

// What the scheduler refused, in its own words.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `HTTP ${status}`);
    this.status = status;
    this.reason = body.reason ?? "";
  }
}

export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body);
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, BASE), { ...options, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the scheduler did not answer in time" : "the scheduler cannot be reached");
  }
  if (!response.ok) {
    throw await problemOf(response);
  }
  return response.json();
}

export function get(path) {
  return call(path, {});
}

export function post(path, body) {
  return call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

// A repeated call under the same id is carried out once. crypto.randomUUID needs https; this does not.
export function requestId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
