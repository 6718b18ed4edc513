// Times and numbers as people read them. `now` goes by the scheduler's clock, which may differ from the browser's.

let offsetMs = 0;

export function setSchedulerTime(iso) {
  offsetMs = Date.parse(iso) - Date.now();
}

export function now() {
  return Date.now() + offsetMs;
}

const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

// 75 as "1 min 15 s": the two largest units.
export function span(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of UNITS) {
    if (rest >= size || (unit === "s" && parts.length === 0)) {
      parts.push(`${Math.floor(rest / size)} ${unit}`);
      rest %= size;
    } else if (parts.length > 0) {
      break;
    }
    if (parts.length === 2) {
      break;
    }
  }
  return parts.join(" ");
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`;
}

export function count(n) {
  return Number(n).toLocaleString("en");
}

export function plural(n, one, many) {
  return `${count(n)} ${Number(n) === 1 ? one : many}`;
}

export function clock(iso) {
  return iso === null ? "–" : new Date(iso).toLocaleString("sv", { timeZoneName: "short" });
}

// Keeps a time's distance from now in a node, `tick` brings it up to date: "3 min ago", "in 4 min 10 s", and `past` once it is over.
export function setMoment(node, iso, { none = "–", past = null } = {}) {
  if (iso === null || iso === undefined) {
    delete node.dataset.moment;
    if (node.textContent !== none) {
      node.textContent = none;
    }
    return;
  }
  node.dataset.moment = iso;
  node.dataset.past = past ?? "";
  node.title = clock(iso);
  showMoment(node);
}

function showMoment(node) {
  const seconds = (Date.parse(node.dataset.moment) - now()) / 1000;
  const text = seconds > 0 ? `in ${span(seconds)}` : node.dataset.past || `${span(-seconds)} ago`;
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

export function tick() {
  document.querySelectorAll("[data-moment]").forEach(showMoment);
}

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;

// A word as a shell takes it.
export function quoted(word) {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

export function command(...parts) {
  return ["dispatchctl", ...parts.filter((part) => part !== null && part !== "").map(quoted)].join(" ");
}
