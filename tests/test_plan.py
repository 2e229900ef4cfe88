"""What a sweep will cost, before it starts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from program import Program
from ssl_bench.batch import Batch, Place
from ssl_bench.cli import plan as command
from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import DATASETS
from ssl_bench.errors import UserError
from ssl_bench.evaluation import knn
from ssl_bench.evaluation.baselines import kept
from ssl_bench.evaluation.evaluator import Evaluator
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.finetune import FineTuning
from ssl_bench.evaluation.linear import LinearClassifier, LinearProbe
from ssl_bench.evaluation.protocols import protocols
from ssl_bench.plan import costs, forecast
from ssl_bench.plan import sampled as sampling
from ssl_bench.plan.forecast import Baseline, Evaluation, Measured
from ssl_bench.plan.operations import of_training
from ssl_bench.plan.sampled import Sampled
from ssl_bench.sweep import cards, grid, local, request
from ssl_bench.training.build import build_method
from ssl_bench.training.preflight import pretraining_images

EVALUATION = Evaluation(
    key="", load=1.0, monitor=10.0, curves=100.0, final=1000.0, baselines=(), files=7, memory=0, gpu_memory=0
)
NOTHING: dict[str, Any] = {
    "start": 0.0,
    "step": 0.0,
    "epoch": 0.0,
    "save": 0.0,
    "checkpoint": 5,
    "memory": 0,
    "gpu_memory": 0,
}


def config(**values: Any) -> Config:
    overrides = ["epochs=10", "monitor_every=2", "eval_every=4", "trainer.checkpoint_seconds=1e9"]
    return replace(compose(overrides), **values)


@pytest.mark.parametrize(
    ("passes", "monitor_every", "curves_every"), [(10, 2, 4), (12, 3, 4), (7, 10, 10), (1, 1, 1), (9, 2, 3)]
)
def test_evaluations_are_counted_as_the_monitor_makes_them(passes: int, monitor_every: int, curves_every: int) -> None:
    monitors = curves = 0
    for epoch in range(1, passes + 1):
        if epoch == passes or epoch % curves_every == 0:
            curves += 1
        elif epoch % monitor_every == 0:
            monitors += 1
    assert forecast.evaluations(passes, monitor_every, curves_every) == (monitors, curves)


def test_a_forecast_is_the_sum_of_its_parts() -> None:
    free = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=1, **NOTHING)
    # Monitors behind epochs 2 and 6; curves behind 4, 8 and 10.
    assert forecast.seconds(free, config()) == 1.0 + 2 * 10.0 + 3 * 100.0 + 1000.0
    costly = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=3, **{**NOTHING, "step": 0.5, "epoch": 2.0})
    calm = config(monitor_every=99, eval_every=99)
    assert forecast.seconds(costly, calm) == 1.0 + 30 * (6 * 0.5 + 2.0) + 100.0 + 1000.0
    saving = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=3, **{**NOTHING, "epoch": 10.0, "save": 4.0})
    often = calm.changed({"trainer.checkpoint_seconds": 60.0})
    assert forecast.seconds(saving, often) == 1.0 + 300.0 + 100.0 + 1000.0 + (1 + 400 // 60) * 4.0
    assert forecast.disk(free) == 12


def test_a_kind_that_crashes_is_counted_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(function: Callable[..., Any], *given: Any, folder: Path | None = None) -> Any:
        if function is grid.fingerprints:
            return [f"{number:012}" for number in range(len(given[0]))]
        if function is cards.visible:
            return []
        raise RuntimeError("Traceback (most recent call last):\n  …\nOutOfMemoryError: no memory\n")

    monkeypatch.setattr(local, "ask", ask)
    assert command.main(["fig2", "scale=smoke", "seeds=0", f"runs_dir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "2 run(s) could not be measured" in shown
    assert "OutOfMemoryError" in shown
    assert "Traceback" not in shown


GIGA = 10**9
HOURS = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8").partition("| hours |")[2]


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Asks for Figure 2 with seeds 0 and 1 where a run with the proximal term takes 2 h and one without it 30 min.

    Random weights take 6 min for each seed. Of the first run half the epochs are over.
    """
    random = Baseline({"network": "resnet18", "seed": 7}, 360.0)
    nothing = {"monitor": 0.0, "curves": 0.0, "gpu_memory": 0}
    evaluation = Evaluation(key="a", load=600.0, final=1200.0, baselines=(random,), files=2 * GIGA, memory=0, **nothing)
    done: set[str] = set()

    def measured(config: Config) -> Measured:
        with_term = config.method.options["proximal"] != 0
        memory, start = (3 * GIGA, 5400.0) if with_term else (4 * GIGA, 0.0)
        return Measured(
            evaluation=evaluation, start=start, step=0.0, epoch=0.0, save=0.0, checkpoint=GIGA, steps=1,
            passes_per_epoch=1, memory=memory, gpu_memory=0,
        )  # fmt: skip

    def ask(function: Callable[..., Any], *given: Any, folder: Path | None = None) -> Any:
        if function is grid.fingerprints:
            return [f"{number:012}" for number in range(len(given[0]))]
        return measured(given[0]) if function is forecast.measure else []

    def refresh(entry: grid.SweepRun) -> None:
        entry.state = "done" if entry.folder.fingerprint in done else "left"

    monkeypatch.setattr(local, "ask", ask)
    monkeypatch.setattr(grid.SweepRun, "refresh", refresh)
    half = tmp_path / f"{0:012}" / "metrics.csv"
    half.parent.mkdir()
    half.write_text("epoch,loss\n" + "".join(f"{epoch},1.0\n" for epoch in range(1, 6)), encoding="utf-8")

    def sentences(*options: str, finished: int = 0) -> list[str]:
        done.update(f"{number:012}" for number in range(finished))
        console: list[str] = []
        monkeypatch.setattr(costs.Console, "print", lambda self, shown, **_: console.append(str(shown)))
        fixed = ["fig2", "scale=smoke", "seeds=0,1", "epochs=10", f"runs_dir={tmp_path}"]
        assert command.main([*fixed, *options]) == 0
        return console

    return sentences


@pytest.mark.parametrize(
    ("options", "said"),
    [
        # 1 + 2 + 2 · 0.5 hours of runs, 2 · 0.1 of random weights
        (("jobs=1",), "4.20 hours on this machine, 12.0 GB of disk, 4.0 GB of memory."),
        (("jobs=2",), "2.10 hours on this machine with jobs=2, 12.0 GB of disk, 8.0 GB of memory."),
        (("jobs=9",), "1.05 hours on this machine with jobs=9, 12.0 GB of disk, 16.0 GB of memory."),
        (
            ("launcher=slurm", "trainer.precision=32-true", "jobs=2"),
            "4.20 hours on this machine one after another, where a cluster runs them side by side, 12.0 GB of disk, "
            "4.0 GB of memory.",
        ),
    ],
    ids=["one after another", "two at once", "more at once than there are", "a cluster's"],
)
def test_what_is_left_is_counted_in_hours_disk_and_memory(
    made_up: Callable[..., list[str]], options: tuple[str, ...], said: str
) -> None:
    *_, shared, whole = made_up(*options)
    assert shared == "Random weights and raw pixels, once for the same images, network and seed: 12.0 min."
    assert whole == f"All runs that are left: {said}"


def test_of_finished_runs_nothing_is_counted(made_up: Callable[..., list[str]]) -> None:
    *_, shared, whole = made_up("jobs=1", finished=1)
    assert shared.endswith(": 12.0 min.")
    assert whole == "All runs that are left: 3.20 hours on this machine, 9.0 GB of disk, 4.0 GB of memory."
    assert made_up("jobs=1", finished=4)[-1] == "Nothing is left to run."


def test_baselines_are_charged_once_for_the_same_images_network_and_seed(tmp_path: Path) -> None:
    random = Baseline({"network": "resnet18", "seed": 7}, 5.0)
    pixels = Baseline({"images": "digits"}, 11.0)
    measured = Measured(
        evaluation=dataclasses.replace(EVALUATION, baselines=(random, pixels)), steps=1, passes_per_epoch=1, **NOTHING
    )
    charged: set[Path] = set()
    owed = [forecast.baselines(measured, config(seed=s, runs_dir=str(tmp_path)), charged) for s in (0, 0, 1, 1)]
    assert owed == [16.0, 0.0, 5.0, 0.0]
    kept(tmp_path / "baselines", {"network": "resnet18", "seed": 2}, dict)
    kept(tmp_path / "baselines", pixels.identity, dict)
    owed = [forecast.baselines(measured, config(seed=s, runs_dir=str(tmp_path)), set()) for s in (2, 3)]
    assert owed == [0.0, 5.0]


TUNING = FineTuning((0.1, 0.3), steps=300, batch_size=16, momentum=0.9, weight_decay=0.0, flip=0.5)


class Seen(torch.nn.Module):
    """Counts images, which are their own features."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.flatten(1)


class Many:
    """A million images in batches of 256, made when they are read."""

    def __init__(self, count: int) -> None:
        self.index = torch.arange(count)

    def __iter__(self) -> Iterator[Batch]:
        draw = torch.Generator().manual_seed(0)
        for rows in self.index.split(256):
            images = torch.randint(256, (len(rows), 1, 4, 4), dtype=torch.uint8, generator=draw)
            yield Batch(images, rows % 10, rows, Place(seed=0, epoch=0, step=0, first=0, size=len(rows)))


def sampled(count: int, monkeypatch: pytest.MonkeyPatch, *more: str, classes: int = 10) -> Sampled:
    """An evaluation of ``count`` training and as many test images, where every clock's look costs a second."""
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    whole = LinearProbe((0.1, 0.3), epochs=300, batch_size=256, momentum=0.9, weight_decay=0.0, seed=0)
    labels = torch.arange(count) % classes
    data = SimpleNamespace(splits={name: SimpleNamespace(labels=labels) for name in ("train", "test")})
    evaluator = Evaluator(
        clean=Clean(),
        loaders={name: lambda: Many(count) for name in ("bank", "probe", "validation", "test")},
        protocols=protocols(["knn1", "knn200", "knn1_100labels", "linear", *more], whole, TUNING, refit=True),
        classes=classes,
        memory=1 << 24,
        drawn=lambda index, batch_size: Many(len(index)),
    )
    return Sampled(evaluator, data, torch.device("cpu"))  # type: ignore[arg-type]


class Clean(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255


def test_a_million_images_are_evaluated_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    count, network = 1_000_000, Seen()
    evaluator = sampled(count, monkeypatch)
    rows: list[int] = []
    monkeypatch.setattr(
        knn, "predict", lambda bank, labels, queries, **_: rows.append(len(bank)) or queries[:, 0].long()
    )
    monkeypatch.setattr(LinearProbe, "_train", trained := Trained())
    splits = evaluator.features(network, torch.device("cpu"))
    scores = evaluator.score(splits, list(evaluator.protocols), "test")
    assert all(score.percent is not None for score in scores.values())
    assert network.images == 2 * 512  # bank, which holds probe and validation, and test
    assert max(rows) <= sum(sampling.ROWS.values())
    assert trained.rows == [4_096, 4_096 + 1_024]
    assert trained.epochs == {sampling.PROBE_EPOCHS}
    embedding = 2 * (count / 512 - 1)
    queries = count / 1_024
    bank = count / len(evaluator.rows["bank"])
    probing = 100 * count / 4_096 - 1 + 100 * 2 * count / (4_096 + 1_024) - 1
    assert evaluator.owed == pytest.approx(embedding + 2 * (queries * bank - 1) + queries - 1 + probing, rel=1e-6)
    assert evaluator.lacking["cpu"] > 4 * 16 * count * 4


class Trained:
    """Stands in for the training of a probe."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.epochs: set[int] = set()

    def __get__(self, probe: LinearProbe, owner: type) -> Callable[..., list[LinearClassifier]]:
        def train(features: Features, rates: tuple[float, ...], classes: int) -> list[LinearClassifier]:
            self.rows.append(len(features))
            self.epochs.add(probe.epochs)
            zeros = torch.zeros(16)
            return [LinearClassifier(zeros, zeros + 1, torch.zeros(16, classes), torch.zeros(classes)) for _ in rates]

        return train


def test_few_images_are_all_evaluated_and_nothing_is_owed_but_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = sampled(300, monkeypatch)
    splits = evaluator.features(Seen(), torch.device("cpu"))
    names = ["knn1", "knn200", "knn1_100labels"]
    found = evaluator.score(splits, names, "test")
    assert evaluator.owed == 0.0
    plain = Evaluator.features(evaluator, Seen(), torch.device("cpu"))
    assert torch.equal(splits.bank.x, plain.bank.x)
    assert all(score.percent == 100.0 for name, score in found.items() if name == "knn1")  # each is its own neighbour
    evaluator.score(splits, ["linear"], "test")
    assert evaluator.owed == 2 * (300 / sampling.PROBE_EPOCHS - 1)
    assert not any(evaluator.lacking.values())


def test_probes_of_few_labels_are_sampled_by_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = sampled(300, monkeypatch, "linear_10percent")
    splits = evaluator.features(Seen(), torch.device("cpu"))
    found = evaluator.score(splits, ["linear_10percent"], "test")
    assert found["linear_10percent"].percent is not None
    # Of three draws; and not by the pairs of bank and test images, as neighbours are.
    assert evaluator.owed == 3 * (300 / sampling.PROBE_EPOCHS - 1)


def test_a_small_share_of_many_classes_is_sampled_by_more_labels_than_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 % of the sample would be fewer than the classes, which the protocol refuses."""
    monkeypatch.setattr(LinearProbe, "_train", trained := Trained())
    evaluator = sampled(45_000, monkeypatch, "linear_1percent", classes=100)
    splits = evaluator.features(Seen(), torch.device("cpu"))
    _ = splits.bank, splits.train, splits.validation, splits.test
    evaluator.owed = 0.0
    assert evaluator.score(splits, ["linear_1percent"], "test")["linear_1percent"].percent is not None
    assert trained.rows == [100] * 3  # for 450 of all labels
    assert evaluator.owed == pytest.approx(3 * (4.5 * 300 / sampling.PROBE_EPOCHS - 1), rel=1e-6)


def test_protocols_of_one_probe_share_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = sampled(300, monkeypatch, "linear_top5").protocols
    assert probes["linear"].probe == probes["linear_top5"].probe  # type: ignore[attr-defined]
    assert len({probe.probe for probe in probes.values() if hasattr(probe, "probe")}) == 1


def test_planning_on_a_cpu_waits_for_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    sampling.wait(torch.device("cpu"))
    assert not waited
    sampling.wait(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


def test_fine_tuning_is_sampled_by_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = sampled(300, monkeypatch, "finetune")
    steps: list[int] = []
    train = FineTuning.train

    def counting(self: FineTuning, *given: Any) -> Any:
        steps.append(self.steps)
        return train(self, *given)

    monkeypatch.setattr(FineTuning, "train", counting)
    splits = evaluator.features(Seen(), torch.device("cpu"))
    found = evaluator.score(splits, ["finetune"], "test")
    assert found["finetune"].percent is not None
    assert steps == [sampling.TUNING_STEPS] * 2
    assert evaluator.owed == 300 / sampling.TUNING_STEPS * 2 - 1  # of two rates
    assert repr(evaluator.protocols["finetune"]).count(repr(TUNING)) == 1  # in a baseline's identity


@pytest.mark.slow
def test_a_plan_does_not_train_probes_for_hours(tmp_path: Path) -> None:
    overrides = ["fig2", "scale=smoke", "seeds=0", "subset=96", "batch_size=16", "trainer.threads=1"]
    asked = request.read([*overrides, "evaluation.linear.epochs=1000000", f"runs_dir={tmp_path}"])
    measured = local.ask(forecast.measure, asked.configs[0], {}, folder=tmp_path)  # it returns
    random, pixels = measured.evaluation.baselines
    assert min(measured.evaluation.curves, random.seconds, pixels.seconds) > 300.0
    assert measured.evaluation.final < 100.0  # the curves' probe is the table's
    assert measured.evaluation.load < 100.0


def test_a_file_in_place_of_the_folder_of_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert command.main(["fig5", "scale=smoke", "seeds=0", f"runs_dir={tmp_path / 'file'}"]) == 2
    assert f"runs_dir={tmp_path / 'file'} is no folder: choose another." in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_names_every_kind_and_leaves_nothing_behind(tmp_path: Path, program: Program) -> None:
    overrides = ("fig5", "scale=smoke", "seeds=0,1", "trainer.threads=1")
    done = program("plan", *overrides)
    assert done.returncode == 0, done.stderr
    for row in ("CLBO on digits", "without the proximal term on digits", "moving average after every step on digits"):
        assert f"measuring {row}" in done.stdout
    assert "6 runs · ○ 6 left" in done.stdout
    assert "All runs that are left:" in done.stdout
    assert "could not be measured" not in done.stdout
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_what_is_measured_is_of_the_size_of_what_runs_take(tmp_path: Path, program: Program) -> None:
    """Within a factor of three, since other processes may disturb the tests."""
    overrides = ("fig2", "scale=smoke", "seeds=0", "epochs=30", "eval_every=3", "trainer.threads=1")
    swept = program("sweep", *overrides)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    took = {record["fingerprint"]: record["session_seconds"] for record in records}
    asked = request.read([*overrides, f"runs_dir={tmp_path}/other"])
    names = local.ask(grid.fingerprints, asked.configs)
    assert set(names) == took.keys()
    measured = [local.ask(forecast.measure, found, {}, folder=tmp_path) for found in asked.configs]
    charged: set[Path] = set()
    for one, found, name in zip(measured, asked.configs, names, strict=True):
        assert 1 / 3 < (forecast.seconds(one, found) + forecast.baselines(one, found, charged)) / took[name] < 3
        assert one.steps == 10
        assert one.memory > 1e8
    known = {measured[0].evaluation.key: measured[0].evaluation}
    again = local.ask(forecast.measure, asked.configs[0], known, folder=tmp_path)
    assert again.evaluation == measured[0].evaluation
    assert again.checkpoint == pytest.approx(measured[0].checkpoint, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "hours"), re.findall(r"`(\w+)` (\d+)", HOURS))
def test_the_hours_in_the_docs_are_those_that_are_counted(name: str, hours: str) -> None:
    asked = request.read([name, "scale=paper"])
    alike = [dataclasses.replace(one, seed=0) for one in asked.configs]
    counted = {repr(one): of_training(one)[1] for one in {repr(one): one for one in alike}.values()}
    total = sum(counted[repr(one)] for one in alike)
    assert round(total / 1e14 / 3600) == int(hours)


def by_hand(network: torch.nn.Module, channels: int, size: int) -> int:
    """Two operations for each product of a weight and a value, of layers that are watched at work."""
    counted = 0

    def watch(module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * module.weight[0].numel() * output.numel()  # type: ignore[index, operator]

    layers = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    held = [one.register_forward_hook(watch) for one in layers]
    network.eval()(torch.zeros(1, channels, size, size))
    for hook in held:
        hook.remove()
    return counted


@pytest.mark.parametrize(
    ("overrides", "passes", "global_views", "teacher", "local"),
    [
        (("method=simclr",), 1, 2, 0, 0),
        (("method=clbo", "trainer.accelerator=gpu", "trainer.compile=true"), 1, 2, 2, 0),
        (("method=clbo", "method.epoch_unit=teacher"), 2, 2, 2, 0),
        (("method=clbo", "method.lookahead_batch=same_batch"), 2, 2, 2, 0),
        (("method=swav", "augment.groups.local.count=3"), 1, 2, 0, 3),
    ],
)
def test_operations_are_those_of_forward_and_backward_passes(
    overrides: tuple[str, ...], passes: int, global_views: int, teacher: int, local: int
) -> None:
    config = compose([*overrides, "dataset=digits", "scale=smoke", "epochs=3"])
    plain = [override for override in overrides if not override.startswith("trainer.")]
    method = build_method(compose([*plain, "dataset=digits", "scale=smoke"]), DATASETS["digits"])
    seen, operations = of_training(config)
    steps = pretraining_images(config) // config.batch_size  # type: ignore[operator]
    assert seen == steps * config.batch_size * 3 * passes
    forward = {size: by_hand(method.student, 1, size) for size in set(method.views.sizes)}
    large, small = max(forward), min(forward)
    assert operations == seen * ((3 * global_views + teacher) * forward[large] + 3 * local * forward[small])


def test_what_is_counted_needs_neither_data_nor_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["table3", "scale=paper", "count=true", "methods=simclr,clbo", "datasets=stl10,imagenet100", "seeds=0"]
    assert command.main([*asked, f"data_dir={tmp_path}", f"runs_dir={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert "SimCLR on stl10" in shown
    assert "All 6 runs: " in shown
    assert "operations of training" in shown
    assert not list(tmp_path.iterdir())


def test_operations_of_pictures_of_ones_own_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^count=true knows published datasets only"):
        of_training(compose(["dataset=folder", f"dataset.root={tmp_path}", "scale=smoke"]))
