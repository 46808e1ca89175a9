"""How long a client that has vanished keeps its mailbox locked: `python -m tests.interop.lost_client`, as root.

`pop3d serve` is in one network namespace, its clients in another. Then an address of theirs is taken away: no FIN, no
RST, no answer, as of a phone without network. With the default limits it takes some two minutes, and prints seconds.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.maildirs import make_maildir
from tests.site import Daemon, Site

SERVER, VANISHING, STAYING = "10.99.0.1", "10.99.0.2", "10.99.0.3"
PORT, PROXIED_PORT = 8110, 8111
SMALL = b"Subject: small\n\n" + (b"x" * 75 + b"\n") * 600  # 45 KB: more than the client takes, and it is sent at once
LARGE = b"Subject: large\n\n" + (b"x" * 75 + b"\n") * 4000  # more than the client takes, who stops
# version 2, a client at 192.0.2.1, which spoke TLS
PROXY = (
    b"\r\n\r\n\0\r\nQUIT\n"
    + b"\x21\x11\0\x14"
    + bytes((192, 0, 2, 1, 10, 99, 0, 1, 4, 87, 0, 110))
    + b"\x20\0\5\1\0\0\0\0"
)
LOST = {
    "silent": "one that said nothing",
    "proxied": "a proxy that said nothing",
    "unread": "one that left a reply in the system's buffers",
    "reading": "one that took nothing of a large one",
}
KEPT = {"idle": "one that lives and says nothing", "slow": "one that lives and takes nothing, nearly as long as it may"}


class Refused(Exception):
    """There are no namespaces here."""


@dataclass(frozen=True)
class Outcome:
    """``seconds``: until each lost client's lock was free. ``kept``: what those who live could do afterwards."""

    seconds: dict[str, float]
    kept: dict[str, str]
    log: str


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"`ip {' '.join(arguments)}` is refused here: {done.stderr.strip()}")


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """The server's and the clients'. Raises `Refused`."""
    if shutil.which("ip") is None:
        raise Refused("ip is missing; install iproute2")
    if os.geteuid() != 0:
        raise Refused("network namespaces need root")
    ours, theirs = f"pop-l-{os.getpid()}", f"pop-m-{os.getpid()}"
    try:
        ip("netns", "add", ours)
        ip("netns", "add", theirs)
        ip("link", "add", "veth0", "netns", ours, "type", "veth", "peer", "name", "veth0", "netns", theirs)
        ip("-n", ours, "addr", "add", f"{SERVER}/24", "dev", "veth0")
        for address in (STAYING, VANISHING):  # with the first, the system takes the others away
            ip("-n", theirs, "addr", "add", f"{address}/24", "dev", "veth0")
        for name in (ours, theirs):
            ip("-n", name, "link", "set", "veth0", "up")
        yield ours, theirs
    finally:
        for name in (ours, theirs):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def measured(folder: Path, limits: str, pause: float, patience: float) -> Outcome:
    """``limits``: lines of that table. ``pause``: seconds for which the slow reader takes nothing. Raises `Refused`."""
    site = Site(folder, PORT)
    users = [*LOST, *KEPT]
    (folder / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in users))
    listen = '[[listen]]\nhost = "*"\ntls = "none"\ninsecure = true\n'
    site.config.write_text(
        f'hostname = "localhost"\nuser = "root"\n{listen}port = {PORT}\n{listen}port = {PROXIED_PORT}\n'
        f'proxy_protocol = true\ntrusted_proxies = ["{VANISHING}"]\n'
        f'[auth]\nusers = "users"\n[store]\npath = "mail/{{user}}"\n[limits]\n{limits}'
    )
    boxes = {
        user: make_maildir(folder / "mail" / user, {"new/1.host": SMALL if user == "unread" else LARGE})
        for user in users
    }
    with namespaces() as (ours, theirs):
        daemon = Daemon(site, ["ip", "netns", "exec", ours])
        command = [
            "ip",
            "netns",
            "exec",
            theirs,
            sys.executable,
            "-m",
            "tests.interop.lost_client",
            "clients",
            str(pause),
        ]
        clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert clients.stdin is not None and clients.stdout is not None
            assert clients.stdout.readline() == "all are in\n"
            ip("-n", theirs, "addr", "del", f"{VANISHING}/24", "dev", "veth0")
            seconds = until_free({user: boxes[user] for user in LOST}, patience)
            clients.stdin.write("go on\n")
            clients.stdin.flush()
            kept = json.loads(clients.stdout.readline())
        finally:
            clients.kill()
            clients.communicate()
            status = daemon.end(signal.SIGTERM)
    assert status == 0, daemon.log
    return Outcome(seconds, kept, daemon.log)


def until_free(boxes: dict[str, Path], patience: float) -> dict[str, float]:
    began, seconds = time.monotonic(), {}
    while len(seconds) < len(boxes) and time.monotonic() < began + patience:
        for user, box in boxes.items():
            if user not in seconds and is_free(box):
                seconds[user] = time.monotonic() - began
        time.sleep(0.1)
    return seconds


def is_free(box: Path) -> bool:
    descriptor = os.open(box, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


class Client:
    """One that is logged in, in clear text."""

    def __init__(self, user: str, source: str, port: int = PORT, before: bytes = b"") -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # so that it fills soon
        self.sock.bind((source, 0))
        self.sock.settimeout(10)
        self.sock.connect((SERVER, port))
        self.file = self.sock.makefile("rb")
        self.sock.sendall(before)
        self.file.readline()
        for command in (f"USER {user}", "PASS secret"):
            self.say(command)
            assert self.file.readline().startswith(b"+OK"), user

    def say(self, command: str) -> None:
        self.sock.sendall(f"{command}\r\n".encode())

    def rest(self) -> str:
        """The end of the reply under way, as far as it comes."""
        octets = b""
        with contextlib.suppress(OSError):
            while not octets.endswith(b"\r\n.\r\n") and (data := self.sock.recv(1 << 16)):
                octets += data
        return "whole" if octets.endswith(b"\r\n.\r\n") else f"{len(octets)} octets"

    def told(self) -> str:
        try:
            return self.file.readline().decode().strip()
        except OSError as fault:
            return str(fault)


def clients(pause: float) -> None:
    """In their namespace: log in, and wait to be told to go on."""
    _silent = Client("silent", VANISHING)
    _proxied = Client("proxied", VANISHING, PROXIED_PORT, PROXY)
    reading, idle, slow = Client("reading", VANISHING), Client("idle", STAYING), Client("slow", STAYING)
    unread = Client("unread", VANISHING)
    for one in (unread, reading, slow):
        one.say("RETR 1")
    time.sleep(0.3)  # their windows fill
    print("all are in", flush=True)
    time.sleep(pause)
    kept = {"slow": slow.rest()}
    sys.stdin.readline()
    idle.say("NOOP")
    print(json.dumps({**kept, "idle": idle.told()}), flush=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = measured(Path(folder), "", 50.0, 200.0)
        except Refused as fault:
            print(fault, file=sys.stderr)
            return 77
    for user, what in LOST.items():
        took = outcome.seconds.get(user)
        print(f"lock free after {took:5.1f} s: {what}" if took is not None else f"lock not free: {what}")
    for user, what in KEPT.items():
        print(f"afterwards {outcome.kept[user]!r}: {what}")
    return 0 if all(outcome.seconds.get(user, 999.0) <= 120 for user in LOST) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        clients(float(sys.argv[2]))
    else:
        sys.exit(main())
