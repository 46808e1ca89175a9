"""A session with a POP3 server: the asyncio driver of the engine's client, and a client library of its own.

The engine says what is to be done; `Session._next` does it: one `match`, which reads and writes until the server has
said something. All the rest is commands in terms of what was said. What this module adds is the connection, time, and
errors a person can read:

- Every wait for the server is bounded by ``timeout``. Octets that complete nothing renew no patience.
- Answers are handed on as they come, one item or piece at a time, and no more is read before the last was taken. So
  memory is bounded whatever the server sends.
- A reply that was not read to its end (a loop left early, a cancelled task) is read away before the next command.
- Leaving the ``async with`` block without `quit` drops the connection: the server then deletes nothing (RFC 1939 §6).

    async with Session() as session:
        await session.connect("mail.example.org", 995, tls=client_context())
        await session.login("alice", password)
        async for piece in session.retrieve(1):
            ...
        await session.quit()

asyncio's own TLS is used, for a client holds few connections. A session is one conversation: one task at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, TypeAlias, assert_never

from pop3cli.accounts import TIMEOUT
from pop3cli.errors import (
    CommandRefused,
    ConnectionCut,
    MailError,
    NoSuchMessage,
    NotConnected,
    NotValid,
    ServerBroken,
    ServerDown,
    TimedOut,
    TryLater,
    refusal,
)
from pop3cli.tls import Dial, explain_refusal
from pop3core.answers import SaslCancelled, SaslResponse, TlsEstablished
from pop3core.capabilities import Capabilities
from pop3core.client import ClientConfig, ClientConnection
from pop3core.commands import Auth, Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Stls, Top, Uidl, User
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    Abandoned,
    CapabilityItem,
    Challenged,
    ContentEnded,
    ContentReceived,
    Disconnected,
    Greeted,
    LanguageItem,
    ListEnded,
    ListItem,
    NeedData,
    Replied,
    SendData,
    StatItem,
    TlsReady,
    UidItem,
)
from pop3core.limits import Limits
from pop3core.sasl.base import ClientSteps, SaslError
from pop3core.table import AFTER, RULE_OF, State

__all__ = ["TIMEOUT", "Said", "Session"]

_PIECE: Final = 64 * 1024  # octets read at a time; asyncio holds at most twice as many back
_HEADERS_MAX: Final = 1024 * 1024
"""Octets of one message's headers that are kept; no real message comes near."""

_TOP_MAX: Final = 64 * 1024 * 1024
"""Octets of one answer to TOP n 0 after which the server is held to be broken: some send the whole message."""

_MESSAGES_MAX: Final = 1_000_000
"""Messages in one answer to LIST or UIDL."""

_GOODBYE: Final = 1.0
"""Seconds for TLS to say goodbye when all is done."""

Said: TypeAlias = (
    Greeted
    | Challenged
    | Replied
    | StatItem
    | ListItem
    | UidItem
    | CapabilityItem
    | LanguageItem
    | ListEnded
    | ContentReceived
    | ContentEnded
    | Abandoned
)
"""What a server says: the engine's events but for those the driver does itself."""

_GO_ON: Final = (Stat, List, Uidl)  # the engine gives their items as events, also where they stand in the +OK itself


class Session:
    """A conversation with a POP3 server. Methods raise `MailError`, whose subclasses say what it was.

    All but `connect` and `close` raise `NotConnected` before `connect`, and `NotValid` for what the protocol does not
    allow in the state the session is in. After `ConnectionCut`, `TimedOut` or `ServerBroken` the session has ended; it
    may be connected anew.
    """

    def __init__(self, config: ClientConfig | None = None) -> None:
        self._config = config or ClientConfig(limits=Limits(list_items_max=_MESSAGES_MAX))
        self._conn: ClientConnection | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._where = ""
        self._host, self._port = "", 0
        self._tls: ssl.SSLContext
        self._dial: Dial | None = None
        self._timeout = TIMEOUT
        self._deadline = 0.0  # of the wait under way, on the loop's clock
        self._owed = 0  # answers that have not come to their end
        self._asked_capa = False  # since the login
        self._marked = 0

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what can be read ---

    @property
    def state(self) -> State:
        """Where the session is; CLOSED when it is not connected."""
        return State.CLOSED if self._conn is None else self._conn.state

    @property
    def connected(self) -> bool:
        """True between `connect` and the end, however that comes."""
        return self._conn is not None

    @property
    def busy(self) -> bool:
        """True while an answer has not come to its end."""
        return self._owed > 0

    @property
    def capabilities(self) -> Capabilities:
        """What the server said last to CAPA; empty before."""
        return Capabilities() if self._conn is None else self._conn.capabilities

    @property
    def marked(self) -> int:
        """How many messages this session has marked as deleted."""
        return self._marked

    @property
    def tls_version(self) -> str:
        """Such as ``TLSv1.3``; empty when not connected."""
        tls = self.tls
        return "" if tls is None else str(tls.version())

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS of the connection: certificate, cipher; None before it begins, and when not connected."""
        tls: ssl.SSLObject | None = None if self._conn is None else self._writer.get_extra_info("ssl_object")
        return tls

    # --- start and stop ---

    async def connect(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext,
        implicit: bool = True,
        timeout: float = TIMEOUT,
        dial: Dial | None = None,
    ) -> Greeted:
        """Connect over TLS from the first octet (RFC 8314 §3.1), verify as ``tls`` says, and wait for the greeting.

        ``host`` itself is what the certificate must name (RFC 2595 §2.4), whatever it resolves to.
        Not ``implicit``: in clear text, in which no password is ever said, until `starttls`. ``timeout``: seconds each
        wait of this session may take. ``dial``: connects in another way, through a proxy. Raises `ServerDown`,
        `CertificateRefused`, `TimedOut`, `ServerBroken`, `ConnectionCut`, and `TryLater` when the greeting is -ERR.
        """
        if self._conn is not None:
            raise NotValid(f"connect to {host}", f"still connected to {self._where}", "quit first")
        self._where, self._timeout, self._host, self._port, self._tls = f"{host} port {port}", timeout, host, port, tls
        self._dial = dial
        settings: dict[str, Any] = {}
        if implicit:
            settings = {"ssl": tls, "ssl_handshake_timeout": timeout, "ssl_shutdown_timeout": _GOODBYE}
        async with self._connecting(), asyncio.timeout(timeout):
            if dial is None:
                self._reader, self._writer = await asyncio.open_connection(host, port, limit=_PIECE, **settings)
            else:
                settings |= {"sock": await dial(host, port), "server_hostname": host if implicit else None}
                self._reader, self._writer = await asyncio.open_connection(limit=_PIECE, **settings)
        self._conn = ClientConnection(self._config)
        if implicit:
            self._conn.answer(TlsEstablished())
        self._owed, self._marked, self._asked_capa = 0, 0, False
        try:
            return await self._greeting()
        except BaseException:
            await self.close()
            raise

    @contextlib.asynccontextmanager
    async def _connecting(self) -> AsyncIterator[None]:
        """Turns what can go wrong with a connection and its TLS into errors of ours."""
        try:
            yield
        except ssl.SSLCertVerificationError as fault:
            raise await explain_refusal(self._host, self._port, fault, self._dial) from fault
        except (OSError, UnicodeError) as fault:
            raise self._no_connection(fault) from fault

    async def starttls(self) -> str:
        """STLS, and the handshake (RFC 2595 §4). Raises `CommandRefused`, and what `connect` raises."""
        return await self._ok(Stls())

    async def _begin_tls(self, conn: ClientConnection) -> None:
        ready = conn.next_event()  # raises RemoteProtocolError for clear text behind the +OK
        assert isinstance(ready, TlsReady)
        # What a stranger slipped in behind the +OK may lie in the stream's buffer already, and would then be read as if
        # it had come through TLS. Nothing more is let in, and what is there shows itself at once.
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        slipped_in = asyncio.ensure_future(self._reader.read(1))
        await asyncio.sleep(0)
        if slipped_in.done():
            why = "the server spoke between STLS and TLS (RFC 2595 §4)"
            raise await self._ended(ServerBroken(f"{self._where} broke the protocol", why))
        slipped_in.cancel()
        async with self._connecting():
            await self._writer.start_tls(self._tls, server_hostname=self._host, ssl_handshake_timeout=self._timeout)
        conn.answer(TlsEstablished())

    async def _greeting(self) -> Greeted:
        greeting = await self._next()
        assert isinstance(greeting, Greeted)
        if not greeting.ok:
            text = f"[{greeting.code}] {greeting.text}" if greeting.code else greeting.text
            raise TryLater(
                f"{self._where} does not serve now", text, "try again later", code=greeting.code, text=greeting.text
            )
        return greeting

    async def close(self) -> None:
        """Drop the connection, if there is one. Without a `quit` before, nothing is deleted."""
        if self._conn is None:
            return
        self._conn.hang_up()
        self._conn = None
        self._owed = 0
        self._writer.close()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass  # gone before we were

    # --- commands ---

    async def login(self, user: str, password: str | bytes) -> str:
        """USER and PASS; what the server says to PASS. Raises `LoginRefused`, or `TryLater` ([IN-USE] and its like)."""
        octets = password.encode() if isinstance(password, str) else password
        await self._ok(User(user))
        self._asked_capa = False  # RFC 2449 §5: what is announced may change with the login
        return await self._ok(Pass(octets))

    async def authenticate(self, mechanism: str, steps: ClientSteps) -> str:
        """AUTH with a generator of `pop3core.sasl`; what the server says to it. Raises as `login` does.

        Raises `ServerBroken` as well, when the server's challenge is none of the mechanism's, or it does not know the
        password itself.
        """
        await self._settle()
        try:
            self._send(Auth(mechanism, next(steps)))
        except SaslError as fault:
            raise NotValid(f"AUTH {mechanism}", str(fault)) from None
        self._asked_capa = False
        while isinstance(said := await self._next(), Challenged):
            assert self._conn is not None
            try:
                # SCRAM hashes a password thousands of times, as often as the server says
                response = await asyncio.to_thread(steps.send, said.data)
            except SaslError as fault:
                raise await self._ended(ServerBroken(f"{self._where} broke the protocol in AUTH", str(fault))) from None
            self._conn.answer(SaslResponse(response or b""))
        assert isinstance(said, Replied)
        if not said.ok:
            raise refusal(self._where, said)
        return said.text

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
            for number in _first(ahead - len(asked), waiting):
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

    def respond(self, response: SaslResponse | SaslCancelled) -> None:
        """Answer a `Challenged`."""
        assert self._conn is not None
        self._conn.answer(response)

    # --- what commands are made of ---

    def _send(self, command: Command) -> None:
        if self._conn is None:
            raise NotConnected(command.keyword, "not connected to a server", "connect first")
        try:
            self._conn.send(command)
        except LocalProtocolError as fault:
            wants_login = self._conn.state is not State.TRANSACTION and type(command) in AFTER[State.TRANSACTION]
            raise NotValid("not sent", str(fault), "log in first" if wants_login else "") from None
        self._owed += 1

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

    # --- the driver ---

    async def _next(self) -> Said:
        """What the server says next; on the way, reading and writing."""
        conn = self._conn
        if conn is None:
            raise NotConnected(self._where or "session", "the connection has ended", "connect again")
        try:
            while True:
                match conn.next_event():
                    case NeedData(resumed):
                        conn.receive_data(await self._read(resumed))
                    case SendData(data):
                        await self._write(data)
                    case Disconnected(_, unanswered):
                        raise await self._ended(self._cut(unanswered))
                    case (
                        Greeted()
                        | Challenged()
                        | Replied()
                        | StatItem()
                        | ListItem()
                        | UidItem()
                        | CapabilityItem()
                        | LanguageItem()
                        | ListEnded()
                        | ContentReceived()
                        | ContentEnded()
                        | Abandoned()
                    ) as said:
                        self._count(said)
                        if isinstance(said, Replied) and isinstance(said.command, Stls) and said.ok:
                            await self._begin_tls(conn)
                        return said
                    case TlsReady():
                        raise AssertionError("comes right behind the +OK to STLS")
                    case unknown:
                        assert_never(unknown)
        except RemoteProtocolError as fault:
            during = f" in answer to {fault.command}" if fault.command else ""
            what = f"{self._where} broke the protocol{during}"
            raise await self._ended(ServerBroken(what, f"{fault} ({fault.rfc})")) from fault
        except TimeoutError:
            why = f"no answer within {self._timeout:g} s"
            raise await self._ended(TimedOut(self._where, why, "try again, or give it longer with --timeout")) from None

    def _count(self, said: Said) -> None:
        self._owed -= _completes(said)
        match said:
            case Replied(Dele(), True):
                self._marked += 1
            case Replied(Rset(), True):
                self._marked = 0
            case _:
                pass

    async def _read(self, resumed: bool) -> bytes:
        if not resumed:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        async with asyncio.timeout_at(self._deadline):
            try:
                return await self._reader.read(_PIECE)
            except OSError:
                return b""  # the engine knows what was under way

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(self._timeout):
            try:
                self._writer.write(data)
                await self._writer.drain()
            except OSError:
                pass  # reading will tell, and may bring the reason first

    async def _ended(self, fault: MailError) -> MailError:
        await self.close()
        return fault

    # --- what went wrong ---

    def _cut(self, unanswered: tuple[Command, ...]) -> ConnectionCut:
        if not unanswered:
            return ConnectionCut(self._where, "the server closed the connection", "try again")
        command = unanswered[0]
        during = f"the server went away during {command.keyword}"
        if isinstance(command, Quit):
            return ConnectionCut(
                self._where, during, "whether marked messages were deleted is unknown; `list` shows it"
            )
        return ConnectionCut(self._where, during, "try again")

    def _no_connection(self, fault: OSError | UnicodeError) -> MailError:
        where = self._where
        match fault:
            case TimeoutError() | ConnectionAbortedError():  # the latter: asyncio's limit on the handshake
                return TimedOut(where, f"no connection within {self._timeout:g} s", "is it the right host and port?")
            case ssl.SSLEOFError() | ConnectionResetError():
                return ServerDown(where, "the server closed the connection during the TLS handshake", "try again later")
            case ssl.SSLError():
                return _no_tls(where, fault)
            case socket.gaierror():
                return ServerDown(where, f"no such host ({fault.strerror})", "is the name spelled right?")
            case OSError():
                return ServerDown(where, _reason(fault), "is the server running, and is it the right host and port?")
            case UnicodeError():
                return ServerDown(where, "no such host (not a valid name)", "is the name spelled right?")
            case unknown:
                assert_never(unknown)


def _first(count: int, numbers: Iterator[int]) -> Iterator[int]:
    for _ in range(count):
        number = next(numbers, None)
        if number is None:
            return
        yield number


def _completes(said: Said) -> bool:
    """Whether an answer has come to its end with this."""
    match said:
        case Replied(command, ok):
            return not ok or not (isinstance(command, _GO_ON) or RULE_OF[type(command)].has_lines(command))
        case ListEnded() | ContentEnded() | Abandoned():
            return True
        case _:
            return False


_NOT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
_OLD_TLS: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


def _no_tls(where: str, fault: ssl.SSLError) -> ServerBroken:
    if fault.reason in _NOT_TLS:
        return ServerBroken(where, "that port does not speak TLS", "POP3 over TLS is on port 995, as a rule")
    if fault.reason in _OLD_TLS:
        return ServerBroken(where, "the server has no TLS 1.2 or later", "it must be brought up to date")
    return ServerBroken(where, f"TLS failed ({fault.reason or fault})")


def _reason(fault: OSError) -> str:
    """Why a connection was not made. When several addresses were tried, asyncio has only a text with all reasons."""
    numbers = [fault.errno] if fault.errno else [int(n) for n in re.findall(r"\[Errno (\d+)\]", str(fault))]
    return os.strerror(numbers[-1]) if numbers else str(fault)
