"""`pop3d who`, `status` and `kick` with many sessions: how long each takes, and what others notice of it.

    .venv/bin/python -m tests.bench.control [--sessions 1000] [--keep]

A daemon of its own serves real connections over loopback, each of a user of its own. While each command runs, one more
client says NOOP and takes the time. ``--keep``: the sessions stay until Return, to look at them by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.site import Daemon, Site, free_port


@dataclass(frozen=True)
class Run:
    """A command: its seconds, what it printed, and the longest NOOP beside it, in seconds."""

    status: int
    seconds: float
    output: str
    longest_noop: float


def crowded_site(folder: Path, users: int) -> Site:
    """In clear text, on loopback, with users who have no mail."""
    port = free_port()
    user = 'user = "root"\n' if os.geteuid() == 0 else ""
    (folder / "pop3d.toml").write_text(
        f'{user}[[listen]]\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        "[limits]\nconnections_per_ip = 1000000\nunauthenticated_per_ip = 1000000\nunauthenticated = 1000000\n"
    )
    (folder / "users").write_text("".join(f"user{number:05}@example.org:{{PLAIN}}secret\n" for number in range(users)))
    (folder / "mail").mkdir()
    return Site(folder, port)


def logged_in(port: int, number: int) -> socket.socket:
    """A connection in the TRANSACTION state."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.sendall(b"USER user%05d@example.org\r\nPASS secret\r\n" % number)
    got = b""
    while got.count(b"+OK") < 3:
        got += (received := sock.recv(4096))
        assert received, got
    return sock


@contextlib.contextmanager
def crowd(port: int, sessions: int) -> Iterator[Sequence[socket.socket]]:
    """So many sessions."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(logged_in(port, number)) for number in range(sessions)]


def run(site: Site, other: socket.socket, *words: str) -> Run:
    """A command of pop3d, and a client beside it."""
    longest, ended = 0.0, threading.Event()

    def say_noop() -> None:
        nonlocal longest
        while not ended.is_set():
            began = time.perf_counter()
            other.sendall(b"NOOP\r\n")
            other.recv(100)
            longest = max(longest, time.perf_counter() - began)
            time.sleep(0.001)

    beside = threading.Thread(target=say_noop)
    beside.start()
    began = time.perf_counter()
    command = [sys.executable, "-m", "pop3d", *words, "--config", str(site.config)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        ended.set()
        beside.join()
    return Run(done.returncode, time.perf_counter() - began, done.stdout + done.stderr, longest)


def main() -> None:
    """Show the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--keep", action="store_true")
    wanted = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        site = crowded_site(Path(folder), wanted.sessions + 1)
        daemon = Daemon(site)
        try:
            with crowd(site.port, wanted.sessions), logged_in(site.port, wanted.sessions) as other:
                if wanted.keep:
                    input(f"{wanted.sessions + 1} sessions; --config {site.config}; Return ends it ")
                for words in (("who",), ("who", "--json"), ("status",), ("kick", "user00007@example.org")):
                    found = run(site, other, *words)
                    lines = found.output.count("\n")
                    print(
                        f"pop3d {' '.join(words)}: {found.seconds:.2f} s, {lines} lines, exit code {found.status}; "
                        f"longest NOOP beside it {found.longest_noop * 1000:.1f} ms"
                    )
        finally:
            daemon.end()


if __name__ == "__main__":
    main()
