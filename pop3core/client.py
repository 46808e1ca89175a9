"""The client's side of a session.

The driver says what it wants with `send`, as far ahead as it likes, asks for the next event and does what it says:

    SendData       write, wait until it has left
    NeedData       read, `receive_data`
    Challenged     `answer` with a SASL response
    TlsReady       do the TLS handshake, `answer`
    Disconnected   close the connection
    others         are what the server said

Commands wait in a queue and leave when they may: behind the greeting, inside the window (one command at a time until
the server announces PIPELINING, `Limits.window_commands` afterwards), and never behind a *barrier* of the table that
has not been answered. `send` checks a command against the state the session will be in if all before it succeeds; when
a barrier fails, what waits behind it comes back as `Abandoned`. Nothing is dropped in silence.

A command's events are `Replied`; then, when it was +OK, the items of STAT, LIST, UIDL and CAPA and a `ListEnded`, or
the content of RETR and TOP and a `ContentEnded`. What no terminator ended was not received.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass, replace
from typing import NoReturn

from pop3core import answers as a
from pop3core.capabilities import Capabilities
from pop3core.commands import Auth, Capa, Command, Lang, List, Quit, Retr, Stat, Stls, Top, Uidl, Utf8
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    Abandoned,
    CapabilityItem,
    Challenged,
    ClientEvent,
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
from pop3core.framing import DotUnstuffer, LineBuffer, LineFault
from pop3core.grammar import BadArgument, is_printable, number
from pop3core.limits import DEFAULT_LIMITS, Limits
from pop3core.replies import Status, decode
from pop3core.sasl import MECHANISMS
from pop3core.sasl.exchange import ClientExchange
from pop3core.sasl.prep import prepared
from pop3core.syntax import BadCommand, encode
from pop3core.table import AFTER, RULE_OF, Home, State

__all__ = ["ClientConfig", "ClientConnection", "apop_digest"]

_TIMESTAMP = re.compile(r"<[^<>\s@]+@[^<>\s]+>")  # RFC 1939 §7 APOP: a msg-id in the greeting


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client is. ``allow_plaintext``: passwords may be sent without TLS; not by default (RFC 8314 §5.2)."""

    allow_plaintext: bool = False
    limits: Limits = DEFAULT_LIMITS


class ClientConnection:
    """A POP3 session, seen from the client, without I/O.

    `state`, `secure` and `capabilities` can be read at any time. `next_event` raises `RemoteProtocolError` once when
    the server breaks the protocol; the session has ended then. `LocalProtocolError` is the driver's mistake, and
    changes nothing.
    """

    def __init__(self, config: ClientConfig | None = None) -> None:
        self._config = config or ClientConfig()
        limits = self._limits = self._config.limits
        self._state = State.AUTHORIZATION
        self._planned = State.AUTHORIZATION  # the state behind all that is queued
        self._secure = False
        self._greeted = False
        self._lines = LineBuffer(max(limits.foreign_reply_octets_max, limits.greeting_octets_max))
        self._end_of_stream = False
        self._queue: deque[Command] = deque()
        self._sent: deque[Command] = deque()  # unanswered, or not to the end; the oldest first
        self._barrier = False  # one is among those sent
        self._events: deque[ClientEvent] = deque()
        self._content: DotUnstuffer | None = None  # of the reply under way
        self._octets = 0  # of that content, or of what is announced
        self._items: int | None = None  # so far, of the list under way
        self._announced: list[str] = []
        self._exchange: ClientExchange | None = None  # while an AUTH that was sent is not answered to the end
        self._utf8 = False  # UTF8 was said
        self._capa_answered = False  # by +OK or -ERR, on the connection as it is now
        self._tls_wanted = False  # STLS was accepted: nothing is said or heard before the handshake
        self._disconnected: Disconnected | None = None
        self._resumed = False
        self.capabilities = Capabilities()
        """What the server announced in its last answer to CAPA; empty before."""

    # --- what can be read ---

    @property
    def state(self) -> State:
        """Where the session is, as far as the server has answered."""
        return self._state

    @property
    def secure(self) -> bool:
        """True behind TLS."""
        return self._secure

    @property
    def waiting(self) -> int:
        """How many commands are queued, not sent yet."""
        return len(self._queue)

    @property
    def unanswered(self) -> int:
        """How many commands are sent, and not answered to the end."""
        return len(self._sent)

    # --- what the driver does ---

    def answer(self, answer: a.ClientAnswer) -> None:
        """Answer `Challenged` or `TlsReady`; or say, before the first event, that TLS is there from the start.

        Raises `LocalProtocolError` for what answers nothing.
        """
        match answer:
            case a.TlsEstablished() if self._tls_wanted or not (self._greeted or self._lines):
                self._tls_wanted, self._secure = False, True
                self._capa_answered = False
                self.capabilities = Capabilities()  # RFC 2595 §4: what was learned before TLS is worth nothing
            case a.SaslResponse(data) if self._exchange is not None and self._exchange.challenged:
                self._exchange.respond(data)
            case a.SaslCancelled() if self._exchange is not None and self._exchange.challenged:
                self._exchange.cancel()
            case _:
                raise LocalProtocolError(f"{type(answer).__name__} answers nothing")

    def send(self, command: Command) -> None:
        """Queue a command.

        Raises `LocalProtocolError` when it cannot be said, or is not valid in the state the session will be in.
        """
        rule = RULE_OF[type(command)]
        if self._disconnected is not None:
            raise LocalProtocolError(f"{rule.keyword}: the connection has ended")
        target = AFTER[self._planned].get(type(command))
        if target is None:
            raise LocalProtocolError(f"{rule.keyword} is not valid in the {self._planned.value} state ({rule.rfc})")
        self._check_home(command)
        try:
            line = encode(command)
        except BadCommand as fault:
            raise LocalProtocolError(str(fault)) from None
        if len(line) > self._limits.command_octets_max and not isinstance(command, Auth):
            raise LocalProtocolError(f"{rule.keyword} is longer than {self._limits.command_octets_max} octets")
        if len(self._queue) >= self._limits.queue_commands_max:
            raise LocalProtocolError(f"more than {self._limits.queue_commands_max} commands wait")
        self._queue.append(command)
        self._planned = target

    def _check_home(self, command: Command) -> None:
        # RFC 2595 §2.2, §2.3, §6, §9, RFC 8314 §5.1: no secret leaves in clear text, unless that was relaxed
        rule = RULE_OF[type(command)]
        if rule.home is Home.PLAIN and (self._secure or self._tls_ahead()):  # RFC 2595 §4: STLS is valid once
            raise LocalProtocolError(f"{rule.keyword} is not valid behind TLS ({rule.rfc})")
        if isinstance(command, Stls) and (self._utf8 or any(isinstance(ahead, Utf8) for ahead in self._queue)):
            raise LocalProtocolError("STLS is not valid behind UTF8 (RFC 6856 §2.1)")
        mechanism = MECHANISMS.get(command.mechanism) if isinstance(command, Auth) else None
        secret = rule.home is Home.TLS or (mechanism is not None and mechanism.plaintext)
        if secret and not (self._secure or self._config.allow_plaintext or self._tls_ahead()):
            raise LocalProtocolError(f"{rule.keyword} would send a secret in clear text; use TLS")

    def _tls_ahead(self) -> bool:
        """Whether what is queued now leaves behind TLS, or not at all: STLS is a barrier."""
        return self._tls_wanted or any(isinstance(ahead, Stls) for ahead in (*self._sent, *self._queue))

    def receive_data(self, data: bytes) -> None:
        """Take what the server sent; ``b""`` is the end of the stream."""
        if self._disconnected is not None:
            return
        if self._tls_wanted and data:
            raise LocalProtocolError("what comes behind STLS is for the TLS handshake")
        if data:
            if self._end_of_stream:
                raise LocalProtocolError("data came after the end of the stream")
            self._lines.receive(data)
        else:
            self._end_of_stream = True

    def next_event(self) -> ClientEvent:
        """What is to be done, or was said, next.

        Raises `RemoteProtocolError` when the server breaks the protocol.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._disconnected is not None:
                return self._disconnected
            if (exchange := self._exchange) is not None and exchange.line is not None:
                line, exchange.line = exchange.line, None
                return SendData(line + b"\r\n")
            if exchange is not None and exchange.challenged:
                raise LocalProtocolError("Challenged wants an answer first")
            if self._tls_wanted and not self._end_of_stream:
                raise LocalProtocolError("TlsReady wants an answer first")  # RFC 2595 §2.5: nothing goes on without
            if self._lines and not self._sent and self._greeted:
                # said before anything was asked: never to be taken for the answer to what is sent next
                said = _shown(self._lines.take_rest())
                self._broken(f"the server spoke unasked: {said}", code="unasked", rfc="RFC 1939 §3")
            if data := self._leaving():
                return SendData(data)
            if not self._read_on():
                if not self._end_of_stream:
                    resumed, self._resumed = self._resumed, True
                    return NeedData(resumed)
                self._end(expected=False)

    def hang_up(self) -> None:
        """End at once, without QUIT: the server removes nothing (RFC 1939 §6)."""
        self._end(expected=True)

    # --- sending ---

    @property
    def _window(self) -> int:
        # RFC 2449 §6.6: a client may send ahead only when PIPELINING was announced,
        # and whoever the server says it is (RFC 2449 §6.9)
        return self._limits.window_commands if "PIPELINING" in self.capabilities else 1

    def _leaving(self) -> bytes:
        """The commands that may leave now, in one piece: the window is filled again when half of it is free.

        None leaves before the greeting (RFC 1939 §4).
        """
        if not self._queue or not self._greeted or self._barrier or self._tls_wanted:
            return b""
        if len(self._sent) > self._window // 2:
            return b""
        lines = []
        while self._queue and not self._barrier and len(self._sent) < self._window:
            command = self._queue.popleft()
            self._sent.append(command)
            self._barrier = RULE_OF[type(command)].barrier
            self._utf8 = self._utf8 or isinstance(command, Utf8)
            lines.append(self._line(command))
        return b"".join(lines)

    def _line(self, command: Command) -> bytes:
        line = encode(command)
        if not isinstance(command, Auth):
            return line
        # RFC 5034 §3: none for a server that does not announce SASL. §4: nor one that would make the line too long.
        # It answers the first, empty challenge instead.
        unannounced = self._capa_answered and "SASL" not in self.capabilities
        held = command.initial if unannounced or len(line) > self._limits.command_octets_max else None
        self._exchange = ClientExchange(command, held)
        return line if held is None else encode(replace(command, initial=None))

    # --- receiving ---

    def _read_on(self) -> bool:
        """Take the next line or piece of content; False when there is none."""
        if self._content is not None:
            return self._read_content(self._content)
        limits = self._limits
        line = self._lines.next_line(limits.foreign_reply_octets_max if self._greeted else limits.greeting_octets_max)
        if line is None:
            return False
        if isinstance(line, LineFault):
            self._broken("a line is too long", code="line-too-long", rfc="RFC 2449 §4")
        self._resumed = False
        if not self._greeted:
            self._greeting(line)
        elif self._items is not None:
            self._item(self._sent[0], line)
        else:
            self._status(self._sent[0], line)
        return True

    def _greeting(self, line: bytes) -> None:
        status = self._decode(line)
        self._greeted = True
        timestamp = _TIMESTAMP.search(status.text)  # RFC 2449 §6: no capability says that there is APOP
        self._events.append(Greeted(status.ok, status.code, status.text, timestamp[0] if timestamp else None))
        if not status.ok:
            self._end(expected=False)

    def _status(self, command: Command, line: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.command is not command:
            exchange = None  # it is of an AUTH that was sent behind this one
        if exchange is not None and (line == b"+" or line.startswith(b"+ ")):
            self._challenge(exchange, line[2:])
            return
        status = self._decode(line)
        if exchange is not None:
            self._exchange = None
            if status.ok and not exchange.is_proved:
                # RFC 5802 §5: without its signature anybody could be the server
                text = "+OK without proof that the server knows the password: it may be an impostor"
                self._broken(text, code="unproved", rfc="RFC 5802 §5")
        rule = RULE_OF[type(command)]
        self._barrier = self._barrier and not rule.barrier
        self._events.append(Replied(command, status.ok, status.code, status.text))
        if not status.ok:
            self._sent.popleft()
            self._capa_answered = self._capa_answered or isinstance(command, Capa)
            self._state = rule.failed or self._state
            if rule.barrier:
                self._abandon()
        else:
            self._state = AFTER[self._state][type(command)]
            if isinstance(command, Retr | Top):
                self._content, self._octets = DotUnstuffer(), 0
            elif rule.has_lines(command):
                self._items, self._announced, self._octets = 0, [], 0
            else:
                self._single(command, status.text.encode())
                self._sent.popleft()
                if isinstance(command, Stls):
                    self._begin_tls()
        if self._state is State.CLOSED:
            self._end(expected=isinstance(command, Quit))

    def _challenge(self, exchange: ClientExchange, octets: bytes) -> None:
        try:
            data = exchange.challenge(octets)
        except BadArgument:
            self._broken("a challenge is no base64, again", code="bad-challenge", rfc="RFC 5034 §4")
        if data is not None:
            self._events.append(Challenged(exchange.command, data))

    def _begin_tls(self) -> None:
        if self._lines:
            # clear text behind the +OK would be taken for what came inside TLS
            self._broken("the server spoke between STLS and TLS", code="stls-injection", rfc="RFC 2595 §4")
        self._tls_wanted = True
        self._events.append(TlsReady())

    def _single(self, command: Command, text: bytes) -> None:
        """Items that stand in the status line itself."""
        if isinstance(command, Stat):
            messages, octets, *_ = self._numbers(text, 2)
            self._events.append(StatItem(messages, octets))
        elif isinstance(command, List | Uidl):
            self._listed(command, text)
            listed = self._events[-1]
            assert isinstance(listed, ListItem | UidItem)
            if listed.number != command.number:
                self._broken(f"{command.number} was asked for: {_shown(text)}", code="bad-item", rfc="RFC 1939 §5")
        else:
            return
        self._events.append(ListEnded(command))

    def _item(self, command: Command, line: bytes) -> None:
        if line == b".":
            self._sent.popleft()
            self._items = None
            if isinstance(command, Capa):
                self.capabilities, self._capa_answered = Capabilities(self._announced), True
            self._events.append(ListEnded(command))
            return
        assert self._items is not None
        self._items += 1
        limits, most = self._limits, self._limits.list_items_max
        if isinstance(command, Capa | Lang):
            self._octets += len(line)
            most = limits.capabilities_max
        if self._items > most or self._octets > limits.capabilities_octets_max:
            self._broken("a list does not end", code="endless-list", rfc="RFC 1939 §3")
        line = line.removeprefix(b".")  # RFC 1939 §3: byte-stuffing holds for every multi-line reply
        if isinstance(command, Capa):
            text = line.decode("utf-8", "replace")
            self._announced.append(text)
            self._events.append(CapabilityItem(text))
        elif isinstance(command, Lang):
            # RFC 6856 §3.2: the language's name for itself may be missing
            tag, _, name = line.decode("utf-8", "replace").partition(" ")
            self._events.append(LanguageItem(tag, name))
        else:
            self._listed(command, line)

    def _listed(self, command: Command, line: bytes) -> None:
        if isinstance(command, List):
            self._events.append(ListItem(*self._numbered(line)))
            return
        # RFC 1939 §7 UIDL: message-number, a single space, unique-id; nothing else
        octets, _, uid = line.partition(b" ")
        if not uid or not uid.isascii() or not is_printable(uid) or b" " in uid:
            self._broken(f"a line of UIDL is none: {_shown(line)}", code="bad-item", rfc="RFC 1939 §7")
        self._events.append(UidItem(self._number(octets), uid.decode("ascii")))

    def _numbered(self, line: bytes) -> tuple[int, int]:
        octets, _, _ = line.partition(b" ")
        return self._number(octets), self._numbers(line, 2)[1]

    def _number(self, octets: bytes) -> int:
        try:
            value: int = number.read(octets)
        except BadArgument as fault:
            self._broken(f"{fault}: {_shown(octets)}", code="bad-item", rfc="RFC 1939 §5")
        return value

    def _numbers(self, line: bytes, wanted: int) -> list[int]:
        # RFC 1939 §5: a scan listing may have more behind the numbers, which a client ignores
        words = line.split(b" ", wanted)[:wanted]
        values = [int(word) for word in words if word.isdigit() and len(word) <= 20]
        if len(values) < wanted:
            self._broken(f"numbers are missing: {_shown(line)}", code="bad-item", rfc="RFC 1939 §5")
        return values

    def _read_content(self, content: DotUnstuffer) -> bool:
        if not self._lines:
            return False
        self._resumed = False
        data = content.feed(self._lines.take_rest())
        self._octets += len(data)
        if data:
            self._events.append(ContentReceived(data))
        if content.ended:
            self._lines.receive(content.rest)
            self._content = None
            self._events.append(ContentEnded(self._sent.popleft(), self._octets))
        return True

    def _decode(self, line: bytes) -> Status:
        status = decode(line)
        if status is None:
            self._broken(f"no status indicator: {_shown(line)}", code="bad-status", rfc="RFC 1939 §3")
        return status

    # --- the end ---

    def _abandon(self) -> None:
        self._events.extend(Abandoned(command) for command in self._queue)
        self._queue.clear()
        self._planned = self._state

    def _end(self, *, expected: bool) -> None:
        if self._disconnected is None:
            self._disconnected = Disconnected(expected, tuple(self._sent))
        self._state = State.CLOSED
        self._abandon()
        self._lines.clear()

    def _broken(self, text: str, *, code: str, rfc: str) -> NoReturn:
        state, command = self._state.value, RULE_OF[type(self._sent[0])].keyword if self._sent else None
        self._end(expected=False)
        raise RemoteProtocolError(text, code=code, state=state, command=command, rfc=rfc)


def _shown(line: bytes) -> str:
    """The beginning of a foreign line, fit for an error's text."""
    return ascii(line[:80].decode("latin-1"))


def apop_digest(timestamp: str, password: bytes) -> str:
    """The digest of APOP for a greeting's timestamp (RFC 1939 §7). MD5: better than a password in clear text only.

    A password that is UTF-8 is prepared with SASLprep (RFC 6856 §2.2); raises `SaslError` for a prohibited character.
    """
    return hashlib.md5(timestamp.encode() + prepared(password), usedforsecurity=False).hexdigest()
