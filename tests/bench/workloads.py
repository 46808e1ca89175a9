"""What servers are asked to do beside each other. Each workload makes its mail, and measures a server at it.

A figure is what the server's processes used (CPU, or memory, or for `neighbours` time) for one unit of work, in
seconds, KiB or milliseconds as the row says. All that comes back is compared with what was stored, octet by octet.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.load import Clients
from tests.bench.servers import ENCODED, TEXT, Running, Site, message, on_the_wire

Start = Callable[[], contextlib.AbstractContextManager[Running]]
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A figure. ``scale``: multiplied with seconds for ``unit``; ``must``, ``aim``: of the ratio, or the figure."""

    what: str
    unit: str
    scale: float
    must: float
    aim: float
    absolute: bool = False
    """The aims are of pop3d's own figure, not of its ratio to Dovecot's."""


ROWS = {
    "session": Row("login, STAT, QUIT, with a full TLS handshake; 8 at a time", "ms a session", 1e3, 0.60, 0.36),
    "mix": Row("login, STAT, UIDL, 20 RETR of 8 KiB, DELE, QUIT; 50 at a time", "ms a session", 1e3, 0.50, 0.38),
    "retr_small": Row("5,000 messages of 4 KiB, one at a time", "us a message", 1e6, 0.70, 0.55),
    "retr_pipe": Row("the same, 50 sent ahead", "us a message", 1e6, 0.50, 0.40),
    "retr_big": Row("20 messages of 25 MiB", "s a GB", 1, 0.35, 0.24),
    "open_first": Row("login and STAT, 100,000 messages, nothing kept", "ms", 1e3, 0.70, 0.45),
    "open_again": Row("again", "ms", 1e3, 0.10, 0.02),
    "open_restart": Row("after a restart", "ms", 1e3, 0.15, 0.06),
    "idle": Row("5,000 sessions that are logged in and silent", "KiB a session", 1, 50, 28, absolute=True),
    "neighbour_big": Row("longest NOOP of a session beside 25 MiB downloads", "ms", 1e3, 50, 10, absolute=True),
    "neighbour_open": Row("longest NOOP beside a first opening of 100,000", "ms", 1e3, 50, 10, absolute=True),
}


class Workload:
    """``name``, if it has one; ``names``: of the rows it gives.

    ``started``: it starts servers itself, one alive at a time.
    """

    name = ""
    names: tuple[str, ...]
    started = False

    def __init__(self, site: Site, scale: float) -> None:
        self.site = site
        self.scale = scale

    def sized(self, count: int, at_least: int = 1) -> int:
        return max(at_least, round(count * self.scale))

    def prepare(self) -> None:
        """Make the mail."""

    def refresh(self) -> None:
        """Before each measurement: make again what the last one used up."""

    def measure(self, server: Running) -> Figures:
        """With a server that runs."""
        raise NotImplementedError

    def measure_starts(self, start: Start) -> Figures:
        """With one that is started, however often."""
        with start() as server:
            return self.measure(server)

    def cpu(self, server: Running, work: Callable[[], object]) -> float:
        before = server.meter.settled()
        work()
        return server.meter.settled() - before


class Sessions(Workload):
    names = ("session",)
    users, messages, at_a_time = 64, 10, 8

    def prepare(self) -> None:
        files = self.site.messages(self.messages, lambda number: message(number, 2048))
        for user in range(self.users):
            self.site.maildir(f"u{user}", files)

    def measure(self, server: Running) -> Figures:
        count = self.sized(400, self.at_a_time)
        clients = Clients(self.site, server)
        return {"session": self.cpu(server, lambda: clients.together(count, self.session, self.at_a_time)) / count}

    def session(self, clients: Clients, number: int) -> None:
        client = clients.login(f"u{number % self.users}")
        assert client.stat()[0] == self.messages
        client.quit()


class Mix(Workload):
    names = ("mix",)
    users, retrieved, at_a_time = 100, 20, 50

    def prepare(self) -> None:
        self.count = self.sized(500, 10)
        # one is deleted in each session
        self.messages = self.retrieved + -(-self.count // self.users)
        self.files = self.site.messages(self.messages, lambda number: message(number, 8192))
        self.wire = [on_the_wire(file.read_bytes()) for file in self.files]

    def refresh(self) -> None:
        for user in range(min(self.users, self.count)):
            self.site.maildir(f"m{user}", self.files)

    def measure(self, server: Running) -> Figures:
        clients, at_a_time = Clients(self.site, server), min(self.at_a_time, self.count)
        return {"mix": self.cpu(server, lambda: clients.together(self.count, self.session, at_a_time)) / self.count}

    def session(self, clients: Clients, number: int) -> None:
        client = clients.login(f"m{number % self.users}")
        there = self.messages - number // self.users
        assert client.stat()[0] == there
        (uids,) = client.replies(["UIDL"])
        assert uids.count(b"\r\n") == there
        got = list(client.replies(f"RETR {one}" for one in range(1, self.retrieved + 1)))
        # the first go, one by one
        assert got == self.wire[number // self.users :][: self.retrieved]
        client.ask("DELE 1")
        client.quit()


class Retrieving(Workload):
    """One session that retrieves all there is."""

    names = ("retr_small",)
    count, octets, body, window = 5_000, 4096, TEXT, 1

    def prepare(self) -> None:
        count = self.sized(self.count, 2)
        # two large ones, again and again: what is right must fit into memory
        distinct = self.site.messages(min(count, max(2, (64 << 20) // self.octets)), self.one)
        self.site.maildir("reader", [distinct[number % len(distinct)] for number in range(count)])
        made = [on_the_wire(file.read_bytes()) for file in distinct]
        self.wire = [made[number % len(made)] for number in range(count)]

    def one(self, number: int) -> bytes:
        return message(number, self.octets, self.body)

    def measure(self, server: Running) -> Figures:
        clients = Clients(self.site, server)
        return {self.names[0]: self.cpu(server, lambda: clients.alone(self.session)) / self.units()}

    def units(self) -> float:
        return len(self.wire)

    def session(self, clients: Clients, _: int) -> None:
        client = clients.login("reader")
        commands = (f"RETR {number}" for number in range(1, len(self.wire) + 1))
        for expected, got in zip(self.wire, client.replies(commands, self.window), strict=True):
            assert got == expected
        client.quit()


class RetrievingAhead(Retrieving):
    names, window = ("retr_pipe",), 50


class RetrievingLarge(Retrieving):
    names = ("retr_big",)
    count, octets, body = 20, 25 << 20, ENCODED

    def units(self) -> float:
        return sum(map(len, self.wire)) / 1e9


class Opening(Workload):
    name = "open_large"
    names = ("open_first", "open_again", "open_restart")
    started, count = True, 100_000

    def prepare(self) -> None:
        files = self.site.messages(self.sized(self.count), lambda number: message(number, 500 + number * 37 % 3500))
        self.site.maildir("many", files)
        contents = [file.read_bytes() for file in files]
        self.there = len(files), sum(len(content) + content.count(b"\n") for content in contents)

    def measure_starts(self, start: Start) -> Figures:
        self.site.forget()
        figures = {}
        with start() as server:
            for name in ("open_first", "open_again"):
                figures[name] = self.once(server)
        with start() as server:
            figures["open_restart"] = self.once(server)
        return figures

    def once(self, server: Running) -> float:
        return self.cpu(server, lambda: Clients(self.site, server).alone(self.session))

    def session(self, clients: Clients, _: int) -> None:
        client = clients.login("many")
        assert client.stat() == self.there
        client.quit()


class Idle(Workload):
    names = ("idle",)
    started, count = True, 5_000

    def prepare(self) -> None:
        files = self.site.messages(10, lambda number: message(number, 2048))
        self.users = self.sized(self.count, 20)
        for user in range(self.users):
            self.site.maildir(f"u{user}", files)

    def measure(self, server: Running) -> Figures:
        clients, sessions = Clients(self.site, server), []
        clients.alone(lambda clients, number: clients.login("u0").quit())
        before = server.kib()
        clients.together(self.users, lambda clients, number: sessions.append(clients.login(f"u{number}")), 20)
        server.meter.settled()
        time.sleep(1)
        used = server.kib() - before
        for session in sessions:
            session.ask("NOOP")  # they live
            session.sock.close()
        return {"idle": used / self.users}


class Neighbours(Workload):
    """One session says NOOP again and again; another one is a burden."""

    name = "neighbours"
    names = ("neighbour_big", "neighbour_open")
    started = True

    def __init__(self, site: Site, scale: float) -> None:
        super().__init__(site, scale)
        self.works = RetrievingLarge(site, scale), Opening(site, scale)

    def prepare(self) -> None:
        for work in self.works:
            work.prepare()
        self.site.maildir("quiet", self.site.messages(1, lambda number: message(number, 2048)))

    def measure_starts(self, start: Start) -> Figures:
        figures = {}
        for name, work in zip(self.names, self.works, strict=True):
            self.site.forget()
            with start() as server:
                server.first()
                figures[name] = Clients(self.site, server).stall_beside("quiet", work.session)
        return figures


WORKLOADS: tuple[type[Workload], ...] = (
    Sessions,
    Mix,
    Retrieving,
    RetrievingAhead,
    RetrievingLarge,
    Opening,
    Idle,
    Neighbours,
)
