"""`python -m tests.bench.promises [NAME ...]`: what pop3d promises of service and defence, measured on a real process.

Each line is one promise: what was measured, the figure, and the aim. A figure depends on the machine and on what else
it does; the aims are for two quiet cores. The exit status is 1 when an aim was missed, so that a person looks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import argon2
from rich.console import Console
from rich.table import Table

from pop3d.auth.passwords import hashed
from pop3d.certificates import create_self_signed
from tests.bench.maildir import cpu_seconds, memory_mib, text
from tests.site import free_port

_IDLE = 5_000  # sessions
BIG = 64 * 1024 * 1024


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
        until = time.monotonic() + 20
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


# --- the promises ---


def who_does_not_read(site: Site) -> Iterator[Row]:
    """P13: memory of clients that ask for much and read nothing."""
    site.configure()
    site.start()
    Session(site, "u0").quit()
    before = memory_mib(site.pid)
    sessions = [Session(site, f"u{number}") for number in range(10)]
    for session in sessions:
        for _ in range(50):
            session.say("RETR 1")
    time.sleep(3)
    during = memory_mib(site.pid)
    for session in sessions:
        session.sock.close()
    time.sleep(2)
    after = memory_mib(site.pid)
    yield Row("P13", "ten clients that ask for 3 GiB and do not read", during - before, "MiB", 64)
    yield Row("P13", "the same, each", (during - before) / 10, "MiB", 2)
    yield Row("P13", "kept afterwards", after - before, "MiB", 8)


def the_half_open(site: Site) -> Iterator[Row]:
    """P14: 2,000 connections that never begin a handshake, and as many that never log in."""
    site.configure("unauthenticated = 5000\nhandshake_timeout = 600\nlogin_timeout = 600\n")
    site.start()
    honest = Session(site, "u0")

    def figures() -> tuple[float, float]:
        waits = [honest.seconds_of("NOOP") for _ in range(500)]
        logins = []
        for _ in range(20):
            begun = time.perf_counter()
            Session(site, "u1").quit()
            logins.append(time.perf_counter() - begun)
        return p99(waits), p99(logins)

    before, before_login = figures()
    memory = memory_mib(site.pid)
    sockets = [connect(site, address(number % 100)) for number in range(2000)]
    for sock in sockets:
        sock.sendall(b"\x16\x03\x01")  # a ClientHello begins, and no more of it comes
    time.sleep(2)
    during, during_login = figures()
    each = (memory_mib(site.pid) - memory) * 1024 / len(sockets)
    yield Row("P14", f"NOOP p99 beside 2,000 half-open connections (before: {before:.1f})", during, "ms", 50)
    yield Row("P14", f"session p99 beside them (before: {before_login:.0f})", during_login, "ms", 2 * before_login + 50)
    yield Row("P14", "memory of a half-open connection", each, "KiB", 100)
    for sock in sockets:
        sock.close()
    honest.quit()


def the_idle(site: Site) -> Iterator[Row]:
    """5,000 sessions over TLS that have logged in, each to a mailbox of its own, and then say nothing."""
    site.configure("unauthenticated = 5000\n")
    site.start()
    Session(site, "u0").quit()
    before = memory_mib(site.pid)
    sessions = [Session(site, f"idle{number}", source=address(number % 100)) for number in range(_IDLE)]
    time.sleep(2)
    during = memory_mib(site.pid)
    yield Row("", f"memory of {_IDLE:,} idle sessions, each", (during - before) * 1024 / _IDLE, "KiB", 28)
    yield Row("", "memory of the process with them", during, "MiB", 200)
    waits = [session.seconds_of("NOOP") for session in sessions[::10]]
    yield Row("", "NOOP p99 among them", p99(waits), "ms", 50)
    for session in sessions:
        session.sock.close()


def hogs(site: Site) -> Iterator[Row]:
    """P16: downloads at full speed and NOOP storms beside an honest session."""
    site.configure()
    site.start()
    ended = threading.Event()
    octets = [0] * 6

    def hog(number: int) -> None:
        session = Session(site, f"u{number}")
        while not ended.is_set():
            octets[number] += session.download(1)

    def storm() -> None:
        session = Session(site, "u6")
        while not ended.is_set():
            session.sock.sendall(b"NOOP\r\n" * 200)
            for _ in range(200):
                session.line()

    threads = [threading.Thread(target=hog, args=(n,), daemon=True) for n in range(len(octets))]
    threads.append(threading.Thread(target=storm, daemon=True))
    honest = Session(site, "u7")
    for thread in threads:
        thread.start()
    time.sleep(1)
    waits = []
    until = time.monotonic() + 10
    while time.monotonic() < until:
        waits.append(honest.seconds_of("NOOP"))
        time.sleep(0.005)
    ended.set()
    for thread in threads:
        thread.join()
    yield Row("P16", "NOOP p99 beside six downloads and a NOOP storm", p99(waits), "ms", 200)
    yield Row(
        "P16", "the slowest download, of the mean", min(octets) / (sum(octets) / len(octets)) * 100, "%", 70, True
    )
    honest.quit()


def out_of_descriptors(site: Site) -> Iterator[Row]:
    """P17: more connections than descriptors."""
    site.configure("connections_per_ip = 10000\nunauthenticated_per_ip = 10000\nunauthenticated = 9000\n")
    site.start(descriptors=200)
    old = Session(site, "u0")
    sockets = []
    for number in range(400):
        with contextlib.suppress(OSError):
            sockets.append(connect(site, address(number)))
    time.sleep(1)
    cpu, log = cpu_seconds(site.pid), len(site.log)
    time.sleep(5)
    yield Row("P17", "CPU while connections are refused", (cpu_seconds(site.pid) - cpu) / 5, "cores", 0.02)
    yield Row("P17", "log while connections are refused", (len(site.log) - log) / 5, "B/s", 200)
    yield Row("P17", "an old session's NOOP", old.seconds_of("NOOP") * 1000, "ms", 200)
    for sock in sockets:
        sock.close()
    begun = time.perf_counter()
    while True:
        with contextlib.suppress(OSError):
            Session(site, "u1").quit()
            break
    yield Row("P17", "login again when they are gone", time.perf_counter() - begun, "s", 1)
    old.quit()


def failed_handshakes(site: Site) -> Iterator[Row]:
    """P18: what failed handshakes leave."""
    site.configure()
    site.start()

    def garbage(count: int) -> None:
        for number in range(count):
            with contextlib.suppress(OSError):
                sock = connect(site, address(number))
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n" if number % 2 else b"\x16\x03\x01\x02\x00\x01\x00" + b"x" * 600)
                sock.settimeout(5)
                sock.recv(100)
                sock.close()

    garbage(300)
    time.sleep(1)
    memory, descriptors = memory_mib(site.pid), descriptors_of(site.pid)
    garbage(3000)
    time.sleep(6)
    yield Row("P18", "memory that 3,000 failed handshakes leave", memory_mib(site.pid) - memory, "MiB", 4)
    yield Row("P18", "descriptors that they leave", descriptors_of(site.pid) - descriptors, "", 0)


def orderly_end(site: Site) -> Iterator[Row]:
    """P19: SIGTERM during downloads."""
    site.configure()
    site.start()
    sessions = [Session(site, f"u{number}") for number in range(12)]
    idle = Session(site, "u12")
    whole = [False] * len(sessions)
    begun = threading.Barrier(len(sessions) + 1)

    def download(number: int) -> None:
        session = sessions[number]
        session.say("RETR 1")
        assert session.line().startswith(b"+OK")
        begun.wait()
        tail = session.buffer
        with contextlib.suppress(OSError):
            while data := session.sock.recv(262144):
                tail = (tail + data)[-500:]
        whole[number] = b"\r\n.\r\n" in tail  # behind it, the session is told

    threads = [threading.Thread(target=download, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    begun.wait()
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)
    told = time.perf_counter()
    time.sleep(0.2)
    refused = 0
    with contextlib.suppress(OSError):
        connect(site)
        refused = 1
    farewell = idle.line()
    for thread in threads:
        thread.join()
    site.process.wait(30)
    yield Row("P19", "downloads under way that were finished, of 12", sum(whole), "", 12, True)
    yield Row("P19", "connections let in after SIGTERM", refused, "", 0)
    yield Row("P19", "the idle session is told", float(farewell.startswith(b"-ERR [SYS/TEMP]")), "", 1, True)
    yield Row("P19", "exit status", site.process.returncode, "", 0)
    yield Row("P19", "seconds until the end", time.perf_counter() - told, "s", 10)


def another_certificate(site: Site) -> Iterator[Row]:
    """P20: a new certificate, then bad ones, with logins going on."""
    site.configure()
    site.start()
    old = Session(site, "u0")
    failed, done, ended = [0], [0], threading.Event()

    def logins() -> None:
        while not ended.is_set():
            try:
                Session(site, "u1").quit()
                done[0] += 1
            except (OSError, AssertionError):
                failed[0] += 1

    thread = threading.Thread(target=logins)
    thread.start()
    shown = old.sock.getpeercert(binary_form=True)
    fresh = site.root / "fresh"
    fresh.mkdir()
    create_self_signed(["localhost"], fresh)
    for name in ("cert.pem", "key.pem"):
        (fresh / name).chmod(0o644)
        os.replace(fresh / name, site.root / name)
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    begun = time.perf_counter()
    while True:
        session = Session(site)
        now = session.sock.getpeercert(binary_form=True)
        session.quit()
        if now != shown:
            break
    yield Row("P20", "a new certificate is shown after", time.perf_counter() - begun, "s", 1)
    good = (site.root / "cert.pem").read_bytes()
    kept = 0
    for bad in (b"garbage", b"", good[:200], good.replace(b"A", b"B", 3), b"-----BEGIN CERTIFICATE-----\n"):
        (site.root / "cert.pem").write_bytes(bad)
        site.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        session = Session(site)
        kept += session.sock.getpeercert(binary_form=True) == now
        session.quit()
    ended.set()
    thread.join()
    yield Row("P20", "bad certificates that changed nothing, of 5", kept, "", 5, True)
    yield Row("P20", f"logins that failed meanwhile, of {done[0] + failed[0]}", failed[0], "", 0)
    yield Row("P20", "the old session goes on", float(old.ask("NOOP").startswith(b"+OK")), "", 1, True)


def the_clock(site: Site) -> Iterator[Row]:
    """P21: the wall clock jumps; needs Debian's libfaketime."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        return
    site.configure()
    offset = site.root / "offset"
    offset.write_text("+0")
    offset.chmod(0o644)
    site.start(
        environment={
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )
    old = Session(site, "u0")
    waits, served = [], 0
    jumps = ("+3h", "-3h", "-2", "+1d", "+0")
    for jump in jumps:
        offset.write_text(jump)
        with contextlib.suppress(OSError, AssertionError):
            Session(site, "u1").quit()
            served += 1
        waits += [old.seconds_of("NOOP") for _ in range(50)]
    yield Row("P21", f"clock jumps through which it served, of {len(jumps)}", served, "", len(jumps), True)
    yield Row("P21", "worst NOOP meanwhile", max(waits) * 1000, "ms", 50)


def soak(site: Site) -> Iterator[Row]:
    """P22: a minute of whole sessions, as fast as they go."""
    site.configure()
    site.start()
    ended = threading.Event()
    counts = [0] * 4

    def client(number: int) -> None:
        while not ended.is_set():
            session = Session(site, f"u{8 + number}")
            session.download(2)
            session.ask("UIDL 1")
            session.quit()
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    time.sleep(20)
    memory, descriptors, running = memory_mib(site.pid), descriptors_of(site.pid), threads_of(site.pid)
    time.sleep(60)
    drift = memory_mib(site.pid) - memory
    ended.set()
    for thread in threads:
        thread.join()
    time.sleep(1)
    rate = sum(counts) / 80
    yield Row("P22", f"drift in a minute at {rate:.0f} sessions/s", drift, "MiB", 2)
    yield Row("P22", "more descriptors", max(0, descriptors_of(site.pid) - descriptors), "", 0)
    yield Row("P22", "more threads", max(0, threads_of(site.pid) - running), "", 0)
    yield Row("P22", "errors in the log", site.log.count("ERROR") + site.log.count("Traceback"), "", 0)


def guessing(site: Site) -> Iterator[Row]:
    """P23: passwords guessed from one address and from forty."""
    site.configure()
    site.start()
    Session(site, "u1").quit()

    def guesses(addresses: list[str], connections: int, seconds: float) -> tuple[float, list[float]]:
        until = time.monotonic() + seconds
        before = site.log.count("authentication failed")

        def guesser(source: str) -> None:
            while time.monotonic() < until:
                with contextlib.suppress(OSError, AssertionError):
                    session = Session(site, source=source)
                    session.sock.settimeout(max(0.1, until - time.monotonic()))
                    for _ in range(3):
                        session.ask("USER u0")
                        session.ask("PASS wrong")

        owner: list[float] = []

        def owns() -> None:
            while time.monotonic() < until - 1:
                begun = time.perf_counter()
                Session(site, "u0", source=address(400 + len(owner))).quit()
                owner.append(time.perf_counter() - begun)
                time.sleep(2)

        in_threads([lambda source=source: guesser(source) for source in addresses for _ in range(connections)] + [owns])
        return (site.log.count("authentication failed") - before) / seconds, owner

    one, owner = guesses([address(300)], 20, 30)
    yield Row("P23", "guesses checked, from one address with 20 connections", one, "/s", 1)
    yield Row("P23", "the owner's session meanwhile, the longest", max(owner), "s", 0.5)
    forty, owner = guesses([address(310 + number) for number in range(40)], 4, 30)
    yield Row("P23", "guesses checked, from 40 addresses", forty, "/s", 10)
    yield Row("P23", "the owner's session meanwhile, the longest", max(owner), "s", 0.5)


def hashing(site: Site) -> Iterator[Row]:
    """P24: fifty logins at once whose passwords are hashed slowly, beside a session and a cheap login."""
    site.configure("auth_penalty = 0\n")
    site.start()
    neighbour = Session(site, "u0")
    waits: list[float] = []
    ended = threading.Event()

    def noops() -> None:
        while not ended.is_set():
            waits.append(neighbour.seconds_of("NOOP"))
            time.sleep(0.005)

    thread = threading.Thread(target=noops)
    thread.start()
    dear = [Session(site, source=address(number % 5)) for number in range(50)]
    for number, session in enumerate(dear):
        session.ask(f"USER dear{number}")
    for session in dear:
        session.say("PASS secret")
    time.sleep(0.3)
    begun = time.perf_counter()
    Session(site, "cheap", source=address(50)).quit()
    cheap = time.perf_counter() - begun
    for session in dear:
        assert session.line().startswith(b"+OK")
    ended.set()
    thread.join()
    yield Row("P24", "NOOP p99 beside 50 slow logins", p99(waits), "ms", 10)
    yield Row("P24", "the longest NOOP", max(waits) * 1000, "ms", 50)
    yield Row("P24", "a cheap login from elsewhere", cheap, "s", 1)


def strangers(site: Site) -> Iterator[Row]:
    """P25: users that exist and users that do not, by time and text."""
    site.configure("auth_penalty = 0.3\nauth_penalty_max = 0.3\nauth_failures_per_account = 10000\n")
    site.start()
    times: dict[str, list[float]] = {"cheap": [], "nobody": []}
    texts = set()
    for number in range(20):
        for user, found in times.items():
            session = Session(site, source=address(number * 2 + (user == "cheap")))
            session.ask(f"USER {user}")
            begun = time.perf_counter()
            texts.add(session.ask("PASS wrong"))
            found.append(time.perf_counter() - begun)
            session.quit()
    medians = [sorted(found)[len(found) // 2] for found in times.values()]
    yield Row("P25", "refusals: difference of known and unknown users", abs(medians[0] - medians[1]) * 1000, "ms", 10)
    yield Row("P25", "texts of refusals", len(texts), "", 1)


def nonsense(site: Site) -> Iterator[Row]:
    """P28: a line without an end, before login."""
    site.configure()
    site.start()
    session = Session(site)
    memory, taken = memory_mib(site.pid), 0
    session.sock.settimeout(5)
    with contextlib.suppress(OSError):
        while taken < BIG:
            session.sock.sendall(b"x" * 4096)
            taken += 4096
    yield Row(
        "P28", "octets of an endless line before the cut, those in the kernel included", taken / 1024, "KiB", 4096
    )
    yield Row("P28", "memory that it took", memory_mib(site.pid) - memory, "MiB", 1)


def privileges(site: Site) -> Iterator[Row]:
    """P31: what the process may still do."""
    if os.geteuid() != 0:
        return
    site.configure()
    site.start()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{site.pid}/status").read_text().splitlines() if "\t" in line
    )
    roots = sum(uid == "0" for uid in status["Uid"].split())
    capabilities = sum(int(status[name], 16).bit_count() for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
    yield Row("P31", "user ids of root that it has", roots, "", 0)
    yield Row("P31", "capabilities that it has", capabilities, "", 0)
    yield Row("P31", "no new privileges", float(status["NoNewPrivs"].strip()), "", 1, True)


PROMISES: dict[str, Callable[[Site], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        who_does_not_read, the_half_open, the_idle, hogs, out_of_descriptors, failed_handshakes, orderly_end,
        another_certificate, the_clock, soak, guessing, hashing, strangers, nonsense, privileges,
    )
}  # fmt: skip


def make(root: Path) -> None:
    """Users u0 to u13, a cheap one, and fifty whose passwords are dear; each with a large and a small message."""
    root.chmod(0o755)
    for path in create_self_signed(["localhost"], root):
        path.chmod(0o644)
    # 0.2 to 0.3 s each: ten times what is usual
    dear = "{ARGON2ID}" + argon2.PasswordHasher(time_cost=20, memory_cost=19 * 1024, parallelism=1).hash("secret")
    users = [f"u{number}" for number in range(14)]
    lines = [f"{user}:{{PLAIN}}secret" for user in users]
    lines += [f"idle{number}:{{PLAIN}}secret" for number in range(_IDLE)]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or some of: {', '.join(PROMISES)}")
    names = parser.parse_args().names or list(PROMISES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    console = Console()
    table = Table("promise", "what", "figure", "aim", "")
    missed = False
    for name in names:
        console.print(name, style="dim")
        with tempfile.TemporaryDirectory(prefix="pop3d-promises-") as folder:
            site = Site(Path(folder))
            make(site.root)
            try:
                for row in PROMISES[name](site):
                    missed |= not row.met
                    sign = "≥" if row.at_least else "≤"
                    table.add_row(
                        row.promise, row.what, f"{row.figure:.4g} {row.unit}", f"{sign} {row.aim:.4g} {row.unit}",
                        "" if row.met else "[red]missed[/]",
                    )  # fmt: skip
            finally:
                site.stop()
    console.print(table)
    sys.exit(missed)


if __name__ == "__main__":
    main()
