"""Tables and figures as sweeps."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ssl_bench.config import compose as config
from ssl_bench.config import experiments, parse
from ssl_bench.config.options import GROUPS
from ssl_bench.errors import UserError
from ssl_bench.results.fingerprint import configuration_key

SWEEPS = experiments.names()


@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_composes_and_is_a_run_of_its_own(name: str) -> None:
    cells = experiments.find(name).cells("cpu", datasets=["digits"], seeds=[3])
    keys = {configuration_key(config.compose(cell.words).as_dict()) for cell in cells}
    assert len(keys) == len(cells) == len(experiments.find(name).rows)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_scale_names_known_datasets_and_what_is_shown_names_known_rows(name: str) -> None:
    experiment = experiments.find(name)
    assert set(experiment.datasets) == set(GROUPS["scale"])
    assert {dataset for datasets in experiment.datasets.values() for dataset in datasets} <= set(GROUPS["dataset"])
    panels = (experiment.show.get("panels") or {}).values()
    assert {row for panel in panels for row in panel} | set(experiment.show.get("ranked", ())) <= set(experiment.rows)


def test_a_multirun_of_an_experiment_is_its_cells() -> None:
    expected = [list(cell.words) for cell in experiments.find("fig2").cells("smoke", seeds=[4], words=["epochs=1"])]
    assert list(parse.cells(["experiment=fig2", "scale=smoke", "seed=4", "epochs=1"])) == expected


def test_cells_that_differ_by_their_seed_are_composed_as_they_would_be_alone() -> None:
    cells = experiments.find("fig5").cells("cpu", datasets=["digits"], seeds=[0, 7])
    assert config.compose_cells(cells) == [config.compose(cell.words) for cell in cells]


@pytest.mark.parametrize("name", SWEEPS)
def test_runs_that_wandb_watches_have_group_and_row_and_stay_the_same_runs(name: str) -> None:
    experiment = experiments.find(name)
    methods = [[*experiment.rows.values()][-1][0].partition("=")[2]]
    plain = config.compose_cells(experiment.cells("smoke", seeds=[0], methods=methods))
    cells = experiment.cells("smoke", seeds=[0], methods=methods, words=["logger=wandb"])
    watched = config.compose_cells(cells)
    assert [one.logger.options["row"] for one in watched] == [cell.row for cell in cells]
    assert {one.logger.options["group"] for one in watched} == {f"{name}-smoke"}
    assert [configuration_key(one.as_dict()) for one in watched] == [configuration_key(one.as_dict()) for one in plain]


def test_a_group_that_is_set_is_kept_by_a_multirun_too() -> None:
    words = ["experiment=fig2", "scale=smoke", "seed=4", "logger=wandb"]
    for extra, group in (([], "fig2-smoke"), (["logger.group=mine"], "mine"), (["++logger.group=mine"], "mine")):
        runs = [config.compose(run) for run in parse.cells([*words, *extra])]
        assert [run.logger.options["group"] for run in runs] == [group, group]
        assert [run.logger.options["row"] for run in runs] == list(experiments.find("fig2").rows)


def test_a_cells_command_is_one_that_a_shell_reads() -> None:
    cell = experiments.find("fig2").cells("smoke", words=["logger=wandb"])[0]
    assert shlex.split(cell.command) == ["python", "-m", "ssl_bench", *cell.words]


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
        ("kind: table", "kind: tabel", "show.kind is table or curves or calibration or trials or expected, not tabel."),
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


def test_a_sweep_is_not_one_run() -> None:
    with pytest.raises(UserError, match=r"experiment=table3 is many runs: add -m, or run python -m ssl_bench sweep"):
        config.compose(["experiment=table3"])
