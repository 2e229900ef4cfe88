"use strict";
// Single images, of runs in runs_dir, where the page was made with images=.

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
