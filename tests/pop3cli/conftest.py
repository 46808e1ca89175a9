"""Real servers on loopback for the client's tests: honest ones made of the engine, and liars.

They live on an event loop in a thread of their own, so that blocking code, subprocesses and asyncio tests can all use
them. No mock stands between the client and its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pop3cli.cli.app import run
from pop3core.answers import (
    CommitFailed,
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    LoginRejected,
    TlsEstablished,
)
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    LoginRequested,
    NeedData,
    SendData,
)
from pop3core.maildrop import Listing
from pop3core.server import ServerConnection
from tests.site import Daemon, Site

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PASSWORD = "s e c r e t"
NASTY = [
    b"From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nSubject: dots\r\nDate: Tue, 2 Jan 2024 09:00:00 +0000\r\n\r\n"
    b".\r\n..\r\n.hidden\r\na.b\r\n",
    b"Subject: 8-bit \xff\xfe\r\n\r\n\x00\xff bare \n LF and bare \r CR\r\n",
    b"",
    b".\r\n",
    b"Subject: \x1b[31mred\x1b[0m \xe2\x80\xaeevil [bold]markup[/]\r\nFrom: bob@example.org\r\n"
    b"\r\n\x1b]0;title\x07\r\n",
]


# --- certificates ---


@dataclass(frozen=True)
class Certificate:
    """Files of a self-signed certificate."""

    path: Path
    key: Path


def make_certificate(folder: Path, name: str, sans: list[str], *, cn: str = "localhost", days: int = 30) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    begin = datetime.now(UTC) - timedelta(days=60)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(one) for one in sans]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    files = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    files.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return files


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Certificate]:
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "good": make_certificate(folder, "good", ["localhost", "127.0.0.1", "::1"]),
        "dns": make_certificate(folder, "dns", ["localhost"]),
        "ip": make_certificate(folder, "ip", ["127.0.0.1"], cn="server"),
        "other": make_certificate(folder, "other", ["other.example"]),
        "cn": make_certificate(folder, "cn", []),
        "cn-ip": make_certificate(folder, "cn-ip", [], cn="127.0.0.1"),
        "expired": make_certificate(folder, "expired", ["localhost", "127.0.0.1"], days=-1),
    }


# --- an honest server ---


@dataclass
class Mailbox:
    """One mailbox, and what is to happen to who opens it."""

    messages: list[bytes] = field(default_factory=lambda: list(NASTY))
    login: LoginRejected | None = None
    commit: CommitFailed | None = None
    unreadable: tuple[int, ...] = ()
    deleted: tuple[int, ...] | None = None
    committed = 0
    logins: list[tuple[str, bytes]] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conn = ServerConnection()
        conn.answer(TlsEstablished())
        while True:
            match conn.next_event():
                case NeedData():
                    conn.receive_data(await reader.read(65536))
                case SendData(data):
                    writer.write(data)
                    await writer.drain()
                case LoginRequested(credential):
                    self.logins.append((credential.username, credential.secret))
                    conn.answer(self._login(credential.secret))
                case ContentRequested(number, offset):
                    conn.answer(self._content(number, offset))
                case CommitRequested(numbers):
                    self.deleted = numbers
                    self.committed += 1
                    conn.answer(self.commit or Committed())
                case ContentDropped():
                    pass
                case Closed():
                    return

    def _login(self, secret: bytes) -> LoginAccepted | LoginRejected:
        if self.login is not None:
            return self.login
        if secret != PASSWORD.encode():
            return LoginRejected(None, "wrong user name or password")
        uids = [b"uid-%d" % number for number in range(1, len(self.messages) + 1)]
        return LoginAccepted(Listing([len(message) for message in self.messages], uids))

    def _content(self, number: int, offset: int) -> Content | ContentFailed:
        if number in self.unreadable:
            return ContentFailed("SYS/TEMP", "the disk is asleep")
        piece = self.messages[number - 1][offset : offset + 65536]
        return Content(piece, offset + len(piece) == len(self.messages[number - 1]))


# --- liars ---


@dataclass
class Liar:
    """Says to each keyword what the test wants, -ERR to CAPA, +OK to others. ``cut``: hang up behind its answer."""

    replies: Mapping[str, bytes] = field(default_factory=dict)
    greeting: bytes = b"+OK hello\r\n"
    cut: str | None = None
    endless: Mapping[str, bytes] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    sent = 0

    def until(self, line: bytes) -> None:
        """Wait until the client has said ``line``."""
        deadline = time.monotonic() + 20
        while line not in self.seen:
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.01)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.greeting)
        if self.cut == "greeting":
            return
        while line := await reader.readline():
            self.seen.append(line)
            keyword = line.split()[0].decode().upper()
            writer.write(self.replies.get(keyword, b"-ERR\r\n" if keyword == "CAPA" else b"+OK\r\n"))
            while keyword in self.endless:
                writer.write(self.endless[keyword])
                await writer.drain()
                await asyncio.sleep(0)  # else asyncio never learns that the client is gone
                self.sent += len(self.endless[keyword])
            await writer.drain()
            if keyword in (self.cut, "QUIT"):
                return


# --- serving ---


class Loop:
    """An event loop on a thread, with servers on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._servers: list[asyncio.Server] = []

    def do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(20)

    async def serve(self, handler: Handler, tls: ssl.SSLContext | None) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await handler(reader, writer)
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()
            finally:
                self._tasks.discard(task)
                writer.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@dataclass(frozen=True)
class Server:
    """Where a server of a test is."""

    port: int
    certificate: Path

    def account(self, user: str = "alice", host: str = "127.0.0.1") -> str:
        return f"pop3s://{user}@{host}:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        from pop3cli.net.tls import client_context

        return client_context(self.certificate)


Serve = Callable[..., Server]


@pytest.fixture
def serve(loop_thread: Loop, certificates: Mapping[str, Certificate]) -> Iterator[Serve]:
    """``serve(handler, certificate="good", tls=True)`` starts a server that ends with the test."""

    def start(handler: Handler, certificate: str = "good", *, tls: bool = True) -> Server:
        files = certificates[certificate]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.path, files.key)
        port = loop_thread.do(loop_thread.serve(handler, context if tls else None))
        return Server(port, files.path)

    yield start
    loop_thread.do(loop_thread.stop_servers())


def many_messages(count: int) -> list[bytes]:
    """By three senders, in two years, with wide letters in the subject."""
    return [
        b"From: P%d <p%d@example.org>\r\nSubject: %s %d\r\nDate: Tue, 2 Jan 20%02d 09:00:00 +0000\r\n\r\nx\r\n"
        % (n % 3, n % 3, "漢字".encode(), n, 10 + n % 2)
        for n in range(1, count + 1)
    ]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(serve: Serve, mailbox: Mailbox) -> Server:
    """An honest server of `mailbox`."""
    return serve(mailbox)


# --- the command line ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a user who has no file yet; where his configuration is to be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "config" / "pop3cli"


@dataclass(frozen=True)
class Ran:
    """How a run of pop3cli ended."""

    status: int
    out: bytes
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def pop3cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``pop3cli(arguments...)`` in this process, with standard output and error as pipes see them."""
    monkeypatch.setenv("POP3CLI_PASSWORD", PASSWORD)
    monkeypatch.setenv("NO_COLOR", "")

    def call(*arguments: object) -> Ran:
        capfdbinary.readouterr()
        status = run([str(one) for one in arguments])
        out, err = capfdbinary.readouterr()
        return Ran(status, out, err.decode())

    return call


def one_line(ran: Ran) -> str:
    """The error, which is one line of ours and nothing else."""
    assert ran.err.startswith("pop3cli: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return ran.err.removeprefix("pop3cli: ").rstrip("\n")


class Tty(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def spawn(*arguments: object, environment: Mapping[str, str] | None = None, **extra: object) -> subprocess.Popen[bytes]:
    """The program as its users start it. ``environment``: further variables."""
    ours = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # a pty has its own
    environment = {
        **ours,
        "POP3CLI_PASSWORD": PASSWORD,
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # no terminal answers here
        "XDG_STATE_HOME": "/nonexistent",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "pop3cli", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **extra)  # type: ignore[call-overload, no-any-return]


class Screen:
    """A person's terminal: what was shown so far, and a keyboard."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.seen = b""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            while data := os.read(self._master, 4096):
                self.seen += data
        except OSError:
            pass

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: bytes, *, times: int = 1, behind: int = 0) -> None:
        """Wait until ``text`` was shown so many times. ``behind``: so many octets, that were there before."""
        deadline = time.monotonic() + 20
        while self.seen[behind:].count(text) < times:
            assert time.monotonic() < deadline, self.seen.decode("utf-8", "replace")
            time.sleep(0.01)

    def until_letters(self, text: bytes) -> None:
        """Wait until ``text`` was shown, whatever moved the cursor between its letters."""
        deadline = time.monotonic() + 20
        while text not in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.seen):
            assert time.monotonic() < deadline, self.seen.decode("utf-8", "replace")
            time.sleep(0.01)

    def type_until(self, key: str, text: bytes) -> None:
        """Press a key until ``text`` is shown: a line editor may read its history while it takes keys already."""
        behind = len(self.seen)
        for _ in range(20):
            self.type(key)
            patience = time.monotonic() + 1
            while time.monotonic() < patience:
                if text in self.seen[behind:]:
                    return
                time.sleep(0.01)
        raise AssertionError(self.seen.decode("utf-8", "replace"))


# --- sync ---

MAIL = {
    "cur/1.a:2,S": b"Subject: one\n\nFrom here on\n>From there\n.\n..\n",
    "cur/2.b:2,": b"Subject: two\n\nno end",
    "new/3.c": b"Subject: three\n\n" + b"x" * 3000 + b"\n",
}
AS_SENT = {"1.a": MAIL["cur/1.a:2,S"], "2.b": MAIL["cur/2.b:2,"] + b"\n", "3.c": MAIL["new/3.c"]}
Sync = Callable[..., Ran]


@pytest.fixture
def box(site: Site, daemon: Daemon) -> Path:
    """alice's Maildir, served by pop3d."""
    return site.maildir("alice", MAIL)


@pytest.fixture
def sync(site: Site, pop3cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sync:
    """`sync(options...)`: into `tmp_path/out`."""
    monkeypatch.setenv("POP3CLI_PASSWORD", "secret")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "remembered"))

    def run(*options: object, to: object = None) -> Ran:
        account = f"pop3s://alice@localhost:{site.port}"
        return pop3cli("sync", account, to or tmp_path / "out", "--cacert", site.certificate, *options)

    return run


def there(box: Path) -> set[str]:
    """The unique-ids of what is on the server."""
    return {path.name.partition(":")[0] for inside in ("new", "cur") for path in (box / inside).iterdir()}
