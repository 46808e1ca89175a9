"""A real daemon in this process, on an event loop that measures the CPU of each of its turns.

It listens three times on loopback: in clear text, behind TLS, and behind a PROXY header. Mailboxes: ``alice`` has a
Maildir with messages made to cost much, and many small ones; ``million`` has as many as a session may see. Limits that
would end an attack early (failed logins, throttle) are out of the way; those of a connection hold.
"""

import asyncio
import contextlib
import gc
import json
import logging
import select
import socket
import ssl
import threading
import time
from array import array
from collections.abc import Collection
from pathlib import Path

from pop3core.answers import Content
from pop3core.maildrop import Listing, PackedOctets
from pop3d.auth import Account
from pop3d.auth.oauth import oauth_tokens
from pop3d.auth.users_file import UsersFile
from pop3d.config import Config
from pop3d.config.users import OAuth
from pop3d.net.certificates import create_self_signed
from pop3d.net.tls import server_tls
from pop3d.server import Server
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirStore
from tests.issuer import AUDIENCE, NAME, key_set

PLAIN, TLS, PROXIED = range(3)
"""The listeners."""

COSTLY = (
    b"\n" * 65_000,  # nothing but lines
    b".\n" * 30_000,  # each of them to be stuffed
    b"X: y\n" * 13_000,  # a small message, all header
    b"X: y\n" * 400_000,  # the same, large
    b"\n" + b"\n" * 500_000,
    b"Subject: a\n\nb\n",
)
_SECONDS = 10  # for one attack; what takes longer has had many turns by then


class MeteredLoop(asyncio.SelectorEventLoop):
    """``longest``: seconds of the thread's CPU in one turn, since it was set to 0."""

    longest = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest = max(self.longest, time.thread_time() - began)


class _Drop:
    """A million messages of which nothing is stored."""

    def __init__(self, listing: Listing) -> None:
        self.messages = listing

    def read_now(self, number: int, offset: int) -> Content:
        return Content(b"", last=True)

    async def read(self, number: int, offset: int) -> Content:
        return self.read_now(number, offset)

    async def remove(self, numbers: Collection[int]) -> None:
        await asyncio.to_thread(list, numbers)

    async def close(self) -> None:
        pass


class _Stores:
    def __init__(self, maildirs: MaildirStore, messages: int) -> None:
        self._maildirs = maildirs
        uids = PackedOctets(b"1700000000.M%06dP1234.mail" % number for number in range(messages))
        self._million = Listing(array("Q", bytes(8 * messages)), uids)

    async def open(self, account: Account, *, utf8: bool) -> "_Drop | MaildirMaildrop":
        if account.name == "million":
            return _Drop(self._million)
        return await self._maildirs.open(account, utf8=utf8)


class Measured:
    """The daemon. ``folder``: for its files; ``messages``: small ones of alice's, and of the other, in all."""

    def __init__(self, folder: Path, messages: int, million: int) -> None:
        self._folder = folder
        mail = folder / "mail/alice"
        for name in ("new", "cur", "tmp"):
            (mail / name).mkdir(parents=True)
        for number, text in enumerate((*COSTLY, *[b"x\n"] * messages)):
            (mail / "new" / f"17{number:08}.M1P1.host").write_bytes(text)
        self.messages = {"alice": len(COSTLY) + messages, "million": million}
        (folder / "users").write_text("alice:{PLAIN}secret\nmillion:{PLAIN}secret\n")
        (folder / "keys").write_text(json.dumps(key_set()))
        logging.getLogger("pop3d").handlers = [logging.NullHandler()]  # a thread shapes the lines of a daemon
        logging.getLogger("pop3d").propagate = False
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        self.loop = MeteredLoop()
        self._started = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ports: list[int] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    def __enter__(self) -> "Measured":
        self._thread.start()
        if not self._started.wait(60):
            raise RuntimeError("the daemon did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(60)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        folder = self._folder
        certificate, private_key = create_self_signed(["localhost"], folder)
        oauth = {"issuer": NAME, "audience": AUDIENCE, "jwks": str(folder / "keys")}
        proxied = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
        local = {"host": "127.0.0.1", "port": 0}
        config = Config.model_validate(
            {
                "hostname": "localhost",
                "state": folder / "state",
                "listen": [{**local, "tls": "none"}, local, {**local, "tls": "none", **proxied}],
                "tls": {"certificate": certificate, "private_key": private_key},
                "auth": {
                    "users": folder / "users",
                    "mechanisms": ["plain", "login", "apop", "scram-sha-256", "oauthbearer", "xoauth2"],
                    "oauth": oauth,
                },
                "limits": {
                    "auth_penalty": 0,
                    "auth_failures_per_account": 1_000_000,
                    "auth_failures_total": 1_000_000,
                },
            }
        )
        users = oauth_tokens(OAuth.model_validate(oauth), UsersFile(folder / "users"))
        maildirs = MaildirStore(str(folder / "mail/{user}"), folder / "state")
        stores = _Stores(maildirs, self.messages["million"])
        server = Server(config, users, stores, server_tls(certificate, private_key))
        await server.start()
        self._ports = [port for _, port in server.addresses]
        gc.collect()
        gc.freeze()  # as `pop3d serve` does
        self._started.set()
        await self._ended.wait()
        await server.drain(1)

    def longest(self, listener: int, said: bytes) -> float:
        """Seconds of the longest turn while one client says ``said`` and takes all answers; without TLS handshakes."""
        sock = socket.create_connection(("127.0.0.1", self._ports[listener]), _SECONDS)
        with self._context.wrap_socket(sock) if listener == TLS else sock as sock:
            if listener != PROXIED:
                sock.recv(4096)  # the greeting: the handshake is over
            self._settle()
            self.loop.longest = 0.0
            with contextlib.suppress(OSError):  # it may be cut off while it speaks
                _duplex(sock, said)
        self._settle()
        return self.loop.longest

    def _settle(self) -> None:
        """Until what is under way has come to an end: a session that is closed frees what it held."""
        for _ in range(5):
            turned = threading.Event()
            self.loop.call_soon_threadsafe(turned.set)
            turned.wait(_SECONDS)


def _duplex(sock: socket.socket, said: bytes) -> None:
    """Say all and take all, in whatever order the server wants it."""
    deadline = time.monotonic() + _SECONDS
    rest = memoryview(said)
    sock.setblocking(False)
    while time.monotonic() < deadline:
        select.select([sock], [sock] if rest else [], [], 1)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if rest:
                rest = rest[sock.send(rest[:65536]) :]
                if not rest:
                    sock.shutdown(socket.SHUT_WR)  # behind TLS what still comes is taken as it is
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while sock.recv(262144):
                pass
            return
