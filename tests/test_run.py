"""One run from configuration to record, and what happens when something is wrong."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from filelock import FileLock
from PIL import Image

from ssl_bench import load_encoder
from ssl_bench.cli import evaluate
from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.encoders import score as encoders
from ssl_bench.errors import UserError
from ssl_bench.evaluation.baselines import random_scores
from ssl_bench.evaluation.features import extract
from ssl_bench.evaluation.finetune import FineTuning, Tuned
from ssl_bench.evaluation.protocols import NearestNeighbours
from ssl_bench.methods.base import Method
from ssl_bench.report.tables import run_table
from ssl_bench.results.code import code_digest
from ssl_bench.results.record import Record
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training import needs
from ssl_bench.training.build import build, build_data, build_evaluator, clean_arguments
from ssl_bench.training.run import run

WORDS = ("scale=smoke", "subset=160", "batch_size=16", "trainer.progress=false", "trainer.precision=32-true")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Record]:
    """A small CLBO run: its configuration, folder and record."""
    config = compose([*WORDS, "evaluation.projector=true", f"runs_dir={tmp_path_factory.mktemp('runs')}"])
    record = run(config, [Saved(Path(config.runs_dir))])
    return config, Path(config.runs_dir) / record.fingerprint, record


class Saved(pl.Callback):
    """Sees before each epoch how many the checkpoint holds."""

    seen: ClassVar[list[int]] = []

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        found = [torch.load(path, weights_only=True) for path in self.runs_dir.glob("*/checkpoints/last.ckpt")]
        self.seen.append(sum(state["ssl_bench"]["finished_epochs"] for state in found))


Finished = tuple[Config, Path, Record]


def test_an_epoch_that_counts_teacher_steps_is_k_passes_of_a_run(tmp_path: Path) -> None:
    class Planned(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
            raise UserError(f"{trainer.estimated_stepping_batches} steps")

    clbo = ["method=clbo", "method.lookahead=3", "method.epoch_unit=teacher", "epochs=2"]
    with pytest.raises(UserError, match=f"^{2 * 3 * 160 // 16} steps"):
        run(compose([*WORDS, *clbo, f"runs_dir={tmp_path}"]), [Planned()])


def test_a_run_leaves_the_promised_files(finished: Finished) -> None:
    _, folder, record = finished
    expected = {"config.yaml", "metrics.csv", "record.json", "predictions.npz", "encoder.safetensors", "tsne.png"}
    assert expected <= {path.name for path in folder.iterdir()}
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert not [path.name for path in folder.rglob("*tmp*")]
    assert Record.read(folder / "record.json", folder.name) == record


def test_the_first_epoch_is_saved_so_that_a_short_run_resumes(finished: Finished) -> None:
    assert finished[0].trainer.checkpoint_seconds == 60
    assert Saved.seen[:2] == [0, 1]


def test_the_record_names_the_run_and_scores_every_network_under_every_protocol(finished: Finished) -> None:
    _, folder, record = finished
    written = json.loads((folder / "record.json").read_text())
    assert list(written)[:5] == ["method", "dataset", "scale", "seed", "fingerprint"]
    assert list(written) == [key for key in vars(record) if key not in ("encoder", "seconds", "init", "eval_on")]
    assert list(record.results) == ["teacher", "student", "projector", "random", "pixels"]
    for scores in record.results.values():
        assert set(scores) == {"knn1", "knn200", "knn1_100labels", "linear"}
        assert all(0 <= value <= 100 for value in scores.values())


def test_the_record_keeps_no_path_host_or_user(finished: Finished) -> None:
    import getpass
    import platform

    config, folder, _ = finished
    text = (folder / "record.json").read_text()
    assert config.runs_dir not in text
    assert str(Path.home()) not in text
    assert f'"{platform.node()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_predictions_give_the_recorded_accuracy_again(finished: Finished) -> None:
    _, folder, record = finished
    arrays = np.load(folder / "predictions.npz")
    for network, scores in record.results.items():
        for protocol in ("knn1", "knn200", "linear"):
            right = (arrays[f"{network}/{protocol}"] == arrays["labels"]).mean()
            assert 100 * right == pytest.approx(scores[protocol])


def test_the_curves_of_student_and_teacher_end_at_the_final_table(finished: Finished) -> None:
    _, _, record = finished
    for network in ("teacher", "student"):
        for protocol in ("knn1", "linear"):
            curve = record.curves[f"test/{protocol}/{network}"]
            assert [epoch for epoch, _ in curve] == [1, 2]
            assert curve[-1][1] == record.results[network][protocol]
            assert len(record.curves[f"validation/{protocol}/{network}"]) == 2


def test_metrics_hold_the_collapse_panel_of_every_epoch(finished: Finished) -> None:
    _, folder, _ = finished
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert 0 < float(row["collapse/embedding_std"]) < 0.3
        assert 1 < float(row["collapse/rankme"]) <= 16
        assert float(row["collapse/uniformity"]) < 0
        assert 0 < float(row["collapse/alignment"]) < 4


def test_load_encoder_gives_the_runs_own_features(finished: Finished) -> None:
    config, folder, _ = finished
    method, data = build(config)
    data.setup()
    method.load_state_dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    encoder = load_encoder(folder)
    assert not encoder.training
    own = extract(
        method.teacher.backbone,  # type: ignore[union-attr, arg-type]
        encoder.clean,  # type: ignore[arg-type]
        data.test(),
        device="cpu",
    )
    images = data.splits["test"].images.float() / 255
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), own.x, rtol=1e-5, atol=1e-5)
    assert load_encoder(folder / "encoder.safetensors") is not None


def test_the_projector_is_scored_by_what_the_deployed_network_embeds(finished: Finished) -> None:
    config, folder, record = finished
    method, data = build(config)
    data.setup()
    method.load_state_dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    clean = load_encoder(folder).clean
    bank, test = (
        extract(method.teacher, clean, part, device="cpu")  # type: ignore[arg-type]
        for part in (data.bank(), data.test())
    )
    assert test.x.shape[1] == method.width != record.config["scale"]["width"]
    nearest = torch.nn.functional.normalize(test.x) @ torch.nn.functional.normalize(bank.x).T
    right = (bank.labels[nearest.argmax(1)] == test.labels).double().mean()
    assert record.results["projector"]["knn1"] == pytest.approx(100 * float(right))
    assert not any(key.endswith("/projector") for key in record.curves)


def test_the_random_baseline_is_the_network_before_training(finished: Finished) -> None:
    config, _, record = finished
    method, data = build(config)
    evaluator = build_evaluator(config, data, clean_arguments(config, data.dataset))
    untrained = random_scores(
        method.student.backbone, evaluator, data.bank(whole=True), torch.device("cpu"), ["knn1", "linear"]
    )
    for name, score in untrained.items():
        assert score.percent == record.results["random"][name]


@pytest.mark.parametrize(("precision", "switch"), [("32-true", "ieee"), ("bf16-mixed", "tf32")])
def test_float32_training_is_float32_whatever_the_user_has_set(tmp_path: Path, precision: str, switch: str) -> None:
    class Seen(Exception):  # noqa: N818
        pass

    class Watching(pl.Callback):
        def on_train_batch_start(self, *given: Any) -> None:
            raise Seen(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)

    overrides = [override for override in WORDS if not override.startswith("trainer.precision")]
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(Seen) as seen:
            run(compose([*overrides, f"trainer.precision={precision}", f"runs_dir={tmp_path}"]), [Watching()])
        assert seen.value.args == (switch, switch)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_record_says_what_the_probe_was_trained_on(finished: Finished) -> None:
    _, _, record = finished
    assert record.notes["teacher"]["linear"]["trained_on"] == record.images["probe"] == 160
    assert record.notes["pixels"]["linear"]["trained_on"] == 160
    assert record.notes["random"]["linear"]["statistics"] in ("untouched", "measured")
    assert record.baselines == {"random": 2, "pixels": 1}


@pytest.mark.parametrize(
    ("overrides", "refit"),
    [(("subset=null",), True), (("subset=450",), False), (("subset=null", "labels=100"), False)],
)
def test_validation_labels_are_trained_on_where_no_limit_keeps_labels_away(
    overrides: tuple[str, ...], refit: bool
) -> None:
    config = compose(["scale=smoke", *overrides])
    data = build_data(config)
    evaluator = build_evaluator(config, data, clean_arguments(config, data.dataset))
    assert evaluator.protocols["linear"].refit is refit  # type: ignore[attr-defined]


def test_nothing_is_embedded_or_scored_twice_and_baselines_are_kept_for_other_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    evaluated: list[tuple[str, str]] = []

    def counting(network: Any, clean: Any, loader: Any, **options: Any) -> Any:
        embedded.append(len(loader.index))
        return extract(network, clean, loader, **options)

    evaluate = NearestNeighbours.evaluate

    def scoring(self: NearestNeighbours, splits: Any, on: str, budget: int) -> Any:
        evaluated.append((self.name, on))
        return evaluate(self, splits, on, budget)  # type: ignore[arg-type]

    monkeypatch.setattr("ssl_bench.evaluation.evaluator.extract", counting)
    monkeypatch.setattr(NearestNeighbours, "evaluate", scoring)
    overrides = [*WORDS, "epochs=2", "eval_every=2", f"runs_dir={tmp_path}"]
    records = [run(compose([*overrides, f"method={method}"])) for method in ("simclr", "byol")]
    bank, validation, test = (records[0].images[part] for part in ("bank", "validation", "test"))
    monitored, network = [bank, validation], [bank, validation, test]
    chosen = {notes["statistics"] for notes in records[0].notes["random"].values()}  # the others see no test image
    untrained = [*monitored, *monitored, *[test] * len(chosen)]
    simclr, byol = [*monitored, *network], [*monitored, *network, *network]
    assert sorted(embedded) == sorted([*simclr, *untrained, *byol])
    once = [("knn1", "validation"), ("knn1", "test"), ("knn200", "test")]
    baselines = [*once, ("knn1", "validation"), *[("knn200", "validation")] * 2]
    raw = [("knn1", "test"), ("knn200", "test")]
    at_epoch_1 = ("knn1", "validation")
    assert sorted(evaluated) == sorted([at_epoch_1, *once, *baselines, *raw, at_epoch_1, *once, *once])
    for name in ("random", "pixels"):
        assert records[1].results[name] == records[0].results[name]
        assert records[1].notes[name] == records[0].notes[name]
    kept = [np.load(tmp_path / record.fingerprint / "predictions.npz") for record in records]
    for name in ("random/knn1", "random/linear", "pixels/knn200"):
        assert np.array_equal(kept[0][name], kept[1][name])


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("labels=257", "evaluation.batch_size=64"), id="labels"),
        pytest.param(("subset=257",), id="subset", marks=pytest.mark.slow),
        pytest.param(("subset=20", "evaluation.batch_size=1"), id="batches of one", marks=pytest.mark.slow),
    ],
)
def test_a_last_batch_of_one_image_is_scored_as_any_other(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    small = [override for override in WORDS if not override.startswith("subset")]
    record = run(compose([*small, *overrides, "epochs=1", "method=simclr", f"runs_dir={tmp_path}"]))
    assert record.images["bank"] in (257, 20)
    assert all(value is not None for value in (record.results[n]["linear"] for n in ("student", "random", "pixels")))


def test_a_finished_run_is_shown_again_and_not_trained_again(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder, record = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(Method, "training_step", None)
    assert run(config).results == record.results
    assert "Finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_brackets_in_the_name_of_a_folder_are_shown_as_they_are(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder, _ = finished
    there = tmp_path / "x[" / "y]"
    shutil.copytree(folder, there / folder.name)
    run(config.changed({"runs_dir": str(there)}))
    assert capsys.readouterr().out.count(str(there / folder.name)) == 3  # finished before; the folder; its picture


def test_a_run_scored_by_older_protocols_says_so_and_how_to_score_it_again(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder, record = finished
    (own := tmp_path / folder.name / "checkpoints").mkdir(parents=True)
    older = replace(record, protocols={**record.protocols, "linear": 1}, baselines={"random": 1, "pixels": 1})
    written = {key: value for key, value in asdict(older).items() if key not in ("baselines", "encoder", "seconds")}
    (own.parent / "record.json").write_text(json.dumps(written))

    def shown() -> str:
        assert run(replace(config, runs_dir=str(tmp_path))) == older
        return " ".join(capsys.readouterr().out.split())

    before = "scored by linear v1 (now v2), random weights v1 (now v2), which tables do not mix with it"
    assert f"{before}; rerun=true trains it again, for it has no checkpoint to score." in shown()
    (own / "last.ckpt").touch()
    assert f"{before}; without record.json in {own.parent} the same command scores it again" in shown()
    older = record
    record.write(own.parent / "record.json")
    assert "scored by" not in shown()


def test_a_run_of_other_code_says_so_and_is_trained_again_when_asked(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder, record = finished
    own = tmp_path / folder.name
    shutil.copytree(folder, own)
    config = replace(config, runs_dir=str(tmp_path))
    before = code_digest(config.method.target)
    assert record.code["digest"] == before

    def shown(digest: str | None, **options: Any) -> tuple[Record, str]:
        for module in ("observers", "earlier"):
            monkeypatch.setattr(f"ssl_bench.training.{module}.code_digest", lambda target: digest)
        found = run(replace(config, **options))
        return found, " ".join(capsys.readouterr().out.split())

    found, output = shown("another")
    assert "Finished before" in output
    assert (
        "the code of clbo has changed since it was trained; rerun=true trains it again and keeps what there is."
        in output
    )
    assert found.code["digest"] == before
    # A record of a version that kept no digest: nothing is known of its code.
    replace(record, code={"version": "0.1.0"}).write(own / "record.json")
    assert "changed" not in shown("another")[1]
    # Resumed, here after its last step, by other code.
    (own / "record.json").unlink()
    found, output = shown("another")
    assert "the code of clbo has changed since the checkpoint was saved; rerun=true" in output
    assert [version["digest"] for version in found.code_versions] == ["another", before]
    assert found.results == record.results  # scored from the checkpoint
    # Trained again, once.
    left = {path.name for path in own.iterdir()} - {".lock"}
    found, output = shown("another", rerun=True)
    assert f"clbo is trained again: what the run left is in {own}/earlier/1" in output
    assert {path.name for path in (own / "earlier" / "1").iterdir()} == left
    assert found.code_versions == [{**found.code, "digest": "another"}]
    assert found.results == record.results
    assert "Finished before" in shown("another", rerun=True)[1]

    def refuse(*_: Any) -> None:
        raise UserError("not on this machine.")

    monkeypatch.setattr("ssl_bench.training.operations.require_consent", refuse)  # as at scale=paper without a GPU
    with pytest.raises(UserError, match="not on this machine"):
        shown("a third", rerun=True)
    assert (own / "record.json").exists()
    assert not (own / "earlier" / "2").exists()


def test_what_is_set_aside_is_kept_whole_and_numbered(finished: Finished, tmp_path: Path) -> None:
    _, folder, _ = finished
    own = RunFolder(tmp_path / folder.name)
    shutil.copytree(folder, own.path)
    content = {path.name: path.read_bytes() for path in own.path.iterdir() if path.is_file()}
    first = own.set_aside()
    assert own.finished() is None
    assert not own.checkpoint.exists()
    own.config.write_text("another attempt")
    second = own.set_aside()
    assert (first.name, second.name) == ("1", "2")
    assert (second / "config.yaml").read_text() == "another attempt"
    assert all((first / name).read_bytes() == kept for name, kept in content.items() if name != ".lock")


def test_what_is_set_aside_half_way_is_not_taken_for_a_run_that_has_not_begun(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, _ = finished
    rename = Path.rename
    left = [path.name for path in folder.iterdir() if path.name != ".lock"]
    for count in range(len(left) - 1):
        own = RunFolder(tmp_path / str(count) / folder.name)
        shutil.copytree(folder, own.path)
        moved: list[str] = []

        def move(path: Path, target: Path, moved: list[str] = moved, count: int = count) -> Path:
            if len(moved) > count:
                raise KeyboardInterrupt
            moved.append(path.name)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", move)
        with pytest.raises(KeyboardInterrupt):
            own.set_aside()
        assert own.checkpoint.exists(), moved
        assert not own.record.exists()
        monkeypatch.undo()


def test_two_processes_are_kept_out_of_one_folder(finished: Finished) -> None:
    config, folder, _ = finished
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process is at work"):
        run(config)


def test_a_checkpoint_holds_plain_types_only(finished: Finished) -> None:
    _, folder, _ = finished
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int), path
                check(item, f"{path}.{key}")
        elif isinstance(value, (list, tuple)):
            for item in value:
                check(item, path)
        else:
            assert value is None or type(value) in (bool, int, float, str, torch.Tensor), f"{path}: {type(value)}"

    check(state, "")


def test_the_table_shows_every_network_and_protocol(finished: Finished) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(run_table(finished[2]))
    text = console.export_text()
    for name in ("teacher", "student", "random weights", "raw pixels", "knn1 v1", "linear v2"):
        assert name in text


def test_a_narrow_terminal_cuts_no_name_of_a_protocol(finished: Finished) -> None:
    from rich.console import Console

    names = ("linear_1percent", "linear_10percent", "finetune_1percent", "finetune_10percent")
    record = replace(
        finished[2],
        results={network: dict.fromkeys(names, 50.0) for network in finished[2].results},
        protocols=dict.fromkeys(names, 1),
    )
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(run_table(record))
    assert "…" not in console.export_text()


@pytest.mark.parametrize("damage", ["truncated", "foreign", "text", "pickle"])
def test_a_damaged_or_foreign_checkpoint_is_named_and_kept(finished: Finished, tmp_path: Path, damage: str) -> None:
    config, folder, _ = finished
    whole = (folder / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / folder.name / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        torch.save({**torch.load(folder / "checkpoints" / "last.ckpt"), "ssl_bench": {"fingerprint": "0" * 12}}, path)
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        torch.save({"ssl_bench": Path}, path)  # a class: what weights_only refuses
    content = path.read_bytes()
    with pytest.raises(UserError, match=r"last\.ckpt .*Move it away to start over"):
        run(replace(config, runs_dir=str(tmp_path)))
    assert path.read_bytes() == content


def test_a_loss_that_is_not_finite_stops_with_method_step_and_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_bench.methods.clbo import CLBO

    loss = CLBO.loss

    def broken(self: CLBO, step: Any) -> Any:
        value, figures = loss(self, step)
        return value * float("nan") if step.batch.place.step == 3 else value, figures

    monkeypatch.setattr(CLBO, "loss", broken)
    config = compose([*WORDS, f"runs_dir={tmp_path}", "trainer.checkpoint_seconds=0.000001"])
    with pytest.raises(
        UserError, match=r"CLBO is nan at epoch 1, step \d+, learning rate 0\.\d+.*saved before, if anything, is intact"
    ):
        run(config)
    (checkpoint,) = tmp_path.glob("*/checkpoints/last.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] == 3
    failure = checkpoint.parents[1] / "failed.json"
    failure.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="CLBO is nan"):
        run(config)
    assert not failure.exists()  # of an attempt before this one
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values() if isinstance(value, torch.Tensor))


def test_weights_that_overflow_never_replace_the_last_good_checkpoint(tmp_path: Path) -> None:
    overrides = [*WORDS, "method=supervised", "optimizer.lr=1e30", "optimizer.warmup=0", f"runs_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"(not finite|is nan|is inf).*(intact|last good)"):
        run(compose([*overrides, "trainer.checkpoint_seconds=0.000001"]))
    for checkpoint in tmp_path.glob("*/checkpoints/last.ckpt"):
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values() if isinstance(value, torch.Tensor))


class Overflow(pl.Callback):
    """Makes one number of the method's state infinite after the fourth step, when its loss is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 4:
            found = method.parameters() if self.kind == "weights" else method.buffers()
            with torch.no_grad():
                next(one for one in found if one.is_floating_point()).view(-1)[0] = float("inf")


@pytest.mark.parametrize("kind", ["weights", "buffers"])
def test_what_becomes_infinite_after_a_step_is_not_saved(tmp_path: Path, kind: str) -> None:
    config = compose([*WORDS, f"runs_dir={tmp_path}", "trainer.checkpoint_seconds=0.000001"])
    sentence = r"weights or buffers are not finite at epoch 1, step 4; .* keeps the last good state"
    with pytest.raises(UserError, match=sentence):
        run(config, [Overflow(kind)])
    (checkpoint,) = tmp_path.glob("*/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["batch_size=4096", "subset=null"], r"batch_size=4096 is larger than the 1295 images"),
        (["subset=5"], r"5 class-balanced images"),
        (["evaluation.protocols=[]"], r"evaluation\.protocols=\[\] leaves nothing"),
        (["evaluation.linear.learning_rates=[]"], r"learning_rates=\[\] leaves nothing"),
        (["augment.groups.global.crop_scale=[0.5]"], r"crop_scale is .* a range"),
        (["labels=3"], r"3 class-balanced images"),
        (["trainer.precision=16-mixed"], r"16-mixed needs a GPU"),
        (["dataset=fashion_mnist", "data_dir=DIR"], r"idx|truncated|magic"),
    ],
)
def test_bad_input_is_one_sentence_before_training(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    raw = tmp_path / "fashion_mnist"
    raw.mkdir()
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 60000, 28, 28))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 60000))
    overrides = [override.replace("DIR", str(tmp_path)) for override in overrides]
    chosen = {
        override.partition("=")[0]: override for override in (*WORDS, f"runs_dir={tmp_path / 'runs'}", *overrides)
    }
    config = compose(list(chosen.values()))
    with pytest.raises(UserError, match=sentence) as caught:
        run(config)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


def test_what_learns_classes_needs_some(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    of_folder = [f"dataset.root={tmp_path / 'pictures'}", f"runs_dir={tmp_path / 'runs'}", "batch_size=8"]
    config = compose(["method=supervised", "dataset=folder", "scale=smoke", *of_folder])
    with pytest.raises(
        UserError, match=r"method=supervised learns classes, and cannot on dataset=folder: it has \d class"
    ):
        run(config)
    assert not (tmp_path / "runs").exists()
    config = compose([*WORDS, "method=supervised"])
    data = build_data(config)
    data.setup()
    labels = data.splits["train"].labels
    labels.fill_(-1)
    with pytest.raises(UserError, match="learns classes, and cannot on dataset=digits: none of its images has a label"):
        needs.require_labels(config, data)
    labels[data.parts.pretraining[7]] = 3
    needs.require_labels(config, data)
    with pytest.raises(UserError, match=r"method.projector.out=5 is less than the 10 classes of dataset=digits"):
        needs.require_labels(config.changed({"method.projector.out": 5}), data)


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"runs_dir=.*cannot be written"):
        run(compose([*WORDS, f"runs_dir={tmp_path / 'runs'}"]))


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_file_that_is_no_encoder_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "encoder.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.safetensors (is not|does not)"):
        load_encoder(path)


@pytest.mark.slow
def test_mse_without_a_predictor_collapses_and_the_panel_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("method=clbo", "method.objective=mse", "scale=smoke", "epochs=8", "optimizer.lr=0.1")
    warnings = {}
    for name, more in (("mse", ()), ("info_nce", ("method.objective=info_nce",))):
        chosen = [override for override in overrides if not more or not override.startswith("method.objective")]
        record = run(
            compose([*chosen, *more, f"runs_dir={tmp_path}", "evaluation.protocols=[knn1]", "trainer.progress=false"])
        )
        warnings[name] = record.warnings
    assert any("Collapsed" in sentence for sentence in warnings["mse"])
    assert "Collapsed" in capsys.readouterr().out
    assert not warnings["info_nce"]


def test_the_recorded_loss_is_that_of_the_images_however_many_batches_a_step_takes(tmp_path: Path) -> None:
    losses = []
    once = ("epochs=1", "method=simclr", "evaluation.protocols=[knn1]", "evaluation.curves=[knn1]")
    for accumulate in (1, 3):
        config = compose(
            [*WORDS, *once, "optimizer.lr=1e-12", f"trainer.accumulate={accumulate}", f"runs_dir={tmp_path}"]
        )
        losses.append(run(config).fingerprint)
    first, second = (
        next(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines()))["loss"] for name in losses
    )
    assert float(first) == pytest.approx(float(second), rel=1e-5)


def test_a_batch_that_does_not_fit_names_the_option_and_loses_nothing_that_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(pl.Callback):
        def on_train_batch_start(self, trainer: Any, method: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 7:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    few = ("method=simclr", "evaluation.protocols=[knn1]")
    config = compose([*WORDS, *few, f"runs_dir={tmp_path}", "trainer.checkpoint_seconds=0.000001"])
    sentence = r"lower batch_size=\d+ .*trainer\.precision=bf16-mixed or set dataset\.resident=false\.$"
    with pytest.raises(UserError, match=sentence):
        run(config, [Full()])
    (checkpoint,) = tmp_path.glob("*/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 7
    assert run(config).results["student"]
    assert "resuming after step 7" in capsys.readouterr().out


def test_without_a_compiler_a_compiled_run_is_a_plain_one(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _, plain = finished
    config = config.changed({"trainer.compile": True})

    def missing(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("ssl_bench.devices.BACKEND", missing)
    assert run(config).fingerprint == plain.fingerprint
    output = " ".join(capsys.readouterr().out.split())
    assert "trainer.compile=true does not work on this machine (no C++ compiler): training is not compiled." in output
    assert "Finished before" in output


@pytest.mark.slow
def test_a_compiled_run_has_a_name_of_its_own_and_the_figures_of_a_plain_one(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _, plain = finished
    config = config.changed({"trainer.compile": True})
    graphs = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr("ssl_bench.devices.BACKEND", counting)
    compiled = run(replace(config, runs_dir=str(tmp_path)))
    assert len(graphs) >= 3  # of the trial, the student and the teacher
    assert compiled.fingerprint != plain.fingerprint
    assert compiled.results == plain.results  # the same arithmetic under this backend


@pytest.mark.slow
def test_an_interrupted_fine_tuning_starts_again_and_the_encoder_by_itself_gets_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = ["evaluation.protocols=[knn1,finetune,finetune_10percent]", "evaluation.finetune.steps=2", "seed=3"]
    scored += ["dataset=digits", *WORDS[:2], "trainer.threads=1", "evaluation.finetune.learning_rates=[0.1]"]
    overrides = [*scored, *WORDS[2:], "epochs=1", "evaluation.curves=[knn1]"]
    whole = run(compose([*overrides, f"runs_dir={tmp_path / 'whole'}"]))
    fit, fits = FineTuning.fit, itertools.count()

    def interrupted(self: FineTuning, *given: Any) -> Tuned:
        if next(fits) == 2:
            raise KeyboardInterrupt
        return fit(self, *given)

    broken = compose([*overrides, f"runs_dir={tmp_path / 'broken'}"])
    with monkeypatch.context() as patched:
        patched.setattr(FineTuning, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    resumed = run(broken)
    assert resumed.results == whole.results
    assert resumed.notes == whole.notes
    assert whole.protocols["finetune_10percent"] == 2
    assert whole.results["pixels"]["finetune"] is None
    assert {whole.results[net]["finetune"] is None for net in ("teacher", "student", "random")} == {False}
    alone = encoders.score(
        *evaluate.read([str(tmp_path / "whole" / whole.fingerprint), *scored, f"runs_dir={tmp_path}"])
    )
    assert alone.results["encoder"] == whole.results["teacher"]
    assert alone.results["random"] == whole.results["random"]
