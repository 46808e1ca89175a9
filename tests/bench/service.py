"""What pop3d promises of its service: its end, its certificate, the clock, a long run, its privileges."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pop3d.net.certificates import create_self_signed
from tests.bench.maildir import memory_mib
from tests.bench.site import (
    Row,
    Session,
    Site,
    connect,
    descriptors_of,
    threads_of,
)


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
