"""`python -m tests.bench.growth`: how what pop3d needs grows with mailboxes, with sessions and with messages.

Three curves, each of a pop3d of its own: messages of a mailbox (CPU of the first opening, of the next, of LIST and
UIDL; memory), sessions that are logged in and silent (CPU of their logins, of a NOOP in each, memory, CPU of a second
in which nothing happens), and octets of a message (CPU of a RETR, the most memory ever). A slope is that of a line
through the logarithms: 1 is linear; *at the end* it is that of the last two. The exit status is 1 when one is steeper
than 1.1, or when memory grows with a message's size.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.beside import machine, shown
from tests.bench.load import Client, Clients
from tests.bench.servers import ENCODED, Running, Site, message, on_the_wire

STEEPEST = 1.1
FLAT = 0.1
"""The slope of what does not grow. What it is made of, an interpreter's memory, is never quite the same twice."""

NOISE = 0.5  # MiB that come and go in a process that does nothing new
LITTLE = 2_000  # messages or sessions that are made of files of their own; others are links to these
SILENCE = 5.0  # seconds
ENOUGH = 64 << 20  # octets that are retrieved of each size

Point = dict[str, float]


@dataclass(frozen=True)
class Growth:
    """``units``: of each curve; ``steepest``: where it is not `STEEPEST`."""

    axis: str
    sizes: tuple[int, ...]
    units: dict[str, str]
    points: Callable[[Site, list[int]], Iterator[Point]]
    steepest: dict[str, float]


def cpu(server: Running, work: Callable[[], object]) -> float:
    """In seconds."""
    before = server.meter.settled()
    work()
    return server.meter.settled() - before


def linked(site: Site, count: int, octets: int) -> list[Path]:
    made = site.messages(min(count, LITTLE), lambda number: message(number, octets))
    return [made[number % len(made)] for number in range(count)]


def look(clients: Clients, size: int) -> Client:
    """A client that has opened the large mailbox."""
    client = clients.login("many")
    assert client.stat()[0] == size
    return client


def messages(site: Site, sizes: list[int]) -> Iterator[Point]:
    """A mailbox of so many messages of 1 KiB."""
    for size in sizes:
        site.maildir("many", linked(site, size, 1024))
        site.forget()
        with site.pop3d() as server:
            clients, kib = Clients(site, server), server.kib()
            point: Point = {}
            point["first opening"] = cpu(server, lambda clients=clients, size=size: look(clients, size).quit())
            opened: list[Client] = []
            point["next opening"] = cpu(
                server, lambda clients=clients, size=size, opened=opened: opened.append(look(clients, size))
            )
            (client,) = opened
            for what in ("LIST", "UIDL"):
                got: list[bytes] = []
                point[what] = cpu(server, lambda client=client, what=what, got=got: got.extend(client.replies([what])))
                assert got[0].count(b"\r\n") == size
            point["memory"] = max(NOISE, (server.kib() - kib) / 1024)
            client.quit()
            yield point


def sessions(site: Site, sizes: list[int]) -> Iterator[Point]:
    """So many sessions, each of its own mailbox of one message."""
    (one,) = site.messages(1, lambda number: message(number, 1024))
    for user in range(max(sizes)):
        site.maildir(f"u{user}", [one])
    for size in sizes:
        with site.pop3d() as server:
            clients, open_ = Clients(site, server), []
            clients.alone(lambda clients, _: clients.login("u0").quit())
            kib = server.kib()
            point = {
                "logins": cpu(
                    server,
                    lambda clients=clients, open_=open_, size=size: clients.together(
                        size, lambda clients, number: open_.append(clients.login(f"u{number}")), 10
                    ),
                )
            }
            time.sleep(1)
            point["memory"] = max(NOISE, (server.kib() - kib) / 1024)
            point["a NOOP in each"] = cpu(server, lambda open_=open_: [session.ask("NOOP") for session in open_])
            before = server.meter.settled()
            time.sleep(SILENCE)
            point["a second of silence"] = (server.meter.seconds() - before) / SILENCE
            for session in open_:
                session.sock.close()
            server.meter.settled()
            yield point


def octets(site: Site, sizes: list[int]) -> Iterator[Point]:
    """A message of so many octets, retrieved again and again."""
    for size in sizes:
        files = site.messages(1, lambda number, size=size: message(number, size, ENCODED))
        wire = on_the_wire(files[0].read_bytes())
        times = min(LITTLE, math.ceil(ENOUGH / size))
        site.maildir("reader", files)
        with site.pop3d() as server:
            clients = Clients(site, server)
            client = clients.login("reader")
            assert list(client.replies(["RETR 1"])) == [wire]

            def retrieve(client: Client = client, wire: bytes = wire, times: int = times) -> None:
                assert all(got == wire for got in client.replies("RETR 1" for _ in range(times)))

            used = cpu(server, retrieve)
            status = Path(f"/proc/{server.pid}/status").read_text()
            yield {"RETR": used / times, "most memory": int(status.partition("VmHWM:")[2].split()[0]) / 1024}
            client.quit()


GROWTHS = {
    "messages": Growth(
        "messages of a mailbox",
        (1_000, 10_000, 100_000, 1_000_000),
        {"first opening": "s", "next opening": "s", "LIST": "s", "UIDL": "s", "memory": "MiB"},
        messages,
        {},
    ),
    "sessions": Growth(
        "sessions",
        (10, 100, 1_000, 10_000),
        {"logins": "s", "a NOOP in each": "s", "a second of silence": "s", "memory": "MiB"},
        sessions,
        {},
    ),
    "octets": Growth(
        "octets of a message",
        (1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20, 100 << 20),
        {"RETR": "s", "most memory": "MiB"},
        octets,
        {"most memory": FLAT},
    ),
}


def affordable(name: str, sizes: list[int]) -> list[int]:
    """Those that can be had: pop3d lets in as many sessions as there are open files for, three for each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = (hard - 100) // 3 if name == "sessions" and hard != resource.RLIM_INFINITY else max(sizes)
    if most < max(sizes):
        Console(stderr=True).print(f"{max(sizes):,} sessions need a limit on open files of {3 * max(sizes) + 100:,}")
    return sorted({min(size, most) for size in sizes})


def slope(sizes: list[int], figures: list[float]) -> float:
    """Of a line through the logarithms. What is nothing counts as next to nothing."""
    logs = [math.log(max(figure, 1e-6)) for figure in figures]
    return statistics.linear_regression([math.log(size) for size in sizes], logs).slope


def curves(growth: Growth, sizes: list[int], points: list[Point]) -> dict[str, Any]:
    """For the JSON: of each curve its figures, its slope, and whether that is too steep."""
    found = {}
    for name, unit in growth.units.items():
        figures = [point[name] for point in points]
        steepest = growth.steepest.get(name, STEEPEST)
        steep = slope(sizes, figures)
        tail = slope(sizes[-2:], figures[-2:]) if len(sizes) > 1 else steep
        found[name] = {"unit": unit, "figures": figures, "slope": steep, "tail": tail, "steepest": steepest}
    return {"axis": growth.axis, "sizes": sizes, "curves": found}


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--only", choices=[*GROWTHS], help="one of them")
    parser.add_argument("--out", type=Path, help="write JSON here; what is there and not measured stays")
    options = parser.parse_args(arguments)
    measured = {}
    for name in [options.only] if options.only else GROWTHS:
        growth = GROWTHS[name]
        sizes = sorted({max(10, round(size * options.scale)) for size in growth.sizes})
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            site = Site(Path(folder))
            sizes = affordable(name, sizes)
            measured[name] = curves(growth, sizes, list(growth.points(site, sizes)))
        if options.out is not None:
            kept = json.loads(options.out.read_text())["growth"] if options.out.exists() else {}
            told = {name: (kept | measured)[name] for name in GROWTHS if name in kept | measured}
            about = {"machine": machine(uvloop=False), "scale": options.scale}
            options.out.write_text(json.dumps({**about, "growth": told}, indent=1) + "\n")
    steep = 0
    for one in measured.values():
        table = Table(one["axis"], *[f"{size:,}" for size in one["sizes"]], "slope", "at the end", "at most")
        for name, curve in one["curves"].items():
            figures = [shown(figure) for figure in curve["figures"]]
            steep += curve["slope"] > curve["steepest"]
            table.add_row(
                f"{name}, {curve['unit']}",
                *figures,
                f"{curve['slope']:.2f}",
                f"{curve['tail']:.2f}",
                f"{curve['steepest']:g}",
            )
        Console().print(table)
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
