// What changes something: asked about first, with the reason, and with the line of dispatchctl that does the same.

import { get, post, requestId } from "./api.js";
import { button, el, setText } from "./dom.js";
import { command, plural } from "./format.js";

const REASON_MAX = 500;

const title = el("h2", { id: "ask-title" });
const warning = el("p");
const reason = el("input", { id: "ask-reason", maxlength: REASON_MAX, autocomplete: "off" });
const line = el("code", { id: "ask-line" });
const trouble = el("p", { class: "trouble", role: "alert" });
const yes = el("button", { type: "submit", class: "primary" });
const form = el(
  "form",
  { method: "dialog" },
  title,
  warning,
  el("label", { for: "ask-reason" }, "Reason, for the audit log"),
  reason,
  el("p", { class: "small" }, "The same in a terminal:"),
  el("pre", { tabindex: "0", "aria-label": "The same in a terminal" }, line),
  trouble,
  el("div", { class: "row" }, yes, button("Leave it", () => dialog.close(), { class: "leave" })),
);
const dialog = el("dialog", { "aria-labelledby": "ask-title" }, form);
const done = el("p", { id: "done", role: "status" });
let asked = null;

const SAID_MS = 10_000;
let unsay;

function say(words) {
  setText(done, words);
  clearTimeout(unsay);
  unsay = setTimeout(() => setText(done, ""), SAID_MS);
}

export function dialogElements() {
  return [dialog, done];
}

// line(reason) is the command; act(reason) carries it out and returns what to say afterwards.
export function ask(question) {
  asked = question;
  setText(title, question.title);
  setText(warning, question.warning);
  setText(yes, question.yes);
  setText(trouble, "");
  reason.value = "";
  yes.disabled = false;
  showLine();
  dialog.showModal();
  reason.focus();
}

function showLine() {
  setText(line, asked.line(reason.value.trim()));
}

function reasonOption(words) {
  return words === "" ? [] : ["--reason", words];
}

function reasonField(words) {
  return words === "" ? {} : { reason: words };
}

reason.addEventListener("input", showLine);
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = asked;
  yes.disabled = true;
  setText(trouble, "");
  try {
    say(await question.act(reason.value.trim()));
    dialog.close();
  } catch (error) {
    setText(trouble, `Not done: ${error.message}.`);
  }
  yes.disabled = false;
});

let changed = () => {};

// Is told after each action, so that lists need not wait for their turn.
export function whenChanged(listener) {
  changed = listener;
}

function override(path, fields, said) {
  const id = requestId();
  return async (words) => {
    const answer = await post(path, { ...fields, ...reasonField(words), request_id: id });
    changed();
    return typeof said === "function" ? said(answer) : said;
  };
}

export function resetBreaker(key) {
  ask({
    title: `Reset the breaker ${key}?`,
    warning: "It lets everything through again at once, with nothing probed before. If the backend is still broken, tasks fail to start until it opens again.",
    yes: "Reset it",
    line: (words) => command("reset", key, ...reasonOption(words)),
    act: override(`api/brain/circuit-breaker/${encodeURIComponent(key)}/reset`, {}, `The breaker ${key} is CLOSED.`),
  });
}

export function startDrain() {
  ask({
    title: "Drain?",
    warning: "Nothing more is started until the drain is ended. What runs goes on.",
    yes: "Drain",
    line: (words) => command("drain", "on", ...reasonOption(words)),
    act: override("api/brain/drain", {}, "Draining: nothing is started any more."),
  });
}

// What ends an override, by its kind; null where nothing does.
export function endOverride({ kind, scope }) {
  if (kind === "breaker_tripped") {
    resetBreaker(scope);
    return;
  }
  const source = scope === "operator" ? [] : ["--source", scope];
  const ends = {
    drain: {
      title: `End the drain by ${scope}?`,
      warning: "Tasks are started again, unless another source drains.",
      line: (words) => command("drain", "off", ...source, ...reasonOption(words)),
      act: override("api/brain/drain/off", { source: scope }, `The drain by ${scope} is over.`),
    },
    billing_pause: {
      title: `End the billing pause of ${scope || "all backends"}?`,
      warning: "Tasks are started there again before the pause is over.",
      line: (words) => command("billing", "clear", ...(scope ? ["--backend", scope] : []), ...reasonOption(words)),
      act: override("api/ui/billing-pause/clear", { backend: scope }, "The billing pause is over."),
    },
    budget_cap: {
      title: "Lift the ceiling on slots?",
      warning: "As many tasks run as the machines have room for.",
      line: (words) => command("cap", "off", ...reasonOption(words)),
      act: override("api/ui/budget-cap/lift", {}, "The ceiling is lifted."),
    },
    setting: {
      title: `Give ${scope} back to the environment?`,
      warning: "Its value is again what the environment of each scheduler says, or the default.",
      line: (words) => command("settings", "reset", scope, ...reasonOption(words)),
      act: override(`api/ui/settings/${encodeURIComponent(scope)}/reset`, {}, `${scope} is as the environment says.`),
    },
  };
  ask({ yes: "End it", ...ends[kind] });
}

function named(task) {
  return `${task.title} (${task.id})`;
}

export function cancelTask(task) {
  ask({
    title: "Cancel this task?",
    warning: `${named(task)}. A task that waits is cancelled at once; of one that runs, everything it has started is ended.`,
    yes: "Cancel the task",
    line: (words) => command("cancel", task.id, ...reasonOption(words)),
    act: override(`api/ui/tasks/${task.id}/cancel`, {}, ({ task: after }) =>
      after.status === "CANCELLED" ? "The task is cancelled." : "The task is cancelled when its run has ended.",
    ),
  });
}

export function requeueTask(task) {
  ask({
    title: task.status === "QUARANTINED" ? "Release this task?" : "Requeue this task?",
    warning: `${named(task)} goes back into the queue as if new. What was found in it is found again, unless it is mended: dispatchctl edit.`,
    yes: task.status === "QUARANTINED" ? "Release the task" : "Requeue the task",
    line: (words) => command("requeue", task.id, ...reasonOption(words)),
    act: override(`api/ui/tasks/${task.id}/requeue`, {}, "The task is queued again."),
  });
}

// --- all that a filter chooses

const BULK = {
  cancel: { verb: "Cancel", done: "cancelled, or will be when their runs have ended", statuses: ["queued", "dispatching", "running", "quarantined"] },
  requeue: { verb: "Requeue", done: "queued again", statuses: ["failed", "cancelled", "quarantined"] },
};

export function bulkStatuses(what, statuses) {
  return BULK[what].statuses.filter((status) => statuses.length === 0 || statuses.includes(status));
}

function bulkLine(what, chosen, all) {
  const options = [
    ...chosen.statuses.flatMap((status) => ["--status", status]),
    ...chosen.task_types.flatMap((type) => ["--type", type]),
    ...chosen.priorities.flatMap((priority) => ["--priority", priority]),
  ];
  return (words) => command(what, ...(all ? ["--all"] : options), ...reasonOption(words));
}

// Counts first; asks then; carries it out page by page, each page with one entry in the audit log.
export async function changeAll(what, filter) {
  const { verb, done: after } = BULK[what];
  const chosen = { ...filter, statuses: bulkStatuses(what, filter.statuses) };
  const { matched } = await post(`api/ui/tasks/${what}`, { ...chosen, validate_only: true });
  const many = plural(matched, "task", "tasks");
  if (matched === 0) {
    say(`No task matches that could be ${what === "cancel" ? "cancelled" : "requeued"}.`);
    return;
  }
  const all = filter.statuses.length + filter.task_types.length + filter.priorities.length === 0;
  ask({
    title: `${verb} ${many}?`,
    warning: `All that match: ${described(chosen)}.`,
    yes: `${verb} ${many}`,
    line: bulkLine(what, chosen, all),
    act: async (words) => {
      const total = await pages(`api/ui/tasks/${what}`, { ...chosen, ...reasonField(words) });
      changed();
      const skipped = total.skipped > 0 ? ` ${plural(total.skipped, "was", "were")} passed over.` : "";
      return `${plural(total.changed, "task is", "tasks are")} ${after}.${skipped}`;
    },
  });
}

async function pages(path, body) {
  const total = { changed: 0, skipped: 0 };
  let token = "";
  do {
    const page = await post(path, { ...body, page_token: token, request_id: requestId() });
    total.changed += page.changed;
    total.skipped += page.skipped;
    token = page.next_page_token;
  } while (token !== "");
  return total;
}

function described({ statuses, task_types: types, priorities }) {
  const parts = [`status ${statuses.join(", ")}`];
  if (types.length > 0) {
    parts.push(`type ${types.join(", ")}`);
  }
  if (priorities.length > 0) {
    parts.push(`priority ${priorities.join(", ")}`);
  }
  return parts.join("; ");
}

// --- why

const HIDDEN = "(hidden)";

export async function explainTask(task) {
  const { sentence, task_reason: reason, queue_position: place } = await get(`api/ui/tasks/${task.id}/explanation`);
  const why = sentence !== HIDDEN ? sentence : reason === "" ? "Nothing holds it." : `It is held: ${reason}.`;
  return place > 0 ? `${why} Its place in the queue: ${place}.` : why;
}
