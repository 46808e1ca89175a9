"""What pop3d promises of its defence: clients that are too many, too slow, too greedy or hostile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.bench.maildir import cpu_seconds, memory_mib
from tests.bench.site import (
    BIG,
    IDLE,
    Row,
    Session,
    Site,
    address,
    connect,
    descriptors_of,
    in_threads,
    p99,
)


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
    sessions = [Session(site, f"idle{number}", source=address(number % 100)) for number in range(IDLE)]
    time.sleep(2)
    during = memory_mib(site.pid)
    yield Row("", f"memory of {IDLE:,} idle sessions, each", (during - before) * 1024 / IDLE, "KiB", 28)
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
