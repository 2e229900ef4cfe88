"use strict";
// Findings, tables, curves, cost, and two methods beside each other.

let figures = null; // all of them, for print, and so that a link to a finding leads to it

function findings(section) {
  for (const block of section.querySelectorAll("[data-copy]")) {
    block.after(copyButton(block.textContent));
    block.removeAttribute("data-copy");
  }
  for (const cell of section.querySelectorAll("td:first-child")) {
    const id = `finding-${cell.textContent}`;
    if (!cell.querySelector("a") && document.getElementById(id)) cell.replaceChildren(el("a", { href: `#${id}` }, ...cell.childNodes));
  }
  figures ??= Promise.all([...section.querySelectorAll(".figure")].map(figureOf));
  return figures;
}

async function figureOf(place) {
  const index = await loadIndex();
  const number = index.experiments.findIndex((one) => one.name === place.dataset.experiment);
  const experiment = await loadExperiment(number);
  if (experiment.earlier) place.append(el("p", { class: "quiet" }, experiment.earlier));
  if (experiment.kind === "curves") {
    const { dataset, protocol, network } = experiment.drawn;
    place.append(legend(experiment.rows), curvesChart(experiment, { dataset, protocol, network }));
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
  const rows = drawnRows(experiment);
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
  const found = await chosen((one) => whole(one), "curves");
  if (!found) return [NOTHING()];
  const { experiment, control } = found;
  const distinct = (key, lines = experiment.curves) => [...new Set(lines.map((line) => line[key]))];
  if (!experiment.curves.length) return [el("div", { class: "controls" }, control), el("p", {}, "Its runs recorded no curves of test images.")];
  const { drawn: preferred = {} } = experiment;
  const first = (key, values) => pick(key, values, values.includes(preferred[key]) ? preferred[key] : values[0]);
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
  ["core_seconds", "seconds that one core computed"],
  ["seconds", "seconds of training"],
  ["images", "images seen in training"],
];

// Below the points of a logarithmic axis: within a power of ten evenly spaced ones, beyond it 1, 2 and 5 times each.
function roundNumbers(points, width) {
  const [low, high] = d3.extent(points, (point) => point.x);
  if (high < 10 * low) return d3.ticks(low, high, width / 110);
  return d3.scaleLog([low, high], [0, 1]).ticks().filter((number) => "125".includes(number.toExponential()[0]));
}

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
  const drawing = !points.length ? NONE() : chart(
    `${dataset}, ${protocol} against ${label}`,
    (width) => ({
      x: { label, type: "log", inset: 8 },
      y: { label: "% of test images", grid: true, nice: true, inset: 8 },
      marks: [
        Plot.gridX(roundNumbers(points, width)),
        Plot.axisX(roundNumbers(points, width), { text: d3.format("~s") }),
        ...[...new Set(points.map((point) => point.row))].map((row) =>
          Plot.dot(points.filter((point) => point.row === row), { x: "x", y: "y", stroke: colourOf(rows.get(row)), fill: colourOf(rows.get(row)), fillOpacity: 0.5, symbol: SYMBOLS[rows.get(row).mark], r: 5 }),
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
      choice("Row", options(labels), one, (value) => set({ one: value, other: value === other ? null : other })),
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
        { height: (width) => (14 + named(points.map((point) => point.column), width).high) * points.length + 60 },
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
