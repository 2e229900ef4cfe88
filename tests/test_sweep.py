"""Sweeps that survive: what is done is skipped, what was killed resumes, and nothing runs twice."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from forked import Forked
from ssl_bench import devices
from ssl_bench.cli import sweep as command
from ssl_bench.config import experiments
from ssl_bench.config.compose import compose
from ssl_bench.config.settings import read_settings
from ssl_bench.errors import NO_ROOM, UserError
from ssl_bench.results import record
from ssl_bench.results.code import code_digest
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.sweep import cards, cell, grid, local, loop, request, view
from ssl_bench.sweep.cell import Outcome
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.training.server import server


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["table33"], "there is no table or figure 'table33'; did you mean table3?"),
        ([], "no table or figure is named: choose one of calibration, directpred_ema, "),
        (["fig2", "fig3"], "fig2 fig3 are named: choose one of"),
        (["fig2", "seeds=0,x"], "seeds=0,x is not allowed: seeds are whole numbers"),
        (["fig2", "seed=1"], "seed=1 is an option of one run: a sweep takes seeds=1."),
        (["fig2", "++seed=1"], "seed=1 is an option of one run: a sweep takes seeds=1."),
        (["fig2", "experiment=fig3"], "experiment=fig3 is no option of a sweep: name the table or figure alone."),
        (["fig2", "jobs=0"], "jobs=0 is not allowed"),
        (["fig2", "retry_faild=true"], "option retry_faild is unknown; did you mean retry_failed?"),
        (["fig2", "scale=smoke", "optimizer.lrr=1"], "option optimizer.lrr is unknown; did you mean optimizer.lr?"),
        (["fig2", "scale=smoke", "epochs=0"], "epochs=0 is not allowed"),
        (["fig2", "methods=byol"], "fig2 has no row of method=byol"),
        (["fig2", "seeds="], "fig2 has no run at scale=cpu under these options."),
        (
            ["fig2", "scale=smoke", "launcher=slurm"],
            "launcher=slurm: set trainer.precision=bf16-mixed or 32-true, for this machine",
        ),
        (
            [
                "fig2",
                "launcher=slurm",
                "slurm.gpus=1",
                "trainer=ddp",
                "trainer.devices=4",
                "trainer.precision=bf16-mixed",
            ],
            "launcher=slurm: a run on 4 GPU(s) needs slurm.gpus=4, not 1.",
        ),
    ],
)
def test_a_wrong_argument_is_answered_in_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(options) == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"ssl_bench: {sentence}")
    assert answer.count("\n") == 1


def test_mistakes_and_help_are_answered_without_torch() -> None:
    code = (
        "import sys; from ssl_bench.cli.sweep import main as sweep\n"
        "from ssl_bench.cli.plan import main as plan\n"
        "assert sweep(['--help']) == plan(['--help']) == 0 and sweep(['fig2', 'epochs=0']) == plan(['fig10']) == 2\n"
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for shown in ("jobs=null", "retry_failed=false", "slurm.partition=null", "all=false", "table3"):
        assert shown in done.stdout


def test_lists_of_one_and_several_choose_the_cells() -> None:
    asked = request.read(["fig6", "scale=smoke", "seeds=7", "methods=[byol,clbo]", "datasets=digits", "epochs=3"])
    assert [(cell.row, cell.seed) for cell in asked.cells] == [("BYOL", 7), ("CLBO", 7)]
    assert [config.epochs for config in asked.configs] == [3, 3]
    assert asked.cells[0].command == "python -m ssl_bench method=byol dataset=digits scale=smoke seed=7 epochs=3"


def test_a_job_is_named_without_the_device_that_it_will_run_on() -> None:
    from ssl_bench.devices import resolve_precision

    for precision in ("bf16-mixed", "32-true", "16-mixed"):
        options = ["fig2", "scale=smoke", "launcher=slurm", "slurm.gpus=1", f"trainer.precision={precision}"]
        trainer = request.read([*options, "trainer.accelerator=gpu"]).configs[0].trainer
        assert resolve_precision(trainer.precision, trainer.accelerator) == precision  # though there may be no GPU here


@pytest.mark.parametrize(
    "differing",
    [
        ("trainer.precision=bf16-mixed", "trainer.precision=32-true"),
        ("trainer.accelerator=cpu", "trainer.accelerator=gpu"),
    ],
)
def test_runs_that_differ_in_what_a_machine_settles_alone_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differing: tuple[str, str]
) -> None:
    one, other = (f"method=byol {option}" for option in differing)
    rows = {"one": one, "other": other, "again": other}
    made = {"sweep": {"rows": rows, "datasets": {"smoke": ["digits"]}, "seeds": [0]}, "show": {"kind": "table"}}
    (tmp_path / "differing.yaml").write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = request.read(["./differing.yaml", "scale=smoke"])
    assert [cell.row for cell in asked.cells] == ["one", "other"]


def test_runs_at_once_divide_the_cores_unless_threads_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(request, "cores", lambda: 8)

    def threads(*options: str, gpus: Sequence[str] = ()) -> Any:
        asked = request.placed(request.read(["fig2", "scale=smoke", "seeds=0", *options]), gpus)
        return asked.configs[0].trainer.threads

    assert threads() is None
    assert threads("jobs=3") == 2
    assert threads("jobs=16") == 1
    assert threads("jobs=2", "trainer=ddp", "trainer.devices=2") == 2
    assert threads(gpus="0123") == 2
    assert threads("trainer=ddp", "trainer.devices=2", gpus="0123") == 2
    assert threads(gpus="0") is None
    assert threads("jobs=3", "trainer.threads=5") == 5
    assert threads("launcher=slurm", "trainer.precision=32-true", "slurm.cpus=6") == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads("jobs=3") is None


CONFIG = compose(["epochs=4", "evaluation.protocols=[knn1]"])


def record_of(folder: RunFolder, seconds: float = 10.0, **changes: Any) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    found = {
        **{known.name: record._KINDS[known.name]() for known in fields(record.Record)},
        "fingerprint": folder.fingerprint,
        "evaluated": "student",
        "results": {"student": {"knn1": 90.0}},
        "protocols": {"knn1": 1},
        "baselines": {"random": 1, "pixels": 1},
        "images": {"test": 100},
        "environment": {"threads": 1},
        "config": {**CONFIG.as_dict(), "runs_dir": str(folder.path.parent)},
        "session_seconds": seconds,
        "train_seconds": 1.0,
        **changes,
    }
    folder.record.write_text(json.dumps(found))


def checkpoint_of(folder: RunFolder) -> None:
    folder.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    folder.checkpoint.touch()


class MadeUp:
    """A run whose end is decided by the test; it keeps what it is asked."""

    def __init__(self, entry: SweepRun, end: Callable[[SweepRun], Outcome | None]) -> None:
        self.entry, self.end = entry, end
        self.outcome: Outcome | None = None
        self.received: list[str] = []

    def poll(self) -> Outcome | None:
        self.outcome = self.end(self.entry)
        return self.outcome

    def stop(self) -> None:
        self.received.append("stop")

    def kill(self) -> None:
        self.received.append("kill")


class Witness:
    """Knows what has happened, and how many runs there were at once."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.sentences: list[str] = []

    def event(self, entry: SweepRun, what: str) -> None:
        self.events.append((entry.folder.fingerprint, what))

    def show(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def refresh(self) -> None:
        pass


def succeed(entry: SweepRun) -> Outcome:
    record_of(entry.folder)
    return Outcome("done")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.002)
    monkeypatch.setattr(loop, "ELSEWHERE_SECONDS", 0.01)
    monkeypatch.setattr(record.Record, "run_fingerprint", property(lambda found: found.fingerprint))  # a, b, c and d
    return [RunFolder(tmp_path / name) for name in "abcd"]


def entries_in(folders: Sequence[RunFolder], **options: Any) -> list[SweepRun]:
    cells = experiments.find("fig2").cells("smoke", seeds=[0, 1])
    config = replace(CONFIG, runs_dir=str(folders[0].path.parent), **options)
    return grid.entries(cells, [config] * 4, [folder.fingerprint for folder in folders])


def sweep(
    entries: list[SweepRun], end: Callable[[SweepRun], Outcome | None] = succeed, *, slots: int = 1, retry: bool = False
) -> tuple[list[str], Witness]:
    """Names of the runs started, in turn, and what was seen."""
    started: list[str] = []
    witness = Witness()

    def start(entry: SweepRun) -> MadeUp:
        started.append(entry.folder.fingerprint)
        return MadeUp(entry, end)

    assert loop.run(entries, start, slots=slots, retry_failed=retry, watcher=witness) == 0
    return started, witness


def test_done_is_skipped_interrupted_resumes_and_left_is_started(folders: list[RunFolder]) -> None:
    record_of(folders[0])
    checkpoint_of(folders[2])
    entries = entries_in(folders)
    assert [entry.state for entry in entries] == ["done", "left", "interrupted", "left"]
    started, witness = sweep(entries)
    assert started == ["b", "c", "d"]
    assert ("c", "resumes") in witness.events
    assert ("b", "started") in witness.events
    assert {entry.state for entry in entries} == {"done"}


def test_failed_is_listed_and_tried_again_only_when_asked(folders: list[RunFolder]) -> None:
    folders[1].fail("it broke", "Traceback", {})
    entries = entries_in(folders)
    assert (entries[1].state, entries[1].error) == ("failed", "it broke")
    assert sweep(entries)[0] == ["a", "c", "d"]
    assert entries[1].state == "failed"
    again = entries_in(folders)
    assert sweep(again, retry=True)[0] == ["b"]
    assert {entry.state for entry in again} == {"done"}


def test_what_waits_to_be_tried_again_has_failed_until_then(folders: list[RunFolder]) -> None:
    folders[1].fail("it broke", "Traceback", {})
    (entry,) = [entry for entry in entries_in(folders) if entry.state == "failed"]

    def stop(entry: SweepRun) -> None:  # while no card is free
        os.kill(os.getpid(), signal.SIGTERM)

    assert loop.run([entry], stop, slots=1, retry_failed=True, watcher=Witness()) == signal.SIGTERM
    assert folders[1].failed() == "it broke"


def test_others_continue_when_one_fails_and_its_message_is_kept_where_it_could_not_be_written(
    folders: list[RunFolder],
) -> None:
    entries = entries_in(folders)

    def end(entry: SweepRun) -> Outcome:
        return Outcome("failed", "it broke") if entry.folder.fingerprint == "b" else succeed(entry)

    assert sweep(entries, end)[0] == ["a", "b", "c", "d"]
    assert [entry.state for entry in entries] == ["done", "failed", "done", "done"]
    assert entries[1].error == "it broke"


def test_none_is_started_when_the_disk_is_full_and_none_has_failed(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)
    polls = iter(range(100))

    def end(entry: SweepRun) -> Outcome | None:
        if entry.folder.fingerprint == "b":
            return Outcome("interrupted", "no space left", no_room=True)
        return succeed(entry) if next(polls) > 5 else None  # what is at work goes on to its own end

    started, witness = sweep(entries, end, slots=2)
    assert started == ["a", "b"]
    assert [entry.state for entry in entries] == ["done", "interrupted", "left", "left"]
    assert witness.sentences == ["The disk is full: no other run is started."]


def test_a_run_that_is_killed_resumes_once_and_is_then_listed(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)
    deaths = {"a": 1, "b": 9}

    def end(entry: SweepRun) -> Outcome:
        name = entry.folder.fingerprint
        deaths[name] = deaths.get(name, 0) - 1
        return Outcome("interrupted", "killed") if deaths[name] >= 0 else succeed(entry)

    assert sweep(entries, end)[0] == ["a", "a", "b", "b", "c", "d"]
    assert [entry.state for entry in entries] == ["done", "interrupted", "done", "done"]


def test_a_run_that_gets_further_each_time_is_always_resumed(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)[:1]

    def end(entry: SweepRun) -> Outcome:
        rows = folders[0].metrics.read_text() if folders[0].metrics.exists() else "epoch,loss\n"
        if rows.count("\n") == 4:
            return succeed(entry)
        folders[0].path.mkdir(exist_ok=True)
        folders[0].metrics.write_text(rows + "1,2.0\n")
        return Outcome("interrupted", "preempted")

    assert sweep(entries, end)[0] == ["a"] * 4


def test_a_damaged_record_is_named_and_neither_believed_nor_tried_again(folders: list[RunFolder]) -> None:
    folders[2].path.mkdir()
    folders[2].record.write_text('{"fingerprint": "c", "resul')
    entries = entries_in(folders)
    assert sweep(entries, retry=True)[0] == ["a", "b", "d"]
    assert entries[2].state == "failed"
    assert "c/record.json is not the record of this run" in entries[2].error


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"results": None}, "it has no results"),
        ({"results": {"student": {"knn1": "90"}}}, "its knn1 is '90'"),
        ({"results": {"student": {"knn1": 10**400}}}, "its knn1 is 1000"),
        ({"session_seconds": "a minute"}, "its session_seconds is no number"),
        ({"config": {}}, "it has no evaluation"),
    ],
)
def test_a_record_that_lost_its_results_or_holds_text_in_place_of_numbers_is_named(
    folders: list[RunFolder], changes: dict[str, Any], sentence: str
) -> None:
    record_of(folders[2], **changes)
    entry = entries_in(folders)[2]
    assert (entry.state, entry.damaged) == ("failed", True)
    assert f"c/record.json is not the record of this run ({sentence}" in entry.error


def test_a_record_nested_a_thousand_deep_is_named(folders: list[RunFolder]) -> None:
    folders[2].path.mkdir()
    folders[2].record.write_text("[" * 100_000 + "]" * 100_000)
    entry = entries_in(folders)[2]
    assert entry.state == "failed"
    assert "c/record.json is not the record of this run (it is nested too deeply)" in entry.error
    folders[3].path.mkdir()
    folders[3].failure.write_text("[" * 100_000)
    assert "d/failed.json cannot be read" in entries_in(folders)[3].error


def test_a_done_run_whose_code_has_changed_is_named_and_trained_again_when_asked(
    folders: list[RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = {"digest": code_digest(CONFIG.method.target)}
    record_of(folders[0], code={"digest": "another"})
    record_of(folders[1], code=now)
    record_of(folders[2], code=now, earlier_code=[{"digest": "another"}])
    record_of(folders[3], code={})  # of a version that kept no digest
    entries = entries_in(folders)
    assert [(entry.state, entry.changed) for entry in entries] == [
        ("done", True), ("done", False), ("done", True), ("done", False),
    ]  # fmt: skip
    command._conclude(Console(width=200), entries)
    sentence = "The code of clbo has changed since runs here were trained: rerun=true trains them again."
    assert sentence in capsys.readouterr().out
    again = entries_in(folders, rerun=True)
    assert [entry.state for entry in again] == ["left", "done", "left", "left"]

    def train(entry: SweepRun) -> Outcome:
        record_of(entry.folder, code=now)
        return Outcome("done")

    assert sweep(again, train)[0] == ["a", "c", "d"]
    assert not any(entry.changed for entry in again)
    command._conclude(Console(width=200), again)
    assert "changed" not in capsys.readouterr().out


def test_what_another_process_is_at_work_on_is_left_to_it_and_taken_over_when_it_stops(
    folders: list[RunFolder],
) -> None:
    for folder in folders[:2]:
        folder.path.mkdir()
    first, second = (FileLock(folder.path / ".lock") for folder in folders[:2])
    first.acquire()
    second.acquire()
    entries = entries_in(folders)
    assert [entry.state for entry in entries[:2]] == ["elsewhere", "elsewhere"]

    def end(entry: SweepRun) -> Outcome:
        if entry.folder.fingerprint == "d":  # the other process finishes one run and dies within the other
            record_of(folders[0])
            first.release()
            second.release()
        return succeed(entry)

    started, witness = sweep(entries, end)
    assert started == ["c", "d", "b"]
    assert ("a", "done elsewhere") in witness.events
    assert {entry.state for entry in entries} == {"done"}


def test_a_run_that_another_process_takes_first_is_waited_for(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)

    def end(entry: SweepRun) -> Outcome:
        if entry.folder.fingerprint == "a":
            return Outcome("elsewhere")
        if entry.folder.fingerprint == "d":
            record_of(folders[0])  # the other process is done
        return succeed(entry)

    started, _ = sweep(entries, end)
    assert started[:4] == ["a", "b", "c", "d"]
    assert {entry.state for entry in entries} == {"done"}


def test_never_more_at_once_than_asked_for(folders: list[RunFolder]) -> None:
    most = 0
    entries = entries_in(folders)

    def end(entry: SweepRun) -> Outcome | None:
        nonlocal most
        most = max(most, sum(entry.state == "running" for entry in entries))
        return succeed(entry) if random.random() < 0.3 else None

    sweep(entries, end, slots=3)
    assert most == 3


def test_a_run_that_has_hardly_begun_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    for number in range(5):  # the server's forks ignore SIGINT at first
        job = local.Job(server(), CONFIG, tmp_path / str(number))
        job.stop()
        outcome = job.poll(seconds=60)
        assert outcome is not None
        assert outcome.state == "interrupted"


def test_runs_that_a_cluster_refuses_wait_until_others_end(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)
    at_work: list[str] = []
    refused: list[str] = []
    witness = Witness()

    def start(entry: SweepRun) -> MadeUp:
        if len(at_work) == 2:
            refused.append(entry.folder.fingerprint)
            raise UserError("the cluster takes two.")
        at_work.append(entry.folder.fingerprint)
        polls = iter([*[None] * 9, succeed])

        def end(entry: SweepRun) -> Outcome | None:
            if (poll := next(polls)) is None:
                return None
            at_work.remove(entry.folder.fingerprint)
            return poll(entry)

        return MadeUp(entry, end)

    assert loop.run(entries, start, slots=4, retry_failed=False, watcher=witness) == 0
    assert {entry.state for entry in entries} == {"done"}
    assert len(refused) <= 2  # once, and where one of two has ended
    assert witness.sentences == ["the cluster takes two. The others wait until one of 2 ends."]  # once


def test_a_first_run_that_is_refused_ends_the_sweep(folders: list[RunFolder]) -> None:
    def start(entry: SweepRun) -> MadeUp:
        raise UserError("no account.")

    with pytest.raises(UserError, match="no account"):
        loop.run(entries_in(folders), start, slots=4, retry_failed=False, watcher=Witness())


def test_an_error_of_the_sweep_stops_its_runs_and_waits_until_they_have_saved(folders: list[RunFolder]) -> None:
    jobs: list[MadeUp] = []
    polls = iter([None, None, Outcome("interrupted", "saved")])

    def start(entry: SweepRun) -> MadeUp:
        if jobs:
            raise RuntimeError("a mistake of ours")
        jobs.append(MadeUp(entry, lambda entry: next(polls) if jobs[0].received else None))
        return jobs[0]

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        loop.run(entries_in(folders), start, slots=4, retry_failed=False, watcher=Witness())
    assert jobs[0].received == ["stop"]
    assert jobs[0].outcome == Outcome("interrupted", "saved")


def test_runs_are_stopped_by_ctrl_c_though_nobody_reads_of_it(folders: list[RunFolder]) -> None:
    """As by Ctrl-C of a sweep whose output goes to another program, which ends by it, too."""
    jobs: list[MadeUp] = []

    class Gone(Witness):
        def show(self, sentence: str) -> None:
            raise BrokenPipeError

    def end(entry: SweepRun) -> Outcome | None:
        return Outcome("interrupted", "saved") if jobs[0].received else None

    def start(entry: SweepRun) -> MadeUp:
        jobs.append(MadeUp(entry, end))
        os.kill(os.getpid(), signal.SIGINT)
        return jobs[0]

    with pytest.raises(BrokenPipeError):
        loop.run(entries_in(folders), start, slots=1, retry_failed=False, watcher=Gone())
    assert jobs[0].received == ["stop"]
    assert jobs[0].outcome == Outcome("interrupted", "saved")


def test_while_runs_save_after_an_error_a_signal_ends_them_at_once(folders: list[RunFolder]) -> None:
    jobs: list[MadeUp] = []
    witness = Witness()

    def end(entry: SweepRun) -> None:
        if jobs[0].received == ["stop"]:
            os.kill(os.getpid(), signal.SIGINT)

    def start(entry: SweepRun) -> MadeUp:
        if jobs:
            raise RuntimeError("a mistake of ours")
        jobs.append(MadeUp(entry, end))
        return jobs[0]

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        loop.run(entries_in(folders), start, slots=4, retry_failed=False, watcher=witness)
    assert jobs[0].received == ["stop", "kill"]
    assert witness.sentences == ["An error ends the sweep: 1 run(s) save their state and stop."]


@pytest.mark.parametrize(
    ("others", "signals"), [([], 1), ([signal.SIGTERM], 1), ([signal.SIGINT], 2)], ids=["one", "to all", "two"]
)
def test_a_signal_is_passed_on_once_and_a_second_one_kills(
    folders: list[RunFolder], others: list[signal.Signals], signals: int
) -> None:
    jobs: list[MadeUp] = []
    later: list[threading.Timer] = []
    over: list[SweepRun] = []

    def end(entry: SweepRun) -> Outcome | None:
        mine = next(job for job in jobs if job.entry is entry)
        if len(mine.received) < signals or any(timer.is_alive() for timer in later):
            return None
        over.append(entry)  # and one more turn, in which whatever the last signal asks for is passed on
        return Outcome("interrupted", "saved") if over.count(entry) > 1 else None

    def start(entry: SweepRun) -> MadeUp:
        jobs.append(MadeUp(entry, end))
        if len(jobs) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            for number in others:  # SIGTERM so soon is the same request, passed on by whoever stopped a whole job
                later.append(threading.Timer(0.1, os.kill, [os.getpid(), number]))
                later[-1].start()
        return jobs[-1]

    entries = entries_in(folders)
    witness = Witness()
    assert loop.run(entries, start, slots=2, retry_failed=False, watcher=witness) == signal.SIGINT
    assert [job.received for job in jobs] == [["stop", "kill"][:signals]] * 2
    assert len(witness.sentences) == signals
    assert "2 run(s) save their state and stop" in witness.sentences[0]
    assert len(jobs) == 2


def lent(
    entries: list[SweepRun], names: Sequence[str], slots: int, broken: str = ""
) -> tuple[list[list[str]], list[int]]:
    """What every run was given, in turn, and the most runs at once on each card; on ``broken`` ones they fail."""
    given: list[list[str]] = []
    most = dict.fromkeys(names, 0)

    def begin(entry: SweepRun, taken: Sequence[str]) -> MadeUp:
        def end(entry: SweepRun) -> Outcome:
            return Outcome("interrupted", "gone", card_lost=True) if set(taken) & set(broken) else succeed(entry)

        given.append(list(taken))
        on_cards = [name for _, cards in pool.at_work for name in cards] + given[-1]
        most.update({name: max(most[name], on_cards.count(name)) for name in names})
        polls = iter([None, None, end])
        return MadeUp(entry, lambda entry: poll(entry) if (poll := next(polls)) else None)

    pool = cards.Cards(names, slots, begin)
    assert loop.run(entries, pool.start, slots=slots, retry_failed=False, watcher=Witness()) == 0
    return given, list(most.values())


def entries_on(folders: Sequence[RunFolder], devices: int, accelerator: str = "auto") -> list[SweepRun]:
    entries = entries_in(folders)
    for entry in entries:
        entry.config = entry.config.changed({"trainer.devices": devices, "trainer.accelerator": accelerator})
    return entries


@pytest.mark.parametrize(
    ("names", "devices", "slots", "given", "most"),
    [
        ("01", 1, 2, [["0"], ["1"], ["0"], ["1"]], [1, 1]),
        ("01", 1, 4, [["0"], ["1"], ["0"], ["1"]], [2, 2]),  # jobs=4: two on each
        ("0123", 2, 2, [["0", "1"], ["2", "3"]] * 2, [1, 1, 1, 1]),
        ("012", 2, 1, [["0", "1"]] * 4, [1, 1, 0]),
        (["GPU-a1", "MIG-b2"], 1, 2, [["GPU-a1"], ["MIG-b2"]] * 2, [1, 1]),
        ("", 1, 1, [[]] * 4, []),
    ],
)
def test_every_run_has_cards_of_its_own_unless_more_runs_are_asked_for(
    folders: list[RunFolder], names: Sequence[str], devices: int, slots: int, given: list[list[str]], most: list[int]
) -> None:
    assert lent(entries_on(folders, devices), names, slots) == (given, most)


@pytest.mark.parametrize(
    ("names", "slots", "broken", "given"),
    [
        ("01", 1, "0", "01111"),
        ("01", 2, "0", "01111"),  # those that come later wait for the other card
        ("012", 2, "0", "01121"),
        ("0", 1, "0", "0" * 8),  # there is no other: every run is tried twice
    ],
)
def test_after_a_card_failed_runs_take_another_where_there_is_one(
    folders: list[RunFolder], names: str, slots: int, broken: str, given: str
) -> None:
    found, most = lent(entries_on(folders, 1), names, slots, broken)
    assert "".join(name for (name,) in found) == given
    assert set(most) <= {0, 1}


def test_a_run_that_lost_its_card_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Any) -> None:
        raise devices.GPUError("the GPU failed")

    monkeypatch.setattr(cell.launch, "needed", lambda config: True)
    monkeypatch.setattr(cell.launch, "launch", fail)
    folder = RunFolder(tmp_path)
    folder.fail("out of memory", None, {})  # at an earlier attempt, which no longer counts
    assert cell._outcome({}, folder) == Outcome("interrupted", "the GPU failed", card_lost=True)
    assert folder.failed() is None


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), UserError("last.ckpt could not be saved", NO_ROOM)],
    ids=["log", "checkpoint"],
)
def test_a_run_that_a_full_disk_ends_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "full")

    def fail(config: Any) -> None:
        raise error

    monkeypatch.setattr(cell.launch, "train", fail)
    monkeypatch.setattr(sys, "stderr", Full())  # where the log is on the same disk
    folder = RunFolder(tmp_path)
    outcome = cell._outcome(CONFIG, folder)
    assert (outcome.state, outcome.no_room) == ("interrupted", True)
    assert folder.failed() is None


def test_a_run_that_crashes_has_failed_and_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell.launch, "train", lambda config: 1 / 0)
    folder = RunFolder(tmp_path)
    assert cell._outcome(CONFIG, folder) == Outcome("failed", "ZeroDivisionError: division by zero")
    assert "Traceback" in json.loads(folder.failure.read_text())["traceback"]


def refuse() -> None:
    raise UserError("no images")


def crash() -> float:
    return 1 / 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("ends", "kind", "sentence"),
    [(refuse, UserError, "^no images$"), (crash, RuntimeError, "ZeroDivisionError"), (die, UserError, "from outside")],
)
def test_what_ends_a_process_that_was_asked_is_raised_here(
    ends: Callable[[], object], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        local.ask(ends)


def test_a_run_whose_folder_finds_no_room_has_not_failed(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", small_disk], check=True)
    with suppress(OSError):
        for number in range(9):
            (small_disk / str(number)).touch()
    outcome = local.Job(server(), CONFIG, small_disk / "run").poll(seconds=60)
    assert outcome is not None
    assert (outcome.state, outcome.no_room) == ("interrupted", True)
    assert "cannot be written (no space left): make room" in outcome.sentence


def test_runs_on_the_cpu_take_no_card(folders: list[RunFolder]) -> None:
    assert lent(entries_on(folders, 1, "cpu"), "01", 4) == ([[]] * 4, [0, 0])


@pytest.mark.parametrize(
    ("options", "gpus", "jobs"),
    [
        ((), "", 1),
        ((), "0", 1),
        ((), "0123", 4),
        (("trainer=ddp", "trainer.devices=2"), "01234", 2),
        (("jobs=3",), "01", 3),
        (("jobs=1",), "01", 1),
    ],
)
def test_as_many_runs_go_at_once_as_there_are_gpus_for(options: tuple[str, ...], gpus: str, jobs: int) -> None:
    assert request.placed(request.read(["fig2", "scale=smoke", *options]), gpus).jobs == jobs


@pytest.mark.parametrize(
    ("named", "count", "names"),
    [(None, 2, ["0", "1"]), ("3, 1", 2, ["3", "1"]), ("GPU-8932f937,MIG-1", 2, ["GPU-8932f937", "MIG-1"]), ("", 0, [])],
)
def test_cards_are_those_that_the_sweep_itself_may_use(
    named: str | None, count: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert cards.visible() == names


@pytest.mark.parametrize(
    ("options", "gpus", "sentence"),
    [
        (("trainer=ddp", "trainer.devices=4"), "01", r"^trainer.devices=4, but PyTorch finds 2 CUDA device\(s\) here"),
        (("trainer.accelerator=gpu",), "", r"^PyTorch finds no GPU here: set trainer.accelerator=cpu to"),
        (("scale=paper",), "", r"^scale=paper is made for a GPU, .*ssl_bench.plan measures how long.*accelerator=cpu"),
        (("scale=paper",), "0", None),
        (("scale=paper", "trainer.accelerator=cpu"), "", None),
        (("trainer=ddp", "trainer.devices=2"), "", None),
    ],
)
def test_a_sweep_is_refused_before_its_runs_would_be(options: tuple[str, ...], gpus: str, sentence: str | None) -> None:
    scale = () if "scale=paper" in options else ("scale=smoke",)
    asked = request.placed(request.read(["fig2", "datasets=digits", *scale, *options]), gpus)
    if sentence is None:
        request.require_cards(asked)
    else:
        with pytest.raises(UserError, match=sentence):
            request.require_cards(asked)


def test_jobs_of_a_cluster_compute_on_gpus_if_they_have_some(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["fig2", "datasets=digits", "scale=paper", "launcher=slurm", "trainer.precision=32-true"]
    assert command.main(options) == 2
    assert "launcher=slurm scale=paper: without a GPU a run takes weeks; set slurm.gpus=1" in capsys.readouterr().err
    for more, accelerator in ((["slurm.gpus=1"], "gpu"), (["trainer.accelerator=cpu"], "cpu"), (["scale=cpu"], "cpu")):
        kept = [override for override in options if not more[0].startswith("scale") or override != "scale=paper"]
        assert {config.trainer.accelerator for config in request.read([*kept, *more]).configs} == {accelerator}


@pytest.mark.slow
def test_runs_see_the_cards_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "found", lambda configs: ["4", "GPU-7"])
    options = ["fig2", "scale=smoke", "seeds=0", "epochs=1", "subset=96", "batch_size=16", "trainer.threads=1"]
    assert command.main([*options, f"runs_dir={tmp_path}"]) == 0
    first = [log.read_text().splitlines()[0] for log in tmp_path.glob("*/log.txt")]
    assert sorted(first) == ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=GPU-7"]


def shown(entries: list[SweepRun], slots: int = 1) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as caught:
        console.print(view.View(console, "fig2", entries, slots).grid())
    return caught.get()


def test_the_grid_has_a_symbol_for_each_seed_and_the_share_of_epochs_that_are_over(folders: list[RunFolder]) -> None:
    record_of(folders[0])
    folders[3].fail("it broke", None, {})
    entries = entries_in(folders)
    entries[2].state = "running"
    folders[2].path.mkdir(exist_ok=True)
    folders[2].metrics.write_text("epoch,loss\n1,2.0\n")
    text = shown(entries)
    assert "✓ ▶25%" in text  # seeds 0 and 1 of the first row
    assert "○ ✗" in text
    assert "4 runs · ✓ 1 done · ▶ 1 running · ✗ 1 failed · ○ 1 left" in text


def test_a_terminal_shows_the_grid_in_place_and_a_line_for_errors_alone(
    folders: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    now = [100.0]
    monkeypatch.setattr(view, "time", SimpleNamespace(monotonic=lambda: now[0]))
    terminal = io.StringIO()
    console = Console(file=terminal, width=100, force_terminal=True, color_system=None)
    entries = entries_in(folders)

    def drawn() -> str:
        """What has been written since."""
        text = terminal.getvalue()
        terminal.seek(0)
        terminal.truncate()
        return text

    with view.View(console, "the title", entries, 1) as seen:
        seen.refresh()
        assert "○ 4 left" in drawn()
        record_of(folders[0])
        entries[0].refresh()
        seen.event(entries[0], "done")
        seen.refresh()  # too soon after the last time
        assert drawn() == ""
        now[0] += 1.0
        seen.refresh()
        frame = drawn()
        assert frame.count("the title") == 1
        assert "✓ 1 done · ○ 3 left" in frame
        assert frame.startswith("\r\x1b[2K\x1b[1A")  # over the last one
        entries[1].state, entries[1].error = "failed", "it broke"
        seen.event(entries[1], "failed")
        assert f"{entries[1].cell.name}: failed (it broke)" in drawn()
    assert "✓ 1 done · ✗ 1 failed · ○ 2 left" in drawn()


def test_elsewhere_every_event_has_a_line(folders: list[RunFolder]) -> None:
    output = io.StringIO()
    entries = entries_in(folders)
    with view.View(Console(file=output, width=100, force_terminal=False), "the title", entries, 1) as seen:
        seen.event(entries[0], "started")
        record_of(folders[0], seconds=300.0)
        entries[0].refresh()
        seen.refresh()
        seen.event(entries[0], "done")
    name, path = entries[0].cell.name, folders[0].path
    assert output.getvalue() == f"[0/4] {name}: started · {path}\n[1/4] {name}: done, 5.0 min · {path}\n"


def test_time_to_go_is_that_of_finished_runs_alike_divided_by_the_runs_at_once(folders: list[RunFolder]) -> None:
    entries = entries_in(folders)
    assert view.time_to_go(entries, 1, 0.0) is None
    record_of(folders[0], seconds=40.0)
    record_of(folders[1], seconds=20.0)
    entries = entries_in(folders)  # left: a run of each row
    assert view.time_to_go(entries, 1, 0.0) == 60.0
    assert view.time_to_go(entries, 2, 0.0) == 30.0
    entries[3].state = "failed"
    assert view.time_to_go(entries, 1, 0.0) == 40.0
    assert view.time_to_go(entries, 4, 0.0) == 40.0  # of one run, however many could run beside it
    entries[3].state = "left"
    entries[2].state, entries[2].began = "running", 100.0
    assert view.time_to_go(entries, 1, 110.0) == pytest.approx(50.0)
    folders[1].record.unlink()
    entries = entries_in(folders)  # its row has none that is finished, its dataset has
    assert view.time_to_go(entries, 1, 0.0) == 120.0


def test_a_run_took_its_last_session_or_all_of_its_training(folders: list[RunFolder]) -> None:
    record_of(folders[0], seconds=5.0, train_seconds=9.0)
    record_of(folders[1], seconds=5.0)
    assert [entry.seconds for entry in entries_in(folders)] == [9.0, 5.0, None, None]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59, "59 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (172_800, "2.0 days")],
)
def test_a_duration_has_three_figures_at_most(seconds: float, shown: str) -> None:
    assert view.duration(seconds) == shown


def test_at_the_end_stand_reason_command_and_log_of_what_did_not_get_through(
    folders: list[RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    folders[1].fail("it broke", None, {})
    folders[1].log.touch()
    checkpoint_of(folders[2])
    entries = entries_in(folders)
    entries[0].state, entries[0].error = "interrupted", "its process was ended from outside"
    command._conclude(Console(width=300), entries)
    assert capsys.readouterr().out.splitlines() == [
        f"interrupted: {entries[0].cell.name}: its process was ended from outside",
        f"    {entries[0].cell.command}",
        f"failed: {entries[1].cell.name}: it broke",
        f"    {entries[1].cell.command}",
        f"    {folders[1].log}",  # and nothing of the third, which was stopped with the sweep
        "Failed runs are tried again by the same command with retry_failed=true.",
        "4 runs · ‖ 2 interrupted · ✗ 1 failed · ○ 1 left",
    ]
    folders[1].record.write_text("{")  # damaged: trying again would not help
    command._conclude(Console(width=300), entries_in(folders))
    assert "retry_failed" not in capsys.readouterr().out


def test_the_share_of_epochs_counts_passes_as_the_methods_do(folders: list[RunFolder]) -> None:
    from ssl_bench.data import catalog
    from ssl_bench.training.build import build_method

    for options, share in (
        (["method.epoch_unit=teacher"], 0.25),
        (["method.epoch_unit=teacher", "method.lookahead_batch=same_images"], 0.75),
        ([], 0.75),
    ):
        config = compose(["method=clbo", "scale=smoke", "method.lookahead=3", "epochs=4", *options])
        assert grid.passes_per_epoch(config) == build_method(config, catalog.chosen(config.dataset)).passes_per_epoch
        entry = SweepRun(entries_in(folders)[0].cell, config, folders[0])
        folders[0].metrics.unlink(missing_ok=True)
        assert entry.progress() is None
        folders[0].path.mkdir(exist_ok=True)
        folders[0].metrics.write_text("epoch,loss\n1,2.0\n2,2.0\n3,2.0\n")
        assert entry.progress() == share
    assert grid.passes_per_epoch(compose(["method=byol"])) == 1


def test_runs_are_named_as_the_program_names_them_and_each_dataset_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ssl_bench.data import catalog
    from ssl_bench.training import build

    configs = request.read(["fig2", "scale=smoke"]).configs
    expected = [build.fingerprint_of(config, build.build_data(config).digest) for config in configs]
    reads, load = [], catalog.load
    monkeypatch.setattr(catalog, "load", lambda *given: reads.append(given) or load(*given))  # type: ignore[func-returns-value]
    assert grid.fingerprints(configs) == expected
    assert len(set(expected)) == len(configs) == 10
    assert len(reads) == 1


def test_compiling_where_that_does_not_work_is_refused_for_the_run_would_be_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "why_not_compiled", lambda device: "no compiler")
    configs = request.read(["fig2", "scale=smoke", "seeds=0", "trainer.compile=true"]).configs
    with pytest.raises(
        UserError, match=r"trainer.compile=true does not work on this machine \(no compiler\): leave it"
    ):
        grid.require_compiling(configs)
    grid.require_compiling(request.read(["fig2", "scale=smoke", "seeds=0"]).configs)


def test_a_run_that_became_another_one_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_of(other := RunFolder(tmp_path / "other"))
    made = record.Record.from_json(json.loads(other.record.read_text()))
    monkeypatch.setattr(cell.launch, "train", lambda config: made)
    folder = RunFolder(tmp_path / "asked")
    assert cell._outcome(CONFIG, folder).state == "failed"
    assert str(folder.failed()).startswith("it became other, another run, for its data differ")
    assert cell._outcome(CONFIG, other) == Outcome("done")


def test_all_data_that_are_missing_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_bench.data.readers import downloads

    def silence(url: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(downloads, "_require_answer", silence)
    asked = request.read(["fig2", "scale=smoke", "datasets=digits,cifar10,stl10", "seeds=0", f"data_dir={tmp_path}"])
    with pytest.raises(
        UserError, match=r"^nothing was started, for data are missing: .*cifar.*; .*stl10.*\.$"
    ) as caught:
        grid.fingerprints(asked.configs)
    assert "digits" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "ask", None)
    (tmp_path / "file").touch()
    assert command.main(["fig2", "scale=smoke", f"runs_dir={tmp_path}/file"]) == 2
    assert "cannot be written (File exists): choose another." in capsys.readouterr().err


def test_slurm_without_submitit_or_a_cluster_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["fig2", "scale=smoke", "launcher=slurm", "trainer.precision=bf16-mixed", f"runs_dir={tmp_path}"]
    if not any((Path(folder) / "sbatch").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        assert command.main(options) == 2
        assert "slurm.cluster=slurm cannot be used here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert command.main(options) == 2
    assert "launcher=slurm needs submitit: pip install 'ssl-bench[slurm]'" in capsys.readouterr().err


def test_a_cluster_that_refuses_a_job_is_one_sentence(
    folders: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from ssl_bench.sweep import slurm

    for name, script in (("srun", "exit 0"), ("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    submit = slurm.submitter(read_settings(request.FILE, ["launcher=slurm"]), tmp_path)
    with pytest.raises(UserError, match=r"the cluster refuses a job \(sbatch: error: invalid partition\)"):
        submit(entries_in(folders)[0])


def test_a_job_asks_the_cluster_for_what_is_set_and_for_time_to_save(
    folders: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from ssl_bench.sweep import slurm

    asked = tmp_path / "asked"
    for name, script in (("srun", "exit 0"), ("sbatch", f"cp \"$1\" '{asked}'; echo Submitted batch job 7")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    set_so = ["slurm.partition=long", "slurm.minutes=30", "slurm.gpus=2", "slurm.cpus=6"]
    submit = slurm.submitter(read_settings(request.FILE, ["launcher=slurm", *set_so]), tmp_path / "runs")
    assert submit(entries_in(folders)[0]).job.job_id == "7"
    wanted = {"partition=long", "time=30", "gpus-per-node=2", "cpus-per-task=6", "signal=USR2@120"}
    assert wanted <= set(asked.read_text().replace("#SBATCH --", "").splitlines())


def test_a_clusters_job_is_looked_at_every_two_seconds_and_can_resume_where_it_was_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ssl_bench.sweep import slurm

    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    asked: list[float | str] = []

    def done() -> bool:
        asked.append(clock.now)
        return clock.now >= 104.0

    def result() -> None:
        raise RuntimeError("-----\nState: CANCELLED\n-----")

    def cancel(check: bool) -> None:
        asked.append("cancel")

    monkeypatch.setattr(slurm, "time", clock)
    job = slurm.Submitted(SimpleNamespace(job_id="7", done=done, result=result, cancel=cancel))
    for clock.now in (100.0, 100.1, 101.9, 102.0, 103.9):
        assert job.poll() is None
    clock.now = 104.0
    assert job.poll() == job.outcome == Outcome("interrupted", "job 7: State: CANCELLED")
    job.stop()
    assert asked == [100.0, 102.0, 104.0, "cancel"]


ONE_THREAD = ("trainer.threads=1", "trainer.precision=32-true")
SMALL = ("scale=smoke", "seeds=0", "batch_size=16", "subset=160", "epochs=3", *ONE_THREAD)
LONG = 40  # epochs: several seconds
QUICK = ("evaluation.protocols=[knn1]", "evaluation.curves=[knn1]", "data_dir=data")
OFTEN = "trainer.checkpoint_seconds=0.05"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_bench", "sweep", *options, *QUICK],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
    )


def sweep_here(folder: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of a sweep in this process, whose server has imported PyTorch for other tests already."""
    folder.mkdir(exist_ok=True)
    before, output = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with patch.dict(os.environ, {"COLUMNS": "200"}), redirect_stdout(output):
            return command.main([*options, *QUICK]), output.getvalue()
    finally:
        os.chdir(before)


def finish(folder: Path, *options: str) -> str:
    status, output = sweep_here(folder, *options)
    assert status == 0, output
    return output


def long(epochs: int, *runs: str) -> tuple[str, ...]:
    """A sweep, fig2's two runs unless others are named, so long that they are interrupted while they train."""
    return (
        *(runs or ["fig2"]),
        *SMALL[:4],
        *(f"{key}={epochs}" for key in ("epochs", "eval_every", "monitor_every")),
        *ONE_THREAD,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `long(LONG)` has ended without an interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder, *long(LONG))
    return folder


def runs_in(folder: Path) -> dict[str, Path]:
    return {record.parent.name: record.parent for record in sorted((folder / "runs").glob("*/record.json"))}


def assert_same_runs(a: Path, b: Path) -> None:
    mine, theirs = runs_in(a), runs_in(b)
    assert mine.keys() == theirs.keys()
    for one, other in zip(mine.values(), theirs.values(), strict=True):
        for name in ("metrics.csv", "encoder.safetensors"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        predictions, others = np.load(one / "predictions.npz"), np.load(other / "predictions.npz")
        assert predictions.files == others.files
        assert all(np.array_equal(predictions[name], others[name]) for name in predictions.files)
        records = [json.loads((run / "record.json").read_text()) for run in (one, other)]
        for key in ("results", "curves", "student_steps", "warnings", "fingerprint"):
            assert records[0][key] == records[1][key]


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    return [other for child in children(pid) for other in (child, *descendants(child))]


def is_at_work(pid: int) -> bool:
    """Not one that has ended and is waited for."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_server(pid: int) -> bool:
    with suppress(OSError):
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def server_of(sweep: int) -> int | None:
    return next(
        (pid for pid in children(sweep) if is_server(pid) and b"main" in Path(f"/proc/{pid}/cmdline").read_bytes()),
        None,
    )


def cells_of(sweep: int) -> list[int]:
    server = server_of(sweep)
    return children(server) if server else []


@pytest.fixture
def gone() -> Iterator[list[subprocess.Popen[str]]]:
    """Sweeps that are killed if the test fails; their runs stop by themselves."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_command_and_others_continue(tmp_path: Path) -> None:
    finish(tmp_path, "fig2", *SMALL)
    broken, whole = runs_in(tmp_path).values()
    for file in ("record.json", "metrics.csv"):
        (broken / file).unlink()
    checkpoint = (broken / "checkpoints" / "last.ckpt").read_bytes()
    (broken / "checkpoints" / "last.ckpt").write_bytes(b"garbage")
    made_at = (whole / "record.json").stat().st_mtime_ns
    for tries in (1, 1, 2):  # failed now, then listed, then tried again
        retry = ["retry_failed=true"] if tries == 2 else []
        status, output = sweep_here(tmp_path, "fig2", *SMALL, *retry)
        assert status == 1, output
        assert "last.ckpt is damaged or no checkpoint" in output
        assert "1 failed" in output
        (shown,) = [line.strip() for line in output.splitlines() if line.strip().startswith("python -m")]
        assert (broken / "log.txt").read_text().count("is damaged") == tries
    assert json.loads((broken / "failed.json").read_text())["traceback"] is None
    (broken / "checkpoints" / "last.ckpt").write_bytes(checkpoint)
    alone = Forked(tmp_path, *shown.replace("'", "").split()[3:])
    output, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, output
    assert (broken / "record.json").exists()
    assert not (broken / "failed.json").exists()
    assert "2 done" in finish(tmp_path, "fig2", *SMALL)
    assert (whole / "record.json").stat().st_mtime_ns == made_at


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_and_the_same_command_goes_on(tmp_path: Path, small_disk: Path) -> None:
    options = ("fig2", *SMALL, f"runs_dir={small_disk}")
    status, output = sweep_here(tmp_path, *options)
    assert status == 1, output
    assert "no space left" in output
    assert "The disk is full: no other run is started." in output
    assert "1 interrupted · ○ 1 left" in output
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert "2 done" in finish(tmp_path, *options)


@pytest.mark.slow
def test_two_sweeps_on_one_store_train_every_run_once(tmp_path: Path, gone: list[subprocess.Popen[str]]) -> None:
    gone += [start(tmp_path, "fig5", *SMALL, "jobs=2") for _ in range(2)]
    for process in gone:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        assert "3 done" in output
    logs = [(run / "log.txt").read_text() for run in runs_in(tmp_path).values()]
    assert [log.count("images of digits, 3 epochs") for log in logs] == [1, 1, 1]


@pytest.mark.slow
def test_a_signal_saves_every_run_and_the_same_command_resumes(
    tmp_path: Path, undisturbed: Path, gone: list[subprocess.Popen[str]]
) -> None:
    options = (*long(LONG), "jobs=2")
    process = start(tmp_path / "broken", *options, OFTEN)
    gone.append(process)
    wait_for(lambda: len(list((tmp_path / "broken").glob("runs/*/checkpoints/last.ckpt"))) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "SIGINT: 2 run(s) save their state and stop" in output
    assert output.count("ssl_bench: stopped by SIGINT; the same command resumes") == 1
    assert not list((tmp_path / "broken").glob("runs/*/record.json"))
    assert not list((tmp_path / "broken").glob("runs/*/failed.json"))
    assert "2 interrupted" in finish(tmp_path / "broken", *options)
    assert_same_runs(undisturbed, tmp_path / "broken")


@pytest.mark.slow
def test_runs_save_and_stop_when_their_sweep_is_killed(tmp_path: Path, gone: list[subprocess.Popen[str]]) -> None:
    process = start(tmp_path, *long(5000), "jobs=2")
    gone.append(process)
    # An epoch's figures are written, so the runs train; nothing but the signal makes them save so early.
    assert wait_for(lambda: len(list(tmp_path.glob("runs/*/metrics.csv"))) == 2)
    cells = cells_of(process.pid)
    assert len(cells) == 2
    process.kill()
    assert wait_for(lambda: not any(Path(f"/proc/{cell}").exists() for cell in cells), 30)
    for run in runs_in(tmp_path).values():
        assert "stopped by SIGTERM" in (run / "log.txt").read_text()
        assert (run / "checkpoints" / "last.ckpt").exists()


def wait_for(true: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def kill_one_after_another(
    folder: Path, options: Sequence[str], victims: Sequence[str], gone: list[subprocess.Popen[str]]
) -> None:
    """Sweep with ``options`` and kill one process of each kind, a random while after its run has saved anew."""
    chance, process = random.Random(20), None
    for victim in victims:
        if process is None or process.poll() is not None:
            process = start(folder, *options, OFTEN)
            gone.append(process)
        began, victims_now = time.time(), partial(of_kind, victim, process.pid)
        assert wait_for(lambda: saved_since(folder, began) and bool(victims_now())), victim  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.5))
        os.kill(chance.choice(victims_now()), signal.SIGKILL)
        if victim == "sweep":
            process.communicate(timeout=60)
    assert process is not None
    if process.poll() is None:
        process.communicate(timeout=600)


def of_kind(victim: str, sweep: int) -> list[int]:
    """The processes of a sweep that are ``sweep``, ``server``, ``cell`` or ``rank`` and at work."""
    found = {
        "sweep": [sweep],
        "server": [server for server in [server_of(sweep)] if server],
        "cell": cells_of(sweep),
        "rank": [rank for cell in cells_of(sweep) for rank in children(cell)],
    }
    return [pid for pid in found[victim] if is_at_work(pid)]


def saved_since(folder: Path, began: float) -> bool:
    with suppress(FileNotFoundError):
        return any(file.stat().st_mtime > began for file in folder.glob("runs/*/checkpoints/last.ckpt"))
    return False


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_undisturbed(
    tmp_path: Path, undisturbed: Path, gone: list[subprocess.Popen[str]]
) -> None:
    options = (*long(LONG), "jobs=2")
    kill_one_after_another(tmp_path, options, ("server", "sweep", "cell"), gone)
    finish(tmp_path, *options)
    assert_same_runs(undisturbed, tmp_path)


@pytest.mark.slow
def test_a_sweep_of_ranks_killed_at_random_moments_ends_as_undisturbed(
    tmp_path: Path, gone: list[subprocess.Popen[str]]
) -> None:
    """One run; a launcher that is killed is test_launch's."""
    options = (*long(12, "fig6", "methods=clbo", "datasets=digits"), "trainer=ddp", "trainer.accelerator=cpu")
    finish(tmp_path / "whole", *options)
    kill_one_after_another(tmp_path / "broken", options, ("rank", "sweep"), gone)
    finish(tmp_path / "broken", *options)
    assert_same_runs(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
def test_a_job_whose_time_is_up_saves_is_queued_again_and_ends_as_undisturbed(
    tmp_path: Path, undisturbed: Path, gone: list[subprocess.Popen[str]]
) -> None:
    pytest.importorskip("submitit")
    job = ("launcher=slurm", "slurm.cluster=local", "slurm.cpus=1", "jobs=1")
    process = start(tmp_path / "jobs", *long(LONG), OFTEN, *job)
    gone.append(process)
    assert wait_for(lambda: bool(list((tmp_path / "jobs").glob("runs/*/checkpoints/last.ckpt"))))
    (controller,) = [pid for pid in children(process.pid) if b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for process_of_the_job in descendants(controller):
        os.kill(process_of_the_job, signal.SIGUSR2)  # what the cluster sends to all of them before the time limit
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    logs = [(run / "log.txt").read_text() for run in runs_in(tmp_path / "jobs").values()]
    assert sorted(log.count("resuming after step") for log in logs) == [0, 1]
    assert_same_runs(undisturbed, tmp_path / "jobs")


def test_two_rows_that_turn_out_to_be_one_run_are_trained_once(tmp_path: Path) -> None:
    configs = [compose(["method=byol", f"runs_dir={tmp_path}", *more]) for more in ([], ["trainer.precision=32-true"])]
    cells = [experiments.Cell(row, "digits", 0, ()) for row in ("as it is", "whole")]
    assert [entry.cell.row for entry in grid.entries(cells, configs, ["0123456789ab"] * 2)] == ["as it is"]
    assert len(grid.entries(cells, configs, ["0123456789ab", "ba9876543210"])) == 2
