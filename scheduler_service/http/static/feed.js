// A tab's end of the feed.

import { Live } from "./live.js";

export function openFeed(tell) {
  if (typeof SharedWorker === "undefined") {
    new Live(tell).start();
    return;
  }
  const worker = new SharedWorker(new URL("./feed_worker.js", import.meta.url), { type: "module", name: "cecelia-dispatch" });
  let heard = false;
  worker.port.onmessage = ({ data }) => {
    heard = true;
    tell(data);
  };
  worker.onerror = () => {
    if (!heard) {
      // A browser that has shared workers, but none made of modules.
      heard = true;
      new Live(tell).start();
    }
  };
  addEventListener("pagehide", () => worker.port.postMessage("bye"));
  addEventListener("pageshow", (event) => event.persisted && worker.port.postMessage("back"));
}
