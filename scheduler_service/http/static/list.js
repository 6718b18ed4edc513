// A list that is read page by page, newest first.

import { get } from "./api.js";
import { Table, button, el, setText } from "./dom.js";

// `path` answers pages of what `name` holds; `query()` is what is asked for, `columns` are those of the table.
export class List {
  #path;
  #name;
  #query;
  #table;
  #more = el("p", { class: "row pager" });
  #place = el("span", { role: "status" });
  #trouble = el("p", { class: "trouble", role: "alert" });
  #tokens = [""];
  #next;
  #back;
  #loading = false;
  #again = false;

  constructor(caption, columns, { path, name, query }, empty) {
    [this.#path, this.#name, this.#query] = [path, name, query];
    this.#table = new Table(caption, columns, (item) => item.id, empty);
    this.#next = button("Older", () => this.#turn(1));
    this.#back = button("Newer", () => this.#turn(-1));
    this.#more.append(this.#back, this.#next, this.#place);
    this.element = el("div", {}, this.#trouble, this.#table.element, this.#more);
    this.#pager("");
  }

  first() {
    this.#tokens = [""];
    return this.refresh();
  }

  #turn(by) {
    if (by < 0) {
      this.#tokens.pop();
    } else {
      this.#tokens.push(this.#next.token);
    }
    return this.refresh();
  }

  #pager(token) {
    const page = this.#tokens.length;
    this.#next.token = token;
    this.#next.disabled = token === "";
    this.#back.disabled = page === 1;
    this.#more.hidden = page === 1 && token === "";
    setText(this.#place, `page ${page}`);
  }

  // Reads the page anew; what comes meanwhile is read once afterwards.
  async refresh() {
    if (this.#loading) {
      this.#again = true;
      return;
    }
    this.#loading = true;
    do {
      this.#again = false;
      const token = this.#tokens.at(-1);
      const query = new URLSearchParams([...this.#query(), ["page_token", token]]);
      try {
        const page = await get(`${this.#path}?${query}`);
        setText(this.#trouble, "");
        if (token === this.#tokens.at(-1)) {
          this.#table.show(page[this.#name]);
          this.#pager(page.next_page_token);
        }
      } catch (error) {
        setText(this.#trouble, `The list is not up to date: ${error.message}.`);
      }
    } while (this.#again);
    this.#loading = false;
  }
}
