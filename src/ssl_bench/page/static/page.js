"use strict";
// Names of methods, classes and files are text: nodes are made by el(), and nothing here parses markup.

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

function swatch(row) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = colourOf(row);
  return node;
}

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
      el("table", { class: "data" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...headings)), body),
    ),
    more,
  );
}

// -- charts: drawn by Observable Plot once they come near, again where width or colours change ----

const drawn = new Set();

// A group without a role may have no label: what a mark is goes where style sheets and tests find it.
function unlabelled(svg) {
  for (const group of svg.querySelectorAll("g[aria-label]")) {
    group.dataset.mark = group.getAttribute("aria-label");
    group.removeAttribute("aria-label");
  }
}

function chart(title, options, { height = 260, caption = true } = {}) {
  const place = el("div", { class: "chart" });
  const figure = el("figure", {}, caption ? el("figcaption", {}, title) : null, place);
  function draw() {
    const width = Math.max(240, Math.floor(place.clientWidth || figure.parentElement?.clientWidth || 640));
    const plot = Plot.plot({ width, height, style: { fontSize: "12px" }, ariaLabel: title, marginBottom: 44, ...options(width) });
    const svg = plot.matches("svg") ? plot : [...plot.querySelectorAll("svg")].at(-1); // after those of the legend
    svg.setAttribute("role", "img"); // whose title says it all; the figures stand in a table
    unlabelled(svg);
    new MutationObserver(() => unlabelled(svg)).observe(svg, { childList: true, subtree: true }); // tips come and go
    place.replaceChildren(plot);
  }
  const watcher = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width && width !== figure.lastWidth) {
      figure.lastWidth = width;
      draw();
    }
  });
  place.style.minHeight = `${height}px`;
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    watcher.observe(place);
  }, { rootMargin: "300px" });
  near.observe(place);
  drawn.add({ figure, draw });
  return figure;
}

window.addEventListener("beforeprint", () => {
  for (const { figure, draw } of drawn) if (figure.isConnected && !figure.querySelector("svg")) draw();
});

dark.addEventListener("change", () => {
  for (const one of drawn) {
    if (one.figure.isConnected) one.draw();
    else drawn.delete(one);
  }
  show();
});

// Names at the left, as wide as they need up to a share of the chart; what is longer is cut, and whole in a tip.
function named(labels, width) {
  const marginLeft = Math.min(7 * Math.max(0, ...labels.map((label) => label.length)) + 16, Math.floor(width / 2.4));
  return { marginLeft, axis: Plot.axisY({ label: null, tickSize: 0, lineWidth: (marginLeft - 8) / 12, textOverflow: "ellipsis" }) };
}

const SYMBOLS = { "*": "asterisk", o: "circle", s: "square", "^": "triangle", D: "diamond", v: "wye", P: "plus", X: "times", "<": "diamond2", ">": "triangle2", h: "hexagon", d: "square2" };
const DASHES = { solid: null, dashed: "6 3", mixed: "7 3 2 3", dotted: "2 3", long: "11 3" };

function seedsChart(experiment, heading, { height } = {}) {
  const seeds = experiment.seeds[heading];
  const order = Object.keys(experiment.cells).filter((label) => Object.keys(seeds[label] ?? {}).length);
  const rows = new Map(experiment.rows.map((row) => [row.label, row]));
  const points = order.flatMap((row) => Object.entries(seeds[row]).map(([seed, value]) => ({ row, seed, value })));
  const colour = (point) => (rows.has(point.row) ? colourOf(rows.get(point.row)) : "currentColor");
  return chart(
    heading,
    (width) => ({
      marginLeft: named(order, width).marginLeft,
      x: { label: "% of test images", nice: true, grid: true, ticks: 4, inset: 6 },
      y: { label: null, domain: order, type: "band" },
      marks: [
        named(order, width).axis,
        Plot.tickX(points, Plot.groupY({ x: "mean" }, { x: "value", y: "row", stroke: "currentColor", strokeWidth: 2 })),
        Plot.dot(points, { x: "value", y: "row", fill: colour, fillOpacity: 0.75, r: 4 }),
        Plot.tip(points, Plot.pointer({ x: "value", y: "row", title: (p) => `${p.row}, seed ${p.seed}: ${p.value.toFixed(2)} %` })),
      ],
    }),
    { height: height ?? 20 * order.length + 60 },
  );
}

function curvesChart(experiment, { dataset, protocol, network, hidden = new Set() }) {
  const networks = network === "both" ? ["student", "teacher"] : [network];
  const lines = experiment.curves.filter((line) => line.dataset === dataset && line.protocol === protocol && networks.includes(line.network) && !hidden.has(line.row));
  const rows = new Map(experiment.rows.map((row) => [row.label, row]));
  const named = (line) => (network === "both" ? `${line.row}, ${line.network}` : line.row);
  const points = lines.flatMap((line) => line.points.map(([epoch, mean, low, high]) => ({ name: named(line), row: line.row, epoch, mean, low, high, seeds: line.seeds })));
  const dash = (line) => (network === "both" ? (line.network === "teacher" ? null : "3 3") : DASHES[rows.get(line.row).line]);
  const marks = lines.flatMap((line) => {
    const [stroke, own] = [colourOf(rows.get(line.row)), points.filter((point) => point.name === named(line))];
    const every = Math.max(1, Math.floor(own.length / 7));
    return [
      Plot.areaY(own, { x: "epoch", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.13 }),
      Plot.lineY(own, { x: "epoch", y: "mean", stroke, strokeWidth: 2, strokeDasharray: dash(line) }),
      Plot.dot(own.filter((_, number) => number % every === 0), { x: "epoch", y: "mean", fill: stroke, symbol: SYMBOLS[rows.get(line.row).mark] ?? "circle", r: 3.5 }),
    ];
  });
  const tip = (p) => `${p.name}\nepoch ${p.epoch}: ${p.mean.toFixed(1)} % (${p.low.toFixed(1)}–${p.high.toFixed(1)}, ${p.seeds} ${p.seeds === 1 ? "seed" : "seeds"})`;
  return chart(
    `${dataset}, ${protocol}`,
    () => ({
      x: { label: experiment.epochs, grid: true, tickFormat: (epoch) => (Number.isInteger(epoch) ? String(epoch) : "") },
      y: { label: "% of test images", grid: true, nice: true },
      marks: [...marks, Plot.tip(points, Plot.pointer({ x: "epoch", y: "mean", title: tip }))],
    }),
    { height: 420 },
  );
}

// A heat map or lines over an option, for every panel of a table over two axes.
function gridCharts({ kind, axis, logarithmic, rows, panels }) {
  const drawings = panels.map((panel) => {
    const nodes = [kind === "heat" ? heatChart(panel, axis) : linesChart(panel, axis, logarithmic, rows)];
    if (panel.notes.length) nodes.push(el("p", { class: "quiet" }, `${panel.notes.join("; ")}.`));
    return el("div", {}, ...nodes);
  });
  const legend = kind === "heat" ? null : el("ul", { class: "legend" }, ...rows.map((row) => el("li", {}, swatch(row), row.label)));
  return el("div", {}, legend, el("div", { class: "charts wide" }, ...drawings));
}

const gridTip = (square, axis) => `${square.row}${square.column ? `, ${axis ? `${axis} ` : ""}${square.column}` : ""}\n${square.text}`;

function heatChart({ title, measure, rows, columns, squares }, axis) {
  const [known, missing] = [squares.filter((one) => one.mean !== null), squares.filter((one) => one.mean === null)];
  const shade = d3.scaleSequential(d3.extent(known, (one) => one.mean), d3.interpolateCividis);
  const isDark = (one) => d3.lab(shade(one.mean)).l < 50; // where white is read better than black
  const place = { x: "column", y: "row" };
  const text = (some, fill) => Plot.text(some, { ...place, text: (one) => one.lines.join("\n"), fill, fontSize: 11 });
  const slanted = Math.max(...columns.map((column) => column.length)) > 8;
  return chart(
    `${title}: ${measure}`,
    (width) => ({
      marginLeft: named(rows, width).marginLeft,
      marginBottom: slanted ? 80 : 44,
      x: { label: axis || null, domain: columns, tickRotate: slanted ? -35 : 0, tickSize: 0, padding: 0.02 },
      y: { label: null, domain: rows, padding: 0.02 },
      marks: [
        named(rows, width).axis,
        Plot.cell(known, { ...place, fill: (one) => shade(one.mean) }),
        Plot.cell(missing, { ...place, fill: "none", stroke: "currentColor", strokeOpacity: 0.4, strokeDasharray: "3 3" }),
        text(known.filter(isDark), "#ffffff"),
        text(known.filter((one) => !isDark(one)), "#000000"),
        text(missing, "currentColor"),
        Plot.tip(squares, Plot.pointer({ ...place, title: (one) => gridTip(one, axis) })),
      ],
    }),
    { height: 42 * rows.length + (slanted ? 110 : 74) },
  );
}

function linesChart({ title, measure, cost, columns, squares, references }, axis, logarithmic, rows) {
  const found = squares.map((one) => ({ ...one, low: one.mean === null ? null : one.mean - one.spread, high: one.mean === null ? null : one.mean + one.spread }));
  const levels = Object.entries(references).map(([name, mean]) => ({ name, mean }));
  const marks = rows.flatMap((row) => {
    const [own, stroke, symbol] = [found.filter((one) => one.row === row.label), colourOf(row), SYMBOLS[row.mark] ?? "circle"];
    const points = own.filter((one) => one.mean !== null);
    return [
      Plot.areaY(own, { x: "x", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.13 }),
      Plot.lineY(own, { x: "x", y: "mean", stroke, strokeWidth: 2, strokeDasharray: DASHES[row.line] }),
      Plot.dot(points.filter((one) => !one.collapsed), { x: "x", y: "mean", fill: stroke, symbol, r: 4 }),
      Plot.dot(points.filter((one) => one.collapsed), { x: "x", y: "mean", stroke, strokeWidth: 2, fill: "var(--page)", symbol, r: 5 }),
    ];
  });
  return chart(
    title,
    () => ({
      x: { label: axis || null, type: logarithmic ? "log" : "linear", ticks: [...new Set(found.map((one) => one.x))], tickFormat: String, grid: true },
      y: { label: measure, grid: true, nice: true, zero: cost },
      marks: [
        Plot.ruleY(levels, { y: "mean", stroke: "currentColor", strokeOpacity: 0.6, strokeDasharray: "2 3" }),
        Plot.text(levels, { y: "mean", frameAnchor: "right", text: "name", textAnchor: "end", lineAnchor: "bottom", fill: "currentColor", fontSize: 11 }),
        ...marks,
        Plot.tip(found.filter((one) => one.mean !== null), Plot.pointer({ x: "x", y: "mean", title: (one) => gridTip(one, axis) })),
      ],
    }),
    { height: 340 },
  );
}

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

// Which one of the experiments a view shows, with the control to choose another.
async function chosen(useful) {
  const index = await loadIndex();
  const usable = index.experiments.map((one, number) => ({ ...one, number })).filter((one) => useful(one));
  if (!usable.length) return null;
  const wanted = state().options.get("experiment");
  const found = usable.find((one) => one.name === wanted) ?? usable.find((one) => one.kind === "table") ?? usable.find(whole) ?? usable[0];
  const control = choice("Experiment", usable.map((one) => [one.name, one.name === one.title ? one.name : `${one.name}: ${one.title}`]), found.name, (value) => set({ experiment: value, dataset: null, protocol: null, hidden: null, one: null, other: null }));
  return { experiment: await loadExperiment(found.number), control };
}

const NOTHING = () => el("p", {}, "No experiment on this page has any such figures: its runs are not here.");
const whole = (one) => !one.problem;
const options = (values) => values.map((value) => [value, value]);
const pick = (key, values) => (values.includes(state().options.get(key)) ? state().options.get(key) : values[0]);

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

// -- views ----------------------------------------------------------------------------------------

function findings(section) {
  for (const block of section.querySelectorAll("[data-copy]")) {
    block.after(copyButton(block.textContent));
    block.removeAttribute("data-copy");
  }
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        figureOf(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  section.querySelectorAll(".figure:empty").forEach((place) => watcher.observe(place));
}

async function figureOf(place) {
  const index = await loadIndex();
  const number = index.experiments.findIndex((one) => one.name === place.dataset.experiment);
  const experiment = await loadExperiment(number);
  if (experiment.earlier) place.append(el("p", { class: "quiet" }, experiment.earlier));
  if (experiment.kind === "curves") {
    const { dataset, protocol, network } = experiment.drawn;
    place.append(curvesChart(experiment, { dataset, protocol, network }));
  } else if (experiment.grid) {
    place.append(gridCharts(experiment.grid));
  } else if (Object.keys(experiment.seeds).length) {
    place.append(el("div", { class: "charts" }, ...Object.keys(experiment.seeds).map((heading) => seedsChart(experiment, heading))));
  }
}

async function tables() {
  const found = await chosen((one) => true);
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const nodes = [el("div", { class: "controls" }, control)];
  if (experiment.problem) return [...nodes, el("p", { class: "problem" }, experiment.problem)];
  const rows = new Map(experiment.rows.map((row) => [row.label, row]));
  const labels = Object.keys(experiment.cells);
  const columns = [
    { title: "Row", value: (label) => label, cell: (label) => el("span", {}, rows.has(label) ? swatch(rows.get(label)) : "", ` ${label}`) },
    ...experiment.columns.map((heading, place) => ({
      title: heading,
      number: true,
      value: (label) => numberOf(experiment, label, heading, place),
      cell: (label) => figureCell(experiment, label, heading, place),
    })),
    ...experiment.costs.map(({ title, seconds }) => ({ title, number: true, value: (label) => seconds[label], cell: (label) => (label in seconds ? duration(seconds[label]) : "–") })),
  ];
  nodes.push(
    sortable({ caption: `${experiment.title}.${Object.keys(experiment.seeds).length ? " Choose a figure for its seeds and commands." : ""}`, columns, rows: labels, rowClass: (label) => (experiment.ranked.includes(label) ? null : "reference") }),
    el("ul", {}, ...[experiment.earlier ?? [], experiment.notes].flat().map((note) => el("li", {}, note))),
  );
  if (experiment.grid) nodes.push(el("h3", {}, experiment.grid.axis ? `Over ${experiment.grid.axis}` : "Over both axes"), gridCharts(experiment.grid));
  if (Object.keys(experiment.seeds).length) {
    nodes.push(el("h3", {}, "Every seed"), el("p", { class: "quiet" }, "A dot is a run, the bar their mean."));
    nodes.push(el("div", { class: "charts" }, ...Object.keys(experiment.seeds).map((heading) => seedsChart(experiment, heading))));
  }
  return nodes;
}

function numberOf(experiment, label, heading, place) {
  const values = Object.values(experiment.seeds[heading]?.[label] ?? {});
  if (values.length) return d3.mean(values);
  const found = parseFloat(experiment.cells[label][place].text);
  return Number.isNaN(found) ? null : found;
}

function figureCell(experiment, label, heading, place) {
  const { text, bold } = experiment.cells[label][place];
  const seeds = experiment.seeds[heading]?.[label];
  const style = bold ? "best" : text.includes("†") ? "apart" : null;
  if (!seeds || !Object.keys(seeds).length) return el("span", { class: style }, text);
  return el("button", { type: "button", class: style, click: () => openFigure(experiment, label, heading, text) }, text);
}

// By which code a run was made, and for how long it trained.
function made(index, line) {
  const [code, seconds, ofCore] = ["code", "seconds", "core_seconds"].map((name) => line[index.fields.indexOf(name)]);
  return [`code ${code}`, ...(seconds ? [`${duration(seconds)} of training`] : []), ...(ofCore ? [`${duration(ofCore)} on one core`] : [])];
}

async function openFigure(experiment, label, heading, text) {
  const [dataset, protocol] = [heading.slice(0, heading.lastIndexOf(", ")), heading.slice(heading.lastIndexOf(", ") + 2)];
  const index = await loadIndex();
  const seeds = experiment.seeds[heading][label];
  const nodes = [el("p", {}, `${heading}: ${text}`)];
  const own = experiment.runs.filter((run) => run.dataset === dataset && run.row === label);
  if (!own.length) {
    nodes.push(el("p", {}, "The mean over all runs of a seed; every run measures it."));
    nodes.push(el("ul", {}, ...Object.entries(seeds).map(([seed, value]) => el("li", {}, `seed ${seed}: ${value.toFixed(2)} %`))));
  }
  for (const run of own) {
    const line = index.runs.find((one) => one[0] === run.run);
    const { protocols } = await loadRun(run.run);
    nodes.push(
      el("h3", {}, `Seed ${run.seed}: ${seeds[run.seed]?.toFixed(2) ?? "–"} % `, el("button", { type: "button", click: () => openRun(run.run) }, `Run ${run.run}`)),
      el("p", { class: "quiet" }, [`${protocol} v${protocols[protocol]}`, ...made(index, line)].join(", ")),
      commandBlock(run.command),
    );
  }
  openDialog(label, nodes);
}

async function curves() {
  const found = await chosen((one) => whole(one));
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const distinct = (key, lines = experiment.curves) => [...new Set(lines.map((line) => line[key]))];
  if (!experiment.curves.length) return [el("div", { class: "controls" }, control), el("p", {}, "Its runs recorded no curves of test images.")];
  const { drawn: preferred = {} } = experiment;
  const first = (key, values) => (state().options.has(key) ? pick(key, values) : values.includes(preferred[key]) ? preferred[key] : values[0]);
  const dataset = first("dataset", distinct("dataset"));
  const protocol = first("protocol", distinct("protocol"));
  const networks = distinct("network", experiment.curves.filter((line) => line.dataset === dataset));
  if (networks.includes("student") && networks.includes("teacher")) networks.push("both");
  const network = first("network", networks);
  const hidden = hiddenRows();
  const rows = experiment.rows.filter((row) => experiment.curves.some((line) => line.row === row.label));
  const described = { deployed: "the one that is deployed", both: "student (dotted) and teacher" };
  const visible = experiment.curves.filter((line) => line.dataset === dataset && line.protocol === protocol && (network === "both" ? line.network !== "deployed" : line.network === network) && !hidden.has(line.row));
  return [
    el(
      "div",
      { class: "controls" },
      control,
      choice("Dataset", options(distinct("dataset")), dataset, (value) => set({ dataset: value })),
      choice("Protocol", options(distinct("protocol")), protocol, (value) => set({ protocol: value })),
      choice("Network", networks.map((name) => [name, described[name] ?? name]), network, (value) => set({ network: value })),
    ),
    toggles(rows, hidden),
    curvesChart(experiment, { dataset, protocol, network, hidden }),
    el("p", { class: "quiet" }, "Lines are means over seeds, bands ± one standard deviation (lowest to highest of two seeds)."),
    sortable({
      caption: "Where the lines end",
      rows: visible,
      columns: [
        { title: "Row", value: (line) => line.row },
        { title: "Network", value: (line) => line.network },
        { title: "Epoch", number: true, value: (line) => line.points.at(-1)[0] },
        { title: "% of test images", number: true, value: (line) => line.points.at(-1)[1], cell: (line) => percent(line.points.at(-1)[1]) },
        { title: "Band", number: true, value: (line) => line.points.at(-1)[3] - line.points.at(-1)[2], cell: (line) => `${percent(line.points.at(-1)[2])}–${percent(line.points.at(-1)[3])}` },
        { title: "Seeds", number: true, value: (line) => line.seeds },
      ],
    }),
  ];
}

const COSTS = [
  ["seconds", "seconds of training"],
  ["core_seconds", "seconds that one core computed"],
  ["images", "images seen in training"],
];

async function cost() {
  const [found, index] = [await chosen((one) => whole(one)), await loadIndex()];
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const field = (name) => index.fields.indexOf(name);
  const named = new Map(index.runs.map((run) => [run[0], run]));
  const runs = experiment.runs.filter((run) => named.has(run.run)).map((run) => ({ ...run, values: named.get(run.run) }));
  const datasets = [...new Set(runs.map((run) => run.dataset))];
  const dataset = pick("dataset", datasets);
  const protocol = pick("protocol", index.protocols);
  const costs = COSTS.filter(([name]) => runs.some((run) => run.values[field(name)]));
  if (!costs.length) return [el("div", { class: "controls" }, control), el("p", {}, "Its runs did not record what they cost.")];
  const by = pick("by", costs.map(([name]) => name));
  const hidden = hiddenRows();
  const rows = new Map(experiment.rows.map((row) => [row.label, row]));
  const points = runs
    .filter((run) => run.dataset === dataset && !hidden.has(run.row))
    .map((run) => ({ row: run.row, seed: run.seed, run: run.run, x: run.values[field(by)], y: run.values[field(protocol)] }))
    .filter((point) => point.x && point.y !== null && point.y !== undefined);
  const label = COSTS.find(([name]) => name === by)[1];
  const drawing = chart(
    `${dataset}, ${protocol} against ${label}`,
    () => ({
      x: { label, type: "log", grid: true, ticks: 5, tickFormat: "~s" },
      y: { label: "% of test images", grid: true, nice: true },
      marks: [
        ...[...new Set(points.map((point) => point.row))].map((row) =>
          Plot.dot(points.filter((point) => point.row === row), { x: "x", y: "y", stroke: colourOf(rows.get(row)), fill: colourOf(rows.get(row)), fillOpacity: 0.5, symbol: SYMBOLS[rows.get(row).mark] ?? "circle", r: 5 }),
        ),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (p) => `${p.row}, seed ${p.seed}\n${p.y.toFixed(1)} %, ${d3.format(".3s")(p.x)} ${label}` })),
      ],
    }),
    { height: 420 },
  );
  return [
    el(
      "div",
      { class: "controls" },
      control,
      choice("Dataset", options(datasets), dataset, (value) => set({ dataset: value })),
      choice("Protocol", options(index.protocols), protocol, (value) => set({ protocol: value })),
      choice("Against", costs, by, (value) => set({ by: value })),
    ),
    toggles(experiment.rows, hidden),
    drawing,
    el("p", { class: "quiet" }, "A mark is a run, of the network that its method deploys. Seconds depend on the machine and on what else it did."),
    sortable({
      caption: `Every run on ${dataset}`,
      rows: points,
      columns: [
        { title: "Row", value: (point) => point.row },
        { title: "Seed", number: true, value: (point) => point.seed },
        { title: `${protocol}, %`, number: true, value: (point) => point.y, cell: (point) => percent(point.y) },
        { title: label, number: true, value: (point) => point.x, cell: (point) => d3.format(",.0f")(point.x) },
        { title: "Run", value: (point) => point.run, cell: (point) => el("button", { type: "button", click: () => openRun(point.run) }, point.run) },
      ],
    }),
  ];
}

async function compare() {
  const found = await chosen((one) => whole(one));
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const labels = experiment.rows.map((row) => row.label);
  if (labels.length < 2) return [el("div", { class: "controls" }, control), el("p", {}, "There are no two rows to compare.")];
  const one = pick("one", labels);
  const other = pick("other", labels.filter((label) => label !== one));
  const points = experiment.differences
    .filter(({ rows }) => rows.includes(one) && rows.includes(other))
    .map((found) => ({ ...found, mean: found.rows[0] === one ? found.mean : -found.mean }))
    .map((found) => ({ ...found, low: found.mean - found.half, high: found.mean + found.half }));
  const nodes = [
    el(
      "div",
      { class: "controls" },
      control,
      choice("Row", options(labels), one, (value) => set({ one: value })),
      choice("minus row", options(labels.filter((label) => label !== one)), other, (value) => set({ other: value })),
    ),
  ];
  if (!points.length) {
    nodes.push(el("p", {}, "These two have no three seeds in common, so their difference is not measured."));
  } else {
    nodes.push(
      chart(
        `${one} minus ${other}: points of accuracy`,
        (width) => ({
          marginLeft: named(points.map((point) => point.column), width).marginLeft,
          x: { label: "points, with the 95 % interval", grid: true, ticks: 5 },
          y: { label: null, domain: points.map((point) => point.column), type: "point" },
          marks: [
            named(points.map((point) => point.column), width).axis,
            Plot.ruleX([0], { stroke: "currentColor" }),
            Plot.ruleY(points, { x1: "low", x2: "high", y: "column", strokeWidth: 2 }),
            Plot.dot(points, { x: "mean", y: "column", fill: "currentColor", r: 5 }),
            Plot.tip(points, Plot.pointer({ x: "mean", y: "column", title: (p) => `${p.column}\n${signed(p.mean)} points (${signed(p.low)} to ${signed(p.high)}), ${p.seeds} seeds` })),
          ],
        }),
        { height: 34 * points.length + 60 },
      ),
      el("p", { class: "quiet" }, "Paired by seed. An interval is of one difference alone: of twenty such, one leaves out the true difference by chance. The marks of a table are corrected for that."),
      sortable({
        caption: `${one} minus ${other}`,
        rows: points,
        columns: [
          { title: "Column", value: (point) => point.column },
          { title: "Points", number: true, value: (point) => point.mean, cell: (point) => signed(point.mean) },
          { title: "95 % interval", number: true, value: (point) => point.low, cell: (point) => `${signed(point.low)} to ${signed(point.high)}` },
          { title: "Seeds", number: true, value: (point) => point.seeds },
        ],
      }),
    );
  }
  return [...nodes, ...(await comparedImages(experiment, one, other))];
}

// -- single images: of runs in runs_dir, where the page was made with images= ---------------------

const NO_IMAGES = "This page was made without images. They need runs of one's own: images=300 shows what these predict and see, as committed records hold neither predictions nor encoders.";

// The run of a row whose images are shown, on each dataset.
function runsWithImages(index, experiment, row, what) {
  return experiment.runs.filter((run) => run.row === row && index.images?.runs[run.run]?.[what]).map((run) => ({ ...run, ...index.images.runs[run.run] }));
}

function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Array.from(new Uint16Array(bytes.buffer));
}

const className = (set, number) => set.classes[number] ?? (number === 65535 || number < 0 ? "no class" : `class ${number}`);

function thumbnail(set, place, scale = Math.max(1, Math.round(64 / set.side))) {
  const node = el("span", { class: "thumbnail", role: "img", "aria-label": className(set, set.labels[place]) });
  const side = set.side * scale;
  const lines = Math.ceil(set.rows.length / set.across);
  Object.assign(node.style, {
    width: `${side}px`,
    height: `${side}px`,
    backgroundImage: `url("data/${set.picture}")`,
    backgroundSize: `${side * Math.min(set.across, set.rows.length)}px ${side * lines}px`,
    backgroundPosition: `-${side * (place % set.across)}px -${side * Math.floor(place / set.across)}px`,
  });
  return node;
}

async function comparedImages(experiment, one, other) {
  const index = await loadIndex();
  const heading = el("h3", {}, "Image by image");
  if (!index.images) return [heading, el("p", {}, NO_IMAGES)];
  const pairs = runsWithImages(index, experiment, one, "predictions").flatMap((first) =>
    runsWithImages(index, experiment, other, "predictions").filter((second) => second.dataset === first.dataset).map((second) => [first, second]),
  );
  if (!pairs.length) return [heading, el("p", {}, "There are no predictions of both on the same images: committed records hold none, and runs in runs_dir leave predictions.npz.")];
  const nodes = [heading];
  for (const [first, second] of pairs) {
    const pictures = index.images.datasets[first.dataset];
    const [mine, theirs] = [await load(`p${first.run}`), await load(`p${second.run}`)];
    const network = (run) => index.runs.find((row) => row[0] === run.run)[index.fields.indexOf("network")];
    const shared = index.protocols.filter((name) => mine[`${network(first)}/${name}`] && theirs[`${network(second)}/${name}`]);
    if (!shared.length) continue;
    const protocol = pick("protocol", shared);
    const labels = unpacked(mine.labels);
    const guesses = [unpacked(mine[`${network(first)}/${protocol}`]), unpacked(theirs[`${network(second)}/${protocol}`])];
    const right = guesses.map((guess) => guess.map((value, image) => value === labels[image]));
    const count = (a, b) => labels.filter((_, image) => right[0][image] === a && right[1][image] === b).length;
    nodes.push(
      el("h4", {}, `${pictures.name}, ${protocol}: seeds ${first.seed} and ${second.seed}`),
      shared.length > 1 ? el("div", { class: "controls" }, choice("Protocol", options(shared), protocol, (value) => set({ protocol: value }))) : null,
      el("p", {}, `Of ${labels.length} test images both get ${count(true, true)} right, ${one} alone ${count(true, false)}, ${other} alone ${count(false, true)}, neither ${count(false, false)}.`),
      ...[0, 1].flatMap((side) => {
        const places = pictures.rows.map((image, place) => ({ image, place })).filter(({ image }) => right[side][image] && !right[1 - side][image]);
        const names = side ? [other, one] : [one, other];
        return [
          el("p", { class: "quiet" }, `${names[0]} is right and ${names[1]} wrong: ${places.length} of the ${pictures.rows.length} images that are shown here.`),
          el("ul", { class: "thumbnails" }, ...places.slice(0, 40).map(({ image, place }) => el("li", {}, thumbnail(pictures, place), `${className(pictures, labels[image])}, taken for ${className(pictures, guesses[1 - side][image])}`))),
        ];
      }),
      confusions(pictures, labels, guesses, [one, other]),
    );
  }
  return nodes.filter((node) => node !== null);
}

function confusions(set, labels, guesses, names) {
  const pairs = new Map();
  labels.forEach((label, image) =>
    guesses.forEach((guess, side) => {
      if (guess[image] === label) return;
      const key = `${label} ${guess[image]}`;
      if (!pairs.has(key)) pairs.set(key, { label, guess: guess[image], counts: [0, 0] });
      pairs.get(key).counts[side]++;
    }),
  );
  return sortable({
    caption: "Confusions: how many images of a class each takes for another",
    rows: [...pairs.values()],
    limit: 15,
    sort: 2,
    columns: [
      { title: "Class", value: (pair) => className(set, pair.label) },
      { title: "taken for", value: (pair) => className(set, pair.guess) },
      ...names.map((name, side) => ({ title: name, number: true, value: (pair) => pair.counts[side] })),
    ],
  });
}

async function images() {
  const index = await loadIndex();
  if (!index.images) return [el("p", {}, NO_IMAGES)];
  const found = await chosen((one) => whole(one));
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const nodes = [el("div", { class: "controls" }, control)];
  if (index.images.left_out.length) {
    nodes.push(el("details", { class: "problem" }, el("summary", {}, `Of ${index.images.left_out.length} runs no images can be shown`), el("ul", {}, ...index.images.left_out.map((text) => el("li", {}, text)))));
  }
  const rows = experiment.rows.map((row) => ({ ...row, runs: runsWithImages(index, experiment, row.label, "features") })).filter((row) => row.runs.length);
  const datasets = [...new Set(rows.flatMap((row) => row.runs.map((run) => run.dataset)))];
  if (!datasets.length) return [...nodes, el("p", {}, "None of its runs is in runs_dir with an encoder.")];
  const number = Number(pick("dataset", datasets.map(String)));
  const pictures = index.images.datasets[number];
  const here = rows.map((row) => ({ ...row, run: row.runs.find((run) => run.dataset === number) })).filter((row) => row.run);
  const label = pick("row", here.map((row) => row.label));
  const row = here.find((one) => one.label === label);
  const shown = await load(row.run.file);
  const image = Math.min(Number(state().options.get("image") ?? 0), pictures.rows.length - 1);
  nodes[0].append(
    choice("Dataset", datasets.map((value) => [String(value), index.images.datasets[value].name]), number, (value) => set({ dataset: value, image: null })),
    choice("Row", options(here.map((one) => one.label)), label, (value) => set({ row: value })),
    choice("Image", pictures.rows.map((at, place) => [String(place), `${at}: ${className(pictures, pictures.labels[place])}`]), image, (value) => set({ image: value })),
  );
  const points = shown.plane.map(([x, y], place) => ({ x, y, place, name: className(pictures, pictures.labels[place]) }));
  const under = el("div", { class: "under" }, thumbnail(pictures, image), el("span", {}, className(pictures, pictures.labels[image])));
  const plane = chart(`${pictures.name} as ${label} (seed ${row.run.seed}) sees it: t-SNE of ${points.length} test images`, () => ({
    axis: null,
    color: { type: "categorical", domain: [...new Set(points.map((p) => p.name))].sort(), scheme: "tableau10", legend: true },
    marks: [
      Plot.dot(points, { x: "x", y: "y", fill: "name", r: 4, stroke: (p) => (p.place === image ? "currentColor" : "none"), strokeWidth: 2 }),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "name" })),
    ],
  }), { height: 460 });
  plane.addEventListener("input", (event) => {
    const point = event.target.value;
    if (point) under.replaceChildren(thumbnail(pictures, point.place), el("span", {}, point.name));
  });
  plane.addEventListener("click", (event) => {
    const point = event.target.closest(".chart")?.firstChild?.value;
    if (point) set({ image: point.place });
  });
  nodes.push(plane, el("p", { class: "quiet" }, "Under the pointer, or chosen above:"), under, el("h3", {}, `Nearest neighbours of image ${pictures.rows[image]}, ${className(pictures, pictures.labels[image])}`));
  for (const one of here) {
    const { near } = await load(one.run.file);
    nodes.push(el("h4", {}, swatch(one), ` ${one.label}`), el("ul", { class: "thumbnails" }, ...near[image].map((place) => el("li", {}, thumbnail(pictures, place), className(pictures, pictures.labels[place])))));
  }
  nodes.push(
    el("h3", {}, "The views that training draws"),
    ...pictures.views.map((one) => el("img", { src: `data/${one.picture}`, class: "views", alt: `Images of ${pictures.name}, each beside the views that ${one.method} trains on` })),
  );
  return nodes;
}

// -- every run ------------------------------------------------------------------------------------

const TITLES = { run: "Run", batch: "Batch", seconds: "Seconds", core_seconds: "Core seconds", images: "Images seen", committed: "Origin" };
const TEXTS = ["run", "method", "dataset", "scale", "network", "backbone", "code", "committed"];

async function runs() {
  const index = await loadIndex();
  const { options: given } = state();
  const place = (name) => index.fields.indexOf(name);
  const filters = ["method", "dataset", "scale"];
  const matching = () =>
    index.runs.filter((run) => {
      const query = (state().options.get("text") ?? "").toLowerCase();
      const chosenOnes = filters.every((name) => !state().options.has(name) || String(run[place(name)]) === state().options.get(name));
      return chosenOnes && (!query || run.some((value) => String(value).toLowerCase().includes(query)));
    });
  const columns = index.fields.map((name, number) => ({
    title: TITLES[name] ?? name[0].toUpperCase() + name.slice(1),
    number: !TEXTS.includes(name),
    value: (run) => (name === "committed" ? (run[number] ? "committed" : "own") : run[number]),
  }));
  columns[0].cell = (run) => el("button", { type: "button", click: () => openRun(run[0]) }, run[0]);
  index.protocols.forEach((name) => (columns[place(name)].cell = (run) => percent(run[place(name)])));
  for (const name of ["seconds", "core_seconds", "images"]) {
    columns[place(name)].cell = (run) => (run[place(name)] === null ? "–" : d3.format(",.0f")(run[place(name)]));
  }
  const list = el("div");
  const text = el("input", { type: "search", value: given.get("text") ?? "", input: () => (keep({ text: text.value }), fill()) });

  function keep(changes) {
    const { options: now } = state();
    for (const [key, value] of Object.entries(changes)) value ? now.set(key, value) : now.delete(key);
    history.replaceState(null, "", `#runs${now.size ? `?${now}` : ""}`);
  }

  function fill() {
    const found = matching();
    list.replaceChildren(sortable({ caption: `${found.length} of ${index.runs.length} runs; accuracy in % of test images, of the network that the method deploys`, columns, rows: found }));
    announce(`${found.length} of ${index.runs.length} runs.`);
  }

  const selects = filters.map((name) => {
    const values = [...new Set(index.runs.map((run) => String(run[place(name)])))].sort();
    return choice(TITLES[name] ?? name[0].toUpperCase() + name.slice(1), [["", "all"], ...options(values)], given.get(name) ?? "", (value) => (keep({ [name]: value }), fill()));
  });
  fill();
  const nodes = [el("div", { class: "controls" }, el("label", {}, "Contains", text), ...selects), list];
  if (index.skipped.length) {
    nodes.unshift(
      el(
        "details",
        { class: "problem" },
        el("summary", {}, `${index.skipped.length} ${index.skipped.length === 1 ? "file was" : "files were"} no record and left out`),
        el("ul", {}, ...index.skipped.map((sentence) => el("li", {}, sentence))),
      ),
    );
  }
  return nodes;
}

function openDialog(title, nodes) {
  document.getElementById("details-title").textContent = title;
  document.getElementById("details-body").replaceChildren(...nodes);
  const dialog = document.getElementById("details");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

const shownValue = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "–");

async function openRun(name) {
  const [index, run] = [await loadIndex(), await loadRun(name)];
  const own = index.runs.find((one) => one[0] === name);
  const [method, dataset, scale, seed] = own.slice(1, 5);
  const settings = el("div");
  const others = index.runs.filter((one) => one[0] !== name).slice(0, 2000);
  const list = el("datalist", { id: "other-runs" }, ...others.map((one) => el("option", { value: one[0] }, one.slice(1, 5).join(", "))));
  const field = el("input", { list: "other-runs", placeholder: "name of a run", input: fill, spellcheck: "false" });

  async function fill() {
    const known = index.runs.find((one) => one[0] === field.value.trim());
    const other = known ? await loadRun(known[0]) : null;
    const keys = [...new Set([...Object.keys(run.config), ...Object.keys(other?.config ?? {})])];
    const differs = (key) => JSON.stringify(run.config[key]) !== JSON.stringify(other.config[key]);
    const columns = [
      { title: "Option", value: (key) => key },
      { title: name, value: (key) => shownValue(run.config[key]) },
    ];
    if (other) columns.push({ title: known[0], value: (key) => shownValue(other.config[key]) });
    const rows = other ? keys.filter(differs) : keys;
    settings.replaceChildren(sortable({ caption: other ? `${rows.length} options differ from ${known[0]} (${known.slice(1, 5).join(", ")})` : "Configuration", columns, rows, limit: 500 }));
  }

  await fill();
  const accuracies = Object.entries(run.results).map(([network, scores]) => ({ network, scores }));
  openDialog(`Run ${name}`, [
    el("p", {}, `${method} on ${dataset}, scale ${scale}, seed ${seed}; ${made(index, own).join(", ")}`),
    commandBlock(run.command),
    ...(run.warnings.length ? [el("p", { class: "problem" }, run.warnings.join(" "))] : []),
    sortable({
      caption: "% of test images",
      rows: accuracies,
      columns: [{ title: "Network", value: (one) => one.network }, ...Object.keys(run.protocols).map((protocol) => ({ title: `${protocol} v${run.protocols[protocol]}`, number: true, value: (one) => one.scores[protocol], cell: (one) => percent(one.scores[protocol]) }))],
    }),
    el("div", { class: "controls" }, el("label", {}, "Show what differs from", field), list),
    settings,
    el("details", {}, el("summary", {}, "Code, machine and images"), el("pre", {}, JSON.stringify({ code: run.code, environment: run.environment, images: run.images }, null, 1))),
  ]);
}

// -- which view is shown --------------------------------------------------------------------------

const VIEWS = { findings: null, tables, curves, cost, compare, images, runs };
let turn = 0;

async function show() {
  const mine = ++turn;
  const { view } = state();
  if (view.startsWith("finding-")) return findings(document.querySelector("[data-view=findings]"));
  const name = view in VIEWS ? view : "findings";
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.dataset.view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const section = document.querySelector(`[data-view=${name}]`);
  if (name === "findings") return findings(section);
  const place = section.querySelector(".view");
  let nodes;
  try {
    nodes = await VIEWS[name]();
  } catch (error) {
    nodes = [el("p", { class: "problem" }, error.message)];
  }
  if (mine !== turn) return; // another view was asked for in the meantime
  const held = document.activeElement?.closest("label, .toggles button")?.textContent;
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
