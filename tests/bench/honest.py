"""What an honest session notices of hostile ones: the time its commands take, and the daemon's memory, as a table.

The honest client asks for STAT, LIST of a message and RETR of one of 4 KiB in turn, over TLS, 5 ms after each answer.
The limits are the defaults. Both processes run on the same machine, so the client's own share of it is in the figures.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.bench.maildir import memory_mib
from tests.bench.site import BIG, Session, Site, address, connect, p99

__all__ = ["SITUATIONS", "Honest", "as_markdown", "measured"]

_SECONDS = 8.0  # of measuring, where nothing ends it before
_HALF_OPEN = 1000
_HASHES = 50
_PIPELINED = 1024 * 1024 * 1024  # octets that are asked for


@dataclass
class Honest:
    """``median``, ``p99``: ms. ``memory``: MiB at most while it was measured."""

    situation: str
    commands: int
    median: float
    p99: float
    memory: float


@contextlib.contextmanager
def alone(_site: Site) -> Iterator[float]:
    """alone"""
    yield time.monotonic() + _SECONDS


@contextlib.contextmanager
def half_open(site: Site) -> Iterator[float]:
    """under 1,000 half-open handshakes"""
    sockets = [connect(site, address(number % 100)) for number in range(_HALF_OPEN)]
    for sock in sockets:
        sock.sendall(b"\x16\x03\x01")  # a ClientHello begins, and no more of it comes
    yield time.monotonic() + _SECONDS
    for sock in sockets:
        sock.close()


@contextlib.contextmanager
def hashes(site: Site) -> Iterator[float]:
    """under 50 simultaneous password hashes of 0.2 s each"""
    dear = [Session(site, source=address(number % 5)) for number in range(_HASHES)]
    for number, session in enumerate(dear):
        session.ask(f"USER dear{number}")
    for session in dear:
        session.say("PASS secret")
    yield time.monotonic() + 4  # two at a time, as there are cores: the last one begins later than that
    for session in dear:
        assert session.line().startswith(b"+OK")
        session.sock.close()


@contextlib.contextmanager
def who_does_not_read(site: Site) -> Iterator[float]:
    """beside a client that pipelines 1 GiB of RETR and never reads"""
    greedy = Session(site, "u1")
    greedy.sock.sendall(b"RETR 1\r\n" * (_PIPELINED // BIG))
    yield time.monotonic() + _SECONDS
    greedy.sock.close()


SITUATIONS: tuple[Callable[[Site], AbstractContextManager[float]], ...] = (alone, half_open, hashes, who_does_not_read)
"""Each yields the time at which measuring has to end; its docstring is its name."""


def measured(site: Site, situation: Callable[[Site], AbstractContextManager[float]]) -> Honest:
    """A daemon of its own, and one honest session in that situation."""
    site.configure()
    site.start()
    honest = Session(site, "u0")
    for _ in range(30):  # what is done once is done
        _asked(honest)
    with situation(site) as until:
        waits: list[float] = []
        memory = memory_mib(site.pid)
        while time.monotonic() < until:
            waits += _asked(honest)
            if len(waits) % 300 == 0:
                memory = max(memory, memory_mib(site.pid))
        memory = max(memory, memory_mib(site.pid))
    honest.quit()
    name = (situation.__doc__ or "").strip()
    return Honest(name, len(waits), statistics.median(waits) * 1000, p99(waits), memory)


def _asked(session: Session) -> list[float]:
    """Seconds of one command each."""
    waits = [session.seconds_of("STAT")]
    time.sleep(0.005)
    waits.append(session.seconds_of("LIST 2"))
    time.sleep(0.005)
    begun = time.perf_counter()
    session.download(2)
    waits.append(time.perf_counter() - begun)
    time.sleep(0.005)
    return waits


def as_markdown(rows: list[Honest]) -> str:
    """The table, as it stands in docs/running.md."""
    lines = ["| an honest session | median | p99 | the daemon's memory |", "|---|---|---|---|"]
    lines += [f"| {row.situation} | {row.median:.2f} ms | {row.p99:.2f} ms | {row.memory:.0f} MiB |" for row in rows]
    return "\n".join(lines)
