from __future__ import annotations

import gc
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from server import Server, served

from ssl_bench.data.readers import downloads
from ssl_bench.errors import UserError

CONTENT = random.Random(0).randbytes(30_000)
OTHER = random.Random(1).randbytes(30_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with served(big=CONTENT) as state:
        yield state


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def fetch(server: Server, place: Path, expected: bytes = CONTENT, name: str = "big") -> bytes:
    file = downloads.Published(name=name, size=len(expected), md5=md5(expected))
    downloads.download([file], server.url, place, missing=f"Big is not there: put {name} into {place}, or connect")
    return (place / name).read_bytes()


def refusal(server: Server, place: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        fetch(server, place, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"Big is not there: put {options.get('name', 'big')} into {place}, ")
    return str(caught.value)


def seen(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.endswith(".lock"))


def begin(server: Server, place: Path, size: int) -> None:
    """Leave ``size`` bytes of a download that broke off."""
    place.mkdir()
    server.breaks_after = size
    wanted, server.ranges = server.ranges, False
    refusal(server, place)
    server.breaks_after, server.ranges = None, wanted
    server.asked.clear()
    assert (place / "big.part").stat().st_size == size


def test_a_file_is_put_in_its_place_whole_and_asked_for_only_once(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "deep" / "data") == CONTENT
    assert seen(tmp_path / "deep" / "data") == ["big"]
    server.files.clear()
    assert fetch(server, tmp_path / "deep" / "data") == CONTENT
    assert server.ranges_asked == [None]


def test_a_download_resumes_where_it_broke_off_and_shows_how_much_is_kept(server: Server, tmp_path: Path) -> None:
    server.breaks_after, server.ranges = 12_000, False
    sentence = refusal(server, tmp_path)
    assert "the connection ended after 12,000 of 30,000 bytes; 12,000 bytes of big are kept, and the same" in sentence
    server.breaks_after, server.ranges = None, True
    server.asked.clear()
    assert fetch(server, tmp_path) == CONTENT
    assert server.asked == [("/big", "bytes=12000-", 206)]
    assert seen(tmp_path) == ["big"]


def test_a_connection_that_keeps_breaking_off_is_taken_up_again_at_once(server: Server, tmp_path: Path) -> None:
    server.breaks_after = 7_000
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges_asked == [None, "bytes=7000-", "bytes=14000-", "bytes=21000-", "bytes=28000-"]


def test_a_server_that_knows_no_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    begin(server, tmp_path / "data", 9_000)
    assert fetch(server, tmp_path / "data") == CONTENT
    assert server.statuses == [200]


def test_a_file_that_was_changed_is_not_joined_to_what_came_of_the_old_one(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "data", 9_000)
    server.files["big"] = OTHER  # as long as before
    assert fetch(server, tmp_path / "data", OTHER) == OTHER
    assert server.statuses == [206, 200]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_wrong_checksum_is_named_beside_the_right_one_and_nothing_is_kept(
    resumed: bool, server: Server, tmp_path: Path
) -> None:
    place = tmp_path / "data"
    if resumed:
        begin(server, place, 9_000)
    sentence = refusal(server, place, expected=OTHER)
    assert f"to have the MD5 checksum {md5(OTHER)}, found {md5(CONTENT)}, and removed what had arrived)." in sentence
    assert seen(place) == []


def test_a_part_that_is_whole_or_longer_needs_no_further_bytes(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "data", 9_000)
    (tmp_path / "data" / "big.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "data") == CONTENT
    assert server.statuses == [416]
    begin(server, tmp_path / "again", 9_000)
    (tmp_path / "again" / "big.part").write_bytes(CONTENT + b"x")
    assert fetch(server, tmp_path / "again") == CONTENT
    assert server.statuses == [416, 200]


def test_a_server_without_the_file_is_left_before_anything_is_written(server: Server, tmp_path: Path) -> None:
    place = tmp_path / "data"
    assert "(it failed: HTTP Error 404: Not Found)." in refusal(server, place, name="gone")
    assert not place.exists()
    gc.collect()  # an answer left open would be an error here


def test_a_file_that_disappears_leaves_what_has_come_of_it(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "data", 9_000)
    server.files.clear()
    assert "404" in refusal(server, tmp_path / "data")
    assert (tmp_path / "data" / "big.part").read_bytes() == CONTENT[:9_000]


def test_a_server_that_stands_still_is_given_up_and_what_came_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.2)
    server.stalls_after, server.ranges = 5_000, False
    assert "timed out; 5,000 bytes of big are kept" in refusal(server, tmp_path)
    server.stalls_after, server.ranges = None, True
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges_asked[-1] == "bytes=5000-"


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.2)
    state = Server()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        state.url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert "(it failed: " in refusal(state, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(server: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal(server, tmp_path)
    tmp_path.chmod(0o700)


def test_a_place_that_is_no_folder_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    assert str(tmp_path / "data") in refusal(server, tmp_path / "data").partition("it failed")[2]


@contextmanager
def scripted(*answers: bytes) -> Iterator[Server]:
    """A server that answers so, one to a connection and then the last one again, whatever it is asked."""
    state = Server()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        state.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

        def serve() -> None:
            for number in range(1_000):
                try:
                    connection, _ = listening.accept()
                except OSError:  # closed
                    return
                with connection, suppress(OSError):
                    asked = connection.recv(10_000).decode()
                    state.asked.append((asked.partition("\r\n")[0], None, number))
                    connection.sendall(answers[min(number, len(answers) - 1)])

        thread = threading.Thread(target=serve)
        thread.start()
        yield state
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


OK = b"HTTP/1.1 200 OK\r\n"
PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\n\r\n" + b"x" * 5
STRANGE = {
    "a part that was not asked for, for ever": ((OK + b"\r\n", PART), "status 206 in place of the file"),
    "nothing": ((OK + b"\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"), "status 204 in place of the file"),
    "no HTTP": ((b"SSH-2.0-OpenSSH_9.2\r\n",), "SSH-2.0-OpenSSH"),
    "no HTTP after the first answer": ((OK + b"\r\n", b"\x1b[31m\x07 hello\r\n"), "?[31m? hello"),
    "endless headers": ((OK + b"A: b\r\n" * 1_000,), "more than 100 headers"),
    "an endless header": ((OK + b"A: " + b"b" * 100_000,), "header line"),
    "a status that is no number": ((b"HTTP/1.1 many\r\n\r\n",), "many"),
    "a redirect to a file of this machine": (
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",),
        "is not allowed",
    ),
    "chunks without a size": ((OK + b"\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "IncompleteRead"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_server_is_left_in_one_sentence(what: str, tmp_path: Path) -> None:
    answers, shown = STRANGE[what]
    with scripted(*answers) as server:
        assert shown in refusal(server, tmp_path)
        assert len(server.asked) <= 3
        gc.collect()


@pytest.mark.parametrize("length", [b"many", b"-3", b"", b"1e3"])
def test_a_length_that_is_no_number_is_not_believed(length: bytes, tmp_path: Path) -> None:
    with scripted(OK + b"\r\n", OK + b"Content-Length: " + length + b"\r\n\r\n" + CONTENT) as server:
        assert fetch(server, tmp_path) == CONTENT


PROGRAM = (
    "import sys; from pathlib import Path; from ssl_bench.data.readers import downloads; "
    "from ssl_bench.entry import guarded; "
    "file = downloads.Published(name='big', size=30_000, md5=sys.argv[3]); "
    "work = lambda: downloads.download([file], sys.argv[1], Path(sys.argv[2]), missing='Big is not there'); "
    "sys.exit(guarded(work, interrupted=''))"
)


def start(server: Server, place: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A download of ``big`` that is under way, and the part of it that has come."""
    server.pace = 0.1
    command = [sys.executable, "-c", PROGRAM, server.url, str(place), md5(CONTENT)]
    process, part = subprocess.Popen(command, stderr=subprocess.PIPE), place / "big.part"
    while not (part.exists() and part.stat().st_size >= 3_000):
        assert process.poll() is None
        time.sleep(0.02)
    return process, part


@pytest.mark.slow
def test_the_same_command_resumes_after_kill_9(server: Server, tmp_path: Path) -> None:
    process, part = start(server, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert 3_000 <= kept < len(CONTENT)
    server.pace = 0
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges_asked == [None, f"bytes={kept}-"]


@pytest.mark.slow
def test_of_two_processes_one_waits_and_finds_the_others_file(server: Server, tmp_path: Path) -> None:
    both = [start(server, tmp_path)[0] for _ in range(2)]
    assert [process.communicate()[1] for process in both] == [b"", b""]  # nothing is drawn where there is no terminal
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "big").read_bytes() == CONTENT
    assert server.ranges_asked == [None]
    assert seen(tmp_path) == ["big"]


def test_bytes_are_shown_on_a_terminal_only(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fetch(server, tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    fetch(server, tmp_path / "b")
    out, err = capsys.readouterr()
    assert out == ""
    assert "30.0/30.0 kB" in err
