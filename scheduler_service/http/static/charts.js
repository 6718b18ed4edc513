// Bars drawn as SVG, each chart with the table of its figures behind it.

import { el, setText, svg } from "./dom.js";
import { count } from "./format.js";

const KINDS = ["started", "blocked", "failed", "rejected"];
const NAMES = { started: "started", blocked: "held", failed: "failed", rejected: "rejected" };
const WIDTH = 640;
const HEIGHT = 180;
// Room for a narrow screen's letters, which are larger in the chart's own measure: see style.css.
const LEFT = 84;
const BOTTOM = 32;
const TOP = 26;

function pattern(id, cls, ...shapes) {
  const ground = svg("rect", { width: 8, height: 8, class: `ground ${cls}` });
  return svg("pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" }, ground, ...shapes);
}

// Held is striped, failed is crossed, rejected is dotted, started is plain: told apart without colour.
export function patterns() {
  return svg(
    "svg",
    { width: 0, height: 0, "aria-hidden": "true", class: "patterns" },
    svg(
      "defs",
      {},
      pattern("fill-started", "started"),
      pattern("fill-blocked", "blocked", svg("path", { d: "M-2 2l4-4M0 8l8-8M6 10l4-4", class: "ink blocked" })),
      pattern("fill-failed", "failed", svg("path", { d: "M1 1l6 6M7 1l-6 6", class: "ink failed" })),
      pattern("fill-rejected", "rejected", svg("circle", { cx: 4, cy: 4, r: 1.6, class: "ink rejected dot" })),
    ),
  );
}

export function legend() {
  const items = KINDS.map((kind) => {
    const swatch = svg("rect", { width: 16, height: 12, fill: `url(#fill-${kind})`, class: `bar ${kind}` });
    return el("li", {}, svg("svg", { width: 16, height: 12, "aria-hidden": "true" }, swatch), ` ${NAMES[kind]}`);
  });
  return el("ul", { class: "legend", "aria-label": "What the bars mean" }, ...items);
}

// The counts of a bucket by kind of decision.
export function kinds(bucket, reasons) {
  const found = { started: bucket.started, blocked: 0, failed: 0, rejected: 0 };
  for (const [reason, n] of Object.entries(bucket.reasons)) {
    found[reasons[reason]?.kind ?? "failed"] += n;
  }
  return found;
}

function figure(title, table) {
  const picture = el("div", { class: "picture" });
  const behind = el("details", {}, el("summary", {}, `The figures: ${title}`), table);
  return { element: el("figure", {}, el("figcaption", {}, title), picture, behind), picture };
}

function drawn(label, height, ...shapes) {
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label, class: "chart" }, ...shapes);
}

// `wide`: the column that has sentences, if any.
function plainTable(caption, head, rows, wide = null) {
  const cell = (value, i) => el("td", { class: head[i] === wide ? "wide" : null }, String(value));
  const cells = (row) => row.map((value, i) => (i === 0 ? el("th", { scope: "row" }, value) : cell(value, i)));
  return el(
    "div",
    { class: "scroller", role: "group", "aria-label": caption, tabindex: "0" },
    el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row)))),
    ),
  );
}

function time(iso) {
  return new Date(iso).toLocaleTimeString("sv", { hour: "2-digit", minute: "2-digit" });
}

// Decisions of the hour in steps of six minutes, stacked by kind.
export class HourChart {
  #table = el("div");
  #figure = figure("Decisions over the last hour", this.#table);
  #shown = "";
  element = this.#figure.element;

  show(hour, reasons) {
    const columns = hour.map((bucket) => ({ ...kinds(bucket, reasons), from: bucket.from, until: bucket.until }));
    // The edges move with every second; the picture is drawn anew when a count has changed, or a minute.
    const state = JSON.stringify(columns.map((c) => [...KINDS.map((kind) => c[kind]), time(c.from)]));
    if (state === this.#shown) {
      return;
    }
    this.#shown = state;
    this.#figure.picture.replaceChildren(this.#draw(columns));
    const rows = columns.map((c) => [`${time(c.from)}–${time(c.until)}`, ...KINDS.map((kind) => count(c[kind]))]);
    this.#table.replaceChildren(plainTable("Decisions over the last hour", ["from–to", ...KINDS.map((k) => NAMES[k])], rows));
  }

  #draw(columns) {
    const most = Math.max(1, ...columns.map((c) => KINDS.reduce((sum, kind) => sum + c[kind], 0)));
    const step = (WIDTH - LEFT) / columns.length;
    const scale = (HEIGHT - BOTTOM - TOP) / most;
    const shapes = [
      svg("path", { d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH}`, class: "axis" }),
      svg("text", { x: LEFT - 6, y: TOP, "text-anchor": "end" }, count(most)),
      svg("text", { x: LEFT - 6, y: HEIGHT - BOTTOM, "text-anchor": "end" }, "0"),
    ];
    columns.forEach((column, index) => {
      const x = LEFT + index * step;
      let y = HEIGHT - BOTTOM;
      for (const kind of KINDS) {
        const height = column[kind] * scale;
        y -= height;
        if (height > 0) {
          const name = svg("title", {}, `${time(column.from)}–${time(column.until)}: ${column[kind]} ${NAMES[kind]}`);
          const box = { x: x + step * 0.15, y, width: step * 0.7, height, fill: `url(#fill-${kind})`, class: `bar ${kind}` };
          shapes.push(svg("rect", box, name));
        }
      }
      if (index % 2 === 0) {
        shapes.push(svg("text", { x: x + step / 2, y: HEIGHT - 6, "text-anchor": "middle" }, time(column.from)));
      }
    });
    const sums = KINDS.map((kind) => `${count(columns.reduce((sum, c) => sum + c[kind], 0))} ${NAMES[kind]}`);
    return drawn(`Decisions over the last hour: ${sums.join(", ")}`, HEIGHT, ...shapes);
  }
}

// The words stand above their bar: beside it they would be cut on a narrow screen.
const ROW = 48;
const BAR_TOP = 28;
const BAR_HEIGHT = 15;

// Holds and failures of the hour by their reason, the most frequent first.
export class ReasonChart {
  #table = el("div");
  #figure = figure("Holds and failures by reason over the last hour", this.#table);
  #none = el("p", { class: "none" }, "Nothing was held and nothing failed in the last hour.");
  #shown = "";
  element = el("div", {}, this.#figure.element, this.#none);

  show(hour, reasons) {
    const sums = new Map();
    for (const bucket of hour) {
      for (const [reason, n] of Object.entries(bucket.reasons)) {
        sums.set(reason, (sums.get(reason) ?? 0) + n);
      }
    }
    const rows = [...sums].sort((a, b) => b[1] - a[1]);
    this.#none.hidden = rows.length > 0;
    this.#figure.element.hidden = rows.length === 0;
    const state = JSON.stringify(rows);
    if (state === this.#shown) {
      return;
    }
    this.#shown = state;
    const kindOf = (reason) => reasons[reason]?.kind ?? "failed";
    this.#figure.picture.replaceChildren(this.#draw(rows, kindOf));
    const figures = rows.map(([reason, n]) => [reason, NAMES[kindOf(reason)], count(n), reasons[reason]?.meaning ?? ""]);
    this.#table.replaceChildren(
      plainTable("Holds and failures by reason over the last hour", ["reason", "kind", "decisions", "meaning"], figures, "meaning"),
    );
  }

  #draw(rows, kindOf) {
    const most = Math.max(1, ...rows.map(([, n]) => n));
    const shapes = rows.flatMap(([reason, n], index) => {
      const kind = kindOf(reason);
      const y = index * ROW;
      const width = Math.max(3, ((WIDTH - 2) * n) / most);
      return [
        svg("text", { x: 1, y: y + BAR_TOP - 6 }, `${reason} (${NAMES[kind]}): ${count(n)}`),
        svg("rect", { x: 1, y: y + BAR_TOP, width, height: BAR_HEIGHT, fill: `url(#fill-${kind})`, class: `bar ${kind}` }),
      ];
    });
    const said = rows.map(([reason, n]) => `${reason} ${count(n)}`).join(", ");
    return drawn(`Holds and failures by reason: ${said}`, Math.max(1, rows.length) * ROW, ...shapes);
  }
}

// A share as a bar of its own, with its words.
export class Share {
  #value = el("strong", { class: "figure" });
  #words = el("span", { class: "small" });
  #bar = svg("rect", { y: 0, height: 10, width: 0, class: "level" });
  element;

  constructor(name) {
    const track = svg("rect", { width: 200, height: 10, class: "track" });
    const picture = svg("svg", { viewBox: "0 0 200 10", preserveAspectRatio: "none", "aria-hidden": "true", class: "share" }, track, this.#bar);
    this.element = el("div", { class: "rate" }, el("span", { class: "name" }, name), this.#value, picture, this.#words);
  }

  show(share, value, words) {
    setText(this.#value, value);
    setText(this.#words, words);
    const width = String(Math.round(200 * (share ?? 0)));
    if (this.#bar.getAttribute("width") !== width) {
      this.#bar.setAttribute("width", width);
    }
  }
}
