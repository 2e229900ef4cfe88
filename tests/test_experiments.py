"""Tables and figures as sweeps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ssl_bench.config import compose as config
from ssl_bench.config import definitions, experiments, parse
from ssl_bench.config.options import GROUPS
from ssl_bench.errors import UserError
from ssl_bench.results.fingerprint import configuration_key
from ssl_bench.results.record import Record
from ssl_bench.sweep import request

SWEEPS = experiments.names()
TRIALS = Path(__file__).parents[1] / "experiments" / "trials"


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_composes_and_is_a_run_of_its_own(name: str, scale: str) -> None:
    """Of a grid at its last column; elsewhere two places may be one run."""
    experiment = experiments.find(name)
    cells = experiment.cells(scale, datasets=["digits"], seeds=[3])
    last = cells[-1].position.column
    for accounting in {cell.position.accounting for cell in cells}:
        shown = [cell for cell in cells if cell.position[1:] == (last, accounting)]
        keys = {configuration_key(config.compose(cell.overrides).as_dict()) for cell in shown}
        assert len(keys) == len(shown) == len({cell.position.row for cell in cells})


@pytest.mark.parametrize("file", sorted(TRIALS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_trials_set_what_was_tried_so_that_a_later_default_changes_none(file: Path) -> None:
    (options,) = re.findall(r"OPTIONS=\((.*)\)", (TRIALS / "README.md").read_text(encoding="utf-8"))
    cells = experiments.find(str(file)).cells("cpu", overrides=shlex.split(options))
    keys = {configuration_key(one.as_dict()) for one in config.compose_cells(cells)}
    assert len(keys) == len(cells)
    records = list((file.parent / "records").glob("*.json"))
    assert records
    for path in records:
        assert configuration_key(Record.read(path, path.stem).config) in keys, path


@pytest.mark.parametrize("name", SWEEPS)
def test_every_scale_names_known_datasets_and_what_is_shown_names_known_rows(name: str) -> None:
    experiment = experiments.find(name)
    assert set(experiment.datasets) == set(GROUPS["scale"])
    assert {dataset for datasets in experiment.datasets.values() for dataset in datasets} <= set(GROUPS["dataset"])
    panels = (experiment.show.get("panels") or {}).values()
    assert {row for panel in panels for row in panel} | set(experiment.show.get("ranked", ())) <= set(experiment.rows)


def test_a_multirun_of_an_experiment_is_its_cells() -> None:
    expected = [
        list(cell.overrides) for cell in experiments.find("fig2").cells("smoke", seeds=[4], overrides=["epochs=1"])
    ]
    assert list(parse.cells(["experiment=fig2", "scale=smoke", "seed=4", "epochs=1"])) == expected
    for overrides, sentence in (
        (["experiment=fig2", "seed=x"], "seed=x is not allowed: seed is a whole number of at least 0."),
        (
            ["experiment=fig2", "method=byol"],
            "method=byol: the rows of fig2 have methods of their own; choose among them",
        ),
        (["experiment=table2"], "table2 is made of conf/ alone and has no runs"),
    ):
        with pytest.raises(UserError) as caught:
            list(parse.cells(overrides))
        assert str(caught.value).startswith(sentence)
    there = experiments.find("fig2").cells("smoke", datasets=["fashion_mnist"], seeds=[4])
    found = parse.cells(["experiment=fig2", "scale=smoke", "dataset=fashion_mnist", "seed=4"])
    assert list(found) == [list(cell.overrides) for cell in there]


def test_a_seed_counts_once() -> None:
    assert experiments.read_overrides(["seeds=0,00,1"], "sweep.yaml")[0]["seeds"] == [0, 1]


def test_cells_that_differ_by_their_seed_are_composed_as_they_would_be_alone() -> None:
    cells = experiments.find("fig5").cells("cpu", datasets=["digits"], seeds=[0, 7])
    assert config.compose_cells(cells) == [config.compose(cell.overrides) for cell in cells]


@pytest.mark.parametrize("name", SWEEPS)
def test_runs_that_wandb_watches_have_group_and_row_and_stay_the_same_runs(name: str) -> None:
    experiment = experiments.find(name)
    methods = [[*experiment.rows.values()][-1][0].partition("=")[2]]
    plain = config.compose_cells(experiment.cells("smoke", seeds=[0], methods=methods)[:3])
    cells = experiment.cells("smoke", seeds=[0], methods=methods, overrides=["logger=wandb"])[:3]
    watched = config.compose_cells(cells)
    assert [one.logger.options["row"] for one in watched] == [cell.row for cell in cells]
    assert {one.logger.options["group"] for one in watched} == {f"{name}-smoke"}
    assert [configuration_key(one.as_dict()) for one in watched] == [configuration_key(one.as_dict()) for one in plain]


def test_a_group_that_is_set_is_kept_by_a_multirun_too() -> None:
    overrides = ["experiment=fig2", "scale=smoke", "seed=4", "logger=wandb"]
    for extra, group in (([], "fig2-smoke"), (["logger.group=mine"], "mine"), (["++logger.group=mine"], "mine")):
        runs = [config.compose(run) for run in parse.cells([*overrides, *extra])]
        assert [run.logger.options["group"] for run in runs] == [group, group]
        assert [run.logger.options["row"] for run in runs] == list(experiments.find("fig2").rows)


def test_a_cells_command_is_one_that_a_shell_reads() -> None:
    cell = experiments.find("fig2").cells("smoke", overrides=["logger=wandb"])[0]
    assert shlex.split(cell.command) == ["python", "-m", "ssl_bench", *cell.overrides]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"methods": ["byl"]}, "table3 has no row of method=byl; did you mean byol?"),
        ({"datasets": ["digit"]}, "dataset=digit is unknown; did you mean digits?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(limits: dict[str, list[str]], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        experiments.find("table3").cells("cpu", **limits)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_an_unknown_table_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"there is no table or figure 'table33'; did you mean table3\?"):
        experiments.find("table33")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("sweep:", "name: other\nsweep:", "name is unknown; known are sweep, show."),
        ("seeds:", "seed: 0\n  seeds:", "sweep.seed is unknown; did you mean seeds?"),
        ("title:", "titel:", "show.titel is unknown; did you mean title?"),
        ("title:", "panels:", "show.panels is unknown; known are kind, title, protocols, ranked, published."),
        ("kind: table", "kind: tabel", f"show.kind is {' or '.join(definitions.KINDS)}, not tabel."),
        (
            "seeds:",
            "scales: {smoke: {column: x}}\n  seeds:",
            "sweep.scales.smoke.column is unknown; did you mean columns?",
        ),
        (
            "seeds:",
            "scales: {smoke: {rows: {B: x}}}\n  seeds:",
            "sweep.scales.smoke.rows.B is unknown; known are MoCo.",
        ),
        (
            "seeds:",
            "columns: {a: b}\n  seeds:",
            "columns and accountings are shown by show.kind heat or lines, not table.",
        ),
        ("kind: table", "kind: lines", "lines need numbers, as in sweep.columns: {batch_size: [32, 64]}."),
        (
            "seeds: [0]\nshow: {kind: table",
            "columns: {epochs: [0, 1]}\n  seeds: [0]\nshow: {kind: lines, logarithmic: true",
            "a logarithmic axis has room for columns above 0 only.",
        ),
        (
            "kind: table",
            "kind: heat, networks: [all]",
            "show.networks is a list of deployed, student, teacher, projector, not all.",
        ),
        (
            "seeds: [0]\nshow: {kind: table",
            "columns: {batch_size: [16]}\n  scales: {smoke: {columns: {a: labels=20}}}\n  seeds: [0]\n"
            "show: {kind: lines",
            "lines need numbers, as in sweep.columns: {batch_size: [32, 64]}.",
        ),
        (
            "{MoCo: method=moco}\n  datasets: {smoke: [digits]}\n  seeds: [0]\nshow: {kind: table",
            "{MoCo: method=moco}\n  datasets: {smoke: [digits, cifar10]}\n  seeds: [0]\nshow: {kind: calibration",
            "show.kind calibration is of one row, on one dataset at each scale.",
        ),
        ("kind: table", "kind: table, protocols: [knn11]", "show.protocols: knn11 is unknown; did you mean knn1?"),
        ("kind: table", "kind: heat, networks: 5", f"show.networks is {definitions.NAMES}, not 5."),
        ("title: x", "title: [x]", "show.title is text, not ['x']."),
        ("kind: table", "kind: options, columns: 5", f"show.columns is {definitions.MAPPING}, not 5."),
        ("kind: table", "kind: options, columns: {T: 1}", "show.columns.T is an option, as in batch_size, not 1."),
        (
            "kind: table",
            "kind: options, stated: {epochs: SimCLR}",
            "show.stated.epochs is a list of labels of rows, not SimCLR.",
        ),
        ("kind: table", "kind: options, unused: {A: epochs}", "show.unused.A is a list of options, not epochs."),
        ("kind: table", "kind: heat, costs: [euros]", "show.costs is a list of seconds, memory, not euros."),
        ("kind: table", "kind: heat, mean: 3", "show.mean is true or false, not 3."),
        ("kind: table", "kind: table, ranked: [moco]", "show.ranked: moco is unknown; known are MoCo."),
        ("kind: table", "kind: table, protocols: knn1", f"show.protocols is {definitions.NAMES}, not knn1."),
        ("kind: table", "kind: curves, network: studnt", "show.network is deployed or student or teacher, not studnt."),
        ("kind: table", "kind: curves, panels: {a: [MoC]}", "show.panels.a: MoC is unknown; known are MoCo."),
        ("kind: table", "kind: curves, panels: {a: MoCo}", "show.panels.a is a list of labels of rows, not MoCo."),
        (
            "{MoCo: method=moco}",
            "[moco]",
            "sweep.rows is labels with options, as in {SimCLR: method=simclr}, not ['moco'].",
        ),
        ("method=moco", "epochs=1", "sweep.rows.MoCo is the options of a run, method= among them, not epochs=1."),
        ("seeds: [0]", "seeds: 0", f"sweep.seeds is {definitions.SEEDS}, not 0."),
        ("seeds: [0]", "seeds: [true]", f"sweep.seeds is {definitions.SEEDS}, not [True]."),
        (
            "seeds: [0]",
            "scales: {smoke: {seeds: [-1]}}\n  seeds: [0]",
            f"sweep.scales.smoke.seeds is {definitions.SEEDS}, not [-1].",
        ),
        (
            "seeds: [0]",
            "more_seeds: {smoke: {digit: [1]}}\n  seeds: [0]",
            "sweep.more_seeds.smoke.digit is unknown; did you mean digits?",
        ),
        (
            "seeds: [0]",
            "more_seeds: {smoke: [5]}\n  seeds: [0]",
            f"sweep.more_seeds.smoke is {definitions.MAPPING}, not [5].",
        ),
        (
            "seeds: [0]",
            "scales: {smoke: null}\n  seeds: [0]",
            f"sweep.scales.smoke is {definitions.MAPPING}, not None.",
        ),
        (
            "seeds: [0]",
            "options: [epochs=1]\n  seeds: [0]",
            "sweep.options is options as one types them, with spaces, not ['epochs=1'].",
        ),
        ("kind: table", "kind: curves, panels: [a]", "show.panels is names with lists of labels of rows, not ['a']."),
        ("kind: table", "kind: [table]", f"show.kind is {' or '.join(definitions.KINDS)}, not ['table']."),
        ("sweep:", "1: x\nsweep:", "1 is unknown; known are sweep, show."),
        ("{smoke: [digits]}", "[digits]", f"sweep.datasets is {definitions.MAPPING}, not ['digits']."),
        ("{smoke: [digits]}", "{smok: [digits]}", "sweep.datasets.smok is unknown; did you mean smoke?"),
        ("[digits]", "digits", "sweep.datasets.smoke is a list of datasets, as in [digits], not digits."),
        ("[digits]", "[digit]", "sweep.datasets.smoke: dataset=digit is unknown; did you mean digits?"),
        (
            "[digits]",
            "[digits, digits]",
            "sweep.datasets.smoke is a list of datasets, as in [digits], not ['digits', 'digits'].",
        ),
        ("seeds: [0]", "seeds: [0, 0]", f"sweep.seeds is {definitions.SEEDS}, not [0, 0]."),
        (
            "seeds: [0]",
            "more_seeds: {smoke: {digits: [0, 1]}}\n  seeds: [0]",
            "sweep.more_seeds.smoke.digits is seeds besides [0], not [0, 1].",
        ),
        (
            "{MoCo: method=moco}",
            "{raw pixels: method=moco}",
            "sweep.rows.raw pixels has the name of a baseline, which every table shows: give it another one.",
        ),
        ("{MoCo: method=moco}", "{MoCo: }", "sweep.rows.MoCo is the options of a run, method= among them, not None."),
        (
            "method=moco",
            '"method=moco \'epochs=1"',
            "sweep.rows.MoCo has a quote that nothing closes: method=moco 'epochs=1",
        ),
    ],
)
def test_a_key_that_a_file_does_not_have_is_named(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    sweep = "sweep:\n  rows: {MoCo: method=moco}\n  datasets: {smoke: [digits]}\n  seeds: [0]\n"
    text = f"{sweep}show: {{kind: table, title: x}}\n"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        experiments.find(str(file))
    assert str(caught.value) == f"{file}: {sentence}"


def mine(folder: Path, sweep: str, kind: str = "heat") -> str:
    file = folder / "mine.yaml"
    file.write_text(
        f"sweep:\n  datasets: {{smoke: [digits]}}\n  seeds: [0]\n{sweep}show: {{kind: {kind}}}\n", encoding="utf-8"
    )
    return str(file)


def test_labels_that_yaml_reads_as_numbers_are_labels(tmp_path: Path) -> None:
    columns = "  columns: {32: batch_size=32, 64: batch_size=64}\n"
    file = mine(
        tmp_path, f"  rows: {{7: method=simclr}}\n{columns}  accountings: {{equal: {{64: epochs=2, 7: labels=20}}}}\n"
    )
    overrides = {position.column: row for position, row in experiments.find(file).positions("smoke").items()}
    assert overrides == {
        "32": ("method=simclr", "batch_size=32", "labels=20"),
        "64": ("method=simclr", "batch_size=64", "labels=20", "epochs=2"),
    }


ROWS = "  rows: {MoCo: method=moco, SimCLR: method=simclr epochs=3}\n"


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ("columns: [1, 2]", "sweep.columns is an option with its values, or labels, not [1, 2]."),
        ("columns: {batch_size: 32}", "sweep.columns.batch_size is options as one types them, with spaces, not 32."),
        (
            "columns: {batch_size: [32, 32]}",
            "sweep.columns.batch_size is a list of values, each once, as in batch_size: [1, 2], not [32, 32].",
        ),
        ("columns: {epochs: [1, 2]}", "row SimCLR sets epochs, which sweep.columns vary."),
        ("accountings: [a, b]", "sweep.accountings is labels with options, not ['a', 'b']."),
        ("accountings: {a: null}", "sweep.accountings.a is options as one types them, with spaces, not None."),
        ("accountings: {a: {Moco: epochs=1}}", "sweep.accountings.a: Moco is unknown; known are MoCo, SimCLR."),
        ("accountings: {a: {MoCo: 5}}", "sweep.accountings.a is options as one types them, with spaces, not 5."),
        (
            "scales: {smoke: {columns: {batch_size: 5}}}",
            "sweep.scales.smoke.columns.batch_size is options as one types them, with spaces, not 5.",
        ),
    ],
)
def test_columns_and_accountings_that_cannot_be_run_are_named(grid: str, sentence: str, tmp_path: Path) -> None:
    file = mine(tmp_path, f"{ROWS}  {grid}\n")
    with pytest.raises(UserError) as caught:
        experiments.find(file)
    assert str(caught.value) == f"{file}: {sentence}"


def test_a_label_that_stands_twice_is_named_with_its_line(tmp_path: Path) -> None:
    file = mine(tmp_path, "  rows:\n    A: method=moco\n    A: method=simclr\n")
    with pytest.raises(UserError, match=r"mine\.yaml, line 6: A stands there twice\.$"):
        experiments.find(file)


def test_a_column_of_null_is_written_as_options_are(tmp_path: Path) -> None:
    found = experiments.find(mine(tmp_path, f"{ROWS}  columns: {{trainer.clip: [null, 1]}}\n")).positions("smoke")
    assert {position.column for position in found} == {"trainer.clip=null", "trainer.clip=1"}


def test_places_are_rows_by_columns_by_accountings_and_what_is_more_particular_counts(tmp_path: Path) -> None:
    sweep = (
        f"{ROWS}  options: epochs=1 subset=100\n  columns: {{A: '', B: subset=50}}\n"
        "  accountings: {plain: '', long: {B: epochs=5, SimCLR: labels=20}}\n"
        "  scales: {smoke: {rows: {MoCo: null}}}\n"
    )
    experiment = experiments.find(mine(tmp_path, sweep))
    found = {cell.row: cell.overrides[:-3] for cell in experiment.cells("smoke")}
    assert found == {
        "SimCLR, A, plain": ("subset=100", "method=simclr", "epochs=3"),
        "SimCLR, B, plain": ("method=simclr", "epochs=3", "subset=50"),
        "SimCLR, A, long": ("subset=100", "method=simclr", "epochs=3", "labels=20"),
        "SimCLR, B, long": ("method=simclr", "subset=50", "labels=20", "epochs=5"),
    }
    assert len(experiment.positions("demo")) == 8


@pytest.mark.parametrize(("scale", "usual", "epochs"), [("cpu", 128, 8), ("paper", 256, 800)])
def test_equal_updates_are_as_many_epochs_as_the_batch_is_larger(scale: str, usual: int, epochs: int) -> None:
    cells = experiments.find("fig7").cells(scale, methods=["simclr"], seeds=[0])
    found = {
        (c.batch_size, cell.position.accounting): c.epochs
        for cell, c in zip(cells, config.compose_cells(cells), strict=True)
    }
    assert len(found) == 12
    for size, accounting in found:
        assert found[size, accounting] == epochs * (size / usual if accounting == "equal updates" else 1)


@pytest.mark.parametrize(
    ("sweep", "overrides", "sentence"),
    [
        (
            f"{ROWS}  columns: {{method.queue: [128, 256]}}\n",
            [],
            "row SimCLR, method.queue=128: option method.queue is unknown under method=simclr;",
        ),
        (f"{ROWS}  columns: {{labels: [20, 0]}}\n", [], "row MoCo, labels=0: labels=0 is not allowed: labels is"),
        (f"{ROWS}  columns: {{subset: [320, 20]}}\n", [], "row MoCo, subset=20: batch_size=32 is larger than the 20"),
        (
            f"{ROWS}  columns: {{labels: [20, 30]}}\n",
            ["labels=40"],
            "labels is what mine varies, and cannot be set for",
        ),
        (
            f"{ROWS}  columns: {{labels: [20, 30]}}\n  options: subset=300\n",
            ["subset=40"],
            "mine sets subset=300 itself, in row MoCo, labels=20: leave subset= out, or copy the definition.",
        ),
        (f"{ROWS}  columns: {{labels: [20, 30]}}\n", ["subset=0"], "subset=0 is not allowed: subset is null or"),
        (
            f"{ROWS}  columns: {{labels: [20], b: c}}\n",
            [],
            "columns are the values of one option, or labels with options,",
        ),
    ],
)
def test_what_an_axis_sets_wrongly_is_named_with_its_row_before_anything_runs(
    sweep: str, overrides: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        request.read([mine(tmp_path, sweep), "scale=smoke", *overrides])
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("scale", "usual", "rate"), [("cpu", 128, 0.1), ("paper", 256, 0.06)])
def test_rates_in_proportion_to_the_batch_are_the_usual_one_at_the_usual_batch(
    scale: str, usual: int, rate: float
) -> None:
    cells = experiments.find("simclr_batch").cells(scale, seeds=[0])
    rates: dict[str, dict[int, float]] = {}
    for cell, composed in zip(cells, config.compose_cells(cells), strict=True):
        rates.setdefault(cell.position.accounting, {})[composed.batch_size] = composed.optimizer.lr
    scaled, constant = rates.values()
    assert scaled == pytest.approx({batch: rate * batch / usual for batch in (32, 64, 128, 256, 512)})
    assert set(constant.values()) == {rate}


def test_a_run_that_stands_at_several_places_is_made_once() -> None:
    asked = request.read(["swav_multicrop", "scale=smoke", "methods=simclr"])
    assert [cell.position[1:] for cell in asked.cells] == [
        ("2 views", "equal epochs"),
        ("2 + 4 views", "equal epochs"),
        ("2 + 4 views", "equal pixels"),
    ]


def test_a_sweep_is_not_one_run() -> None:
    with pytest.raises(UserError, match=r"experiment=table3 is many runs: add -m, or run python -m ssl_bench sweep"):
        config.compose(["experiment=table3"])


@pytest.mark.parametrize("row", ["crop", "flip", "jitter", "gray", "blur", "solarize"])
@pytest.mark.parametrize("accounting", ["the other view cropped", "the other view whole"])
def test_the_grid_of_transformations_transforms_one_view_and_crops_the_other_or_leaves_it(
    row: str, accounting: str
) -> None:
    cells = experiments.find("simclr_augmentations").cells("cpu", seeds=[0])
    (cell,) = (cell for cell in cells if cell.position == (row, row, accounting))
    other, transformed = config.compose(cell.overrides).augment.view_groups
    chances = ("flip", "jitter", "grayscale", "blur", "solarize")
    assert other["size"] == transformed["size"] == 32
    assert (other["crop_scale"] == [1, 1]) == (other["crop_ratio"] == [1, 1]) == (accounting == "the other view whole")
    assert not any(other[chance] for chance in chances)
    assert (transformed["crop_scale"] == [1, 1]) == (transformed["crop_ratio"] == [1, 1]) == (row != "crop")
    own = {"gray": "grayscale"}.get(row, row)
    assert [chance for chance in chances if transformed[chance]] == [own] * (row != "crop")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SWEEPS if "_" in name])  # the others are of methods as they are
def test_a_place_of_every_grid_of_options_trains(name: str, few_layers: None) -> None:
    """The last one; ``make paper SCALE=smoke`` makes all."""
    import pytorch_lightning as pl

    from ssl_bench.training.build import build

    cell = experiments.find(name).cells("smoke", seeds=[0])[-1]
    method, data = build(config.compose(cell.overrides))
    data.setup()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(accelerator="cpu", max_steps=1, enable_model_summary=False, **quiet).fit(method, datamodule=data)
    assert method.student_steps == 1


def test_overrides_of_a_row_may_hold_spaces_in_quotes(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "sweep:\n  rows: {ViT: \"method=simclr backbone=vit 'backbone.arguments={depth: 2, num_heads: 2}'\"}\n"
        "  datasets: {smoke: [digits]}\n  seeds: [0]\nshow: {kind: table}\n",
        encoding="utf-8",
    )
    (cell,) = experiments.find(str(file)).cells("smoke")
    assert config.compose(cell.overrides).backbone.arguments["depth"] == 2


@pytest.mark.parametrize("scale", ["smoke", "demo", "cpu", "paper"])
def test_without_a_predictor_the_teacher_moves_as_it_does_with_one(scale: str) -> None:
    cells = experiments.find("directpred_predictor").cells(scale, seeds=[0], overrides=[])
    of = {cell.row: one.method.options for cell, one in zip(cells, config.compose_cells(cells), strict=True)}
    assert of["no predictor"]["teacher_step"] == pytest.approx(1 - of["DirectPred, ε = 0"]["momentum"])


def test_every_run_that_leaves_out_what_is_shown_is_refused() -> None:
    shown = experiments.find("table3")
    configs = config.compose_cells(shown.cells("smoke", methods=["simclr", "moco"], seeds=[0]))
    experiments.require_scored(shown, configs)
    configs[-1] = configs[-1].changed({"evaluation.protocols": ["knn1"]})
    with pytest.raises(UserError, match=r"^table3 shows linear, which evaluation\.protocols leaves out"):
        experiments.require_scored(shown, configs)
