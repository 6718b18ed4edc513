// The live page: puts its sections in place of the plain one, and brings them up to date as the feed says.

import { dialogElements, startDrain, whenChanged } from "./actions.js";
import { button, el, setMarked, setText } from "./dom.js";
import { openFeed } from "./feed.js";
import { setMoment, setSchedulerTime, tick } from "./format.js";
import { Output } from "./output.js";
import { Overview } from "./overview.js";
import { Lists } from "./tasks.js";

const config = {
  readOnly: document.body.dataset.readOnly === "true",
  hidePayloads: document.body.dataset.hidePayloads === "true",
};

const MODES = {
  dispatching: ["good", "dispatching"],
  held: ["held", "held"],
  draining: ["held", "draining"],
  idle: ["idle", "idle"],
};

const version = el("span", { class: "small" });
const mode = el("span", { class: "badge" });
const leader = el("span", { class: "small" });
const connection = el("p", { id: "connection", role: "status" });
const connectionWords = el("span");
const connectionSince = el("span");
connection.append(connectionWords, connectionSince);
const banner = el("p", { id: "banner", role: "status" });
const trouble = el("p", { class: "trouble", role: "alert" });
const newer = el("p", { id: "newer", hidden: true }, "This page is of an earlier version of the scheduler. ", button("Load the new one", () => location.reload()));

const output = new Output();
const overview = new Overview(config.readOnly);
const lists = new Lists(config, output);

function header() {
  const actions = config.readOnly ? [el("span", { class: "small" }, "read only")] : [button("Drain…", startDrain)];
  return el("header", {}, el("h1", {}, "cecelia-dispatch ", version), mode, leader, ...actions);
}

// --- what the feed says

function showConnection({ live, since, detail }) {
  document.body.classList.toggle("stale", !live);
  if (live) {
    setMarked(connectionWords, "good", "live");
    setMoment(connectionSince, null, { none: "" });
  } else if (since === null) {
    setMarked(connectionWords, "held", `connecting: ${detail}`);
    setMoment(connectionSince, null, { none: "" });
  } else {
    setMarked(connectionWords, "bad", `No connection: ${detail}. What you see is old; trying again. Broken off `);
    setMoment(connectionSince, new Date(since).toISOString());
  }
}

function showBanner(status) {
  const held = status.mode === "held" || status.mode === "draining";
  const failed = status.tick.last_error !== "";
  banner.className = failed ? "bad" : held ? "held" : "calm";
  const failure = failed ? ` The last tick failed: ${status.tick.last_error}.` : "";
  setMarked(banner, failed ? "bad" : held ? "held" : "good", `${status.sentence}${failure}`);
}

function showOverview({ overview: found, trouble: words }) {
  setText(trouble, words === "" ? "" : `The overview is not up to date: ${words}.`);
  if (found === null) {
    return;
  }
  setSchedulerTime(found.snapshot_ts);
  const { status } = found;
  document.title = `${status.mode} - cecelia-dispatch`;
  setText(version, status.version);
  setMarked(mode, ...(MODES[status.mode] ?? ["idle", status.mode]));
  setText(leader, status.leader ? "this scheduler leads" : status.leader_address ? `the leader is ${status.leader_address}` : "nobody leads");
  newer.hidden = import.meta.url.includes(`/static/${found.page_version}/`);
  showBanner(status);
  overview.show(found);
  if (!live.isConnected) {
    document.getElementById("plain").replaceWith(live);
    document.body.prepend(top);
    document.body.append(...dialogElements());
  }
  lists.soon();
}

const top = header();
const live = el(
  "main",
  { id: "live" },
  connection,
  newer,
  trouble,
  banner,
  ...overview.elements(),
  ...lists.elements(),
  el("p", { class: "small" }, "The same in a terminal: ", el("code", {}, "dispatchctl status"), "; why a task waits: ", el("code", {}, "dispatchctl explain"), "."),
);

const HANDLERS = {
  connection: showConnection,
  overview: showOverview,
  event: ({ event }) => event.type.startsWith("task_") && lists.soon(),
};

openFeed((message) => HANDLERS[message.kind](message));
whenChanged(() => lists.now());
document.addEventListener("visibilitychange", () => lists.soon());
setInterval(tick, 1_000);
