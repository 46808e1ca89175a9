"""Fixed work for the engine, and nothing beside it: `python -m tests.bench.fixed NAME REPETITIONS`.

`tests.bench.counts` runs it in a fresh interpreter without site-packages, so only the standard library and `pop3core`
are imported. What a workload does must not change: the figures kept in counts.json would mean something else.
"""

import re
import sys
from collections.abc import Callable

from pop3core.answers import Content, LoginAccepted, TlsEstablished
from pop3core.client import ClientConnection
from pop3core.commands import Capa, Pass, Quit, Retr, User
from pop3core.events import (
    Closed,
    ContentEnded,
    ContentReceived,
    ContentRequested,
    Disconnected,
    LoginRequested,
    NeedData,
    SendData,
)
from pop3core.maildrop import Listing
from pop3core.server import ServerConnection

PIECE = 64 * 1024  # octets that a driver hands over at a time
LINE = b"A line of text, as people write them, with a dot at its end.\r\n"
STUFFED = b".A line that begins with a dot.\r\n"
HEAD = b"From: a@example.org\r\nSubject: fixed work\r\n\r\n"
SMALL = HEAD + (LINE * 15 + STUFFED + b"\r\n") * 4
LARGE = HEAD + (LINE * 64 + STUFFED) * 255
MESSAGES = [SMALL] * 200 + [LARGE]
BATCH = 50  # commands sent ahead


def served(conn: ServerConnection, data: bytes) -> int:
    """Let the server answer ``data``; octets of its answer."""
    octets = 0
    conn.receive_data(data)
    while True:
        match conn.next_event():
            case SendData(answer):
                octets += len(answer)
            case ContentRequested(number, offset, _):
                message = MESSAGES[number - 1]
                conn.answer(Content(message[offset : offset + PIECE], last=offset + PIECE >= len(message)))
            case LoginRequested():
                uids = [b"%d" % number for number in range(len(MESSAGES))]
                conn.answer(LoginAccepted(Listing([len(message) for message in MESSAGES], uids)))
            case NeedData() | Closed():
                return octets


def logged_in() -> ServerConnection:
    conn = ServerConnection()
    conn.answer(TlsEstablished())
    served(conn, b"USER alice\r\nPASS secret\r\n")
    return conn


def _batches() -> list[bytes]:
    lines = [b"RETR %d\r\n" % number for number in range(1, len(MESSAGES) + 1)]
    return [b"".join(lines[start : start + BATCH]) for start in range(0, len(lines), BATCH)]


def commands() -> None:
    """Server: 2,000 NOOP, STAT and LIST, each on its own."""
    conn = logged_in()
    lines = [b"NOOP\r\n", b"STAT\r\n", b"LIST 7\r\n"]
    for number in range(2_000):
        assert served(conn, lines[number % 3]) > 4


def retrieving() -> None:
    """Server: RETR of 200 messages of 4 KiB and one of 1 MiB, 50 sent ahead."""
    conn = logged_in()
    assert sum(served(conn, batch) for batch in _batches()) > sum(map(len, MESSAGES))


CAPA = b"+OK\r\nPIPELINING\r\nUIDL\r\n.\r\n"
REPLIES = [b"+OK\r\n" + re.sub(rb"(?m)^\.", b"..", message) + b".\r\n" for message in MESSAGES]
CONVERSATION = [b"+OK\r\n", b"+OK\r\n", CAPA, *REPLIES, b"+OK\r\n"]
"""What a server answers to a client that collects it all."""


def collecting() -> None:
    """Client: collecting the same."""
    conn = ClientConnection()
    conn.answer(TlsEstablished())
    for command in (User("alice"), Pass(b"secret"), Capa(), *map(Retr, range(1, len(MESSAGES) + 1)), Quit()):
        conn.send(command)
    answered, octets, ended, coming = 0, 0, 0, b"+OK ready\r\n"
    while True:
        match conn.next_event():
            case SendData(data):
                asked = data.count(b"\n")
                coming += b"".join(CONVERSATION[answered : answered + asked])
                answered += asked
            case NeedData():
                conn.receive_data(coming[:PIECE])
                coming = coming[PIECE:]
            case ContentReceived(data):
                octets += len(data)
            case ContentEnded():
                ended += 1
            case Disconnected():
                break
    assert (ended, octets) == (len(MESSAGES), sum(map(len, MESSAGES)))


WORKLOADS: dict[str, Callable[[], None]] = {
    "server: commands": commands,
    "server: RETR": retrieving,
    "client: collecting": collecting,
}


def main() -> None:
    name, repetitions = sys.argv[1], int(sys.argv[2])
    for _ in range(repetitions):
        WORKLOADS[name]()


if __name__ == "__main__":
    main()
