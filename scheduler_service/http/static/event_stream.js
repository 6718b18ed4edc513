// Server-sent events over fetch: EventSource hides heartbeats, so a connection that has gone silent looks alive to it.

import { BASE, problemOf } from "./api.js";

// Three heartbeats of the scheduler.
const SILENT_MS = 45_000;

// Yields {type: "open"} first, then {type, id, data} for each frame; ends when the stream ends, throws when it breaks.
export async function* frames(path, { lastId = null, signal = null, silentMs = SILENT_MS } = {}) {
  const silent = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(new Error(`nothing was heard for ${silentMs / 1000} s`)), silentMs);
  };
  const either = signal === null ? silent.signal : AbortSignal.any([signal, silent.signal]);
  heard();
  try {
    const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
    const response = await fetch(new URL(path, BASE), { headers, cache: "no-store", signal: either });
    if (!response.ok) {
      throw await problemOf(response);
    }
    yield { type: "open", id: null, data: null };
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      heard();
      rest += value;
      for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
        const frame = parsed(rest.slice(0, end));
        rest = rest.slice(end + 2);
        if (frame !== null) {
          yield frame;
        }
      }
    }
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

function parsed(block) {
  const frame = { type: "message", id: null, data: null };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const [name, value] = [line.slice(0, colon), line.slice(colon + 1).trimStart()];
    if (name === "id") {
      frame.id = value;
    } else if (name === "event") {
      frame.type = value;
    } else if (name === "data") {
      frame.data = value;
    }
  }
  return frame.data === null ? null : frame;
}

const RETRY_MS = 1_000;
const RETRY_MAX_MS = 10_000;

// How long to wait before try number n, counted from 0: doubled each time, spread so that many pages do not come at once.
export function pauseMs(n) {
  return Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** n) * (0.5 + Math.random() / 2);
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
