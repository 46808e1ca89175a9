"""The client of the benchmarks: it sends ahead as far as it is told, and looks at every octet that comes."""

import contextlib
import gc
import multiprocessing
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection

from tests.bench import maildir
from tests.bench.servers import Running, Site, on

END = b"\r\n.\r\n"

Session = Callable[["Clients", int], None]
"""What a session does; given its number."""


class Client(maildir.Client):
    """A session over TLS, with a full handshake, logged in."""

    def stat(self) -> tuple[int, int]:
        """Messages and octets."""
        _, messages, octets, *_ = self.ask("STAT").split()
        return int(messages), int(octets)

    def replies(self, commands: Iterable[str], window: int = 1) -> Iterator[bytes]:
        """What multi-line replies bring, as on the wire, without status line and end. ``window``: commands ahead."""
        left, waiting = iter(commands), 0
        data, start, seen = bytearray(self.tail), 0, 0
        while True:
            while (end := data.find(END, max(start, seen - len(END)))) >= 0:
                status, _, content = bytes(data[start : end + 2]).partition(b"\r\n")
                assert status.startswith(b"+OK"), status
                start = seen = end + len(END)
                waiting -= 1
                yield content
            seen = len(data)
            if lines := [f"{command}\r\n" for command in islice(left, window - waiting)]:
                self.sock.sendall("".join(lines).encode())
                waiting += len(lines)
            if not waiting:
                break
            if start > 1 << 20 or start == len(data):
                del data[:start]
                start, seen = 0, seen - start
            more = self.sock.recv(1 << 18)
            assert more, "the server went away"
            data += more
        assert start == len(data), "the server said more than it was asked"
        self.tail = b""


class Clients:
    """Clients of one server."""

    def __init__(self, site: Site, server: Running) -> None:
        self._site, self._server = site, server
        self._context = ssl.create_default_context(cafile=site.root / "cert.pem")

    def login(self, user: str) -> Client:
        return Client(self._server.port, self._context, user)

    def together(self, count: int, session: Session, at_a_time: int) -> None:
        """``count`` sessions, numbered from 0, so many at a time. The first fault is raised."""
        with on(self._site.client_core), ThreadPoolExecutor(at_a_time) as pool:
            for _ in pool.map(lambda number: session(self, number), range(count)):
                pass

    def alone(self, session: Session) -> None:
        with on(self._site.client_core):
            session(self, 0)

    def stall_beside(self, user: str, session: Session) -> float:
        """The longest that a NOOP of ``user`` took while another session went on, in seconds."""
        processes = multiprocessing.get_context("fork")
        ours, theirs = processes.Pipe()
        probe = processes.Process(target=self._probe, args=(user, theirs), daemon=True)
        with on(self._site.client_core):
            probe.start()
        theirs.close()
        ours.recv()
        heavy = processes.Process(target=self._nicely, args=(session,), daemon=True)
        with on(self._site.client_core):
            heavy.start()
        heavy.join()
        ours.send(None)
        worst = float(ours.recv())
        probe.join()
        assert heavy.exitcode == 0, "the session that was to be measured failed"
        return worst

    def _nicely(self, session: Session) -> None:
        os.nice(10)  # its own work must not look like a stall of the other
        session(self, 0)

    def _probe(self, user: str, told: Connection) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
        gc.disable()
        client = self.login(user)
        told.send(None)
        waits = []
        while not told.poll(0.001):
            begun = time.perf_counter()
            client.ask("NOOP")
            waits.append(time.perf_counter() - begun)
        told.send(max(waits))
        client.quit()
