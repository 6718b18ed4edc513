// The sections that show the overview: rates, charts, breakers, overrides, pools, queue.

import { endOverride, resetBreaker } from "./actions.js";
import { HourChart, ReasonChart, Share, legend, patterns } from "./charts.js";
import { Table, button, buttons, el, setMarked, setText, words } from "./dom.js";
import { count, percent, plural, setMoment } from "./format.js";

export function section(name, ...children) {
  const id = `section-${name.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return el("section", { "aria-labelledby": id }, el("h2", { id }, name), ...children);
}

function moment(head, of, options) {
  return { head, show: (cell, item) => setMoment(cell, of(item), options) };
}

// --- success rates

class Rates {
  #attempts = new Share("Starts");
  #decisions = new Share("All decisions");
  #table = new Table(
    "Starts by backend",
    [
      words("backend", (row) => row.name),
      words("rate", (row) => percent(row.rate)),
      words("started", (row) => count(row.success)),
      words("failed", (row) => count(row.failed)),
    ],
    (row) => row.name,
    "No start in the last hour.",
  );
  element = section(
    "Success rate",
    el("div", { class: "rates" }, this.#attempts.element, this.#decisions.element),
    this.#table.element,
  );

  show({ stats }) {
    this.#attempts.show(stats.attempts.rate, percent(stats.attempts.rate), `${count(stats.attempts.success)} of ${plural(stats.attempts.total, "start", "starts")} succeeded`);
    this.#decisions.show(stats.window_1h.rate, percent(stats.window_1h.rate), `${count(stats.window_1h.success)} of ${plural(stats.window_1h.total, "decision", "decisions")} started something`);
    this.#table.show(Object.entries(stats.attempts_by_backend).map(([name, window]) => ({ name, ...window })));
  }
}

// --- breakers

const BREAKER_KINDS = { CLOSED: "good", OPEN: "bad", HALF_OPEN: "held" };
const BREAKER_WORDS = { CLOSED: "CLOSED", OPEN: "OPEN", HALF_OPEN: "HALF_OPEN, probing" };

class Breakers {
  #table;
  element;

  constructor(readOnly) {
    const columns = [
      words("key", (breaker) => breaker.key),
      { head: "state", show: (cell, { state }) => setMarked(cell, BREAKER_KINDS[state], BREAKER_WORDS[state]) },
      words("failures", (breaker) => breaker.failures),
      moment("probe", (breaker) => (breaker.state === "OPEN" ? breaker.retry_time : null), { past: "with the next task" }),
      words("reason", (breaker) => breaker.reason || "–"),
    ];
    if (!readOnly) {
      columns.push(
        buttons("action", (row) => [
          [button("Reset…", () => resetBreaker(row.item.key)), (breaker) => breaker.state !== "CLOSED" || breaker.failures > 0],
        ]),
      );
    }
    this.#table = new Table("Breakers", columns, (breaker) => breaker.key, "No backend is known yet.");
    this.element = section("Breakers", this.#table.element);
  }

  show({ breakers }) {
    this.#table.show(breakers);
  }
}

// --- overrides

const OVERRIDES = {
  drain: "drain",
  billing_pause: "billing pause",
  budget_cap: "ceiling on slots",
  breaker_tripped: "breaker tripped",
  setting: "setting",
};

function overrideOf(setting) {
  return { ...setting, kind: "setting", scope: setting.name, until_time: null };
}

function what({ kind, scope, value, value_without_override: otherwise }) {
  return kind === "setting" ? `${scope} = ${value}, else ${otherwise}` : scope || "all";
}

class Overrides {
  #table;
  element;

  constructor(readOnly) {
    const columns = [
      { head: "what", show: (cell, { kind }) => setMarked(cell, "held", OVERRIDES[kind] ?? kind) },
      words("of", what),
      words("by", (override) => override.actor || "–"),
      words("why", (override) => override.reason || "–", true),
      moment("since", (override) => override.since_time),
      moment("until", (override) => override.until_time, { none: "ended by hand" }),
    ];
    if (!readOnly) {
      columns.push(buttons("action", (row) => [[button("End…", () => endOverride(row.item)), ({ kind }) => kind in OVERRIDES]]));
    }
    const key = (override) => `${override.kind} ${override.scope}`;
    this.#table = new Table("Overrides", columns, key, "Nothing is overridden.");
    this.element = section("Overrides", this.#table.element);
  }

  show({ overrides, settings }) {
    this.#table.show([...overrides, ...settings.map(overrideOf)]);
  }
}

// --- pools

const EXECUTOR_STATES = {
  live: ["good", "live"],
  stopping: ["held", "stopping"],
  gone: ["bad", "gone"],
};

function executorState(executor) {
  return executor.live ? (executor.draining ? "stopping" : "live") : "gone";
}

function used(pool) {
  return pool === null || pool === undefined ? "–" : `${pool.used} of ${pool.budget}`;
}

class Pools {
  #all = el("p");
  #executors = new Table(
    "Executors",
    [
      words("executor", (row) => row.executor_id || row.target),
      { head: "state", show: (cell, row) => setMarked(cell, ...EXECUTOR_STATES[executorState(row)]) },
      words("people", (row) => (row.slots?.user ? `${used(row.slots.user)}, ${row.slots.user.mode || "absent"}` : "–")),
      words("internal", (row) => used(row.slots?.internal)),
      words("tasks", (row) => used(row.slots?.task_pool)),
      words("pressure", (row) => (row.slots ? percent(row.slots.max_pressure) : "–")),
      words("held by", (row) => row.slots?.reason || "–"),
      moment("heard", (row) => row.last_heard_time, { none: "never" }),
    ],
    (row) => `${row.executor_id} ${row.target}`,
    "No executor is known yet: start one, or set EXECUTOR_TARGETS.",
  );
  #backends = new Table(
    "Backends",
    [
      words("backend", (row) => row.backend),
      words("slots used", (row) => used(row)),
      words("limited by", (row) => (row.local ? "the pools above" : "the backend's own limit")),
    ],
    (row) => row.backend,
    "No backend is known yet.",
  );
  element = section("Pools and pressure", this.#all, this.#executors.element, this.#backends.element);

  show({ slots, executors }) {
    const cap = slots.budget_cap === null ? "" : `, ceiling ${slots.budget_cap}`;
    const pool = slots.task_pool === null ? "" : ` Tasks use ${used(slots.task_pool)}.`;
    setText(this.#all, `${plural(slots.total_capacity, "seat", "seats")} in all, ${slots.effective_slots} under the present pressure${cap}.${pool}`);
    const byId = new Map(slots.executors.map((one) => [one.executor_id, one]));
    this.#executors.show(executors.map((one) => ({ ...one, slots: byId.get(one.executor_id) })));
    this.#backends.show(slots.backends);
  }
}

// --- queue

const STATUSES = ["QUEUED", "DISPATCHING", "RUNNING", "QUARANTINED"];
const PRIORITIES = ["P0", "P1", "P2"];
export const STATUS_KINDS = {
  QUEUED: "idle",
  DISPATCHING: "good",
  RUNNING: "good",
  COMPLETED: "good",
  FAILED: "bad",
  CANCELLED: "rejected",
  QUARANTINED: "held",
};

function all(row) {
  return PRIORITIES.reduce((sum, priority) => sum + row[priority], 0);
}

class Queue {
  #table = new Table(
    "Tasks by status and priority",
    [
      { head: "status", show: (cell, row) => setMarked(cell, all(row) > 0 ? STATUS_KINDS[row.status] : "idle", row.status.toLowerCase()) },
      ...PRIORITIES.map((priority) => words(priority, (row) => count(row[priority]))),
      words("all", (row) => count(all(row))),
      moment("oldest due", (row) => row.oldest),
    ],
    (row) => row.status,
    "",
  );
  element = section("Queue", this.#table.element);

  show({ queue }) {
    const rows = STATUSES.map((status) => ({ status, P0: 0, P1: 0, P2: 0, oldest: null }));
    for (const depth of queue) {
      const row = rows[STATUSES.indexOf(depth.status)];
      row[depth.priority] = depth.tasks;
      if (depth.oldest_due_time !== null && (row.oldest === null || depth.oldest_due_time < row.oldest)) {
        row.oldest = depth.oldest_due_time;
      }
    }
    this.#table.show(rows);
  }
}

// --- all of them

export class Overview {
  #parts;
  #hour = new HourChart();
  #reasons = new ReasonChart();

  constructor(readOnly) {
    this.#parts = [new Rates(), new Breakers(readOnly), new Overrides(readOnly), new Queue(), new Pools()];
  }

  elements() {
    const hour = section("The last hour", patterns(), legend(), el("div", { class: "charts" }, this.#hour.element, this.#reasons.element));
    const [rates, breakers, overrides, queue, pools] = this.#parts.map((part) => part.element);
    return [el("div", { class: "pair" }, rates, queue), breakers, overrides, hour, pools];
  }

  show({ status, settings, hour, reasons }) {
    this.#parts.forEach((part) => part.show({ ...status, settings }));
    this.#hour.show(hour, reasons);
    this.#reasons.show(hour, reasons);
  }
}
