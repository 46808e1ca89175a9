"""The log of a daemon whose standard error nobody reads, or reads late; real pipes, and pop3d as a process."""

import asyncio
import errno
import fcntl
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from pop3d.observe import log_thread
from pop3d.observe.log_thread import LogWriter
from pop3d.observe.metrics import Metrics
from tests.site import Daemon, Site

F_SETPIPE_SZ = 1031  # <fcntl.h>
PROGRAM = """
import logging, sys
from pop3d.observe.log import configure, failed_login
from pop3d.observe.log_thread import beside
configure("info", sys.argv[2])
with beside():
    for number in range(int(sys.argv[1])):
        failed_login("192.0.2.1", f"user{number}")
    print("said", flush=True)
    sys.stdin.readline()
    for number in range(3):
        logging.getLogger("pop3d.x").warning("later %d", number)
logging.getLogger("pop3d.x").warning("behind")
"""


@pytest.fixture
def narrow() -> tuple[int, int]:
    """A pipe that is full after a page: its ends for reading and writing."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lets a pipe be made small")
    read, write = os.pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, 4096)
    return read, write


def everything(descriptor: int) -> str:
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read()


def login(site: Site) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as sock, sock.makefile("rb") as said:
        sock.sendall(b"USER alice\r\nPASS secret\r\nQUIT\r\n")
        return said.read()


def in_clear_text(site: Site, form: str = "text") -> None:
    text = site.config.read_text().replace("[[listen]]", '[[listen]]\ntls = "none"')
    site.config.write_text(f'{text}\n[log]\nformat = "{form}"\n')


def started(site: Site, write: int) -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen([sys.executable, "-m", "pop3d", "serve", "--config", str(site.config)], stderr=write)
    os.close(write)
    return daemon


async def answers(site: Site) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await asyncio.to_thread(login, site)
                return
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_log_that_nobody_reads_holds_up_nobody(site: Site, narrow: tuple[int, int], form: str) -> None:
    in_clear_text(site, form)
    read, write = narrow
    daemon = started(site, write)
    try:
        await answers(site)
        for _ in range(100):  # twenty lines fill the pipe
            said = await asyncio.to_thread(login, site)
            assert said.count(b"+OK") == 4, said
        # what waited is told once somebody reads, to its end, and nothing is missing
        whole = asyncio.create_task(asyncio.to_thread(everything, read))
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait, 20) == 0
        lines = (await whole).splitlines()
    finally:
        daemon.kill()
        daemon.wait()
    if form == "json":
        assert [json.loads(line)["event"] for line in lines].count("session") >= 100
    assert sum(" session " in line or '"session"' in line for line in lines) >= 100
    assert "ended" in lines[-1]


async def test_a_daemon_ends_though_nobody_reads_its_log(site: Site, narrow: tuple[int, int]) -> None:
    in_clear_text(site)
    read, write = narrow
    daemon = started(site, write)
    try:
        await answers(site)
        for _ in range(50):
            await asyncio.to_thread(login, site)
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait, 20) == 0
    finally:
        daemon.kill()
        daemon.wait()
        os.close(read)


def run(count: int, form: str, write: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, str(count), form]
    program = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write, text=True, cwd=Path(__file__).parents[3]
    )
    os.close(write)
    assert program.stdout is not None
    assert program.stdout.readline() == "said\n"  # with a pipe that is full
    return program


def test_what_does_not_fit_is_counted_and_told_once(narrow: tuple[int, int]) -> None:
    read, write = narrow
    program = run(10_000, "text", write)
    assert program.stdin is not None
    lines: list[str] = []
    with program, os.fdopen(read) as file:
        for line in file:
            lines.append(line)
            if "log lines dropped" in line:
                break
        program.stdin.write("\n")
        program.stdin.close()
        rest = file.read().splitlines()
    told = [int(found[1]) for line in lines if (found := re.search(r"failed ip=192\.0\.2\.1 user=user(\d+)$", line))]
    (dropped,) = [int(found[1]) for line in lines if (found := re.search(r"log lines dropped number=(\d+)", line))]
    # half of those that fitted come behind
    told += [int(found[1]) for line in rest if (found := re.search(r"user=user(\d+)$", line))]
    assert told == sorted(told)
    assert len(told) + dropped == 10_000
    assert 4096 <= len(told) < 5000
    assert [line.partition(" WARNING ")[2] for line in rest[-4:]] == ["later 0", "later 1", "later 2", "behind"]
    assert not any("dropped" in line for line in rest)
    assert program.wait(30) == 0


def test_a_reader_that_is_gone_ends_nothing(narrow: tuple[int, int]) -> None:
    read, write = narrow
    program = run(10, "text", write)
    os.close(read)
    program.communicate("\n", timeout=30)
    assert program.returncode == 0


def test_without_standard_error_nothing_is_written_to_who_has_its_number(tmp_path: Path) -> None:
    # the shell closes it; the first file that is opened gets the number 2
    other = tmp_path / "other"
    program = f"import os; os.open({str(other)!r}, os.O_CREAT | os.O_WRONLY)\n{PROGRAM}"
    arguments = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program, "10", "text"]
    done = subprocess.run(
        arguments, input="\n", stdout=subprocess.PIPE, text=True, timeout=30, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == 0
    assert other.read_bytes() == b""


def test_what_libraries_say_and_what_cannot_be_shaped(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        '    print("said"',
        "    logging.getLogger('asyncio').warning('a library: %s', '\\x1b[31m')\n"
        "    logging.getLogger('pop3d.x').warning('%d', 'word')\n"
        '    print("said"',
    )
    arguments = [sys.executable, "-c", program, "0", "text"]
    done = subprocess.run(
        arguments, input="\n", capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[3]
    )
    assert [line.partition(" WARNING ")[2] for line in done.stderr.splitlines()] == [
        "a library: \\x1b[31m",
        "a line cannot be shaped of=pop3d.x why=TypeError",
        "later 0",
        "later 1",
        "later 2",
        "behind",
    ]


def test_lines_of_a_daemon_that_is_read_are_whole(site: Site) -> None:
    daemon = Daemon(site)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):  # which mean nothing here
        daemon.send(number)
    assert daemon.end() == 0
    lines = daemon.log.splitlines()
    assert "ending: no new connections, 0 open" in lines[-2]
    assert lines[-1].endswith("ended")


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def said(writer: LogWriter, *lines: str) -> None:
    for line in lines:
        writer.handle(logging.makeLogRecord({"msg": line, "name": "x"}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


def opening(file: Path) -> Callable[[], int]:
    return lambda: os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


def writer_to(file: Path) -> LogWriter:
    writer = LogWriter(opening(file)(), "utf-8", logging.Formatter(), opening(file))
    writer.start()
    return writer


def test_nothing_ends_the_writer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(_: float) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")  # as of a clock that was set

    monkeypatch.setattr(log_thread, "time", SimpleNamespace(sleep=bent, monotonic=time.monotonic))
    writer = writer_to(file)
    for number in range(3):
        said(writer, str(number))
        until(lambda number=number: file.read_text().endswith(f"{number}\n"))
    monkeypatch.setattr(writer, "_shaped", lambda _: 1 / 0)
    writer._queue.put(logging.makeLogRecord({"msg": "lost"}))
    until(lambda: writer.lost == 1)
    assert not writer.works
    monkeypatch.undo()
    said(writer, "on")
    writer.end()
    told = file.read_text().splitlines()
    assert told[:3] == ["0", "1", "2"]
    assert sorted(told[3:]) == ["log lines dropped number=1", "on"]  # as soon as the thread comes to it
    assert writer.lost == 1


def test_what_could_not_be_written_is_counted_and_told_once_it_can_be(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [7]  # octets that the disk has

    def write(descriptor: int, octets: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = os.write(descriptor, octets[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(log_thread, "os", SimpleNamespace(write=write, dup2=os.dup2, close=os.close))
    metrics, writer = Metrics(), writer_to(file)
    metrics.watch_log(lambda: writer.lost, lambda: writer.works)
    assert b"pop3d_log_works 1.0" in generate_latest(metrics.registry)
    said(writer, "one", "two", "three")  # "two" is torn
    until(lambda: writer.lost == 2 and not writer.works)
    said(writer, "four")
    until(lambda: writer.lost == 3)
    told = generate_latest(metrics.registry)
    assert b"pop3d_log_works 0.0" in told and b"pop3d_log_lines_lost_total 3.0" in told
    room[0] = 10_000
    said(writer, "five")
    writer.end()
    lines = file.read_text().splitlines()
    assert lines[:2] == ["one", "two"]
    assert sorted(lines[2:]) == ["five", "log lines dropped number=3"]  # as soon as the thread comes to it


def test_a_write_that_hangs_is_no_log(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = os.pipe()
    monkeypatch.setattr(log_thread, "_STUCK_SECONDS", 0.0)
    monkeypatch.setattr(log_thread, "os", SimpleNamespace(write=lambda _, octets: os.read(go_on[0], 1) and len(octets)))
    writer = writer_to(file)
    assert writer.works
    said(writer, "x")
    until(lambda: not writer.works)
    assert writer.lost == 0
    os.write(go_on[1], b"x")
    until(lambda: writer.works)
    writer.end()
    assert not writer.works
    for descriptor in go_on:
        os.close(descriptor)


def test_a_file_is_opened_again_and_what_was_said_before_is_in_the_old_one(file: Path) -> None:
    writer = writer_to(file)
    said(writer, "before")
    file.rename(file.with_suffix(".1"))
    writer.reopen()
    said(writer, "behind")
    until(file.exists)
    file.unlink()
    file.mkdir()  # nothing that can be opened
    until(lambda: writer._queue.empty())
    writer.reopen()
    said(writer, "last")
    writer.end()
    assert file.with_suffix(".1").read_text() == "before\n"
    assert writer.lost == 0


def test_a_file_that_cannot_be_opened_again_leaves_the_old_one(file: Path) -> None:
    writer = writer_to(file)
    old = file.rename(file.with_suffix(".1"))
    file.mkdir()
    writer.reopen()
    said(writer, "last")
    writer.end()
    assert old.read_text().splitlines() == [
        'log file not reopened, the one that is open goes on why="Is a directory"',
        "last",
    ]


def test_a_daemon_with_a_log_file(site: Site) -> None:
    folder = site.root / "logs"
    folder.mkdir()
    site.config.write_text(f'{site.config.read_text()}\n[log]\nfile = "logs/pop3d.log"\n')
    file = folder / "pop3d.log"
    arguments = [sys.executable, "-m", "pop3d", "serve", "--config", str(site.config)]
    daemon = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: daemon.poll() is not None or (file.exists() and "listening on" in file.read_text()))
        old = file.rename(folder / "pop3d.log.1")
        daemon.send_signal(signal.SIGUSR1)
        until(lambda: daemon.poll() is not None or file.exists())
        daemon.send_signal(signal.SIGTERM)
        _, told = daemon.communicate(timeout=20)
    finally:
        daemon.kill()
        daemon.communicate()
    assert daemon.returncode == 0, told
    assert "listening on" in old.read_text() and "ended" not in old.read_text()
    assert file.read_text().splitlines()[-1].endswith("INFO ended")
    assert "listening" not in told
    assert file.stat().st_mode & 0o777 == 0o640
