// The lists: what runs, what is quarantined, all tasks that a filter chooses, and the audit log.

import { bulkStatuses, cancelTask, changeAll, explainTask, requeueTask } from "./actions.js";
import { button, buttons, el, setMarked, setText, words } from "./dom.js";
import { setMoment } from "./format.js";
import { List } from "./list.js";
import { STATUS_KINDS, section } from "./overview.js";

const PAGE_SIZE = 50;
const SOME = 20;
const AT_MOST_EVERY_MS = 1_000;

const CANCELLABLE = new Set(["QUEUED", "DISPATCHING", "RUNNING", "QUARANTINED"]);
const REQUEUEABLE = new Set(["FAILED", "CANCELLED", "QUARANTINED"]);

function statusColumn() {
  return {
    head: "status",
    show(cell, task) {
      const hold = task.hold_reason ? `, ${task.hold_reason}` : "";
      setMarked(cell, STATUS_KINDS[task.status], `${task.status.toLowerCase()}${hold}`);
    },
  };
}

function titleColumn() {
  return {
    head: "task",
    show(cell, task) {
      if (cell.firstChild === null) {
        cell.append(el("span", { class: "title" }), el("span", { class: "id small" }));
      }
      setText(cell.firstChild, task.title);
      setText(cell.lastChild, task.id);
    },
  };
}

function momentColumn(head, of) {
  return { head, show: (cell, task) => setMoment(cell, of(task)) };
}

function tasksBy(query) {
  return { path: "api/ui/tasks", name: "tasks", query };
}

function chosenBy(statuses) {
  return tasksBy(() => [...statuses.map((status) => ["status", status]), ["page_size", SOME]]);
}

// --- what runs

function running(config, output) {
  const columns = [
    titleColumn(),
    statusColumn(),
    words("executor", (task) => task.executor_id || "–"),
    words("backend", (task) => task.backend),
    momentColumn("started", (task) => task.start_time),
    words("tries", (task) => `${task.tries} of ${task.max_tries}`),
  ];
  const actions = (row) => [
    [button("Output", () => output.open(row.item)), () => !config.hidePayloads],
    [button("Cancel…", () => cancelTask(row.item)), (task) => !config.readOnly && task.hold_reason !== "cancel_requested"],
  ];
  if (!config.hidePayloads || !config.readOnly) {
    columns.push(buttons("action", actions));
  }
  return new List("Running tasks", columns, chosenBy(["dispatching", "running"]), "Nothing runs.");
}

// --- what was put aside

function quarantined(config, output) {
  const columns = [
    titleColumn(),
    { head: "put aside for", show: (cell, task) => setMarked(cell, "held", task.hold_reason || "unknown") },
    words("findings", (task) => task.outcome.error || "–", true),
    momentColumn("since", (task) => task.end_time),
  ];
  const actions = (row) => [
    [button("Release…", () => requeueTask(row.item)), () => !config.readOnly],
    [button("Cancel…", () => cancelTask(row.item)), () => !config.readOnly],
    [button("Output", () => output.open(row.item)), (task) => !config.hidePayloads && task.run_id !== ""],
  ];
  if (!config.hidePayloads || !config.readOnly) {
    columns.push(buttons("action", actions));
  }
  return new List("Quarantined tasks", columns, chosenBy(["quarantined"]), "Nothing is in quarantine.");
}

// --- all tasks

const STATUSES = ["queued", "dispatching", "running", "completed", "failed", "cancelled", "quarantined"];
const PRIORITIES = ["P0", "P1", "P2"];

function choices(name, values) {
  return values.map((value) => {
    const id = `filter-${name}-${value}`;
    return el("label", { for: id, class: "choice" }, el("input", { type: "checkbox", id, name, value }), ` ${value}`);
  });
}

class AllTasks {
  #form;
  #why = el("p", { role: "status", class: "why" });
  #trouble = el("p", { class: "trouble", role: "alert" });
  #list;
  element;

  constructor(config, output) {
    this.#form = el(
      "form",
      { class: "filter", "aria-label": "Which tasks" },
      el("fieldset", {}, el("legend", {}, "Status"), ...choices("status", STATUSES)),
      el("fieldset", {}, el("legend", {}, "Priority"), ...choices("priority", PRIORITIES)),
      el("label", { for: "filter-type" }, "Type ", el("input", { id: "filter-type", name: "type", maxlength: 64, autocomplete: "off" })),
      ...(config.readOnly ? [] : [this.#bulk()]),
    );
    this.#form.addEventListener("change", () => this.#list.first());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#list.first();
    });
    const columns = [
      titleColumn(),
      statusColumn(),
      words("type", (task) => task.task_type),
      words("priority", (task) => task.priority),
      momentColumn("submitted", (task) => task.create_time),
      words("error", (task) => task.outcome.error || "–", true),
      buttons("action", (row) => [
        [button("Why?", () => this.#explain(row.item)), (task) => task.status === "QUEUED"],
        [button("Cancel…", () => cancelTask(row.item)), (task) => !config.readOnly && CANCELLABLE.has(task.status)],
        [button("Requeue…", () => requeueTask(row.item)), (task) => !config.readOnly && REQUEUEABLE.has(task.status)],
        [button("Output", () => output.open(row.item)), (task) => !config.hidePayloads && task.run_id !== ""],
      ]),
    ];
    const query = () => [...new FormData(this.#form).entries()].filter(([, value]) => value !== "").concat([["page_size", PAGE_SIZE]]);
    this.#list = new List("Tasks", columns, tasksBy(query), "No task matches.");
    this.element = section("Tasks", this.#form, this.#trouble, this.#why, this.#list.element);
  }

  refresh() {
    return this.#list.refresh();
  }

  #filter() {
    const data = new FormData(this.#form);
    const type = data.get("type").trim();
    return { statuses: data.getAll("status"), priorities: data.getAll("priority"), task_types: type === "" ? [] : [type] };
  }

  #bulk() {
    const make = (what, name) =>
      button(name, async () => {
        setText(this.#trouble, "");
        const filter = this.#filter();
        if (bulkStatuses(what, filter.statuses).length === 0) {
          setText(this.#trouble, `No task with status ${filter.statuses.join(", ")} can be ${what === "cancel" ? "cancelled" : "requeued"}.`);
          return;
        }
        try {
          await changeAll(what, filter);
        } catch (error) {
          setText(this.#trouble, `They could not be counted: ${error.message}.`);
        }
      });
    return el("div", { class: "row" }, make("cancel", "Cancel all that match…"), make("requeue", "Requeue all that match…"));
  }

  async #explain(task) {
    try {
      setText(this.#why, await explainTask(task));
    } catch (error) {
      setText(this.#why, `The scheduler does not say why: ${error.message}.`);
    }
  }
}

// --- who did what

function pairs(values) {
  return Object.entries(values ?? {})
    .map(([name, value]) => `${name} ${typeof value === "object" && value !== null ? JSON.stringify(value) : (value ?? "none")}`)
    .join(", ");
}

function audit() {
  const columns = [
    momentColumn("when", (entry) => entry.time),
    words("who", (entry) => entry.actor),
    words("what", (entry) => `${entry.method} ${entry.target}`),
    words("why", (entry) => entry.reason || "–", true),
    words("before", (entry) => pairs(entry.detail?.before) || "–", true),
    words("after", (entry) => pairs(entry.detail?.after) || "–", true),
  ];
  const source = { path: "api/ui/audit", name: "entries", query: () => [["page_size", SOME]] };
  return new List("Audit log", columns, source, "Nothing was overridden yet.");
}

// --- together

export class Lists {
  #lists;
  #elements;
  #timer = null;

  constructor(config, output) {
    const [runs, aside, all] = [running(config, output), quarantined(config, output), new AllTasks(config, output)];
    const log = audit();
    this.#lists = [runs, aside, all, log];
    this.#elements = [
      section("Running", runs.element, output.element),
      section("Quarantine", aside.element),
      all.element,
      section("Audit log", log.element),
    ];
  }

  elements() {
    return this.#elements;
  }

  // Reads the lists soon, at most once a second, and not while nobody looks.
  soon() {
    if (this.#timer === null && !document.hidden) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.now();
      }, AT_MOST_EVERY_MS);
    }
  }

  now() {
    this.#lists.forEach((list) => list.refresh());
  }
}
