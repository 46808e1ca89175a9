"""A site made to crash: the daemon, a program that delivers, one that sets flags, clients, and their journals."""

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.site import free_port

USERS = ("alice", "bob", "carol")

CONFIGURATION = """
hostname = "localhost"
{user}
[[listen]]
host = "127.0.0.1"
port = {port}
tls = "none"
[store]
path = "mail/{{user}}"
[log]
level = "error"
"""


@dataclass
class Tally:
    """What was counted."""

    delivered: int = 0
    confirmed: int = 0
    cut_quits: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    renamed: int = 0
    resurrected: int = 0
    locked: int = 0
    worst_login: float = 0.0

    @property
    def faults(self) -> int:
        return self.lost + self.torn + self.doubled + self.renamed + self.resurrected + self.locked

    def __str__(self) -> str:
        return (
            f"delivered {self.delivered}, deleted {self.confirmed}, QUITs cut {self.cut_quits}; lost {self.lost}, "
            f"torn {self.torn}, doubled {self.doubled}, renamed {self.renamed}, resurrected {self.resurrected}, "
            f"locked {self.locked}; worst first login {self.worst_login:.2f} s"
        )


class Gone(Exception):
    """The daemon went away, or never answered."""


class Client:
    """A raw client: what it sends is what is seen."""

    def __init__(self, port: int, user: str) -> None:
        try:
            self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        except OSError:
            raise Gone from None
        self.tail = b""
        try:
            self.line()
            self.ask(f"USER {user}")
            self.ask("PASS secret")
        except BaseException:
            self.close()
            raise

    def line(self) -> bytes:
        while b"\r\n" not in self.tail:
            try:
                data = self.sock.recv(65536)
            except OSError:
                raise Gone from None
            if not data:
                raise Gone
            self.tail += data
        line, _, self.tail = self.tail.partition(b"\r\n")
        return line

    def say(self, command: str) -> None:
        try:
            self.sock.sendall(command.encode() + b"\r\n")
        except OSError:
            raise Gone from None

    def ask(self, command: str) -> bytes:
        self.say(command)
        answer = self.line()
        if not answer.startswith(b"+OK"):
            raise PermissionError(answer.decode())
        return answer

    def lines(self, command: str) -> list[bytes]:
        self.ask(command)
        found = []
        while (line := self.line()) != b".":
            found.append(line[1:] if line.startswith(b"..") else line)
        return found

    def close(self) -> None:
        self.sock.close()


@dataclass
class Box:
    """A user's mailbox as the journals have it: unique-id to digest of the content."""

    path: Path
    there: dict[bytes, bytes] = field(default_factory=dict)
    cut: set[bytes] = field(default_factory=set)  # marked by a QUIT that was never answered
    gone: set[bytes] = field(default_factory=set)  # marked by one that was answered +OK
    lock: threading.Lock = field(default_factory=threading.Lock)


class Crash:
    """One site, from its first round to its account."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tally = Tally()
        self._stack = contextlib.ExitStack()
        self._ending = threading.Event()
        self._quitting = threading.Event()  # a client is about to say QUIT

    def __enter__(self) -> "Crash":
        self.root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pop3d-crash-")))
        self.port = free_port()
        user = 'user = "root"' if os.geteuid() == 0 else ""
        (self.root / "pop3d.toml").write_text(CONFIGURATION.format(port=self.port, user=user))
        (self.root / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in USERS))
        self.boxes = {user: Box(self.root / "mail" / user) for user in USERS}
        for box in self.boxes.values():
            for folder in ("tmp", "new", "cur"):
                (box.path / folder).mkdir(parents=True)
        self._start()
        self._threads = [threading.Thread(target=work) for work in (self._deliver, self._set_flags)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self.process.kill()
        self.process.wait()
        self._stack.close()

    def _start(self) -> None:
        command = [sys.executable, "-m", "pop3d", "serve", "--config", str(self.root / "pop3d.toml")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.01)
        raise AssertionError("pop3d does not start")

    # --- other programs ---

    def _deliver(self) -> None:
        """As an MTA does: write to tmp/, rename into new/. The journal has it before it is there."""
        chance = random.Random(0)
        for number in range(1_000_000):
            if self._ending.is_set():
                return
            box = self.boxes[chance.choice(USERS)]
            text = b"Subject: %d\r\n\r\n" % number + b"%d line\r\n" % number * chance.choice((1, 10, 2000))
            name = f"{1_700_000_000 + number}.M{number}P1.host"
            (box.path / "tmp" / name).write_bytes(text.replace(b"\r\n", b"\n"))
            with box.lock:
                if len(box.there) < 400:
                    box.there[name.encode()] = hashlib.sha256(text).digest()
                    os.rename(box.path / "tmp" / name, box.path / "new" / name)
                    self.tally.delivered += 1
            time.sleep(0.002)

    def _set_flags(self) -> None:
        """As an IMAP server does: move from new/ to cur/, with flags."""
        chance = random.Random(0)
        while not self._ending.wait(0.02):
            box = self.boxes[chance.choice(USERS)]
            names = sorted(path.name for path in (box.path / "new").iterdir())
            for name in names[:2]:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(box.path / "new" / name, box.path / "cur" / f"{name}:2,S")

    # --- clients ---

    def _session(self, user: str, chance: random.Random) -> None:
        """Fetch some, delete some, and quit; or go without a word."""
        box = self.boxes[user]
        client = Client(self.port, user)
        try:
            uids = dict(line.split(b" ") for line in client.lines("UIDL"))
            numbers = chance.sample(sorted(uids), min(len(uids), chance.randrange(1, 30))) if uids else []
            for number in numbers:
                text = b"".join(line + b"\r\n" for line in client.lines(f"RETR {number.decode()}"))
                if hashlib.sha256(text).digest() != box.there.get(uids[number]):
                    self.tally.torn += 1
            for number in numbers:
                client.ask(f"DELE {number.decode()}")
            if chance.random() < 0.2:
                return
            marked = {uids[number] for number in numbers}
            with box.lock:
                box.cut |= marked
            self._quitting.set()
            client.ask("QUIT")
            with box.lock:
                box.cut -= marked
                box.gone |= marked
                for uid in marked:
                    box.there.pop(uid, None)
            self.tally.confirmed += len(marked)
        except Gone:
            if "marked" in locals():
                self.tally.cut_quits += 1
        except PermissionError as refused:
            if "another program" not in str(refused):
                raise
        finally:
            client.close()

    def round(self) -> None:
        """Clients at work, one kill, one start, the first login."""
        chances = [random.Random(self.random.random()) for _ in USERS]
        working = threading.Event()

        def work(user: str, chance: random.Random) -> None:
            while not working.is_set():
                with contextlib.suppress(Gone):
                    self._session(user, chance)

        threads = [threading.Thread(target=work, args=pair) for pair in zip(USERS, chances, strict=True)]
        for thread in threads:
            thread.start()
        time.sleep(self.random.uniform(0.02, 0.4))
        if self.random.random() < 0.7:  # most instants within an UPDATE
            self._quitting.clear()
            self._quitting.wait(1)
            time.sleep(self.random.uniform(0, 0.004))
        self.process.send_signal(signal.SIGKILL)
        working.set()
        self.process.wait()
        for thread in threads:
            thread.join()
        self._start()
        for user in USERS:
            started, expected = time.monotonic(), self._expected(user)
            try:
                client = Client(self.port, user)
            except PermissionError:
                self.tally.locked += 1
                continue
            self.tally.worst_login = max(self.tally.worst_login, time.monotonic() - started)
            self._compare(self.boxes[user], client, expected)
            client.close()

    # --- the account ---

    def _expected(self, user: str) -> set[bytes]:
        """What a session that begins now must list."""
        with self.boxes[user].lock:
            return set(self.boxes[user].there)

    def _compare(self, box: Box, client: Client, expected: set[bytes]) -> None:
        """What is listed against the journals."""
        uids = [line.split(b" ")[1] for line in client.lines("UIDL")]
        listed = set(uids)
        self.tally.doubled += len(uids) - len(listed)
        with box.lock:
            late = set(box.there) - expected  # delivered meanwhile
            self.tally.resurrected += len(listed & box.gone)
            self.tally.renamed += len(listed - expected - late - box.gone)
            missing = expected - listed
            self.tally.lost += len(missing - box.cut)
            for uid in missing & box.cut:  # its QUIT was cut, behind its removal
                del box.there[uid]
            box.gone |= missing & box.cut
            box.cut.clear()

    def account(self) -> None:
        """At the end, nobody at work: every message, read whole."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        for user, box in self.boxes.items():
            expected = self._expected(user)
            client = Client(self.port, user)
            self._compare(box, client, expected)
            for line in client.lines("UIDL"):
                number, uid = line.split(b" ")
                text = b"".join(line + b"\r\n" for line in client.lines(f"RETR {number.decode()}"))
                self.tally.torn += hashlib.sha256(text).digest() != box.there.get(uid)
            client.close()


def crashes(kills: int, seed: int) -> Iterator[Tally]:
    """The tally after each kill, and at the end."""
    with Crash(seed) as crash:
        for _ in range(kills):
            crash.round()
            yield crash.tally
        crash.account()
        yield crash.tally
