"""Micro-benchmarks of the engine, each with its counterpart in another library where there is one.

A benchmark is a function that makes a step; a step does some work and says how much it was.
"""

import base64
import importlib.util
import io
import poplib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pop3core.answers import Content, LoginAccepted, TlsEstablished
from pop3core.events import ContentRequested, LoginRequested, NeedData, SendData
from pop3core.framing import CrlfNormalizer, DotStuffer, DotUnstuffer
from pop3core.limits import Limits
from pop3core.maildrop import Listing
from pop3core.server import ServerConfig, ServerConnection

Step = Callable[[], int]

SEGMENT = 64 * 1024  # octets handed over at a time
MESSAGE = b"Subject: benchmark\r\n\r\n" + b"A line of text, as people write them, with a dot at its end.\r\n" * 66
BASE64 = base64.encodebytes(bytes(range(256)) * 188).replace(b"\n", b"\r\n")
TEXT = (b"A line of text, as people write them, with a dot at its end.\r\n" * 2000)[:SEGMENT]
BAD = 10**9  # bad commands that a benchmark may say


@dataclass(frozen=True)
class Benchmark:
    name: str
    unit: str
    ours: Callable[[], Step]
    scale: float = 1
    peer: str = ""
    other: Callable[[], Step | None] | None = None
    aim: str = ""


def rate(step: Step, seconds: float, runs: int) -> float:
    """Work done in a second of one core's time, whatever else the machine does; in the best of the runs."""
    best = 0.0
    for _ in range(runs):
        done, started = 0, time.process_time()
        while (took := time.process_time() - started) < seconds:
            done += step()
        best = max(best, done / took)
    return best


# --- commands ---


def logged_in() -> ServerConnection:
    conn = ServerConnection(ServerConfig(limits=Limits(bad_commands_max=BAD)))
    conn.answer(TlsEstablished())
    conn.receive_data(b"USER alice\r\nPASS secret\r\n")
    while not isinstance(event := conn.next_event(), NeedData):
        if isinstance(event, LoginRequested):
            conn.answer(LoginAccepted(Listing([len(MESSAGE)] * 10, [b"%d" % number for number in range(10)])))
    return conn


def commands(line: bytes) -> Callable[[], Step]:
    """Parse, execute and answer ``line``, pipelined."""
    count = SEGMENT // len(line)
    segment = line * count

    def make() -> Step:
        conn = logged_in()

        def step() -> int:
            conn.receive_data(segment)
            while not isinstance(event := conn.next_event(), NeedData):
                if isinstance(event, ContentRequested):
                    conn.answer(Content(MESSAGE, last=True))
                else:
                    assert isinstance(event, SendData)
            return count

        return step

    return make


def twisted_noop() -> Step | None:
    """The same NOOPs through Twisted's POP3, behind a login."""
    if importlib.util.find_spec("twisted") is None:
        return None
    from twisted.internet.testing import StringTransport
    from twisted.mail.pop3 import POP3, Mailbox

    protocol, transport = POP3(), StringTransport()
    protocol.timeOut = None
    protocol.makeConnection(transport)
    protocol.state, protocol.mbox = "COMMAND", Mailbox()
    count = SEGMENT // 6
    segment = b"NOOP\r\n" * count

    def step() -> int:
        protocol.dataReceived(segment)
        assert transport.value().count(b"+OK") >= count
        transport.clear()
        return count

    return step


# --- content ---


def stuffing(content: bytes) -> Callable[[], Step]:
    def make() -> Step:
        stuffer = DotStuffer()

        def step() -> int:
            stuffer.feed(content)
            return len(content)

        return step

    return make


def unstuffing(content: bytes) -> Callable[[], Step]:
    wire = DotStuffer().feed(content) + b"\r\n.\r\n"

    def make() -> Step:
        def step() -> int:
            unstuffer = DotUnstuffer()
            unstuffer.feed(wire)
            assert unstuffer.ended
            return len(content)

        return step

    return make


def poplib_unstuffing(content: bytes) -> Callable[[], Step]:
    wire = b"+OK\r\n" + DotStuffer().feed(content) + b"\r\n.\r\n"

    def make() -> Step:
        client = poplib.POP3.__new__(poplib.POP3)
        client._debugging = 0

        def step() -> int:
            client.file = io.BytesIO(wire)
            client._getlongresp()
            return len(content)

        return step

    return make


def normalizing(stored: bytes) -> Callable[[], Step]:
    def make() -> Step:
        content = CrlfNormalizer()

        def step() -> int:
            content.feed(stored)
            return len(stored)

        return step

    return make


BENCHMARKS = [
    Benchmark("NOOP", "commands/s", commands(b"NOOP\r\n"), 1, "Twisted", twisted_noop, "400,000"),
    Benchmark("STAT", "commands/s", commands(b"STAT\r\n")),
    Benchmark("LIST 1", "commands/s", commands(b"LIST 1\r\n")),
    Benchmark("UIDL 1", "commands/s", commands(b"UIDL 1\r\n")),
    Benchmark("an unknown command", "commands/s", commands(b"FROB\r\n")),
    Benchmark("RETR of 4 KiB", "messages/s", commands(b"RETR 1\r\n")),
    Benchmark("stuffing base64", "MB/s", stuffing(BASE64), 1e6, aim="800"),
    Benchmark("stuffing text", "MB/s", stuffing(TEXT), 1e6, aim="800"),
    Benchmark("unstuffing base64", "MB/s", unstuffing(BASE64), 1e6, "poplib", poplib_unstuffing(BASE64)),
    Benchmark("unstuffing text", "MB/s", unstuffing(TEXT), 1e6, "poplib", poplib_unstuffing(TEXT)),
    Benchmark("LF to CRLF, text", "MB/s", normalizing(TEXT.replace(b"\r", b"")), 1e6),
    Benchmark("CRLF checked, text", "MB/s", normalizing(TEXT), 1e6),
]
