"use strict";
// Charts, drawn by Observable Plot once they come near, and again where width or colours change.

const drawn = new Set();

// A group without a role may have no label: what a mark is goes where style sheets and tests find it.
function unlabelled(svg) {
  for (const group of svg.querySelectorAll("g[aria-label]")) {
    group.dataset.mark = group.getAttribute("aria-label");
    group.removeAttribute("aria-label");
  }
}

// height: in pixels, or what makes them of the width
function chart(title, options, { height, caption = true }) {
  const heightAt = typeof height === "number" ? () => height : height;
  const place = el("div", { class: "chart" });
  const figure = el("figure", {}, caption ? el("figcaption", {}, title) : null, place);
  function draw() {
    const width = Math.max(240, Math.floor(place.clientWidth || figure.parentElement?.clientWidth || 640));
    const plot = Plot.plot({ width, height: heightAt(width), style: { fontSize: "12px" }, ariaLabel: title, marginBottom: 44, ...options(width) });
    const svg = plot.matches("svg") ? plot : [...plot.querySelectorAll("svg")].at(-1); // after those of the legend
    svg.setAttribute("role", "img"); // whose title says it all; the figures stand in a table
    unlabelled(svg);
    new MutationObserver(() => unlabelled(svg)).observe(svg, { childList: true, subtree: true }); // tips come and go
    place.replaceChildren(plot);
  }
  let [near, lastWidth] = [false, 0];
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (!width || width === lastWidth) return;
    lastWidth = width;
    place.style.minHeight = `${heightAt(width)}px`;
    if (near) draw();
  }).observe(place);
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    near = true;
    draw();
  }, { rootMargin: "300px" });
  watcher.observe(place);
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

const LETTER = 7; // pixels, of the widest text of a chart
const LINE = 14;

// In lines of so many letters, words that are longer cut into such.
function wrap(label, letters) {
  const lines = [];
  for (const word of label.split(" ").flatMap((word) => d3.range(0, word.length, letters).map((from) => word.slice(from, from + letters)))) {
    if (lines.length && lines.at(-1).length + 1 + word.length <= letters) lines.push(`${lines.pop()} ${word}`);
    else lines.push(word);
  }
  return lines;
}

// Names at the left, as wide as they need up to a share of the chart and in as many lines, which make a row so high.
function named(labels, width) {
  const wrapped = new Map(labels.map((label) => [label, wrap(label, Math.floor((width / 2.4 - 16) / LETTER))]));
  const marginLeft = LETTER * d3.max([...wrapped.values()].flat(), (line) => line.length) + 16;
  const high = LINE * d3.max(wrapped.values(), (lines) => lines.length) + 6;
  return { marginLeft, high, axis: Plot.axisY({ label: null, tickSize: 0, text: (label) => wrapped.get(label).join("\n") }) };
}

// A regular polygon of this area, whose first corner is at this part of a turn, clockwise from the right.
const polygon = (corners, first) => ({
  draw(context, size) {
    const radius = Math.sqrt((2 * size) / (corners * Math.sin((2 * Math.PI) / corners)));
    for (const corner of d3.range(corners)) {
      const angle = 2 * Math.PI * (first + corner / corners);
      context[corner ? "lineTo" : "moveTo"](radius * Math.cos(angle), radius * Math.sin(angle));
    }
    context.closePath();
  },
});

// As report draws Matplotlib's marks: of Plot's own several look alike. What is a stroke alone, X, needs one.
const SYMBOLS = { "*": d3.symbolStar, o: d3.symbolCircle, s: d3.symbolSquare, "^": polygon(3, -1 / 4), D: polygon(4, 0), v: polygon(3, 1 / 4), P: d3.symbolCross, X: d3.symbolTimes, "<": polygon(3, 1 / 2), ">": polygon(3, 0), h: polygon(6, 1 / 4), d: d3.symbolDiamond };
const DASHES = { solid: null, dashed: "6 3", mixed: "7 3 2 3", dotted: "2 3", long: "11 3" };

// A row's line and mark, in the colour that the style sheet takes for the page.
function swatch({ colours, line, mark }) {
  const node = d3.create("svg:svg").attr("class", "swatch").attr("viewBox", "-15 -7 30 14").attr("aria-hidden", true);
  for (const [page, colour] of Object.entries(colours)) node.style(`--${page}`, colour);
  node.append("line").attr("x1", -15).attr("x2", 15).attr("stroke-dasharray", DASHES[line]);
  node.append("path").attr("d", d3.symbol(SYMBOLS[mark], 50)());
  return node.node();
}

const legend = (rows) => el("ul", { class: "legend" }, ...rows.map((row) => el("li", {}, swatch(row), row.label)));

// Rows that look in a table as in its charts: places of a grid, which are drawn as rows of its own, do not.
const drawnRows = (experiment) => new Map(experiment.grid ? [] : experiment.rows.map((row) => [row.label, row]));

function seedsChart(experiment, heading) {
  const seeds = experiment.seeds[heading];
  const order = Object.keys(experiment.cells).filter((label) => Object.keys(seeds[label] ?? {}).length);
  const rows = drawnRows(experiment);
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
        Plot.dot(points, { x: "value", y: "row", fill: colour, fillOpacity: 0.75, stroke: colour, r: 4 }),
        Plot.tip(points, Plot.pointer({ x: "value", y: "row", title: (p) => `${p.row}, seed ${p.seed}: ${p.value.toFixed(2)} %` })),
      ],
    }),
    { height: (width) => named(order, width).high * order.length + 60 },
  );
}

const NONE = () => el("p", {}, "Nothing is chosen.");

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
      Plot.dot(own.filter((_, number) => number % every === 0), { x: "epoch", y: "mean", fill: stroke, stroke, symbol: SYMBOLS[rows.get(line.row).mark], r: 3.5 }),
    ];
  });
  if (!points.length) return NONE();
  const tip = (p) => `${p.name}\nepoch ${p.epoch}: ${p.mean.toFixed(1)} % (${p.low.toFixed(1)}–${p.high.toFixed(1)}, ${p.seeds} ${p.seeds === 1 ? "seed" : "seeds"})`;
  return chart(
    `${dataset}, ${protocol}`,
    (width) => ({
      x: { label: experiment.epochs, grid: true, inset: 6, tickFormat: String, ticks: d3.ticks(...d3.extent(points, (point) => point.epoch), width / 80).filter(Number.isInteger) },
      y: { label: "% of test images", grid: true, nice: true, inset: 6 },
      marks: [...marks, Plot.tip(points, Plot.pointer({ x: "epoch", y: "mean", title: tip }))],
    }),
    { height: 420 },
  );
}

// A heat map or lines over an option, for every panel of a table over two axes.
function gridCharts({ kind, axis, logarithmic, rows, panels }) {
  const drawings = panels.map((panel) => {
    const alike = panels.filter((other) => String(other.kind) === String(panel.kind)); // they differ in their accounting alone
    const nodes = [kind === "heat" ? heatChart(panel, axis, alike) : linesChart(panel, axis, logarithmic, rows)];
    if (panel.notes.length) nodes.push(el("p", { class: "quiet" }, `${panel.notes.join("; ")}.`));
    return el("div", {}, ...nodes);
  });
  return el("div", {}, kind === "heat" ? null : legend(rows), el("div", { class: "charts wide" }, ...drawings));
}

const gridTip = (square, axis) => `${square.row}${square.column ? `, ${axis ? `${axis} ` : ""}${square.column}` : ""}\n${square.text}`;

function heatChart({ title, measure, rows, columns, squares, levels_in_words }, axis, alike) {
  const [known, missing] = [squares.filter((one) => one.mean !== null), squares.filter((one) => one.mean === null)];
  const shade = d3.scaleSequential(d3.extent(alike.flatMap((panel) => panel.squares), (one) => one.mean ?? undefined), d3.interpolateCividis);
  const isDark = (one) => d3.lab(shade(one.mean)).l < 50; // where white is read better than black
  const place = { x: "column", y: "row" };
  const text = (some, fill) => Plot.text(some, { ...place, text: (one) => one.lines.join("\n"), fill, fontSize: 11 });
  // Names below stand straight where they fit, else upright.
  const longest = LETTER * d3.max(columns, (column) => column.length);
  const fits = (width) => longest + LETTER <= (width - named(rows, width).marginLeft - 20) / columns.length;
  const bottom = (width) => (fits(width) ? 44 : longest + 34);
  return chart(
    [`${title}: ${measure}`, levels_in_words].filter(Boolean).join("; "),
    (width) => ({
      marginLeft: named(rows, width).marginLeft,
      marginBottom: bottom(width),
      x: { label: axis || null, domain: columns, tickRotate: fits(width) ? 0 : -90, tickSize: 0, padding: 0.02 },
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
    { height: (width) => Math.max(42, named(rows, width).high) * rows.length + bottom(width) + 30 },
  );
}

function linesChart({ title, measure, cost, squares, levels }, axis, logarithmic, rows) {
  const found = squares.map((one) => ({ ...one, low: one.mean === null ? null : one.mean - one.spread, high: one.mean === null ? null : one.mean + one.spread }));
  const xs = [...new Set(found.map((one) => one.x))];
  const baselines = Object.entries(levels).flatMap(([name, means]) => means.map((mean, number) => ({ name, mean, x: xs[number] })));
  const ends = Object.keys(levels).map((name) => baselines.findLast((one) => one.name === name && one.mean !== null));
  const marks = rows.flatMap((row) => {
    const [own, stroke, symbol] = [found.filter((one) => one.row === row.label), colourOf(row), SYMBOLS[row.mark]];
    const points = own.filter((one) => one.mean !== null);
    return [
      Plot.areaY(own, { x: "x", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.13 }),
      Plot.lineY(own, { x: "x", y: "mean", stroke, strokeWidth: 2, strokeDasharray: DASHES[row.line] }),
      Plot.dot(points.filter((one) => !one.collapsed), { x: "x", y: "mean", fill: stroke, stroke, symbol, r: 4 }),
      Plot.dot(points.filter((one) => one.collapsed), { x: "x", y: "mean", stroke, strokeWidth: 2, fill: "var(--page)", symbol, r: 5 }),
    ];
  });
  return chart(
    title,
    () => ({
      x: { label: axis || null, type: logarithmic ? "log" : "linear", inset: 6 },
      y: { label: measure, grid: true, nice: true, zero: cost, inset: cost ? 0 : 6 },
      marks: [
        Plot.gridX(xs),
        Plot.axisX(xs, { text: String }), // a logarithmic axis would leave some of them out
        Plot.lineY(baselines, { x: "x", y: "mean", z: "name", stroke: "currentColor", strokeOpacity: 0.6, strokeDasharray: "2 3" }),
        Plot.text(ends, { y: "mean", frameAnchor: "right", text: "name", textAnchor: "end", lineAnchor: "bottom", dy: -3, fill: "currentColor", fontSize: 11 }),
        ...marks,
        Plot.tip(found.filter((one) => one.mean !== null), Plot.pointer({ x: "x", y: "mean", title: (one) => gridTip(one, axis) })),
      ],
    }),
    { height: 340 },
  );
}
