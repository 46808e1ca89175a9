"""`python -m tests.bench.lmtp`: deliveries by LMTP, of pop3d beside Dovecot, into the same Maildirs of one file system.

Both sync each message before they answer: Dovecot with ``mail_fsync = optimized``, its default, and otherwise tuned for
speed. Dovecot runs a process for each connection, pop3d one with threads. CPU is that of all processes of a server, for
one delivery; ratios are of the same round, and all figures are medians. After a round that warms up, the servers take
turns. Root and Debian's dovecot-lmtpd are needed.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.beside import machine
from tests.bench.servers import Running, Site, message, on
from tests.interop import dovecot
from tests.site import free_port

USERS = [f"user{number}@example.org" for number in range(20)]
WORKLOADS = [(4, 1), (4, 10), (100, 1), (100, 10)]  # KiB of a message, connections
MESSAGES = {4: 600, 100: 200}  # for one round

POP3D = """
[[listen]]
protocol = "lmtp"
host = "127.0.0.1"
port = {port}
"""
DOVECOT = """
protocols = pop3 lmtp
mail_fsync = optimized
postmaster_address = postmaster@example.org
service lmtp {{
  process_min_avail = 10
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


def missing() -> str | None:
    """Why there is no Dovecot to measure; None when there is."""
    if not Path("/usr/lib/dovecot/lmtp").exists():
        return "Dovecot's LMTP is not installed (Debian: apt install dovecot-lmtpd)"
    return dovecot.missing()


@dataclass
class Figures:
    """Of one round: deliveries in a second, and milliseconds of CPU for one."""

    rate: float
    cpu: float


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.said(b"220")
        self.socket.sendall(b"LHLO client.example.org\r\n")
        while self.said(b"250")[3:4] == b"-":
            pass

    def said(self, code: bytes) -> bytes:
        line = self.file.readline()
        assert line.startswith(code), line
        return line

    def deliver(self, user: str, content: bytes) -> None:
        self.socket.sendall(b"MAIL FROM:<bob@example.net>\r\nRCPT TO:<%b>\r\nDATA\r\n" % user.encode())
        for code in (b"250", b"250", b"354"):
            self.said(code)
        self.socket.sendall(content)
        self.said(b"250")

    def close(self) -> None:
        self.socket.sendall(b"QUIT\r\n")
        self.said(b"221")
        self.file.close()
        self.socket.close()


def measured(running: Running, port: int, kib: int, connections: int, messages: int) -> Figures:
    """Deliver so many messages, over so many connections at once."""
    contents = [message(number, kib * 1024).replace(b"\n", b"\r\n") for number in range(20)]
    contents = [content.replace(b"\r\n.", b"\r\n..") + b".\r\n" for content in contents]
    clients = [Client(port) for _ in range(connections)]
    faults: list[BaseException] = []

    def work(client: Client, numbers: range) -> None:
        try:
            for number in numbers:
                client.deliver(USERS[number % len(USERS)], contents[number % len(contents)])
        except BaseException as fault:
            faults.append(fault)

    threads = [
        threading.Thread(target=work, args=(client, range(number, messages, connections)))
        for number, client in enumerate(clients)
    ]
    before, began = running.meter.settled(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    used = running.meter.settled() - before
    assert not faults, faults[0]
    for client in clients:
        client.close()
    return Figures(messages / took, used * 1000 / messages)


def rounds(site: Site, workload: tuple[int, int], count: int, scale: float, others: bool) -> dict[str, list[Figures]]:
    """All rounds of one workload, behind one that warms up."""
    kib, connections = workload
    messages = max(connections, int(MESSAGES[kib] * scale))
    found: dict[str, list[Figures]] = {"pop3d": [], **({"dovecot": []} if others else {})}

    def empty() -> None:
        for user in USERS:
            site.maildir(user, [])

    empty()
    ports = {name: free_port() for name in found}
    starts: dict[str, Callable[[], contextlib.AbstractContextManager[Running]]] = {
        "pop3d": lambda: site.pop3d(tables=POP3D.format(port=ports["pop3d"])),
        "dovecot": lambda: site.dovecot(DOVECOT.format(port=ports["dovecot"])),
    }
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(starts[name]()) for name in found}
        for number in range(count + 1):
            for name in [*found] if number % 2 else reversed(found):
                empty()
                with on(site.client_core):
                    figures = measured(running[name], ports[name], kib, connections, messages)
                there = sum(len(os.listdir(site.root / "mail" / user / "new")) for user in USERS)
                assert there == messages, (name, there, messages)
                if number:
                    found[name].append(figures)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lmtp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="that count; one more warms up")
    parser.add_argument("--scale", type=float, default=1.0, help="of messages")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args(arguments)
    if (why := missing()) is not None:
        Console(stderr=True).print(f"without the other columns: {why}")
    table = Table("KiB", "connections", "pop3d a second", "Dovecot", "ratio", "CPU in ms", "Dovecot", "ratio")
    told = {}
    for workload in WORKLOADS:
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            found = rounds(Site(Path(folder)), workload, options.rounds, options.scale, why is None)
        cells = [str(one) for one in workload]
        for what, form in (("rate", ",.0f"), ("cpu", ".2f")):
            each = {name: [getattr(one, what) for one in figures] for name, figures in found.items()}
            cells += [format(statistics.median(each["pop3d"]), form)]
            if why is None:
                pairs = zip(each["pop3d"], each["dovecot"], strict=True)
                ratio = statistics.median(ours / max(theirs, 1e-9) for ours, theirs in pairs)
                cells += [format(statistics.median(each["dovecot"]), form), f"{ratio:.2f}"]
            else:
                cells += ["", ""]
            told[f"{workload[0]} KiB, {workload[1]} connections, {what}"] = each
        table.add_row(*cells)
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": machine(uvloop=False), "lmtp": told}, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
