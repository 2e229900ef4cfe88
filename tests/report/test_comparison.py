"""Tables: what stands in them, as Markdown, LaTeX and picture."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import TEST_IMAGES, cells_of, runs_of

from ssl_bench.config.compose import compose, compose_cells
from ssl_bench.config.experiments import find
from ssl_bench.report.comparison import Table, _closest, comparison, worth
from ssl_bench.report.published import figures
from ssl_bench.report.records import Run
from ssl_bench.report.render import escaped, latex, markdown, picture
from ssl_bench.report.statistics import seeds_needed


def table_of(runs: list[Run]) -> Table:
    return comparison(find("table3"), runs, "calibrated")


def set_percents(runs: list[Run], row: str, percents: list[float]) -> None:
    cells = [run for run in runs if run.cell.row == row]
    for run, percent in zip(cells, percents, strict=True):
        assert run.record
        run.record.results[run.record.evaluated]["knn1"] = percent


METHODS = ["simclr", "moco", "clbo", "supervised"]


@pytest.fixture
def made() -> list[Run]:
    return runs_of(*cells_of("table3", methods=METHODS, seeds=[0, 1, 2]))


def test_entries_are_means_and_standard_deviations_of_the_network_evaluated(made: list[Run]) -> None:
    runs = made
    set_percents(runs, "CLBO", [90.0, 92.0, 94.0])
    table = table_of(runs)
    assert table.columns == ["digits, knn1", "digits, linear"]
    assert table.ranked["CLBO"][0].text == "92.0 ± 2.0"
    assert list(table.ranked) == ["SimCLR", "MoCo", "CLBO"]
    assert list(table.reference) == ["CLBO, K × epochs", "Supervised", "random weights", "raw pixels"]


def test_the_highest_is_bold_what_differs_from_it_marked_and_reference_rows_never(made: list[Run]) -> None:
    runs = made
    for row, percents in {
        "SimCLR": [95.0, 95.25, 95.5],
        "MoCo": [95.0, 95.75, 95.25],
        "CLBO": [80.0, 80.5, 80.25],
        "Supervised": [99.0, 99.0, 99.0],
    }.items():
        set_percents(runs, row, percents)
    table = table_of(runs)
    first = {row: entries[0] for row, entries in (table.ranked | table.reference).items()}
    assert {row for row, entry in first.items() if entry.bold} == {"MoCo"}
    assert {row for row, entry in first.items() if entry.text.endswith(" †")} == {"CLBO"}
    (line,) = [note for note in table.notes if note.startswith("More seeds")]
    assert re.search(r"digits, knn1: MoCo and SimCLR, \d+", line)


def test_missing_and_failed_runs_are_counted(made: list[Run]) -> None:
    runs = made
    left = []
    for run in runs:
        gone = (run.cell.row == "MoCo" and run.cell.seed == 2) or run.cell.row == "SimCLR"
        failure = "out of memory" if run.cell.row == "SimCLR" and run.cell.seed == 1 else None
        left.append(replace(run, entry=None, failure=failure) if gone else run)
    table = table_of(left)
    assert table.ranked["MoCo"][0].text.endswith(" (2/3)")
    assert [entry.text for entry in table.ranked["SimCLR"]] == ["– (0/3, 1 failed)"] * 2
    assert not table.ranked["SimCLR"][0].bold
    assert "Missing: 3 of 15 runs." in table.notes
    assert "Failed: 1 of 15 runs, such as SimCLR on digits, seed 1: out of memory" in table.notes


def test_random_weights_are_the_mean_over_all_records_of_a_seed_and_spread_over_seeds(made: list[Run]) -> None:
    runs = made
    for number, run in enumerate(runs):
        assert run.record
        run.record.results["random"]["knn1"] = 60.0 + 10 * run.cell.seed + (1 if number % 5 == 0 else -0.25)
    assert table_of(runs).reference["random weights"][0].text == "70.0 ± 10.0"


def test_what_does_not_apply_is_no_missing_run(made: list[Run]) -> None:
    runs = made
    for run in runs:
        assert run.record
        run.record.results["student"]["linear"] = None
    assert table_of(runs).ranked["MoCo"][1].text == "n. a."


def test_the_notes_state_how_the_figures_came_about(made: list[Run]) -> None:
    runs = made
    assert runs[0].record
    runs[0].record.code = {"version": "0.1.0", "commit": "fedcba9876", "modified": True}
    notes = "\n".join(table_of(runs).notes)
    for part in (
        "over n = 3 seeds.",
        "knn1 v1, linear v1; scale smoke; epochs: 2 on 320 images of digits; CLBO, K × epochs: of 2 passes",
        "bf16-mixed, numerics 1, batch statistics global; mixed code versions: 0123456, fedcba9 (modified).",
        "calibrated",
        "3 seeds show large and steady differences alone",
    ):
        assert part in notes


def test_datasets_may_have_different_numbers_of_seeds() -> None:
    experiment = find("table3")
    more = replace(experiment, seeds=[0, 1, 2], more_seeds={"cpu": {"digits": [3, 4]}})
    cells = more.cells("cpu", methods=["simclr"], datasets=["digits", "fashion_mnist"])
    assert [cell.seed for cell in cells] == [0, 1, 2, 3, 4, 0, 1, 2]
    table = comparison(experiment, runs_of(cells, compose_cells(cells)), "calibrated")
    assert table.notes[0].endswith("over n = 5 seeds on digits, 3 on fashion_mnist.")
    assert {cell.seed for cell in more.cells("cpu", methods=["simclr"], seeds=[9])} == {9}


@pytest.mark.parametrize(("seeds", "end"), [([0], "one seed."), ([0, 1], "over n = 2 seeds.")])
def test_with_few_seeds_nothing_is_marked(seeds: list[int], end: str) -> None:
    table = table_of(runs_of(*cells_of("table3", methods=["simclr", "moco"], seeds=seeds)))
    assert table.notes[0].endswith(end)
    assert table.notes[1] == "Nothing is marked: that takes at least two rows with 3 seeds each."
    assert not any(entry.bold or "†" in entry.text for row in table.ranked.values() for entry in row)
    assert not any(note.startswith("More seeds") for note in table.notes)
    assert "calibrated" not in table.notes


ROWS = {"SimCLR": ("method=simclr",), "MoCo": ("method=moco",), "Barlow Twins": ("method=barlow_twins",)}


def published(*overrides: str, rows: dict[str, tuple[str, ...]] = ROWS, **show: Any) -> dict[str, dict[str, str]]:
    """Columns of published figures by heading: what stands in which row of Table 3 at the paper's scale."""
    experiment = find("table3")
    experiment = replace(experiment, rows=rows, show={**experiment.show, "ranked": list(rows), **show})
    cells = experiment.cells("paper", datasets=["cifar10"], seeds=[0], overrides=overrides)
    table = comparison(experiment, runs_of(cells, compose_cells(cells)), "calibrated")
    found = {heading: {row: e[i].text for row, e in table.ranked.items()} for i, heading in enumerate(table.columns)}
    return {
        heading.removeprefix("cifar10, "): {row: text for row, text in texts.items() if text}
        for heading, texts in found.items()
        if "published" in heading
    }


def test_published_figures_stand_beside_ours_only_under_the_same_protocol_epochs_and_batch_size() -> None:
    # The notebook's figure of MoCo is of 800 epochs and batches of 512 images; under knn1 nobody has published any.
    assert published("batch_size=512")["linear, published"] == {"MoCo": "90.7 [a]"}
    assert published("batch_size=512", "eval_every=400", "runs_dir=others")["linear, published"] == {"MoCo": "90.7 [a]"}
    for overrides in ([], ["batch_size=512", "epochs=400"]):
        assert "linear, published" not in published(*overrides)


def test_a_figure_of_another_protocol_or_of_epochs_not_stated_has_a_column_that_names_its_protocol() -> None:
    assert published() == {
        "published under linear_frozen": {"Barlow Twins": "89.47 [b], 89.04 [c]"},
        "published under linear_frozen_sgd_lr30": {"SimCLR": "91.3 [a]"},
    }
    columns = published("epochs=1000")
    assert columns["published under linear_online_test_last"] == {"SimCLR": "90.74 [a]", "Barlow Twins": "92.1 [a]"}


@pytest.mark.parametrize(
    "override",
    [
        "subset=5000",
        "labels=100",
        "backbone=resnet50",
        "scale.width=16",
        "optimizer.lr=1",
        "recipe=original",
        "epochs=7",
    ],
)
def test_nothing_published_stands_beside_other_settings(override: str) -> None:
    assert published("batch_size=512", override) == {}


@pytest.mark.parametrize("override", ["subset=5000", "labels=100", "scale.width=16", "backbone=resnet50", "epochs=7"])
def test_a_published_figure_is_of_all_images_and_of_the_network_and_epochs_stated(override: str) -> None:
    figure = next(one for one in figures() if (one.method, one.dataset, one.epochs) == ("moco", "cifar10", "800"))
    overrides = ["method=moco", "dataset=cifar10", "scale=paper", f"batch_size={figure.batch_size}"]
    assert not figure.differs(compose(overrides))
    assert figure.differs(compose([*overrides, override]))


def test_at_short_scales_nothing_published_stands_beside(made: list[Run]) -> None:
    assert "ublished" not in markdown(table_of(made))
    runs = runs_of(*cells_of("table3", datasets=["cifar10"], methods=["simclr"], seeds=[0]))
    assert "ublished" not in markdown(table_of(runs))


def test_a_row_with_settings_of_its_own_has_nothing_published_beside_it_and_other_experiments_nothing_at_all() -> None:
    rows = {"MoCo, T 0.2": ("method=moco", "method.temperature=0.2"), "MoCo": ("method=moco",)}
    assert published("batch_size=512", rows=rows)["linear, published"] == {"MoCo": "90.7 [a]"}
    assert published("batch_size=512", published=False) == {}
    assert not find("calibration").show.get("published")


def test_markdown_is_a_table_with_marks(made: list[Run]) -> None:
    runs = made
    set_percents(runs, "SimCLR", [99.5, 99.5, 99.75])
    lines = markdown(table_of(runs)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert any(line.startswith("| SimCLR ") and "**99.6 ± 0.1**" in line for line in rows)
    assert "- calibrated" in lines


def test_latex_escapes_what_would_not_compile(made: list[Run]) -> None:
    text = latex(table_of(made))
    body = text.replace(r"\%", "").replace(r"\_", "").replace("% \\usepackage", "")
    assert "%" not in body
    assert "_" not in body
    assert "±" not in text
    assert "×" not in text
    assert text.isascii()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {2}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert escaped("A & B_c, 5 % $#{}~^\\") == (
        r"A \& B\_c, 5 \% \$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_committed_latex_compiles_without_packages_for_letters() -> None:
    files = list((Path(__file__).parents[2] / "experiments").rglob("*.tex"))
    assert len(files) > 5
    assert [str(file) for file in files if not file.read_text(encoding="utf-8").isascii()] == []


def test_a_record_without_test_images_says_nothing_of_what_one_is_worth(made: list[Run]) -> None:
    for run in made:
        assert run.record
        run.record.images["test"] = 0
        run.record.results = {name: dict.fromkeys(scores) for name, scores in run.record.results.items()}
    assert table_of(made).ranked["SimCLR"][0].text == "n. a."


def test_the_picture_of_a_table_is_the_same_every_time(made: list[Run], tmp_path: Path) -> None:
    table = table_of(made)
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, table)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_one_image_is_the_step_of_the_test(made: list[Run]) -> None:
    runs = made
    step = 100 / TEST_IMAGES
    set_percents(runs, "SimCLR", [95.0, 96.0, 97.0])
    set_percents(runs, "MoCo", [95.0 - step, 96.0 - step, 97.0 - step])  # always one image less
    assert "†" not in table_of(runs).ranked["MoCo"][0].text


def test_under_validation_images_one_of_them_is_the_step(made: list[Run]) -> None:
    for run in made:
        assert run.record
        run.record.images["validation"] = 50
    assert worth(made) == 100 / TEST_IMAGES
    assert worth([replace(run, on="validation") for run in made]) == 100 / 50


def test_more_seeds_are_asked_for_by_the_row_that_is_nearest_to_the_highest() -> None:
    rows = {"a": {0: 90.0, 1: 91.0, 2: 92.0}, "b": {0: 88.0, 1: 92.0, 2: 90.5}, "c": {0: 89.0, 1: 92.0, 2: 91.0}}
    (note,) = _closest({"digits, knn1": (rows, 0.25)})
    assert "digits, knn1: a and c, " in note


def test_seeds_that_two_rows_do_not_share_ask_for_no_more_of_them() -> None:
    rows = {"a": {0: 90.0, 1: 91.0, 2: 90.5}, "b": {3: 89.0, 4: 90.0, 5: 89.5}, "c": {0: 80.0, 1: 85.0, 2: 89.0}}
    (note,) = _closest({"digits, knn1": (rows, 0.1)})
    assert "digits, knn1: a and c, " in note
    del rows["c"]
    assert _closest({"digits, knn1": (rows, 0.1)}) == []


def test_notes_of_a_sweep_that_is_half_done_are_of_what_is_marked() -> None:
    runs = runs_of(*cells_of("table3", "cpu", methods=METHODS, seeds=[0, 1, 2]))
    half = [replace(run, entry=None) if run.cell.dataset == "digits" and run.cell.seed else run for run in runs]
    notes = comparison(find("table3"), half, "calibrated").notes
    assert "± standard deviation over n = 3 seeds on cifar10, 1 on digits" in notes[0]
    assert any(note.startswith("Bold: the highest mean") and "; 3 seeds show large" in note for note in notes)
    assert "calibrated" in notes


def test_more_seeds_are_counted_from_those_that_both_rows_have() -> None:
    rows = {"a": dict(enumerate([91.0, 90.0, 92.0, 91.5, 90.5, 91.2])), "b": dict(enumerate([90.5, 90.1, 90.5]))}
    needed = seeds_needed(rows["a"], rows["b"])
    assert needed is not None
    assert _closest({"x": (rows, 0.0)})[0].endswith(f"x: a and b, {needed - 3}.")
