"use strict";
// Every run: the list, and a dialog with all of one.

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
  const title = (name) => TITLES[name] ?? (index.protocols.includes(name) ? name : name[0].toUpperCase() + name.slice(1));
  const columns = index.fields.map((name, number) => ({
    title: title(name),
    number: !TEXTS.includes(name),
    value: (run) => (name === "committed" ? (run[number] ? "committed" : "own") : run[number]),
  }));
  columns[0].cell = (run) => el("button", { type: "button", click: () => openRun(run[0]) }, run[0]);
  index.protocols.forEach((name) => (columns[place(name)].cell = (run) => percent(run[place(name)])));
  for (const name of ["seconds", "core_seconds", "images"]) {
    columns[place(name)].cell = (run) => (run[place(name)] === null ? "–" : d3.format(",.0f")(run[place(name)]));
  }
  const accuracies = columns.splice(-index.protocols.length, index.protocols.length);
  columns.splice(place("seed") + 1, 0, ...accuracies); // before what is long
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
    return choice(title(name), [["", "all"], ...options(values)], given.get(name) ?? "", (value) => (keep({ [name]: value }), fill()));
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
