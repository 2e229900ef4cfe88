"""The file of a table or figure: what may stand in it, and one sentence where something else does."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_bench.config import axes, sources
from ssl_bench.config.options import GROUPS, comments
from ssl_bench.config.settings import near_or_all
from ssl_bench.errors import UserError

PROTOCOLS = {"protocols": ["knn1", "linear"]}
GRID = {**PROTOCOLS, "networks": ["deployed"], "costs": [], "axis": None}  # axis null: the option of the columns
KINDS: dict[str, dict[str, Any]] = {  # of show, and what is shown unless the file sets it
    "table": {**PROTOCOLS, "ranked": None, "published": False},  # ranked null: all rows
    "curves": {"protocol": "knn1", "network": "student", "panels": None},  # panels null: one
    "calibration": PROTOCOLS,
    "trials": PROTOCOLS,
    "expected": PROTOCOLS,
    "heat": {**GRID, "rows_axis": None, "mean": False},
    "lines": {**GRID, "logarithmic": False},
    "features": {"protocols": ["knn1"]},
    "saliency": {"protocols": ["knn1"], "reference": ""},  # label of the row that others are compared with
    "options": {"shared": {}, "columns": {}, "unused": {}, "stated": {}},  # of which nothing is run
}
GRIDS = ("heat", "lines")  # kinds that show columns and accountings
NETWORKS = ("deployed", "student", "teacher", "projector")
COSTS = ("seconds", "memory")
KEYS = ("sweep.rows", "sweep.datasets", "sweep.seeds", "show.kind")  # that every file has
BY_SCALE = ("rows", "columns", "accountings", "options", "seeds")  # that a scale may have its own
SWEEP = (*BY_SCALE, "datasets", "more_seeds", "scales")
BASELINES = ("random weights", "raw pixels")  # what every table calls them
SEEDS = "a list of whole numbers of at least 0, each once, as in [0, 1, 2]"
NAMES = "a list of names, each once, as in [knn1, linear]"
TYPED = "options as one types them, with spaces"
MAPPING = "a mapping, as in {key: value}"


def read(name: str) -> dict[str, Any]:
    """The content of ``conf/experiment/<name>.yaml``."""
    file = f"experiment/{name}.yaml"
    return _parsed(f"conf/{file}", sources.read(file)) or {}


def read_file(file: Path) -> dict[str, Any]:
    """The content of a file outside of conf/; its name must be that of no other."""
    try:
        found = _parsed(str(file), file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}).") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(sources.not_yaml(str(file), error)) from None
    if file.stem in GROUPS["experiment"]:
        raise UserError(f"{file} has the name of experiment={file.stem}: rename the file.")
    return found if isinstance(found, dict) else {}


def _parsed(file: str, text: str) -> Any:
    """What YAML reads; UserError for a key that stands twice, of which it would read the last."""
    loader = sources.LOADER(text)
    try:
        node = loader.get_single_node()
        _require_once(file, node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _require_once(file: str, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise UserError(f"{file}, line {key.start_mark.line + 1}: {name} stands there twice.")
            seen.add(name)
            _require_once(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _require_once(file, value)


def checked(file: str, found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``sweep``, and ``show`` with what the file leaves out.

    Raises:
        UserError: a key is missing; a key, label, dataset, scale or kind is unknown; or a value is not of its kind.
    """
    trees = {part: found[part] for part in ("sweep", "show") if isinstance(found.get(part), dict)}
    there = {f"{part}.{key}" for part, tree in trees.items() for key in tree if tree[key] not in (None, "", [], {})}
    missing = [key for key in KEYS if key not in there]
    if missing:
        raise UserError(f"{file} describes no table or figure: {' and '.join(missing)} is missing.")
    _require_known(file, "", found, ("sweep", "show"))
    sweep = found["sweep"]
    _require_known(file, "sweep.", sweep, SWEEP)
    for key in ("datasets", "scales", "more_seeds"):
        _require_known(file, f"sweep.{key}.", sweep.get(key, {}), GROUPS["scale"])
    _require_runs(file, "sweep.", sweep)
    _require_grid(file, "sweep.", sweep)
    for scale, other in sweep.get("scales", {}).items():
        above = f"sweep.scales.{scale}."
        _require_known(file, above, other, BY_SCALE)
        _require_known(file, f"{above}rows.", other.get("rows", {}), _labels(sweep["rows"]))
        _require_runs(file, above, other)
        _require_grid(file, above, {**sweep, **other, "rows": {**sweep["rows"], **other.get("rows", {})}})
    for scale, datasets in sweep["datasets"].items():
        above = f"sweep.datasets.{scale}"
        _require(_is_list(datasets, str), file, above, "a list of datasets, as in [digits]", datasets)
        _require_all_known(file, f"{above}: dataset=", datasets, GROUPS["dataset"])
    for scale, by_dataset in sweep.get("more_seeds", {}).items():
        _require_known(file, f"sweep.more_seeds.{scale}.", by_dataset, GROUPS["dataset"])
        for dataset, seeds in by_dataset.items():
            key = f"sweep.more_seeds.{scale}.{dataset}"
            _require(_is_list(seeds, int), file, key, SEEDS, seeds)
            there = sweep.get("scales", {}).get(scale, {}).get("seeds", sweep["seeds"])
            _require(not set(seeds) & set(there), file, key, f"seeds besides {there}", seeds)
    return sweep, _shown(file, found["show"], sweep)


def _require(holds: bool, file: str, key: str, what: str, value: object) -> None:
    if not holds:
        raise UserError(f"{file}: {key} is {what}, not {value}.")


def _require_known(file: str, above: str, tree: object, known: Sequence[str]) -> None:
    """UserError where ``above`` is no mapping, or has a key that a table's or figure's file does not have there."""
    _require(isinstance(tree, dict), file, above.rstrip(".") or "it", MAPPING, tree)
    _require_all_known(file, above, tree, known)  # type: ignore[arg-type]


def _require_all_known(file: str, above: str, names: Iterable[object], known: Sequence[str]) -> None:
    for name in map(str, names):
        if name not in known:
            raise UserError(f"{file}: {above}{name} is unknown{near_or_all(name, known)}")


def _labels(rows: Iterable[object]) -> list[str]:
    return [str(label) for label in rows]  # YAML reads some as numbers


def _is_list(value: object, of: type) -> bool:
    """Whether it is a list of names, or of whole numbers of at least 0, each of them once."""
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        return False
    return all(type(item) is of and (not isinstance(item, int) or item >= 0) for item in value)


def _require_runs(file: str, above: str, sweep: Mapping[str, Any]) -> None:
    """UserError where rows, options or seeds are not what they are to be, in all scales or in one."""
    rows = sweep.get("rows", {})
    _require(isinstance(rows, dict), file, f"{above}rows", "labels with options, as in {SimCLR: method=simclr}", rows)
    for label, overrides in rows.items():
        key = f"{above}rows.{label}"
        if str(label) in BASELINES:
            raise UserError(f"{file}: {key} has the name of a baseline, which every table shows: give it another one.")
        if overrides is None and above != "sweep.":  # a scale leaves a row out
            continue
        is_run = isinstance(overrides, str) and any(override.startswith("method=") for override in overrides.split())
        _require(is_run, file, key, "the options of a run, method= among them", overrides)
        _require_options(file, key, overrides)
    _require_options(file, f"{above}options", sweep.get("options", ""))
    if "seeds" in sweep:
        _require(_is_list(sweep["seeds"], int), file, f"{above}seeds", SEEDS, sweep["seeds"])


def _require_options(file: str, key: str, text: object) -> None:
    if not isinstance(text, str):
        raise UserError(f"{file}: {key} is {TYPED}, not {text}.")
    try:
        shlex.split(text)
    except ValueError:
        raise UserError(f"{file}: {key} has a quote that nothing closes: {text}") from None


def _require_grid(file: str, above: str, sweep: Mapping[str, Any]) -> None:
    """UserError where columns and accountings are not what they are to be, in all scales or in one."""
    columns, accountings = sweep.get("columns") or {}, sweep.get("accountings") or {}
    _require(isinstance(columns, dict), file, f"{above}columns", "an option with its values, or labels", columns)
    for key, own in columns.items():
        if isinstance(own, list):
            shown = f"a list of values, each once, as in {key}: [1, 2]"
            scalars = bool(own) and not any(isinstance(one, (list, dict)) for one in own)
            _require(scalars and len(set(map(str, own))) == len(own), file, f"{above}columns.{key}", shown, own)
        else:
            _require_options(file, f"{above}columns.{key}", own)
    _require(isinstance(accountings, dict), file, f"{above}accountings", "labels with options", accountings)
    positions = [*_labels(sweep["rows"]), *filter(None, axes.columns(sweep))]
    for label, options in accountings.items():
        key = f"{above}accountings.{label}"
        if isinstance(options, dict):
            _require_all_known(file, f"{key}: ", options, positions)
        for overrides in options.values() if isinstance(options, dict) else (options,):
            _require_options(file, key, overrides)
    swept = axes.swept_option(sweep)
    for row, overrides in axes.labelled(sweep["rows"]).items():
        if swept is not None and swept in (override.partition("=")[0] for override in overrides):
            raise UserError(f"{file}: row {row} sets {swept}, which {above}columns vary.")


def _shown(file: str, show: dict[str, Any], sweep: dict[str, Any]) -> dict[str, Any]:
    """What is shown, with what the file leaves out: title and protocols, and that every row is ranked."""
    kind, labels = show["kind"], _labels(sweep["rows"])
    _require(isinstance(kind, str) and kind in KINDS, file, "show.kind", " or ".join(KINDS), kind)
    found = {"title": Path(file).stem, **KINDS[kind]}
    _require_known(file, "show.", show, ("kind", *found))
    found |= show
    for key, usual in KINDS[kind].items():
        if isinstance(usual, bool):
            _require(isinstance(found[key], bool), file, f"show.{key}", "true or false", found[key])
        if key == "protocols":
            _require(_is_list(found[key], str), file, "show.protocols", NAMES, found[key])
            _require_all_known(file, "show.protocols: ", found[key], _protocols())
        if key in ("networks", "costs"):
            found[key] = found[key] or usual
            _require(not found[key] or _is_list(found[key], str), file, f"show.{key}", NAMES, found[key])
        if isinstance(usual, dict):
            _require(isinstance(found[key], dict), file, f"show.{key}", MAPPING, found[key])
            found[key] = {str(name): of for name, of in found[key].items()}
            for name, of in found[key].items():
                if key in ("columns", "shared"):
                    _require(isinstance(of, str), file, f"show.{key}.{name}", "an option, as in batch_size", of)
                elif key == "stated":
                    _of_rows(file, f"show.{key}.{name}", of, labels)
                else:
                    _require(_is_list(of, str), file, f"show.{key}.{name}", "a list of options", of)
    _require(isinstance(found["title"], str), file, "show.title", "text", found["title"])
    if "protocol" in found:
        _require(found["protocol"] in _protocols(), file, "show.protocol", " or ".join(_protocols()), found["protocol"])
    _require_axes(file, found, sweep)
    if kind == "calibration" and (len(labels) > 1 or any(len(of) > 1 for of in sweep["datasets"].values())):
        raise UserError(f"{file}: show.kind calibration is of one row, on one dataset at each scale.")
    if kind == "saliency":
        found["reference"] = str(found["reference"])
        _require(found["reference"] in labels, file, "show.reference", " or ".join(labels), found["reference"])
    if kind == "curves":
        _require(found["network"] in NETWORKS[:3], file, "show.network", " or ".join(NETWORKS[:3]), found["network"])
        panels = found["panels"] or {}
        _require(isinstance(panels, dict), file, "show.panels", "names with lists of labels of rows", panels)
        found["panels"] = {str(name): _of_rows(file, f"show.panels.{name}", panels[name], labels) for name in panels}
    if kind == "table":
        ranked = found["ranked"]
        found["ranked"] = labels if ranked is None else _of_rows(file, "show.ranked", ranked, labels)
    return found


def _protocols() -> list[str]:
    """All that a run can be scored under."""
    (allowed, _) = comments("evaluation/standard.yaml")["protocols"]
    return allowed[1:-1].split("|")


def _of_rows(file: str, key: str, value: object, labels: Sequence[str]) -> list[str]:
    """A list of labels of rows; UserError for anything else."""
    _require(isinstance(value, list), file, key, "a list of labels of rows", value)
    found = _labels(value)  # type: ignore[arg-type]
    _require_all_known(file, f"{key}: ", found, labels)
    return found


def _require_axes(file: str, show: Mapping[str, Any], sweep: Mapping[str, Any]) -> None:
    """UserError where what is shown does not fit the columns and accountings of the runs, at any scale."""
    kind = show["kind"]
    for at in (sweep, *sweep.get("scales", {}).values()):
        if (at.get("columns") or at.get("accountings")) and kind not in GRIDS:
            raise UserError(f"{file}: columns and accountings are shown by show.kind {' or '.join(GRIDS)}, not {kind}.")
        if kind == "lines" and (at is sweep or "columns" in at):
            numbers = [axes.number(column) for column in axes.columns(at)]
            if None in numbers:
                raise UserError(f"{file}: lines need numbers, as in sweep.columns: {{batch_size: [32, 64]}}.")
            if show["logarithmic"] and min(number for number in numbers if number is not None) <= 0:
                raise UserError(f"{file}: a logarithmic axis has room for columns above 0 only.")
    for key, known in (("networks", NETWORKS), ("costs", COSTS)):
        for name in show.get(key, ()):
            _require(name in known, file, f"show.{key}", f"a list of {', '.join(known)}", name)
