"""`python -m tests.bench.tricks`: what the tricks in the code are worth, each beside what one would write first.

CPU time of both ways, alternately; the figure is the median of the ratios: 0.25 is four times as quick. Where a trick
can be taken out of a running pop3d, `tests.bench.features` has the other half of the truth: what it does for a session.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import ssl
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pop3core.framing import CrlfNormalizer, DotStuffer
from pop3core.server import ServerConnection
from pop3d.net.certificates import create_self_signed
from pop3d.net.tls import server_context
from tests.bench.beside import machine, shown
from tests.bench.fixed import MESSAGES, logged_in, served
from tests.bench.servers import ENCODED, TEXT, message

Way = Callable[[], object]

PIECE = 64 * 1024
FILES = 2_000
ANSWER = b"+OK\r\n" + b"A line of text, as people write them.\r\n" * 100 + b".\r\n"


@dataclass(frozen=True)
class Trick:
    """``where``: it stands. ``made``: given an empty folder, the two ways, ours first."""

    where: str
    made: Callable[[Path], tuple[Way, Way]]


def stuffing(content: bytes) -> Callable[[Path], tuple[Way, Way]]:
    content = content.replace(b"\n", b"\r\n")[:PIECE]
    pattern = re.compile(rb"(?m)^\.")
    return lambda _: (lambda: DotStuffer().feed(content), lambda: pattern.sub(b"..", content))


def line_ends(_: Path) -> tuple[Way, Way]:
    stored = TEXT[:PIECE]
    return lambda: CrlfNormalizer().feed(stored), lambda: b"\r\n".join(stored.split(b"\n"))


def files(folder: Path) -> list[str]:
    names = [str(folder / str(number)) for number in range(FILES)]
    for name in names:
        Path(name).write_bytes(message(1, 4096))
    return names


def _read(name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        return os.read(descriptor, PIECE)
    finally:
        os.close(descriptor)


def _read_as_usual(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def descriptors(folder: Path) -> tuple[Way, Way]:
    names = files(folder)[:100]
    return lambda: [_read(name) for name in names], lambda: [_read_as_usual(name) for name in names]


def hops(folder: Path) -> tuple[Way, Way]:
    names = files(folder)[:64]

    async def one_hop() -> None:
        await asyncio.get_running_loop().run_in_executor(None, lambda: [_read(name) for name in names])

    async def many() -> None:
        for name in names:
            await asyncio.get_running_loop().run_in_executor(None, _read, name)

    return lambda: asyncio.run(one_hop()), lambda: asyncio.run(many())


def _looked_at(folder: Path) -> list[tuple[str, int]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.stat().st_size) for entry in entries]


def listing(folder: Path) -> tuple[Way, Way]:
    files(folder)
    return lambda: os.listdir(folder), lambda: _looked_at(folder)


def sizes(_: Path) -> tuple[Way, Way]:
    numbers = list(range(4_000, 104_000))
    packed = array("Q", numbers).tobytes()
    text = b"\n".join(b"%d" % number for number in numbers)
    return lambda: array("Q", packed), lambda: [int(line) for line in text.split(b"\n")]


def handshaken(folder: Path) -> tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """A server's end of a TLS connection, and where its ciphertext comes out."""
    ours, theirs = server_context(*certificate(folder)), ssl.create_default_context(cafile=folder / "cert.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(to_server, to_client, server_side=True)
    client = theirs.wrap_bio(to_client, to_server, server_hostname="localhost")
    shake(client, server)
    return server, to_client


def certificate(folder: Path) -> tuple[Path, Path]:
    if not (folder / "cert.pem").exists():
        create_self_signed(["localhost"], folder)
    return folder / "cert.pem", folder / "key.pem"


def shake(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    waiting = [client, server, client, server]
    for one in waiting:
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            continue


def one_write(folder: Path) -> tuple[Way, Way]:
    server, ciphertext = handshaken(folder)

    def send(answers: list[bytes]) -> None:
        here, there = socket.socketpair()
        with here, there:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            for answer in answers:
                server.write(answer)
                here.send(ciphertext.read())

    return lambda: send([b"".join([ANSWER] * 16)]), lambda: send([ANSWER] * 16)


def context(folder: Path) -> tuple[Way, Way]:
    pair = certificate(folder)
    shared = server_context(*pair)
    theirs = ssl.create_default_context(cafile=pair[0])

    def handshake(ours: ssl.SSLContext) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = ours.wrap_bio(to_server, to_client, server_side=True)
        shake(theirs.wrap_bio(to_client, to_server, server_hostname="localhost"), server)

    return lambda: handshake(shared), lambda: handshake(server_context(*pair))


def batches(_: Path) -> tuple[Way, Way]:
    lines = [b"RETR %d\r\n" % number for number in range(1, 51)]

    def ask(conn: ServerConnection, data: list[bytes]) -> None:
        for one in data:
            served(conn, one)

    together, each = logged_in(), logged_in()
    assert len(MESSAGES) > 50
    return lambda: ask(together, [b"".join(lines)]), lambda: ask(each, lines)


TRICKS = {
    "content without a dot is not searched for lines that begin with one": Trick("pop3core.framing", stuffing(ENCODED)),
    "the same where there are dots": Trick("pop3core.framing", stuffing(TEXT)),
    "CRs are added by one replace": Trick("pop3core.framing", line_ends),
    "commands sent ahead are answered together: the engine's part": Trick("pop3core.server", batches),
    "and their answers leave in one write: the part of TLS and socket": Trick("pop3d.net.channel", one_write),
    "a TLS context for all connections": Trick("pop3d.net.tls", context),
    "small files are read by descriptor": Trick("pop3d.stores", descriptors),
    "a hop to a thread reads many small messages": Trick("pop3d.stores.maildir.reader", hops),
    "folders are listed, files not looked at": Trick("pop3d.stores.maildir.scan", listing),
    "kept sizes are read as an array": Trick("pop3d.stores.maildir.disk_cache", sizes),
}


def seconds(way: Way, at_least: float) -> float:
    """CPU time of doing it once."""
    times, begun = 0, time.process_time()
    while (took := time.process_time() - begun) < at_least:
        way()
        times += 1
    return took / times


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tricks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each way in a round")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args(arguments)
    told = {}
    for name, trick in TRICKS.items():
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            ours, usual = trick.made(Path(folder))
            pairs = [(seconds(ours, options.seconds), seconds(usual, options.seconds)) for _ in range(options.rounds)]
        told[name] = {"where": trick.where, "ratio": statistics.median(one / other for one, other in pairs)}
    if options.out is not None:
        about = {"machine": machine(uvloop=False), "rounds": options.rounds}
        options.out.write_text(json.dumps({**about, "tricks": told}, indent=1) + "\n")
    table = Table("trick", "where", "CPU ratio")
    for name, one in told.items():
        table.add_row(name, one["where"], shown(one["ratio"]))
    Console().print(table)


if __name__ == "__main__":
    main()
