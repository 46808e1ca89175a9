import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user
from pop3d.certificates import create_self_signed


@dataclass
class Site:
    """A folder with certificate, users, Maildirs and a configuration, as an administrator has it."""

    root: Path
    port: int

    @property
    def config(self) -> Path:
        return self.root / "pop3d.toml"

    @property
    def certificate(self) -> Path:
        return self.root / "cert.pem"

    def maildir(self, user: str, messages: dict[str, bytes]) -> Path:
        path = self.root / "mail" / user
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        for name, octets in messages.items():
            (path / name).write_bytes(octets)
        return path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """User "alice" with the password "secret", not started."""
    port = free_port()
    create_self_signed(["localhost", "127.0.0.1"], tmp_path)
    add_user(tmp_path / "users", "alice", "secret", scheme="PLAIN")
    (tmp_path / "pop3d.toml").write_text(f"""
hostname = "localhost"
{'user = "root"' if os.geteuid() == 0 else ""}
[[listen]]
host = "127.0.0.1"
port = {port}
[tls]
certificate = "cert.pem"
private_key = "key.pem"
[auth]
users = "users"
[store]
path = "mail/{{user}}"
""")
    return Site(tmp_path, port)


class Daemon:
    """`pop3d serve` as a process; what it logged is in `log` once it has ended."""

    def __init__(self, site: Site) -> None:
        arguments = [sys.executable, "-m", "pop3d", "serve", "--config", str(site.config)]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        self.log = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if "listening" in line:
                return
        raise AssertionError(f"pop3d did not start: {self.log}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for(self, words: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if words in line:
                return
        raise AssertionError(f"{words!r} was never logged: {self.log}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=20)
        self.log += rest
        return self.process.returncode


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """The site, served."""
    running = Daemon(site)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


@pytest.fixture
def run_pop3d():
    """Runs a pop3d command to its end: `run_pop3d("user", "add", ..., stdin="secret")`."""

    def run(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pop3d", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
        )

    return run
