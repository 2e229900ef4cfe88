"""What loggers write is one curve, also after interruptions, and no failure of theirs stops a run."""

from __future__ import annotations

import csv
import errno
import gzip
import importlib.util
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from program import Program
from ssl_bench.conditions import require_logger
from ssl_bench.config import experiments
from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.training import loggers, run
from ssl_bench.training.loggers import Forgiving, Logger, build_logger
from test_resume import finish, start, stop_after

FINGERPRINT = "0123456789ab"
RESULTS = {"student": {"knn1": 71.5, "linear": 80.25}, "pixels": {"knn1": 95.0, "linear": None}}
ROWS = [
    {"epoch": epoch, "loss": 4.0 / epoch, "validation/knn1/student": 60.0 + epoch, "images_per_second": 300.0}
    for epoch in (1, 2, 3)
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home without keys, and a W&B session that ends with the test."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name, value in (("HOME", ""), ("NETRC", "netrc"), ("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data")):
        monkeypatch.setenv(name, str(home / value))
    wandb.teardown()
    yield home
    wandb.teardown()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "tsne.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
    return path


def no_warning(sentence: str) -> None:
    raise AssertionError(sentence)


def tell(name: str, folder: Path, rows: list[dict[str, float]], *overrides: str) -> Logger:
    """A logger of a started (or restarted) run that has got ``rows``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = compose([f"logger={name}", "scale=smoke", *overrides])
    logger = build_logger(config, folder=folder, fingerprint=FINGERPRINT, warn=no_warning)
    for row in rows:
        logger.log(int(10 * row["epoch"]), row)
    return logger


def end(logger: Logger) -> None:
    """As the program ends: W&B's service writes its file on after the run is closed."""
    import wandb

    logger.close()
    wandb.teardown()


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: protocol buffers in LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left_in_block = 32768 - at % 32768
        if left_in_block < 7:
            at += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0 or at + 7 + length > len(data):
            return  # cut off by a kill
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or last part
            yield Record.FromString(whole)
            whole = b""


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class Contents:
    """What a .wandb file says."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("*.wandb")
        self.history, self.summary, self.files = [], {}, []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "files":
                self.files += [file.path for file in record.files.files]
            elif kind == "run":
                self.id, self.config = record.run.run_id, values(record.run.config.update)
                self.group, self.job_type, self.tags = record.run.run_group, record.run.job_type, list(record.run.tags)

    @property
    def curve(self) -> list[dict[str, float]]:
        """The history without the row of the final table, and without what W&B adds."""
        return [
            {name: value for name, value in row.items() if not name.startswith("_") or name == "_step"}
            for row in self.history
            if "loss" in row
        ]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_newest_wandb_file_is_the_whole_run_by_itself(tmp_path: Path, home: Path, picture: Path) -> None:
    folder = tmp_path / "runs" / FINGERPRINT
    tell("wandb", folder, ROWS[:2])
    time.sleep(1)  # W&B names its folders by the second
    logger = tell("wandb", folder, ROWS)
    logger.log_results(RESULTS, picture)
    end(logger)
    first, second = (Contents(path) for path in sorted((folder / "wandb").glob("offline-run-*")))
    newest = Contents(folder / "wandb" / "latest-run")
    assert newest.history == second.history
    assert first.id == second.id == FINGERPRINT
    expected = [{**row, "_step": 10 * row["epoch"]} for row in ROWS]
    assert first.curve == expected[:2]
    assert second.curve == expected
    assert newest.summary["final/linear/student"] == newest.history[-1]["final/linear/student"] == 80.25
    assert "final/linear/pixels" not in newest.summary
    table = newest.history[-1]["results/path"], newest.summary["results/path"]
    image = newest.history[-1]["t-SNE/path"], newest.summary["t-SNE/path"]
    assert set(table + image) <= set(newest.files)
    rows = json.loads((folder / "wandb" / "latest-run" / "files" / table[0]).read_text())
    assert rows == {"columns": ["network", "knn1", "linear"], "data": [["student", 71.5, 80.25], ["pixels", 95, None]]}
    assert newest.history[-1]["epoch"] == 3


def test_wandb_knows_the_configuration_but_no_place_on_this_machine(tmp_path: Path, home: Path) -> None:
    end(tell("wandb", tmp_path / "runs" / FINGERPRINT, []))
    config = Contents(tmp_path / "runs" / FINGERPRINT / "wandb" / "latest-run").config
    config.pop("_wandb")
    assert config["method"]["name"] == "clbo"
    assert not {"runs_dir", "data_dir", "logger"} & set(config)
    assert not any(place in json.dumps(config) for place in (str(tmp_path), os.getcwd(), os.uname().nodename + "."))


def test_a_wandb_run_of_a_table_says_its_group_row_and_dataset(tmp_path: Path, home: Path) -> None:
    cell = experiments.find("fig2").cells("smoke", seeds=[3], overrides=["logger=wandb"])[1]
    config = compose(cell.overrides)
    end(build_logger(config, folder=tmp_path, fingerprint=FINGERPRINT, warn=no_warning))
    run = Contents(tmp_path / "wandb" / "latest-run")
    assert (run.id, run.group, run.job_type, run.tags) == (FINGERPRINT, "fig2-smoke", cell.row, ["digits"])
    config = run.config
    names = config["method"]["name"], config["dataset"]["name"], config["seed"], config["row"]
    assert names == ("clbo", "digits", 3, "CLBO, K = 1, without the proximal term")


def test_a_wandb_run_by_itself_has_its_method_as_row_and_no_group(tmp_path: Path, home: Path) -> None:
    end(tell("wandb", tmp_path, [], "method=byol"))
    run = Contents(tmp_path / "wandb" / "latest-run")
    assert (run.group, run.job_type, run.config["row"]) == ("", "byol", "byol")


class Server(ThreadingHTTPServer):
    """Answers `wandb sync` as far as a run needs it, and keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.history: dict[str, dict[int, dict[str, Any]]] = {}  # run → line of its history → row
        self.uploads: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client hangs up when it is done."""


class Answer(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the terminal."""

    def reply(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        body = b""
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

    def do_PUT(self) -> None:
        self.body()
        self.server.uploads.append(self.path.removeprefix("/upload/"))
        self.reply({})

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/graphql":
            query = json.loads(body)
            self.reply(self.graphql(query.get("operationName"), query.get("variables") or {}))
            return
        if self.path.endswith("/file_stream"):
            sent = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if sent:
                lines = self.server.history.setdefault(self.path.split("/")[-2], {})
                lines.update(enumerate(map(json.loads, sent["content"]), start=sent["offset"]))
        self.reply({})

    def graphql(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if name == "UpsertBucket":
            project = {"id": "1", "name": variables["project"], "entity": {"id": "1", "name": "someone"}}
            bucket = {"id": "1", "name": variables["name"], "historyLineCount": 0, "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name == "CreateRunFiles":
            base = f"http://{self.headers['Host']}/upload/"
            files = [{"name": file, "uploadUrl": base + file} for file in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return {"data": {}, "errors": [{"message": f"{name} is not answered here"}]}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_documented_sync_uploads_one_curve_per_run(
    tmp_path: Path, home: Path, picture: Path, server: Server
) -> None:
    folder = tmp_path / "runs" / FINGERPRINT
    tell("wandb", folder, ROWS[:2])
    time.sleep(1)
    logger = tell("wandb", folder, ROWS)
    logger.log_results(RESULTS, picture)
    end(logger)
    killed = tmp_path / "runs" / "000000000000" / "wandb"  # within its first seconds, never to go on
    (killed / "offline-run-20250101_000000-000000000000").mkdir(parents=True)
    (killed / "offline-run-20250101_000000-000000000000" / "run-000000000000.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    (killed / "latest-run").symlink_to("offline-run-20250101_000000-000000000000")
    (command,) = [line.strip() for line in (loggers.__doc__ or "").splitlines() if line.startswith("    ")]
    subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
        },
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert list(server.history) == [FINGERPRINT]
    lines = server.history[FINGERPRINT]
    assert sorted(lines) == [0, 1, 2, 3]
    sent = [{name: lines[i][name] for name in (*ROWS[0], "_step")} for i in range(3)]
    assert sent == [{**row, "_step": 10 * row["epoch"]} for row in ROWS]
    assert {"results", "t-SNE"} <= set(lines[3])
    assert any(path.startswith("media/images/t-SNE") for path in server.uploads)
    assert any(path.startswith("media/table/results") for path in server.uploads)


def test_wandb_online_without_key_is_one_warning_and_no_question_at_a_terminal(tmp_path: Path, home: Path) -> None:
    program = (
        "from pathlib import Path; from ssl_bench.config.compose import compose;"
        "from ssl_bench.training.loggers import build_logger;"
        "log = build_logger(compose(['logger=wandb']), folder=Path(), fingerprint='0' * 12, warn=print);"
        "log.log(1, {'epoch': 1}); log.log_results({}, Path('none.png')); log.close()"
    )
    terminal, end = pty.openpty()
    environment = {**os.environ, "WANDB_MODE": "online", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    output, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline and select.select([terminal], [], [], deadline - time.monotonic())[0]:
            output += os.read(terminal, 4096)
    except OSError:
        pass  # the program has ended
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    (line,) = output.decode().strip().splitlines()
    assert line.startswith("logger=wandb failed (No API key configured")
    assert line.endswith("the run continues without it.")


def test_tensorboard_shows_each_step_once_after_a_restart(tmp_path: Path, picture: Path) -> None:
    tell("tensorboard", tmp_path, [*ROWS[:2], {**ROWS[2], "loss": -1.0}])  # to be superseded
    logger = tell("tensorboard", tmp_path, ROWS)
    logger.log_results(RESULTS, picture)
    logger.close()
    curves = scalars(tmp_path)
    for name in ROWS[0]:
        assert curves[name] == [(10 * row["epoch"], pytest.approx(row[name])) for row in ROWS]
    assert curves["final/linear/student"] == [(30, 80.25)]
    assert "final/linear/pixels" not in curves


def test_tensorboard_on_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no traceback of the thread that writes for it; other threads are reported as ever."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reported: list[threading.Thread | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: reported.append(failed.thread))
    warnings: list[str] = []
    config = compose(["logger=tensorboard", "scale=smoke"])
    logger = build_logger(config, folder=tmp_path, fingerprint=FINGERPRINT, warn=warnings.append)
    monkeypatch.setattr(RecordWriter, "write", full)
    for row in ROWS:
        logger.log(int(10 * row["epoch"]), row)
    logger.close()
    assert warnings == ["logger=tensorboard failed ([Errno 28] No space left on device); the run continues without it."]
    other = threading.Thread(target=lambda: 1 / 0)
    other.start()
    other.join()
    assert reported == [other]


@pytest.mark.parametrize("broken", ["start", "log", "log_results", "close"])
def test_a_failing_logger_is_one_warning_and_silent_from_then_on(broken: str) -> None:
    class Broken(Logger):
        pass

    def fail(*arguments: Any) -> None:
        raise OSError("no space\nleft")

    warnings: list[str] = []
    setattr(Broken, broken, fail)
    logger = Forgiving("broken", fail if broken == "start" else Broken, warnings.append)  # type: ignore[arg-type]
    for epoch in (1, 2):
        logger.log(epoch, {"epoch": epoch})
    logger.log_results(RESULTS, Path("none.png"))
    logger.close()
    assert warnings == ["logger=broken failed (no space left); the run continues without it."]


def test_a_missing_package_ends_the_run_before_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(run, "build_data", lambda config: pytest.fail("images were asked for"))
    with pytest.raises(
        UserError,
        match=r"logger=tensorboard needs tensorboard, which is not installed: pip install .ssl-bench\[tensorboard\].",
    ):
        run.run(compose(["logger=tensorboard"]))
    require_logger("none")


@pytest.mark.slow
def test_a_run_without_a_logger_needs_no_package_of_loggers(program: Program, tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(wandb=None, tensorboard=None)"
    )
    paths = [str(tmp_path / "missing"), *filter(None, [os.environ.get("PYTHONPATH")])]
    small = ("scale=smoke", "epochs=1", "subset=64", "evaluation.protocols=[knn1]", "evaluation.curves=[]")
    done = program(*small, "logger=none", PYTHONPATH=os.pathsep.join(paths))
    assert done.returncode == 0, done.stderr


def kill_while_evaluating(folder: Path, *overrides: str) -> None:
    process = start(folder, *overrides)
    while process.poll() is None and "\nevaluating" not in process.output.read_text():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_runs_read_as_one_curve_in_wandb(tmp_path: Path, home: Path) -> None:
    overrides = ("logger=wandb",)
    stop_after(tmp_path, 7, signal.SIGKILL, *overrides)
    kill_while_evaluating(tmp_path, *overrides)
    folder = finish(tmp_path, *overrides)
    parts = [Contents(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]
    assert len(parts) == 3
    newest = Contents(folder / "wandb" / "latest-run")
    assert newest.history == parts[-1].history
    assert newest.id == folder.name
    rows = [{"_step": row.pop("step"), **row} for row in metrics(folder)]
    assert [{name: row[name] for name in row if name != "images_per_second"} for row in newest.curve] == rows
    record = json.loads((folder / "record.json").read_text())
    assert newest.curve[-1]["images_per_second"] == pytest.approx(record["images_per_second"], abs=0.1)
    assert record["train_seconds"] < 300
    for network, scores in record["results"].items():
        for protocol, percent in scores.items():
            assert newest.summary[f"final/{protocol}/{network}"] == percent
    assert {newest.summary["results/path"], newest.summary["t-SNE/path"]} <= set(newest.files)


@pytest.mark.slow
def test_killed_runs_read_as_one_curve_in_tensorboard(tmp_path: Path) -> None:
    overrides = ("logger=tensorboard",)
    stop_after(tmp_path, 7, signal.SIGKILL, *overrides)
    kill_while_evaluating(tmp_path, *overrides)
    folder = finish(tmp_path, *overrides)
    curves, rows = scalars(folder), metrics(folder)
    for name in {name for row in rows for name in row} - {"step"}:
        assert curves[name] == [(row["step"], pytest.approx(row[name])) for row in rows if name in row]
    assert [step for step, _ in curves["images_per_second"]] == [row["step"] for row in rows]
