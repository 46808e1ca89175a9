"""A session with a POP3 server: every command as a method, and a client library of its own.

All is commands in terms of what the server said; how that comes about is `pop3cli.net.connection`'s, with its limits on
time and memory. A reply that was not read to its end (a loop left early, a cancelled task) is read away before the next
command.

    async with Session() as session:
        await session.connect("mail.example.org", 995, tls=client_context())
        await session.login("alice", password)
        async for piece in session.retrieve(1):
            ...
        await session.quit()

A session is one conversation: one task at a time. `pop3cli.mailbox.client.Client` is more comfortable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final

from pop3cli.errors import (
    CommandRefused,
    ConnectionCut,
    NoSuchMessage,
    NotConnected,
    NotValid,
    ServerBroken,
    TimedOut,
    refusal,
)
from pop3cli.net.connection import TIMEOUT, Connection, Said
from pop3cli.net.trace import Trace
from pop3cli.sanitize import Echo
from pop3core.answers import SaslCancelled, SaslResponse
from pop3core.capabilities import Capabilities
from pop3core.client import ClientConfig
from pop3core.commands import Auth, Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Stls, Top, Uidl, User
from pop3core.events import Challenged, ContentEnded, ContentReceived, ListItem, Replied, StatItem, UidItem
from pop3core.grammar import initial_response
from pop3core.limits import Limits
from pop3core.sasl.base import ClientSteps, SaslError, ServerRefused

__all__ = ["TIMEOUT", "Said", "Session"]

_HEADERS_MAX: Final = 1024 * 1024
"""Octets of one message's headers that are kept; no real message comes near."""

_TOP_MAX: Final = 64 * 1024 * 1024
"""Octets of one answer to TOP n 0 after which the server is held to be broken: some send the whole message."""

_MESSAGES_MAX: Final = 1_000_000
"""Messages in one answer to LIST or UIDL."""


class Session(Connection):
    """A conversation with a POP3 server. Methods raise `MailError`, whose subclasses say what it was.

    All but `connect` and `close` raise `NotConnected` before `connect`, and `NotValid` for what the protocol does not
    allow in the state the session is in. After `ConnectionCut`, `TimedOut` or `ServerBroken` the session has ended; it
    may be connected anew.
    """

    def __init__(self, config: ClientConfig | None = None, *, trace: Trace | None = None) -> None:
        super().__init__(config or ClientConfig(limits=Limits(list_items_max=_MESSAGES_MAX)), trace)

    # --- commands ---

    async def starttls(self) -> str:
        """STLS, and the handshake (RFC 2595 §4). Raises `CommandRefused`, and what `connect` raises."""
        return await self._ok(Stls())

    async def login(self, user: str, password: str | bytes) -> str:
        """USER and PASS; what the server says to PASS. Raises `LoginRefused`, or `TryLater` ([IN-USE] and its like)."""
        octets = password.encode() if isinstance(password, str) else password
        await self._ok(User(user))
        self._asked_capa = False  # RFC 2449 §5: what is announced may change with the login
        return await self._ok(Pass(octets))

    async def authenticate(self, mechanism: str, steps: ClientSteps) -> str:
        """AUTH with a generator of `pop3core.sasl`; what the server says to it. Raises as `login` does.

        Raises `ServerBroken` as well, when the server's challenge is none of the mechanism's, or it does not prove that
        it knows the password itself, where the mechanism has such a proof (RFC 5802 §5).
        """
        await self._settle()
        try:
            self._send(Auth(mechanism, next(steps)))
        except SaslError as fault:
            raise NotValid(f"AUTH {mechanism}", str(fault)) from None
        self._asked_capa = False
        echo = Echo(everyday=False)
        while isinstance(said := await self._next(), Challenged):
            response = await self._response(steps, said.data)
            if isinstance(response, SaslResponse):
                echo.remember(initial_response.write(response.data))
            self.respond(response)
        assert isinstance(said, Replied)
        if not said.ok:
            raise refusal(self._where, said, echo)
        return said.text

    async def _response(self, steps: ClientSteps, challenge: bytes) -> SaslResponse | SaslCancelled:
        try:
            # SCRAM hashes a password thousands of times, as often as the server says
            response = await asyncio.to_thread(steps.send, challenge)
        except ServerRefused:
            return SaslCancelled()  # the server's -ERR follows, and says the rest
        except SaslError as fault:
            raise await self._ended(ServerBroken(f"{self._where} broke the protocol in AUTH", str(fault))) from None
        return SaslResponse(b"" if response is None else response)

    async def capa(self) -> Capabilities:
        """CAPA: what the server can do. Raises `CommandRefused` where it does not know CAPA itself."""
        self._asked_capa = True
        await self._ok(Capa())
        return self.capabilities

    async def stat(self) -> StatItem:
        """STAT: how many messages there are, and their octets together."""
        await self._begin(Stat())
        [item] = [said async for said in self._rest() if isinstance(said, StatItem)]
        return item

    async def list(self, number: int | None = None) -> AsyncIterator[ListItem]:
        """LIST: the size of each message, or of message ``number``."""
        await self._begin(List(number))
        async for said in self._rest():
            if isinstance(said, ListItem):
                yield said

    async def size(self, number: int) -> int:
        """LIST n: the octets of message ``number``. Raises `NoSuchMessage`."""
        await self._begin(List(number))
        [item] = [said async for said in self._rest() if isinstance(said, ListItem)]
        return item.octets

    async def uidl(self, number: int | None = None) -> AsyncIterator[UidItem]:
        """UIDL: the unique-id of each message, or of message ``number``."""
        await self._begin(Uidl(number))
        async for said in self._rest():
            if isinstance(said, UidItem):
                yield said

    async def retrieve(self, number: int) -> AsyncIterator[bytes]:
        """RETR: the message in pieces, octets as sent. A loop that ends has seen the terminator: the message is whole.

        Left early, the rest is read away before the next command; `close` is quicker for a large one.
        """
        async for piece in self._content(Retr(number)):
            yield piece

    async def top(self, number: int, lines: int) -> AsyncIterator[bytes]:
        """TOP: headers and the first ``lines`` lines of the body, in pieces."""
        async for piece in self._content(Top(number, lines)):
            yield piece

    async def headers(self, numbers: Iterable[int]) -> AsyncIterator[tuple[int, bytes | CommandRefused]]:
        """The headers of many messages, in the order asked for, by TOP n 0 sent ahead where PIPELINING allows.

        A message that is refused comes with its error. A server without TOP is asked once, and then no more.
        """
        await self._settle()
        announced = "TOP" in await self._announced()
        waiting, asked = iter(numbers), deque[int]()
        ahead = 2 * self._config.limits.window_commands if announced else 1
        while True:
            for number in islice(waiting, ahead - len(asked)):
                self._send(Top(number, 0))
                asked.append(number)
            if not asked:
                return
            number, answer = asked.popleft(), await self._header()
            yield number, answer
            if not announced and isinstance(answer, CommandRefused) and not isinstance(answer, NoSuchMessage):
                for number in waiting:
                    yield number, answer
                return

    async def dele(self, number: int) -> str:
        """DELE: mark a message; it is gone when `quit` has returned, and not before."""
        return await self._ok(Dele(number))

    async def rset(self) -> str:
        """RSET: take all marks back."""
        return await self._ok(Rset())

    async def noop(self) -> str:
        """NOOP: is the server there?"""
        return await self._ok(Noop())

    async def quit(self) -> str:
        """QUIT: delete what is marked, and end. Raises `CommandRefused` when not all could be deleted (RFC 1939 §6)."""
        try:
            return await self._ok(Quit())
        finally:
            await self.close()

    async def pipeline(self, commands: Iterable[Command]) -> AsyncIterator[Said]:
        """Say many commands, sent ahead where PIPELINING allows, and hand on all that is said to them, in their order.

        An -ERR comes as the `Replied` that it is. ``commands`` is asked for the next ones as the window moves on.
        """
        await self._settle()
        announced = await self._announced()
        # more than the engine's window, which is so never waiting for us
        ahead = 2 * self._config.limits.window_commands if "PIPELINING" in announced else 1
        waiting = iter(commands)
        while True:
            if self._owed <= ahead // 2:
                for command in islice(waiting, ahead - self._owed):
                    self._send(command)
                if not self._owed:
                    return
            yield await self._next()

    async def exchange(self, command: Command) -> AsyncIterator[Said]:
        """Say any command, and hand on all that the server says to it, its -ERR as well: for a dialogue.

        A `Challenged` wants a `respond` before the loop goes on.
        """
        await self._settle()
        self._send(command)
        async for said in self._rest():
            yield said
        if isinstance(command, Quit):
            await self.close()

    async def raw(self, line: bytes, *, quiet: float = 1.0) -> AsyncIterator[bytes]:
        """Say a line that nothing checks, and hand on what comes, until it stops for ``quiet`` seconds.

        The engine knows nothing of it: whatever it changed (a login, a mark, TLS), the session does not know. A loop
        left early closes the session. Raises `NotConnected`, `NotValid` for what is no line, `TimedOut`, and
        `ConnectionCut` when the server closes.
        """
        await self._settle()
        if self._conn is None:
            raise NotConnected("raw", "not connected to a server", "connect first")
        if set(line) & set(b"\r\n"):
            raise NotValid("raw", "a line has no line ends in it")
        patience, loop = self._timeout, asyncio.get_running_loop()
        try:
            await self._write(line + b"\r\n")
            while True:
                self._deadline = loop.time() + patience
                try:
                    data = await self._read(resumed=True)
                except TimeoutError:
                    if patience == quiet:
                        return
                    raise TimedOut(self._where, f"no answer within {self._timeout:g} s") from None
                if not data:
                    raise ConnectionCut(self._where, "the server closed the connection", "open it again")
                yield data
                patience = quiet
        except BaseException:
            await self.close()  # what comes now would be read as the answer to the next command
            raise

    def respond(self, response: SaslResponse | SaslCancelled) -> None:
        """Answer a `Challenged`."""
        assert self._conn is not None
        self._conn.answer(response)

    # --- what commands are made of ---

    async def _settle(self) -> None:
        """Read away what is left of answers that nobody wanted to the end."""
        async for _ in self._rest():
            pass

    async def _rest(self) -> AsyncIterator[Said]:
        while self._owed:
            yield await self._next()

    async def _begin(self, command: Command) -> Replied:
        """Say a command; its status line, which is +OK."""
        await self._settle()
        self._send(command)
        return await self._status()

    async def _status(self) -> Replied:
        said = await self._next()
        assert isinstance(said, Replied)
        if not said.ok:
            raise refusal(self._where, said)
        return said

    async def _ok(self, command: Command) -> str:
        said = await self._begin(command)
        await self._settle()
        return said.text

    async def _content(self, command: Retr | Top) -> AsyncIterator[bytes]:
        await self._begin(command)
        async for said in self._rest():
            if isinstance(said, ContentReceived):
                yield said.data

    async def _header(self) -> bytes | CommandRefused:
        """The answer to the oldest TOP sent."""
        try:
            await self._status()
        except CommandRefused as fault:
            return fault
        kept, octets = bytearray(), 0
        while not isinstance(said := await self._next(), ContentEnded):
            if isinstance(said, ContentReceived):
                octets += len(said.data)
                kept += said.data[: _HEADERS_MAX - len(kept)]
            if octets > _TOP_MAX:
                raise await self._ended(ServerBroken(self._where, "broke the protocol: TOP does not end"))
        return bytes(kept)

    async def _announced(self) -> Capabilities:
        if not self._asked_capa:
            # RFC 2449 §5: an optional command; RFC 2449 §7: and nothing that it announces is needed
            with contextlib.suppress(CommandRefused):
                await self.capa()
        return self.capabilities
