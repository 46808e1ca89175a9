"""A site that pop3d serves, and pop3d as a process."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def site_configuration(port: int) -> str:
    """`pop3d.toml` of a `Site`: TLS, users in a file, Maildirs; more tables may follow it."""
    return f"""
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
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def without_pyopenssl(folder: Path) -> dict[str, str]:
    """An environment in which a Python finds no module OpenSSL."""
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['OpenSSL'] = None")
    return {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


class Daemon:
    """`pop3d serve` as a process; what it logged is in `log` once it has ended."""

    def __init__(self, site: Site, prefix: Sequence[str] = (), wait_for: str = "listening on", **options: Any) -> None:
        """``prefix``: a command that runs the rest of its command line; ``options``: of `subprocess.Popen`."""
        arguments = [*prefix, sys.executable, "-m", "pop3d", "serve", "--config", str(site.config)]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, **options)
        self.log = ""
        self.wait_for(wait_for)

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


@contextmanager
def served(site: Site) -> Iterator[Daemon]:
    """pop3d, that is to end well."""
    daemon = Daemon(site)
    try:
        yield daemon
    finally:
        assert daemon.end() == 0
