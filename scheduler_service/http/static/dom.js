// Elements made and changed without markup: what somebody wrote is text and nothing else.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Writes only what differs: a reader's selection and a screen reader's place stay.
export function setText(node, text) {
  const words = String(text);
  if (node.textContent !== words) {
    node.textContent = words;
  }
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

export function button(words, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, words);
}

// What is held, failed or well differs in shape too, for whoever does not see the colour.
const SHAPES = {
  good: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1ZM7 11 4 8l1.200-1.200L7 8.600l3.800-3.800L12 6Z",
  held: "M3 2h4v12H3Zm6 0h4v12H9Z",
  bad: "M5 1h6l4 4v6l-4 4H5l-4-4V5Zm0 3.400L7 8l-2 3.600L8 9.200l3 2.400L9 8l2-3.600L8 6.800Z",
  rejected: "M8 0 16 8l-8 8-8-8Zm-1 4v5h2V4Zm0 6v2h2v-2Z",
  idle: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm0 2a5 5 0 1 1 0 10A5 5 0 0 1 8 3Z",
};

export function mark(kind) {
  const path = svg("path", { d: SHAPES[kind], "fill-rule": "evenodd" });
  return svg("svg", { class: `mark ${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, path);
}

// A word with its mark in place of what a node showed before, unless it shows that already.
export function setMarked(node, kind, words) {
  if (node.dataset.kind !== kind || node.textContent !== words) {
    node.dataset.kind = kind;
    node.replaceChildren(mark(kind), words);
  }
}

// A table whose rows are told apart by a key: a row that stays is changed in place, and so are its buttons.
export class Table {
  #body = el("tbody");
  #rows = new Map();
  #columns;
  #key;
  #scroller;
  #empty;
  #emptyWords;

  // columns: {head, show(cell, item, row)}; `row.item` is the row's present item.
  constructor(caption, columns, key, empty) {
    this.#columns = columns;
    this.#key = key;
    const head = columns.map((column) => el("th", { scope: "col" }, column.head));
    const table = el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, ...head)),
      this.#body,
    );
    this.#scroller = el("div", { class: "scroller", role: "group", "aria-label": caption, tabindex: "0" }, table);
    this.#empty = el("p", { class: "none" });
    this.#emptyWords = empty;
    this.element = el("div", {}, this.#scroller, this.#empty);
    this.show([]);
  }

  show(items) {
    const keys = new Set(items.map(this.#key));
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        row.remove();
        this.#rows.delete(key);
      }
    }
    let before = null;
    for (const item of items) {
      const row = this.#row(this.#key(item));
      row.item = item;
      this.#columns.forEach((column, index) => column.show(row.cells[index], item, row));
      const place = before === null ? this.#body.firstElementChild : before.nextElementSibling;
      if (place !== row) {
        this.#body.insertBefore(row, place);
      }
      before = row;
    }
    this.#scroller.hidden = items.length === 0;
    setText(this.#empty, items.length === 0 ? this.#emptyWords : "");
  }

  #row(key) {
    let row = this.#rows.get(key);
    if (row === undefined) {
      row = el("tr", {}, ...this.#columns.map(() => el("td")));
      this.#rows.set(key, row);
    }
    return row;
  }
}

// A column of words; `wide` where they are many.
export function words(head, text, wide = false) {
  return {
    head,
    show(cell, item) {
      cell.classList.toggle("wide", wide);
      setText(cell, text(item));
    },
  };
}

// A column of buttons, made once for each row; `make(row)` gives them, `visible(item)` says which of them show.
export function buttons(head, make) {
  return {
    head,
    show(cell, item, row) {
      if (cell.firstChild === null) {
        cell.className = "actions";
        cell.append(...make(row).map(([node, shown]) => Object.assign(node, { shown })));
      }
      for (const node of cell.children) {
        node.hidden = !node.shown(item);
      }
    },
  };
}
