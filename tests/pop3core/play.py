"""Playing one side against an engine: a server that is spoken to, a client that hears.

Also the player of the dialogues in `transcripts/`, which are written as the RFCs write them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pop3core.answers import (
    CommitFailed,
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    LoginRejected,
    NoSecret,
    PlainSecret,
    ScramSecret,
    TlsEstablished,
)
from pop3core.client import ClientConfig, ClientConnection
from pop3core.commands import Pass, Quit, User
from pop3core.events import (
    Challenged,
    ClientEvent,
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    Credential,
    Disconnected,
    LoginRequested,
    NeedData,
    Password,
    ProofFailed,
    SecretRequested,
    SendData,
    ServerEvent,
    TlsReady,
    TlsRequested,
    Token,
)
from pop3core.maildrop import Listing
from pop3core.sasl.scram import verifier
from pop3core.server import ServerConfig, ServerConnection
from pop3core.table import State

MAIL = [b"Subject: one\r\n\r\nfirst\r\n", b".dot\r\n\r\n..\r\n.\r\nlast\r\n"]


TIMESTAMP = "<1896.697170952@dbc.mtview.ca.us>"  # RFC 1939 §7 APOP, with the shared secret "tanstaaf"
SALT, ITERATIONS, SERVER_NONCE = b"salt and pepper", 4096, "3rfcNHYJY1ZVvWVs7j"
STORED_KEY, SERVER_KEY = verifier(b"s e c", SALT, ITERATIONS)
EVERYTHING = ServerConfig(
    "mail.example.org",
    allow_plaintext=True,
    stls=True,
    mechanisms=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "PLAIN", "LOGIN"),
    expire="30 USER",
    login_delay="60",
)


class Dialogue:
    """A server engine with a driver that knows one user, "alice" with "s e c", and some messages.

    For APOP her secret is RFC 1939's "tanstaaf"; the bearer token "good" is hers as well.
    """

    def __init__(
        self,
        messages: Iterable[bytes] = MAIL,
        *,
        secure: bool = True,
        config: ServerConfig | None = None,
        piece: int = 65536,
        uids: list[bytes] | None = None,
        failing: frozenset[int] = frozenset(),
        timestamp: str | None = None,
        binding: bytes | None = None,
        identity: str | None = None,
    ) -> None:
        self.messages = list(messages)
        self.tls = TlsEstablished(binding, identity)
        self.uids = uids or [b"uid-%d" % number for number in range(1, len(self.messages) + 1)]
        self.conn = ServerConnection(config, timestamp=timestamp)
        if secure:
            self.conn.answer(self.tls)
        self.piece = piece
        self.failing = failing
        self.removed: tuple[int, ...] | None = None
        self.left: tuple[int, ...] = ()
        self.events: list[ServerEvent] = []
        self.greeting = self.run()

    def say(self, *lines: str | bytes) -> bytes:
        """What the server sends for these lines."""
        return self.receive(b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines))

    def receive(self, data: bytes) -> bytes:
        self.conn.receive_data(data)
        return self.run()

    def run(self) -> bytes:
        """Drives the engine until it waits for the client, or is closed; what it sent."""
        sent = b""
        while True:
            event = self.conn.next_event()
            self.events.append(event)
            match event:
                case SendData(data):
                    sent += data
                case NeedData() | Closed():
                    return sent
                case LoginRequested(credential):
                    self.conn.answer(self.login(credential))
                case SecretRequested(username, kind):
                    self.conn.answer(self.secret(username, kind))
                case TlsRequested():
                    self.conn.answer(self.tls)
                case ContentRequested(number, offset):
                    self.conn.answer(self.content(number, offset))
                case CommitRequested(numbers):
                    self.removed = numbers
                    self.conn.answer(CommitFailed(self.left, "SYS/TEMP") if self.left else Committed())
                case ContentDropped():
                    pass

    def login(self, credential: Credential) -> LoginAccepted | LoginRejected:
        match credential:
            case Password(_, _, b"busy"):
                return LoginRejected("IN-USE", "the mailbox is in use by another session")
            case Password(_, _, b"broken"):
                return LoginRejected("SYS/TEMP", "this mailbox cannot be opened now")
            case ProofFailed():
                return LoginRejected(None, "wrong user name or password")
            case Password(name, _, secret) if (name, secret) != ("alice", b"s e c"):
                return LoginRejected(None, "wrong user name or password")
            case Token(_, _, token) if token != b"good":
                return LoginRejected(None, "wrong user name or password")
        return LoginAccepted(Listing([len(text) for text in self.messages], self.uids))

    def secret(self, username: str, kind: str) -> ScramSecret | PlainSecret | NoSecret:
        if username != "alice":
            return NoSecret(SALT, ITERATIONS, SERVER_NONCE)
        if kind == "APOP":
            return PlainSecret(b"tanstaaf")
        return ScramSecret(SALT, ITERATIONS, STORED_KEY, SERVER_KEY, SERVER_NONCE)

    def content(self, number: int, offset: int) -> Content | ContentFailed:
        if number in self.failing:
            return ContentFailed("SYS/TEMP", "this message cannot be read")
        text = self.messages[number - 1]
        return Content(text[offset : offset + self.piece], last=offset + self.piece >= len(text))


def server_in(state: State) -> Dialogue:
    """A server that offers everything, brought into a state by the legal road."""
    server = Dialogue(secure=False, config=EVERYTHING, timestamp=TIMESTAMP)
    if state is State.CLOSED:
        server.say("QUIT")
    if state in (State.IDENTIFIED, State.TRANSACTION):
        server.say("USER alice")
    if state is State.TRANSACTION:
        server.say("PASS s e c")
    return server


class Listener:
    """A client engine that hears what a test says, and whose events are collected."""

    def __init__(self, config: ClientConfig | None = None, *, secure: bool = True, greeting: bytes = b"+OK ready\r\n"):
        self.conn = ClientConnection(config)
        if secure:
            self.conn.answer(TlsEstablished())
        self.sent = b""
        self.events: list[ClientEvent] = []
        if greeting:
            self.hear(greeting)

    def hear(self, data: bytes) -> list[ClientEvent]:
        """The events that ``data`` brings about, with what has to be sent before it."""
        events = self.run()
        self.conn.receive_data(data)
        return events + self.run()

    def run(self) -> list[ClientEvent]:
        events: list[ClientEvent] = []
        while True:
            event = self.conn.next_event()
            match event:
                case NeedData():
                    break
                case SendData(data):
                    self.sent += data
                case Disconnected():
                    events.append(event)
                    break
                case Challenged():
                    events.append(event)
                    break
                case TlsReady():
                    events.append(event)
                    self.conn.answer(TlsEstablished())
                case _:
                    events.append(event)
        self.events += events
        return events


def client_in(state: State) -> Listener:
    """A client brought into a state by the legal road, on a connection without TLS as yet."""
    client = Listener(ClientConfig(allow_plaintext=True), secure=False)
    if state is State.CLOSED:
        client.conn.send(Quit())
        client.hear(b"+OK\r\n")
    if state in (State.IDENTIFIED, State.TRANSACTION):
        client.conn.send(User("alice"))
        client.hear(b"+OK\r\n")
    if state is State.TRANSACTION:
        client.conn.send(Pass(b"s e c"))
        client.hear(b"+OK\r\n")
    client.sent = b""
    return client


@dataclass
class Transcript:
    """A dialogue from a file. ``turns``: the client's lines, then the server's lines that answer them."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    turns: list[tuple[bytes, bytes]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Transcript":
        """Lines ``C:`` and ``S:``; before them ``name: value`` settings, and ``M:`` lines, one message each."""
        transcript = cls(path.stem)
        client, server = b"", b""
        for line in path.read_text().splitlines():
            kind, _, text = line.partition(": ") if ": " in line else line.partition(":")
            octets = escaped(text) if kind in ("C", "S", "M") else b""
            match kind:
                case "C":
                    if server:
                        transcript.turns.append((client, server))
                        client, server = b"", b""
                    client += octets + b"\r\n"
                case "S":
                    server += octets + b"\r\n"
                case "M":
                    transcript.messages.append(octets)
                case _ if ":" in line and not line.startswith("#"):
                    transcript.settings[kind] = text.strip()
        transcript.turns.append((client, server))
        return transcript

    def config(self) -> ServerConfig:
        """What the server offers."""
        return ServerConfig(
            self.settings.get("hostname", ""),
            mechanisms=tuple(self.settings.get("mechanisms", "PLAIN").split()),
            stls="stls" in self.settings,
            expire=self.settings.get("expire", ""),
            login_delay=self.settings.get("login-delay", ""),
        )

    def dialogue(self) -> Dialogue:
        """A server in the situation that the transcript begins in."""
        uids = [uid.encode() for uid in self.settings.get("uids", "").split()] or None
        dialogue = Dialogue(
            self.messages,
            secure=self.settings.get("secure") != "no",
            uids=uids,
            failing=frozenset(map(int, self.settings.get("failing", "").split())),
            config=self.config(),
            timestamp=self.settings.get("timestamp"),
            binding=self.settings["binding"].encode() if "binding" in self.settings else None,
            identity=self.settings.get("identity"),
        )
        dialogue.left = tuple(map(int, self.settings.get("left", "").split()))
        return dialogue


def escaped(text: str) -> bytes:
    r"""Octets of a line: ``\r``, ``\n``, ``\\`` and ``\xNN`` stand for themselves, all else is UTF-8."""
    return re.sub(
        rb"\\(r|n|\\|x[0-9a-f]{2})",
        lambda found: {b"r": b"\r", b"n": b"\n", b"\\": b"\\"}.get(found[1]) or bytes([int(found[1][1:], 16)]),
        text.encode(),
    )


def transcripts() -> list[Transcript]:
    """All that are there."""
    return [Transcript.read(path) for path in sorted((Path(__file__).parent / "transcripts").glob("*.txt"))]


def in_pieces(data: bytes, sizes: Iterable[int], use: Callable[[bytes], bytes]) -> bytes:
    """Feed ``data`` in pieces of the given sizes, over and over; what came back, together."""
    got, at, turns = b"", 0, list(sizes)
    turn = 0
    while at < len(data):
        size = turns[turn % len(turns)]
        got += use(data[at : at + size])
        at, turn = at + size, turn + 1
    return got
