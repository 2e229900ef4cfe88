"use strict";
// What all views are made of: the data, nodes, and tables that sort. Names of methods, classes and files are text:
// nodes are made by el(), and nothing on this page parses markup.

// -- data: scripts, since a page that is opened as a file may load nothing else ------------------

const slots = new Map();

function slot(name) {
  if (!slots.has(name)) {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    slots.set(name, made);
  }
  return slots.get(name);
}

window.take = (name, value) => slot(name).resolve(value);

function load(name) {
  const found = slot(name);
  if (!found.asked) {
    found.asked = true;
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onerror = () => found.reject(new Error(`data/${name}.js is missing beside this page.`));
    document.head.append(script);
  }
  return found.promise;
}

const loadIndex = () => load("index");

async function loadExperiment(number) {
  return load(`e${number}`);
}

async function loadRun(name) {
  const index = await loadIndex();
  return (await load(`r${name.slice(0, index.digits)}`))[name];
}

// -- nodes ----------------------------------------------------------------------------------------

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const colourOf = (row) => row.colours[dark.matches ? "dark" : "light"];
const percent = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));
const signed = (value) => value.toFixed(2).replace("-", "−");
const duration = (seconds) => (seconds < 100 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : seconds < 6000 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`);
const announce = (text) => (document.getElementById("status").textContent = text);

function copyButton(text) {
  const button = el("button", { type: "button", click: copy, "data-copies": text }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Where the browser offers no clipboard to files.
      const area = el("textarea", {}, text);
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    announce("Copied to the clipboard.");
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }
  return button;
}

const commandBlock = (text) =>
  text
    ? el("div", {}, el("pre", { class: "command" }, text), copyButton(text))
    : el("p", {}, "Its method or dataset is not installed where this page was made, so its command is not known.");

function choice(label, options, value, change) {
  const select = el("select", { change: () => change(select.value) });
  for (const [key, text] of options) select.append(el("option", { value: key, selected: key === String(value) }, text));
  return el("label", {}, label, select);
}

// -- a table that sorts; rows beyond the limit are made on demand ---------------------------------

function compareValues(one, other) {
  const empty = (value) => value === null || value === undefined || Number.isNaN(value);
  if (empty(one) || empty(other)) return empty(one) - empty(other);
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
}

function sortable({ caption, columns, rows, limit = 100, rowClass = () => null, sort = null }) {
  const body = el("tbody");
  const headings = columns.map((column, place) =>
    el("th", { scope: "col", class: column.number ? "number" : null }, el("button", { type: "button", click: () => by(place) }, column.title)),
  );
  const more = el("button", { type: "button", click: () => ((shown += limit * 10), fill()) });
  let [place, down, shown] = [sort, true, limit];

  function by(wanted) {
    down = place === wanted ? !down : Boolean(columns[wanted].number);
    place = wanted;
    fill();
    announce(`Sorted by ${columns[place].title}, ${down ? "descending" : "ascending"}.`);
  }

  function fill() {
    const ordered = [...rows];
    if (place !== null) {
      const { value } = columns[place];
      ordered.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        const order = compareValues(a, b);
        return down && a != null && b != null ? -order : order; // what is missing stays below
      });
    }
    headings.forEach((heading, number) => {
      if (number === place) heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    body.replaceChildren(
      ...ordered.slice(0, shown).map((row) =>
        el(
          "tr",
          { class: rowClass(row) },
          ...columns.map((column, number) =>
            el(number ? "td" : "th", { scope: number ? null : "row", class: column.number ? "number" : null }, (column.cell ?? column.value)(row) ?? "–"),
          ),
        ),
      ),
    );
    more.hidden = ordered.length <= shown;
    more.textContent = `Show more (${ordered.length - shown} left)`;
  }

  fill();
  return el(
    "div",
    {},
    el(
      "div",
      { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
      el("table", { class: "data" }, el("caption", {}, el("span", {}, caption)), el("thead", {}, el("tr", {}, ...headings)), body),
    ),
    more,
  );
}
