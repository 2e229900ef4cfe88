"use strict";
// Which view is shown, in which state. The page loads this last.

// -- the state of a view stands behind # in the address, so that it can be linked and reloaded ----

function state() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  return { view, options: new URLSearchParams(query) };
}

function set(changes) {
  const { view, options } = state();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") options.delete(key);
    else options.set(key, value);
  }
  history.replaceState(null, "", `#${view}${options.size ? `?${options}` : ""}`);
  show();
}

// Which one of the experiments a view shows, with the control to choose another: the widest comparison of a kind.
async function chosen(useful, kind = "table") {
  const index = await loadIndex();
  const usable = index.experiments.map((one, number) => ({ ...one, number })).filter((one) => useful(one));
  if (!usable.length) return null;
  const widest = d3.greatest(usable.filter((one) => one.kind === kind), (one) => one.methods);
  const first = widest ?? usable.find(whole) ?? usable[0];
  const name = pick("experiment", usable.map((one) => one.name), first.name);
  const found = usable.find((one) => one.name === name);
  const control = choice("Experiment", usable.map((one) => [one.name, one.name === one.title ? one.name : `${one.name}: ${one.title}`]), found.name, (value) => set({ experiment: value, dataset: null, protocol: null, hidden: null, one: null, other: null }));
  return { experiment: await loadExperiment(found.number), control };
}

const NOTHING = () => el("p", {}, "No experiment on this page has any such figures: its runs are not here.");
const whole = (one) => !one.problem;
const options = (values) => values.map((value) => [value, value]);

// What the address asks for, or the first; what there is not is stated above the view.
function pick(key, values, first = values[0]) {
  const wanted = state().options.get(key);
  if (wanted !== null && !values.includes(wanted)) missing.add(`${key}=${wanted}`);
  return values.includes(wanted) ? wanted : first;
}

function toggles(rows, hidden) {
  return el(
    "fieldset",
    {},
    el("legend", {}, "Shown"),
    el(
      "div",
      { class: "toggles" },
      ...rows.map((row) => {
        const box = el("input", { type: "checkbox", checked: !hidden.has(row.label), change: change });
        function change() {
          const now = new Set(hidden);
          if (box.checked) now.delete(row.label);
          else now.add(row.label);
          set({ hidden: now.size ? JSON.stringify([...now]) : null });
        }
        return el("label", {}, box, swatch(row), row.label);
      }),
      el("button", { type: "button", click: () => set({ hidden: null }) }, "All"),
      el("button", { type: "button", click: () => set({ hidden: JSON.stringify(rows.map((row) => row.label)) }) }, "None"),
    ),
  );
}

function hiddenRows() {
  try {
    return new Set(JSON.parse(state().options.get("hidden") ?? "[]"));
  } catch {
    return new Set();
  }
}

async function frames(count) {
  while (count--) await new Promise(requestAnimationFrame);
}

// -- which view is shown --------------------------------------------------------------------------

const VIEWS = { findings: null, tables, curves, cost, compare, images, runs };
const CHOOSING = ["tables", "curves", "cost", "compare", "images"]; // views of one experiment, which changing them keeps
const missing = new Set(); // what the address asks for in vain
let turn = 0;

async function show() {
  const mine = ++turn;
  const { view, options: given } = state();
  const name = view in VIEWS ? view : "findings";
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.dataset.view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    const [leads] = link.hash.slice(1).split("?");
    if (leads === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (given.has("experiment") && CHOOSING.includes(leads)) link.hash = `${leads}?${new URLSearchParams({ experiment: given.get("experiment") })}`;
  }
  const section = document.querySelector(`[data-view=${name}]`);
  if (name === "findings") {
    await findings(section);
    await frames(2); // until the charts above have their heights
    if (mine === turn) document.querySelector(".finding:target")?.scrollIntoView();
    return;
  }
  const place = section.querySelector(".view");
  missing.clear();
  let nodes;
  try {
    nodes = await VIEWS[name]();
  } catch (error) {
    nodes = [el("p", { class: "problem" }, error.message)];
  }
  if (mine !== turn) return; // another view was asked for in the meantime
  const held = document.activeElement?.closest("label, .toggles button")?.textContent;
  if (missing.size) nodes.unshift(el("p", { class: "problem" }, `Not here: ${[...missing].join(", ")}.`));
  place.replaceChildren(...nodes);
  if (held) [...place.querySelectorAll("label, .toggles button")].find((one) => one.textContent === held)?.querySelector("select, input")?.focus();
  document.body.dataset.shown = name;
}

// Under watch=true: the page loads itself again when a run has finished, at the same place.
async function watch() {
  if (!(await loadIndex()).watched || !location.protocol.startsWith("http")) return;
  const ask = async () => (await fetch("version")).text();
  const first = await ask();
  const timer = setInterval(async () => {
    try {
      if ((await ask()) !== first && !document.getElementById("details").open) location.reload();
    } catch {
      clearInterval(timer); // the server has ended
      announce("The server of this page has ended; what is shown stays as it was.");
    }
  }, 2000);
}

// The address holds the view, which following the link to #main would end.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
window.addEventListener("hashchange", show);
watch();
show();
