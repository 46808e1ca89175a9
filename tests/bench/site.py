"""A site that pop3d serves on its own, with users for every trial, and clients that measure it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import argon2

from pop3d.auth.passwords import hashed
from pop3d.net.certificates import create_self_signed
from tests.bench.maildir import text
from tests.site import free_port

IDLE = 5_000  # sessions
BIG = 64 * 1024 * 1024  # octets of each user's first message


@dataclass
class Row:
    promise: str
    what: str
    figure: float
    unit: str
    aim: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.figure >= self.aim if self.at_least else self.figure <= self.aim


@dataclass
class Site:
    """A folder that is served, and the process that serves it."""

    root: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def configure(self, limits: str = "") -> None:
        (self.root / "pop3d.toml").write_text(
            f'hostname = "localhost"\nstate = "{self.root}/state"\n'
            + ('user = "nobody"\ngroup = "nogroup"\n' if os.geteuid() == 0 else "")
            + f'[[listen]]\nhost = "0.0.0.0"\nport = {self.port}\n'
            f'[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
            f'[store]\npath = "mail/{{user}}"\n[limits]\n{limits}\n'
        )

    def start(self, *, descriptors: int | None = None, environment: dict[str, str] | None = None) -> None:
        def limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pop3d", "serve", "--config", self.root / "pop3d.toml"],
                stderr=log,
                preexec_fn=limit,
                env={**os.environ, **(environment or {})},
            )
        until = time.monotonic() + 60  # what was written before is made durable first
        while "listening on" not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


class Session:
    """A client's session; `seconds_of` a command and its first line."""

    def __init__(self, site: Site, user: str = "", password: str = "secret", source: str = "") -> None:
        self.raw = connect(site, source)
        self.sock = CONTEXT.wrap_socket(self.raw, server_hostname="localhost")
        self.buffer = b""
        self.line()
        if user:
            assert self.ask(f"USER {user}").startswith(b"+OK")
            answer = self.ask(f"PASS {password}")
            assert answer.startswith(b"+OK"), answer

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the server went away")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def say(self, command: str) -> None:
        self.sock.sendall(command.encode() + b"\r\n")

    def ask(self, command: str) -> bytes:
        self.say(command)
        return self.line()

    def seconds_of(self, command: str) -> float:
        begun = time.perf_counter()
        self.ask(command)
        return time.perf_counter() - begun

    def download(self, number: int) -> int:
        """Octets of a message, read to its end."""
        assert self.ask(f"RETR {number}").startswith(b"+OK")
        octets, tail = 0, b""
        while not tail.endswith(b"\r\n.\r\n"):
            data = self.buffer or self.sock.recv(262144)
            if not data:
                raise ConnectionError("the server went away")
            self.buffer = b""
            octets += len(data)
            tail = (tail + data)[-5:]
        return octets - 3

    def quit(self) -> None:
        self.ask("QUIT")
        self.sock.close()


def connect(site: Site, source: str = "") -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", site.port), timeout=60, source_address=(source, 0) if source else None
    )


def address(number: int) -> str:
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def p99(seconds: list[float]) -> float:
    """In ms."""
    return sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)] * 1000


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def in_threads(works: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make(root: Path) -> None:
    """Users u0 to u13, a cheap one, and fifty whose passwords are dear; each with a large and a small message."""
    root.chmod(0o755)
    for path in create_self_signed(["localhost"], root):
        path.chmod(0o644)
    # 0.2 to 0.3 s each: ten times what is usual
    dear = "{ARGON2ID}" + argon2.PasswordHasher(time_cost=20, memory_cost=19 * 1024, parallelism=1).hash("secret")
    users = [f"u{number}" for number in range(14)]
    lines = [f"{user}:{{PLAIN}}secret" for user in users]
    lines += [f"idle{number}:{{PLAIN}}secret" for number in range(IDLE)]
    lines += [f"cheap:{hashed('secret')}"] + [f"dear{number}:{dear}" for number in range(50)]
    (root / "users").write_text("\n".join(lines) + "\n")
    (root / "state").mkdir()
    big = root / "big"
    big.write_bytes(text(BIG))
    for user in users:
        for folder in ("tmp", "new", "cur"):
            (root / "mail" / user / folder).mkdir(parents=True)
        os.link(big, root / "mail" / user / "cur" / "1.big:2,")
        (root / "mail" / user / "cur" / "2.small:2,").write_bytes(text(4096))
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "nobody:nogroup", root / "mail", root / "state"], check=True)
