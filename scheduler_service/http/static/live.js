// What all tabs share: one stream of events, and the overview read anew when something has happened or five seconds have gone.
// Runs in the shared worker, or in the tab where a browser has none.

import { get } from "./api.js";
import { frames, pauseMs, sleep } from "./event_stream.js";

const REFRESH_MS = 5_000;
const AT_MOST_EVERY_MS = 1_000;

// Calls `tell` with {kind: "connection", live, since, detail}, {kind: "overview", overview, trouble} and {kind: "event", event}.
export class Live {
  #tell;
  #lastId = null;
  #refreshing = false;
  #again = false;
  #timer;
  latest = new Map();

  constructor(tell) {
    this.#tell = tell;
  }

  start() {
    this.#say({ kind: "connection", live: false, since: null, detail: "connecting" });
    this.#follow();
    this.#refresh();
  }

  #say(message) {
    if (message.kind !== "event") {
      this.latest.set(message.kind, message);
    }
    this.#tell(message);
  }

  async #follow() {
    for (let failures = 0; ; failures += 1) {
      let detail = "the stream has ended";
      try {
        for await (const frame of frames("api/brain/events", { lastId: this.#lastId })) {
          if (frame.type === "open") {
            failures = 0;
            this.#say({ kind: "connection", live: true, since: Date.now(), detail: "" });
          } else {
            this.#lastId = frame.id;
            this.#say({ kind: "event", event: JSON.parse(frame.data) });
          }
          this.#refresh();
        }
      } catch (error) {
        detail = error.reason ? error.message : "the scheduler cannot be reached";
        if (error.status === 400) {
          // The id is of another database: there is nothing to resume.
          this.#lastId = null;
        }
      }
      const last = this.latest.get("connection");
      this.#say({ kind: "connection", live: false, since: last.live ? Date.now() : last.since, detail });
      await sleep(pauseMs(failures));
    }
  }

  // Reads the overview: at once, but at most once a second, and again every five.
  async #refresh() {
    if (this.#refreshing) {
      this.#again = true;
      return;
    }
    this.#refreshing = true;
    this.#again = false;
    clearTimeout(this.#timer);
    try {
      this.#say({ kind: "overview", overview: await get("api/ui/overview"), trouble: "" });
    } catch (error) {
      const before = this.latest.get("overview");
      this.#say({ kind: "overview", overview: before?.overview ?? null, trouble: error.message });
    }
    await sleep(AT_MOST_EVERY_MS);
    this.#refreshing = false;
    if (this.#again) {
      this.#refresh();
    } else {
      this.#timer = setTimeout(() => this.#refresh(), REFRESH_MS - AT_MOST_EVERY_MS);
    }
  }
}
