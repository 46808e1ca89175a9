"""The connection beneath a session: the asyncio driver of the engine's client, TLS, time limits, and what went wrong.

The engine says what is to be done; `Connection._next` does it: one `match`, which reads and writes until the server has
said something. What this module adds is the connection, time, and errors a person can read:

- Every wait for the server is bounded by ``timeout``. Octets that complete nothing renew no patience.
- Answers are handed on as they come, one item or piece at a time, and no more is read before the last was taken. So
  memory is bounded whatever the server sends.
- Leaving the ``async with`` block without a QUIT drops the connection: the server then deletes nothing (RFC 1939 §6).

asyncio's own TLS is used (`pop3cli.net.stream`), for a client holds few connections. What is said is
`pop3cli.net.session`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, assert_never

from pop3cli.errors import (
    ConnectionCut,
    MailError,
    NotConnected,
    NotValid,
    ServerBroken,
    TimedOut,
    TryLater,
)
from pop3cli.net.connect_errors import cut, cut_in_plaintext, no_connection
from pop3cli.net.stream import Stream, open_stream
from pop3cli.net.tls import Dial, explain_refusal
from pop3cli.net.trace import Trace
from pop3core.answers import TlsEstablished
from pop3core.capabilities import Capabilities
from pop3core.client import ClientConfig, ClientConnection
from pop3core.commands import Command, Dele, List, Rset, Stat, Stls, Uidl
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
from pop3core.table import AFTER, RULE_OF, State

__all__ = ["TIMEOUT", "Connection", "Said"]

TIMEOUT: Final = 60.0
"""Seconds the server may take for each thing, unless said otherwise."""

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


class Connection:
    """A connection to a POP3 server, and what was said on it so far; `Session` has the commands.

    After `ConnectionCut`, `TimedOut` or `ServerBroken` it has ended, and may be connected anew.
    """

    def __init__(self, config: ClientConfig, trace: Trace | None = None) -> None:
        self._config = config
        self._trace = trace
        self._conn: ClientConnection | None = None
        self._stream: Stream
        self._where = ""
        self._host, self._port = "", 0
        self._tls: ssl.SSLContext
        self._dial: Dial | None = None
        self._timeout = TIMEOUT
        self._deadline = 0.0  # of the wait under way, on the loop's clock
        self._owed = 0  # answers that have not come to their end
        self._asked_capa = False  # since the login
        self._marked = 0

    async def __aenter__(self) -> Self:
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
    def where(self) -> str:
        """The server, for people; empty before `connect`."""
        return self._where

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
        return None if self._conn is None else self._stream.tls

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
        async with self._connecting():
            if dial is None:
                settings |= {"host": host, "port": port}
            else:  # it has a deadline of its own, and says who missed it
                settings |= {"sock": await dial(host, port), "server_hostname": host if implicit else None}
            async with asyncio.timeout(timeout):
                self._stream = await open_stream(**settings)
        self._conn = ClientConnection(self._config)
        if self._trace is not None:
            self._trace.note(f"connected to {self._where}{f' over {self.tls_version}' if implicit else ''}")
        if implicit:
            self._conn.answer(TlsEstablished())
        self._owed, self._marked, self._asked_capa = 0, 0, False
        try:
            return await self._greeting()
        except ConnectionCut:
            await self.close()
            raise (cut(self._where, ()) if implicit else cut_in_plaintext(self._where)) from None
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
            raise no_connection(self._where, self._timeout, fault) from fault

    async def _begin_tls(self, conn: ClientConnection) -> None:
        ready = conn.next_event()  # raises RemoteProtocolError for clear text behind the +OK
        assert isinstance(ready, TlsReady)
        # what a stranger slipped in behind the +OK would be read as if it had come through TLS
        if self._stream.stop():
            why = "the server spoke between STLS and TLS (RFC 2595 §4)"
            raise await self._ended(ServerBroken(f"{self._where} broke the protocol", why))
        async with self._connecting():
            await self._stream.begin_tls(self._tls, self._host, self._timeout)
        if self._trace is not None:
            self._trace.note(f"TLS begins: {self.tls_version}")
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
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._stream.close()
        except TimeoutError:
            self._stream.abort()

    # --- the driver ---

    def _send(self, command: Command) -> None:
        if self._conn is None:
            raise NotConnected(command.keyword, "not connected to a server", "connect first")
        try:
            self._conn.send(command)
        except LocalProtocolError as fault:
            wants_login = self._conn.state is not State.TRANSACTION and type(command) in AFTER[State.TRANSACTION]
            raise NotValid("not sent", str(fault), "log in first" if wants_login else "") from None
        self._owed += 1

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
                    case Abandoned() if conn.state is State.CLOSED:
                        self._owed -= 1  # it waited when the connection went, which is what is told next
                    case Disconnected(_, unanswered):
                        raise await self._ended(cut(self._where, unanswered))
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
            raise await self._ended(TimedOut(self._where, why, "try again, or give it longer with `timeout`")) from None

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
                data = await self._stream.read()
            except OSError:
                data = b""  # the engine knows what was under way
        if self._trace is not None:
            self._trace.received(data) if data else self._trace.note("the server closed the connection")
        return data

    async def _write(self, data: bytes) -> None:
        if self._trace is not None:
            self._trace.sent(data)
        async with asyncio.timeout(self._timeout):
            with contextlib.suppress(OSError):  # reading will tell, and may bring the reason first
                await self._stream.write(data)

    async def _ended(self, fault: MailError) -> MailError:
        await self.close()
        return fault


def _completes(said: Said) -> bool:
    """Whether an answer has come to its end with this."""
    match said:
        case Replied(command, ok):
            return not ok or not (isinstance(command, _GO_ON) or RULE_OF[type(command)].has_lines(command))
        case ListEnded() | ContentEnded() | Abandoned():
            return True
        case _:
            return False
