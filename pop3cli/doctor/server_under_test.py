"""The server under examination: how to get in, and what is already known of it.

Logins are few, for servers count them: one logged-in connection serves most examinations, as long as it is in order.
Passwords are in nothing that is shown, not even where the server repeats them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.doctor.findings import Finding, Skip, Violation
from pop3cli.doctor.raw_connection import RawConnection, RawConnectionFault, RawReply, Tally
from pop3cli.net.tls import Dial
from pop3cli.net.trace import Trace
from pop3cli.sanitize import Echo, harmless
from pop3core.capabilities import Capabilities

__all__ = ["SAMPLES_MAX", "SAMPLE_OCTETS_MAX", "LoginFailed", "ServerUnderTest"]

SAMPLES_MAX: Final = 6
"""Messages that are fetched: the smallest."""

SAMPLE_OCTETS_MAX: Final = 256 * 1024
"""Messages larger than this are never fetched."""

_LOGIN_TRIES: Final = 8  # a dropped session may hold the mailbox for some seconds
_LOGIN_PAUSE: Final = 1.0
_REFUSALS_MAX: Final = 6  # -ERR on one connection after which another is taken: servers hang up after some
_SHOWN_MAX: Final = 100  # characters of what a server said
_FINDING_MAX: Final = 400  # characters of what is said about it
_LINE: Final = re.compile(rb"([1-9][0-9]{0,9}) ([0-9]{1,19})(?: .*)?")
_UID_LINE: Final = re.compile(rb"([1-9][0-9]{0,9}) (.*)", re.DOTALL)
_BUSY: Final = re.compile(rb"in.?use|lock|busy", re.I)


class LoginFailed(Skip):
    """The server does not let us in. ``reply``: what it said, or None where nothing was said at all."""

    def __init__(self, text: str, reply: RawReply | None) -> None:
        super().__init__(text)
        self.reply = reply


class ServerUnderTest:
    """A server and an account on it. ``patience``: seconds each wait may take; ``new_trace``: of a connection."""

    def __init__(
        self,
        account: Account,
        tls: ssl.SSLContext,
        password: bytes,
        patience: float,
        new_trace: Callable[[], Trace | None] = lambda: None,
        dial: Dial | None = None,
    ) -> None:
        self.account = account
        self.tally = Tally()
        self._new_trace, self._dial = new_trace, dial
        self._tls, self._password, self._patience = tls, password, patience
        self._user = (account.user or "").encode()
        self._echo = Echo()
        for secret in (password, base64.b64encode(password), base64.b64encode(b"\0" + self._user + b"\0" + password)):
            self._echo.remember(secret)
        self._by_auth = False
        self._shared: RawConnection | None = None
        self._announced: dict[bool, Capabilities] = {}
        self._sizes: dict[int, int] | None = None
        self._samples: dict[int, RawReply] | None = None

    def shown(self, octets: bytes) -> str:
        """What a server said, harmless, short, and without the password."""
        text = harmless(self._echo.masked(octets).decode("utf-8", "replace"))
        return repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...")[1:-1]

    def cleaned(self, finding: Finding) -> Finding:
        """The same finding, whatever it holds: harmless, and once more without the password."""

        def clean(text: str) -> str:
            return harmless(self._echo.masked(text.encode("utf-8", "replace")).decode("utf-8", "replace"))[
                :_FINDING_MAX
            ]

        return replace(finding, seen=clean(finding.seen), remedy=harmless(finding.remedy))

    # --- connections ---

    async def knock(self) -> RawConnection:
        """A new connection, with its greeting; in clear text where TLS begins by STLS.

        Raises OSError, `RawConnectionFault`.
        """
        account = self.account
        tls = None if account.stls else self._tls
        wire = await RawConnection.open(
            account.host,
            account.port,
            tls,
            patience=self._patience,
            tally=self.tally,
            trace=self._new_trace(),
            dial=self._dial,
        )
        try:
            wire.greeting = await wire.reply()
            if not wire.greeting.ok:
                raise LoginFailed(f"the greeting is {self.shown(wire.greeting.status)}", wire.greeting)
        except BaseException:
            await wire.close()
            raise
        return wire

    @contextlib.asynccontextmanager
    async def plain(self) -> AsyncIterator[RawConnection]:
        """A connection of one's own as `knock` makes it, closed behind the block."""
        wire = await self.knock()
        try:
            yield wire
        finally:
            await wire.close()

    @contextlib.asynccontextmanager
    async def outside(self) -> AsyncIterator[RawConnection]:
        """A connection of one's own behind TLS and before the login, closed behind the block."""
        async with self.plain() as wire:
            if self.account.stls:
                reply = await wire.ask("STLS")
                if not reply.ok:
                    raise Violation(f"STLS: {self.shown(reply.status)}", "offer TLS on this port")
                await self.secure(wire)
            yield wire

    async def secure(self, wire: RawConnection) -> None:
        """The handshake behind a +OK to STLS."""
        await wire.start_tls(self._tls, self.account.host)

    @contextlib.asynccontextmanager
    async def inside(self, *, fresh: bool = False) -> AsyncIterator[RawConnection]:
        """A logged-in connection, shared by examinations as long as it is in order. ``fresh``: a new one."""
        if fresh:
            await self.release()
        wire = self._shared
        if wire is None or wire.broken or wire.refusals > _REFUSALS_MAX:
            await self.release()
            wire = self._shared = await self._enter()
        try:
            yield wire
        except BaseException:
            self._shared = None
            await wire.close()
            raise

    async def release(self) -> None:
        """Leave by QUIT, if we are in: nothing is ever marked when this is said."""
        wire, self._shared = self._shared, None
        if wire is None:
            return
        try:
            if not wire.broken:
                await wire.ask("QUIT")
        except RawConnectionFault:
            pass
        finally:
            await wire.close()

    async def drop(self) -> None:
        """Leave without QUIT."""
        wire, self._shared = self._shared, None
        if wire is not None:
            await wire.close()

    async def _enter(self) -> RawConnection:
        reply = RawReply(b"")
        for attempt in range(_LOGIN_TRIES):
            wire = await self._approach()
            try:
                reply = await self.log_in(wire)
                if reply.ok:
                    wire.refusals = 0
                    return wire
            except BaseException:
                await wire.close()
                raise
            await wire.close()
            if attempt + 1 == _LOGIN_TRIES or not (reply.code == b"IN-USE" or _BUSY.search(reply.status)):
                break
            await asyncio.sleep(_LOGIN_PAUSE)
        raise LoginFailed(f"the login was refused: {self.shown(reply.status)}", reply)

    async def _approach(self) -> RawConnection:
        wire = await self.knock()
        try:
            if self.account.stls:
                if not (await wire.ask("STLS")).ok:
                    raise Violation("STLS is refused", "offer TLS on this port")
                await self.secure(wire)
        except BaseException:
            await wire.close()
            raise
        return wire

    async def log_in(self, wire: RawConnection) -> RawReply:
        """USER and PASS, or AUTH PLAIN where the server announces only that; the last reply."""
        if self._by_auth:
            plain = base64.b64encode(b"\0" + self._user + b"\0" + self._password)
            reply = await wire.ask("AUTH PLAIN")
            if reply.status.startswith(b"+ ") or reply.status == b"+":
                reply = await wire.ask(plain, name="AUTH PLAIN")
            return reply
        reply = await wire.ask(b"USER " + self._user)
        if reply.ok:
            reply = await wire.ask(b"PASS " + self._password, name="PASS")
        return reply

    # --- what is known ---

    async def announced(self, *, inside: bool) -> Capabilities:
        """What CAPA says before or behind the login; asked once. Raises `Skip` where there is no CAPA."""
        if inside not in self._announced:
            async with self.inside() if inside else self.outside() as wire:
                reply = await wire.ask("CAPA", lines=True)
            lines = [line.decode("utf-8", "replace") for line in reply.lines]
            self._announced[inside] = Capabilities(lines)
            if not inside:
                names = self._announced[inside]
                self._by_auth = "USER" not in names and "PLAIN" in [word.upper() for word in names.get("SASL", ())]
        return self._announced[inside]

    async def sizes(self) -> dict[int, int]:
        """Octets by message, as LIST says; asked once. Raises `Violation` for a line that is none."""
        if self._sizes is None:
            async with self.inside() as wire:
                self._sizes = await self.list_sizes(wire)
        return self._sizes

    async def list_sizes(self, wire: RawConnection) -> dict[int, int]:
        """LIST, on this connection."""
        reply = await wire.ask("LIST", lines=True)
        if not reply.ok:
            raise Violation(f"LIST: {self.shown(reply.status)}")
        found = dict[int, int]()
        for line in reply.lines:
            match = _LINE.fullmatch(line)
            if match is None or int(match[1]) in found:
                raise Violation(
                    f"LIST: a line {self.shown(line)}", "a line is a number, one blank and the octets, once"
                )
            found[int(match[1])] = int(match[2])
        return found

    async def uids(self, wire: RawConnection) -> dict[int, bytes]:
        """UIDL, on this connection. Raises `Skip` where there is none."""
        reply = await wire.ask("UIDL", lines=True)
        if not reply.ok:
            raise Skip(f"no UIDL: {self.shown(reply.status)}")
        found = dict[int, bytes]()
        for line in reply.lines:
            match = _UID_LINE.fullmatch(line)
            if match is None or int(match[1]) in found:
                raise Violation(
                    f"UIDL: a line {self.shown(line)}", "a line is a number, one blank and the unique-id, once"
                )
            found[int(match[1])] = match[2]
        return found

    async def some(self) -> list[int]:
        """Numbers of the smallest messages. Raises `Skip` where there is none."""
        small = sorted((octets, number) for number, octets in (await self.sizes()).items())
        chosen = [number for octets, number in small if octets <= SAMPLE_OCTETS_MAX][:SAMPLES_MAX]
        if not chosen:
            raise Skip("no message that is small enough in the mailbox")
        return chosen

    async def samples(self) -> dict[int, RawReply]:
        """The smallest messages, as RETR sends them; fetched once. Raises `Skip`, `Violation`."""
        if self._samples is None:
            numbers = await self.some()
            found = dict[int, RawReply]()
            async with self.inside() as wire:
                for number in numbers:
                    found[number] = reply = await wire.ask(f"RETR {number}", lines=True)
                    if not reply.ok:
                        raise Violation(f"RETR {number}: {self.shown(reply.status)}", "what LIST lists can be fetched")
                    echo = await wire.ask("NOOP", name=f"NOOP behind RETR {number}")
                    if not echo.ok:
                        wire.broken = True
                        raise Violation(
                            f"behind RETR {number} and its dot came {self.shown(echo.status)}",
                            "stuff every line that begins with a dot, else the rest of the mail is read as replies",
                        )
            self._samples = found
        return self._samples
