"""The log while the daemon serves: whoever reads it may be stuck, and nobody else is."""

from __future__ import annotations

import logging
import os
import poplib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d import log_writer
from pop3d.log_writer import LogWriter, written_behind
from tests.site import Daemon, Site


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("pop3d.test_log_writer")
    log.propagate = False
    log.setLevel("INFO")
    yield log
    log.handlers.clear()


def read(reader: int, octets: int) -> bytes:
    """So many octets of a pipe, or what there is at its end."""
    read = b""
    while len(read) < octets and (data := os.read(reader, octets - len(read))):
        read += data
    return read


def test_lines_arrive_whole_and_in_order(pipe: tuple[int, int], log: logging.Logger) -> None:
    writer = LogWriter(pipe[1], logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(writer)
    expected = b"".join(b"INFO line %d \xe2\x9c\x93\n" % number for number in range(20_000))
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(read(pipe[0], len(expected))))
    reading.start()
    for number in range(20_000):
        log.info("line %d ✓", number)
        if number % 1000 == 0:
            reading.join(0.02)  # others have their turn: no more than fit into the queue at once
    writer.stop()
    reading.join(30)
    assert found == [expected]


def test_what_does_not_fit_is_counted_and_told(pipe: tuple[int, int], log: logging.Logger) -> None:
    writer = LogWriter(pipe[1], logging.Formatter("%(message)s"), records_max=10)
    log.addHandler(writer)
    for number in range(25):
        log.info("%d", number)
    writer.stop()
    log.info("behind the end nothing is written")
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert lines == [*map(str, range(10)), "15 lines of the log are lost: nobody read it for too long"]


def test_a_reader_who_is_stuck_holds_the_end_up_for_a_bounded_time(
    pipe: tuple[int, int], log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "_PATIENCE", 0.1)
    writer = LogWriter(pipe[1], logging.Formatter("%(message)s"))
    log.addHandler(writer)
    for _ in range(1000):
        log.info("x" * 1000)
    writer.stop()  # returns
    assert writer._thread is not None
    assert writer._thread.is_alive()
    read(pipe[0], 1001 * 1000)  # now it can end
    writer._thread.join(30)
    assert not writer._thread.is_alive()


def test_a_log_that_nobody_holds_any_more_is_no_fault(log: logging.Logger) -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LogWriter(descriptor, logging.Formatter("%(message)s"))
    log.addHandler(writer)
    log.info("to nobody")
    writer.stop()
    os.close(descriptor)
    assert writer._thread is not None
    assert not writer._thread.is_alive()


def test_only_streams_of_descriptors_are_replaced_and_all_comes_back(
    log: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "log").open("w") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        with written_behind(log):
            assert handler not in log.handlers
            log.info("behind")
        assert handler in log.handlers
        log.info("before")
    assert (tmp_path / "log").read_text() == "behind\nbefore\n"
    log.handlers[:] = [handler := logging.StreamHandler(sys.stderr)]
    with written_behind(log):
        assert handler in log.handlers


def test_the_daemon_serves_on_while_nobody_reads_its_log(site: Site, daemon: Daemon) -> None:
    for _ in range(300):  # a line each: more than a pipe takes
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        client.user("alice")
        client.pass_("secret")
        client.quit()
    assert daemon.end() == 0
    assert daemon.log.count("session ip=") == 300
    assert len(daemon.log) > 65536
