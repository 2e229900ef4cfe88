"""One run in several processes: the result of one, one set of files, and nobody waits for the dead."""

from __future__ import annotations

import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from filelock import FileLock

from forked import in_ranks
from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.results.fingerprint import fingerprint
from ssl_bench.training import launch, run
from ssl_bench.training.build import build_data
from ssl_bench.training.ranks import ExistingGroup, ReplicaStrategy

CPU = ("scale=smoke", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.threads=1")
SMALL = ("subset=96", "batch_size=16", "evaluation.protocols=[knn1]", "evaluation.curves=[knn1]")
OFTEN = "trainer.checkpoint_seconds=0.001"
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.timeout=60")


def start(folder: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_bench", *CPU, *SMALL, *overrides],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def finish(folder: Path, *overrides: str) -> tuple[str, list[Path]]:
    """Output and the folders of the runs."""
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output, sorted(record.parent for record in (folder / "runs").glob("*/record.json"))


def after_saves(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the run has saved so many times."""
    seen: set[int] = set()
    deadline = time.monotonic() + 240
    while len(seen) < count and process.poll() is None and time.monotonic() < deadline:
        for checkpoint in folder.glob("runs/*/checkpoints/last.ckpt"):
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.002)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids, in rank order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def weights(run_folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


def assert_same_bits(a: Path, b: Path) -> None:
    assert a.name == b.name
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    assert (a / "encoder.safetensors").read_bytes() == (b / "encoder.safetensors").read_bytes()
    mine, theirs = np.load(a / "predictions.npz"), np.load(b / "predictions.npz")
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine.files)
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(weights(a)[key], weights(b)[key], rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nobody disturbed, with W&B watching."""
    (found,) = finish(tmp_path_factory.mktemp("whole"), *TWO, "optimizer.lr=0.0001", "logger=wandb")[1]
    return found


class Steps(pl.Callback):
    """Leaves each rank's weights after four steps in ``path``, and the loss of its share of each batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        if len(self.losses) == 4:
            torch.save({"losses": self.losses, "state": method.state_dict()}, self.path)
            os._exit(0)


def four_steps(rank: int, world: int, folder: str, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    if world > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ["SSL_BENCH_MEETING"] = f"{folder}/meeting"
    single, run.build_method = run.build_method, lambda *given: single(*given).double()  # type: ignore[attr-defined]
    config = compose([*CPU, "subset=96", *overrides, f"trainer.devices={world}", f"runs_dir={folder}/{world}"])
    run.run(config, [Steps(Path(folder) / f"{world}-{rank}.pt")])


@pytest.mark.parametrize(
    ("statuses", "killed", "reports", "sentence"),
    [
        ([1, -9], set(), {}, "rank 1 was ended by SIGKILL; the last checkpoint is intact"),
        ([1, -9], {1}, {}, "rank 0 ended with the error above."),
        ([75, -9], set(), {0: {"sentence": "lost.", "status": 75, "lost": True}}, "rank 1 was ended by SIGKILL"),
        ([2, -9], set(), {0: {"sentence": "no room.", "status": 2, "lost": False}}, "no room."),
        ([2, -6], set(), {0: {"sentence": "no memory.", "status": 2, "lost": False}}, "no memory."),
        ([-6, -6], set(), {}, "rank 0 was ended by SIGABRT, as NCCL does where others do not answer"),
        ([-6, -9], set(), {}, "rank 1 was ended by SIGKILL"),
        ([-9, -6], {0}, {}, "rank 1 was ended by SIGABRT"),
        ([75, -6], set(), {0: {"sentence": "lost.", "status": 75, "lost": True}}, "rank 1 was ended by SIGABRT"),
    ],
)
def test_what_ended_a_run_is_what_its_cause_says_or_what_was_done_to_it(
    tmp_path: Path, statuses: list[int], killed: set[int], reports: dict[int, dict[str, object]], sentence: str
) -> None:
    for rank in range(len(statuses)):
        (tmp_path / f"{rank}.err").touch()
    for rank, said in reports.items():
        (tmp_path / f"{rank}.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UserError) as error:
        launch._report(tmp_path, statuses, killed, [])
    assert str(error.value).startswith(sentence)


def test_a_rank_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(UserError, match="RANK=x in the environment is no number: unset it, or use torchrun"):
        launch.train(compose(["scale=smoke"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "overrides"),
    [
        (2, ["batch_size=16"]),
        (2, ["batch_size=16", "method=moco", "trainer.accumulate=2"]),
        (2, ["batch_size=16", "method=pic"]),
        (3, ["batch_size=18", "method=simclr", "method.concat_views=false"]),
    ],
)
def test_ranks_train_the_weights_that_one_process_trains(tmp_path: Path, world: int, overrides: list[str]) -> None:
    in_ranks(four_steps, 1, str(tmp_path), overrides, world=1)
    in_ranks(four_steps, world, str(tmp_path), overrides, world=world)
    one = torch.load(tmp_path / "1-0.pt", weights_only=False)
    ranks = [torch.load(tmp_path / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]
    losses = torch.tensor([found["losses"] for found in ranks], dtype=torch.float64).mean(0)
    torch.testing.assert_close(losses, torch.tensor(one["losses"], dtype=torch.float64), rtol=0, atol=1e-9)
    for found in ranks:
        assert list(found["state"]) == list(one["state"])
        for name, value in one["state"].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(found["state"][name], value, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.slow
def test_two_ranks_leave_one_record_with_the_name_and_weights_of_one_process(whole: Path, tmp_path: Path) -> None:
    (one,) = finish(tmp_path, "optimizer.lr=0.0001")[1]
    assert whole.name == one.name
    mine, theirs = weights(whole)["state_dict"], weights(one)["state_dict"]
    assert list(mine) == list(theirs)
    for name in (name for name in mine if name.startswith(("student.", "teacher.")) and "num_batches" not in name):
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-4, msg=name)
    tables = [(folder / "metrics.csv").read_text().splitlines() for folder in (whole, one)]
    rows = [list(csv.DictReader(table)) for table in tables]
    assert [list(row) for row in rows[0]] == [list(row) for row in rows[1]]
    for a, b in zip(*rows, strict=True):
        for name in ("epoch", "step", "loss", "lr", "collapse/alignment"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3)
    records = [json.loads((folder / "record.json").read_text()) for folder in (whole, one)]
    assert [record["processes"] for record in records] == [2, 1]
    assert {record["batch_statistics"] for record in records} == {"global"}
    assert records[0]["results"]["random"] == records[1]["results"]["random"]
    assert records[0]["results"]["pixels"] == records[1]["results"]["pixels"]


@pytest.mark.slow
def test_rank_0_alone_writes_and_logs(whole: Path) -> None:
    assert len(list(whole.glob("wandb/offline-run-*"))) == 1
    expected = {"config.yaml", "metrics.csv", "record.json", "predictions.npz", "encoder.safetensors", "tsne.png"}
    assert expected <= {path.name for path in whole.iterdir()}
    assert not [path.name for path in whole.rglob("*tmp*") if "wandb" not in path.parts]


@pytest.mark.slow
def test_a_sweep_starts_ranks_for_each_run(tmp_path: Path) -> None:
    output, runs = finish(tmp_path, *TWO, "-m", "seed=0,1", "epochs=1")
    records = [json.loads((folder / "record.json").read_text()) for folder in runs]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert output.count("2 processes") == 2


@pytest.mark.slow
def test_statistics_of_each_device_are_another_run_and_one_network(tmp_path: Path) -> None:
    _, (one,) = finish(tmp_path, *TWO, "epochs=1", "trainer.sync_batchnorm=false")
    record = json.loads((one / "record.json").read_text())
    assert record["batch_statistics"] == "per_device"
    config = compose([*CPU, *SMALL, "epochs=1"]).as_dict()
    alike = {"data_digest": record["data_digest"], "precision": "32-true"}
    assert one.name == fingerprint(config, **alike, statistics_shares=2) != fingerprint(config, **alike)
    # Curve and final table are of the same network although ranks have running statistics of their own in between.
    assert record["curves"]["test/knn1/teacher"][-1][1] == record["results"]["teacher"]["knn1"]


def sent_before_a_pass(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    config = compose([*CPU, *SMALL, "method=moco"])
    data = build_data(config)
    method = run.build_method(config, data.dataset, data)
    strategy = ReplicaStrategy(sync_buffers=True)
    strategy.model, strategy.parallel_devices = method, [torch.device("cpu")] * world
    strategy.cluster_environment = ExistingGroup(1)
    strategy.configure_ddp()
    named = {name: buffer for name, buffer in method.named_buffers() if buffer.is_floating_point()}
    for buffer in named.values():
        buffer.fill_(rank)
    strategy.model._sync_buffers()
    sent = {name for name, buffer in named.items() if float(buffer.flatten()[0]) == 0}
    torch.save((sent, set(named)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_of_buffers_only_statistics_of_batchnorm_are_sent(tmp_path: Path) -> None:
    in_ranks(sent_before_a_pass, 2, os.fspath(tmp_path), world=2)
    sent, named = torch.load(tmp_path / "1.pt", weights_only=True)
    assert sent == {name for name in named if "running_" in name}
    assert any("rows" in name for name in named - sent)


@pytest.mark.slow
def test_one_image_on_each_device_trains_under_common_statistics_alone(tmp_path: Path) -> None:
    few = ["method=simclr", "method.concat_views=false", "epochs=1", *SMALL, *TWO]
    few[few.index("batch_size=16")] = "batch_size=2"
    for statistics, status in (("true", 0), ("false", 2)):
        command = [sys.executable, "-m", "ssl_bench", *CPU, *few, f"trainer.sync_batchnorm={statistics}"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
        )
        assert done.returncode == status, done.stdout + done.stderr
    assert "batch_size=2 leaves each device a single image" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_killed_with_all_its_ranks_and_started_again_equals_uninterrupted(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *TWO, OFTEN, "optimizer.lr=0.0001")
    after_saves(tmp_path, process, 4)
    for pid in (process.pid, *ranks_of(process)):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    output, (again,) = finish(tmp_path, *TWO, "optimizer.lr=0.0001")
    assert "resuming after step" in output
    assert_same_bits(whole, again)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_with_one_line(tmp_path: Path, victim: int) -> None:
    process = start(tmp_path, *TWO, OFTEN)
    after_saves(tmp_path, process, 3)
    killed_at = time.monotonic()
    os.kill(ranks_of(process)[victim], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - killed_at < 60
    assert process.returncode == 128 + signal.SIGKILL
    assert f"ssl_bench: rank {victim} was ended by SIGKILL" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_signal_saves_once_and_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *TWO, OFTEN, "optimizer.lr=0.0001")
    after_saves(tmp_path, process, 3)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.count("ssl_bench:") == output.count("stopped by SIGTERM at epoch") == 1
    assert "the same command resumes" in output
    assert "Traceback" not in output
    _, (again,) = finish(tmp_path, *TWO, "optimizer.lr=0.0001")
    assert_same_bits(whole, again)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path) -> None:
    # Few saves, and some time since the last, so that the signal comes while ranks train and not while they save.
    process = start(tmp_path, *TWO, "trainer.checkpoint_seconds=2", "epochs=1000")
    after_saves(tmp_path, process, 2)
    time.sleep(0.7)
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.count("ssl_bench:") == output.count("stopped by SIGTERM at epoch") == 1


@pytest.mark.slow
def test_ranks_stop_when_their_launcher_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, *TWO, OFTEN, "epochs=1000")
    after_saves(tmp_path, process, 2)
    ranks = ranks_of(process)
    process.kill()
    process.communicate(timeout=60)  # until the ranks have closed their end, too
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_folder_in_use_ends_all_ranks_with_one_line(whole: Path) -> None:
    with FileLock(whole / ".lock"):
        process = start(whole.parents[1], *TWO, "optimizer.lr=0.0001")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.count("ssl_bench:") == 1
    assert "another process is at work in" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_crash_of_one_rank_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from ssl_bench.callbacks.finite_loss import FiniteLoss\n"
        "    def crash(*_): raise ZeroDivisionError('on purpose')\n"
        "    FiniteLoss.on_train_batch_end = crash\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start(tmp_path, *TWO, PYTHONPATH=paths)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.count("ZeroDivisionError: on purpose") == output.count("Traceback") == 1
    assert output.rstrip().endswith("ssl_bench: rank 1 ended with the error above.")


@pytest.mark.parametrize(
    ("overrides", "environment", "sentence"),
    [
        (["trainer.devices=2"], {}, r"this is one of 1 process\(es\).* want 2"),
        ([], {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, r"one of 4 process\(es\).* want 1"),
        (
            ["trainer=ddp", "trainer.devices=4", "trainer.nodes=2"],
            {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "2"},
            r"one of 8 process\(es\), 2 of them on this machine, but trainer.devices=4",
        ),
    ],
)
def test_other_processes_than_asked_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], environment: dict[str, str], sentence: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        run.run(compose([*CPU, *overrides, f"runs_dir={tmp_path}"]))


def test_ranks_are_started_only_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launch.needed(compose(CPU))
    assert not launch.needed(compose(["trainer=ddp", "trainer.devices=1"]))
    assert launch.needed(compose(["trainer=ddp"]))
    with pytest.raises(UserError, match=r"trainer.nodes=2: start the same command .* torchrun --nnodes=2"):
        launch.needed(compose(["trainer=ddp", "trainer.nodes=2"]))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.needed(compose(["trainer=ddp"]))


def test_what_is_kept_from_lightning_is_there_and_called() -> None:
    """Else a later version would hear signals again, or ask all ranks at every step, and nothing would tell."""
    from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
    from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

    for owner, name in (
        (_SignalConnector, "register_signal_handlers"),
        (_TrainingEpochLoop, "_broadcast_sigterm_tensor"),
    ):
        assert callable(getattr(owner, name))
    assert "_signal_connector.register_signal_handlers()" in inspect.getsource(pl.Trainer)
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop)
