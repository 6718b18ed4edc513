// The shared worker: however many tabs are open, the browser keeps one stream.

import { Live } from "./live.js";

const ports = new Set();
const live = new Live((message) => ports.forEach((port) => port.postMessage(message)));

self.onconnect = ({ ports: [port] }) => {
  ports.add(port);
  // A tab says so when it goes, and comes back when the browser restores it.
  port.onmessage = ({ data }) => (data === "bye" ? ports.delete(port) : ports.add(port));
  live.latest.forEach((message) => port.postMessage(message));
};

live.start();
