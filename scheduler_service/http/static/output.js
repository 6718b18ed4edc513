// The live output of one task, resumed after a break and never more of it than a reader can hold.

import { button, el, setText } from "./dom.js";
import { frames, pauseMs, sleep } from "./event_stream.js";
import { count } from "./format.js";

const MOST_CHARS = 64 * 1024;
// Colours and cursor moves, which mean nothing here.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

export class Output {
  #title = el("h3", { id: "output-title" });
  #state = el("p", { class: "small", role: "status" });
  #text = el("pre", { role: "log", tabindex: "0", "aria-labelledby": "output-title", "aria-live": "off" });
  #line = el("code");
  #stop = null;
  element = el(
    "div",
    { class: "output", hidden: true },
    this.#title,
    this.#state,
    this.#text,
    el("p", { class: "small" }, "The same in a terminal: ", this.#line),
    button("Close the output", () => this.close()),
  );

  open(task) {
    this.close();
    this.#stop = new AbortController();
    setText(this.#title, `Output of ${task.title}`);
    setText(this.#line, `dispatchctl logs -f ${task.id}`);
    this.#text.replaceChildren();
    this.element.hidden = false;
    this.#follow(task.id, this.#stop.signal);
    this.#title.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.#stop?.abort();
    this.#stop = null;
    this.element.hidden = true;
  }

  async #follow(taskId, signal) {
    let lastId = null;
    let runId = null;
    for (let failures = 0; !signal.aborted; failures += 1) {
      this.#say(signal, failures === 0 ? "waiting for output" : "connecting again");
      try {
        for await (const frame of frames(`api/ui/tasks/${taskId}/output`, { lastId, signal })) {
          if (frame.type === "end") {
            this.#say(signal, "the run has ended; this is all");
            return;
          }
          if (frame.type === "open") {
            this.#say(signal, "live");
            continue;
          }
          failures = 0;
          const piece = JSON.parse(frame.data);
          if (runId !== null && runId !== piece.run_id) {
            // The offset was one of the run before: begin anew with this one.
            lastId = runId = null;
            this.#text.replaceChildren();
            break;
          }
          [runId, lastId] = [piece.run_id, frame.id];
          this.#append(piece);
        }
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        this.#say(signal, `interrupted: ${error.reason ? error.message : "the scheduler cannot be reached"}`);
        if (error.status >= 400 && error.status < 500 && error.status !== 429) {
          return;
        }
      }
      await sleep(pauseMs(failures));
    }
  }

  #say(signal, words) {
    if (!signal.aborted) {
      setText(this.#state, words);
    }
  }

  #append({ missing, text }) {
    const atEnd = this.#text.scrollTop + this.#text.clientHeight >= this.#text.scrollHeight - 8;
    const note = missing > 0 ? `\n[${count(missing)} bytes were not kept]\n` : "";
    this.#text.append(note + text.replaceAll(ESCAPES, ""));
    while (this.#text.textContent.length > MOST_CHARS && this.#text.childNodes.length > 1) {
      this.#text.firstChild.remove();
    }
    if (atEnd) {
      this.#text.scrollTop = this.#text.scrollHeight;
    }
  }
}
