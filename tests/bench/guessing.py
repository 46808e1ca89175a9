"""Guessing by each mechanism from one address, from forty and from a /56, beside honest users of one of the addresses.

Guesses are those that the daemon has checked. Once all are of one user's password, once each is of another user's. The
honest users say the right password, by the same mechanism: one who has logged in from that address before, and new
ones. Where connections come from is told by a PROXY header, so that a /56 needs no network of its own. The limits are
the defaults.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import re
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from pop3core.sasl import login, plain, scram
from tests.bench.site import Site

__all__ = ["MECHANISMS", "SOURCES", "Guesses", "as_markdown", "measured"]

_PATIENCE = 40.0  # seconds that a guesser waits for an answer before he takes another connection
_EACH = 2.0  # seconds between two logins of honest users
_LONGEST = 30.0  # seconds that an honest user waits


class Client:
    """A client of ``address``, as the header tells."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.greeting = b""

    async def start(self, address: str) -> None:
        self._writer.write(_proxy_header(address))
        self.greeting = await self.line()

    async def line(self) -> bytes:
        line = await self._reader.readline()
        if not line:
            raise ConnectionError("the server went away")
        return line

    async def ask(self, line: bytes) -> bytes:
        self._writer.write(line + b"\r\n")
        return await self.line()

    async def exchange(self, mechanism: str, steps: Iterator[bytes | None]) -> bytes:
        answer, said = next(steps), b""
        said = await self.ask(b"AUTH " + mechanism.encode() + (b" " + base64.b64encode(answer) if answer else b""))
        while said.startswith(b"+ "):
            reply = steps.send(base64.b64decode(said[2:]))  # type: ignore[attr-defined]
            said = await self.ask(base64.b64encode(reply))
        return said


async def _user_and_pass(client: Client, user: str, password: str) -> bytes:
    await client.ask(b"USER " + user.encode())
    return await client.ask(b"PASS " + password.encode())


async def _plain(client: Client, user: str, password: str) -> bytes:
    return await client.exchange("PLAIN", plain.client(user, password.encode()))


async def _login(client: Client, user: str, password: str) -> bytes:
    return await client.exchange("LOGIN", login.client(user, password.encode()))


async def _scram(client: Client, user: str, password: str) -> bytes:
    return await client.exchange("SCRAM-SHA-256", scram.client(user, password.encode(), "nonce"))


async def _apop(client: Client, user: str, password: str) -> bytes:
    stamp = re.search(rb"<.*>", client.greeting)
    assert stamp is not None
    digest = hashlib.md5(stamp[0] + password.encode()).hexdigest()
    return await client.ask(f"APOP {user} {digest}".encode())


MECHANISMS = {"USER/PASS": _user_and_pass, "PLAIN": _plain, "LOGIN": _login, "SCRAM": _scram, "APOP": _apop}

SOURCES: dict[str, list[str]] = {
    "one address, 20 connections": ["192.0.2.1"] * 20,
    "40 addresses, 4 each": [f"192.0.2.{number}" for number in range(1, 41) for _ in range(4)],
    "a /56, 160 of its /64": [f"2001:db8:0:{number:x}::1" for number in range(160)],
}


@dataclass
class Guesses:
    """Of one user's password, and of another user's each time: guesses a second, and seconds that new honest users of
    the first address waited at most, inf where one did not get in. ``known``: that the known one waited, beside either.
    """

    mechanism: str
    source: str
    one: float
    one_new: float
    many: float
    many_new: float
    known: float


def measured(site: Site, mechanism: str, source: str, seconds: float) -> Guesses:
    """One line of the table."""
    numbers = itertools.count(1000)
    one, known, one_new = _trial(site, mechanism, source, seconds, lambda: "u0")
    many, known_too, many_new = _trial(site, mechanism, source, seconds, lambda: f"idle{next(numbers) % 5000}")
    return Guesses(mechanism, source, one, one_new, many, many_new, max(known, known_too))


def _trial(
    site: Site, mechanism: str, source: str, seconds: float, victim: Callable[[], str]
) -> tuple[float, float, float]:
    """Guesses a second, and the longest times of the known user and of the new ones."""
    site.configure()
    config = site.root / "pop3d.toml"
    listen = 'tls = "none"\nproxy_protocol = true\ntrusted_proxies = ["127.0.0.0/8"]\n'
    auth = '[auth]\nmechanisms = ["plain", "login", "apop", "scram-sha-256"]\n'
    text = (
        config.read_text()
        .replace('host = "0.0.0.0"\n', f'host = "127.0.0.1"\n{listen}')
        .replace("[store]", f"{auth}[store]")
    )
    config.write_text(text)
    shutil.rmtree(site.root / "state" / "keep", ignore_errors=True)
    site.start()
    try:
        return asyncio.run(_attacked(site, mechanism, SOURCES[source], seconds, victim))
    finally:
        site.stop()


async def _attacked(
    site: Site, mechanism: str, addresses: list[str], seconds: float, victim: Callable[[], str]
) -> tuple[float, float, float]:
    say = MECHANISMS[mechanism]

    @contextlib.asynccontextmanager
    async def connected(address: str) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        client = Client(reader, writer)
        try:
            await client.start(address)
            yield client
        finally:
            writer.close()

    async def guesser(address: str) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with connected(address) as client:
                    for _ in range(3):
                        async with asyncio.timeout(_PATIENCE):
                            await say(client, victim(), "wrong")
                continue
            await asyncio.sleep(0.05)

    async def honest(user: str) -> float:
        begun = time.monotonic()
        while time.monotonic() - begun < _LONGEST:
            with contextlib.suppress(OSError, TimeoutError):
                async with connected(addresses[0]) as client, asyncio.timeout(_LONGEST):
                    if (await say(client, user, "secret")).startswith(b"+OK"):
                        await client.ask(b"QUIT")
                        return time.monotonic() - begun
            await asyncio.sleep(0.05)
        return float("inf")

    await honest("u1")
    begun = time.monotonic()
    guessers = [asyncio.create_task(guesser(address)) for address in addresses]
    waited: dict[str, list[float]] = {"known": [], "new": []}
    names = (f"idle{number}" for number in itertools.count())
    await asyncio.sleep(1)
    while time.monotonic() - begun < seconds:
        known, new = await asyncio.gather(honest("u1"), honest(next(names)))
        waited["known"].append(known)
        waited["new"].append(new)
        await asyncio.sleep(_EACH)
    guesses = site.log.count("authentication failed") / (time.monotonic() - begun)
    for task in guessers:
        task.cancel()
    await asyncio.gather(*guessers, return_exceptions=True)
    return guesses, max(waited["known"]), max(waited["new"])


def _proxy_header(address: str) -> bytes:
    """Version 2 of HAProxy's PROXY protocol, which says that the client spoke TLS."""
    six = ":" in address
    packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
    ends = packed + packed + struct.pack(">HH", 12345, 995)
    tls = b"\x20" + struct.pack(">HBI", 5, 1, 0)
    content = ends + tls
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x21 if six else 0x11, len(content)) + content


def as_markdown(rows: list[Guesses]) -> str:
    """The table, as it stands in docs/security.md."""
    head = ("by", "from", "one user's password", "a new user waits", "many users'", "a new user waits", "a known one")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (
            row.mechanism,
            row.source,
            f"{row.one:.1f}/s",
            _time(row.one_new),
            f"{row.many:.1f}/s",
            _time(row.many_new),
            _time(row.known),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"over {_LONGEST:.0f} s" if seconds == float("inf") else f"{seconds:.1f} s"
