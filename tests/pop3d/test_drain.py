"""The orderly end: who is told what, what is completed, and that it ends."""

import asyncio
import signal
import socket
import struct
from pathlib import Path

import pytest

from pop3d.assembly import assemble
from pop3d.config import Config
from pop3d.observe.report import Observer, SessionReport
from pop3d.stores.memory import MemoryStore
from tests.site import Daemon, Site

FAREWELL = b"-ERR [SYS/TEMP] shutting down; closing\r\n"
BIG = 12_000_000  # octets: more than all buffers between the two hold


class Raw:
    """Octets behind TLS, that are read slowly where that is wanted."""

    def __init__(self, site: Site, *, receive_buffer: int | None = None) -> None:
        plain = socket.socket()
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(20)
        plain.connect(("127.0.0.1", site.port))
        self.sock = site.context().wrap_socket(plain, server_hostname="localhost")
        self.file = self.sock.makefile("rb")
        assert self.line().startswith(b"+OK")

    def say(self, *lines: bytes) -> None:
        self.sock.sendall(b"".join(line + b"\r\n" for line in lines))

    def ask(self, *lines: bytes) -> list[bytes]:
        self.say(*lines)
        return [self.line() for _ in lines]

    def line(self) -> bytes:
        return self.file.readline()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


LOGIN = (b"USER alice", b"PASS secret")


def configured(site: Site, drain_timeout: float) -> Daemon:
    site.config.write_text(f"drain_timeout = {drain_timeout}\n{site.config.read_text()}")
    return Daemon(site)


@pytest.mark.parametrize("drain_timeout", [0, 10])
def test_the_idle_are_told_wherever_they_are(site: Site, drain_timeout: float) -> None:
    box = site.maildir("alice", {"new/1.host": b"one\n", "new/2.host": b"two\n"})
    daemon = configured(site, drain_timeout)
    greeted, named, logging_in, user = (Raw(site) for _ in range(4))
    named.ask(b"USER alice")
    assert logging_in.ask(b"AUTH PLAIN") == [b"+ \r\n"]
    assert user.ask(*LOGIN, b"DELE 1")[-1].startswith(b"+OK")
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as silent:
        daemon.send(signal.SIGTERM)
        for raw in (greeted, named, logging_in, user):
            assert raw.line() == FAREWELL
            assert raw.line() == b""  # the end of the stream, told by TLS too
        assert silent.recv(1) == b""  # in the midst of the handshake nothing can be said
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", site.port), timeout=5)
    for raw in (greeted, named, logging_in, user):
        raw.close()
    assert daemon.end() == 0
    assert len(list(box.glob("new/*"))) == 2  # what was marked, and never committed, stays
    told = [line for line in daemon.log.splitlines() if " session ip=" in line and 'reason="shutting down"' in line]
    assert len(told) == 4


def test_a_reply_under_way_arrives_whole_though_more_was_sent_ahead(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"x" * BIG + b"\n"})
    daemon = configured(site, 15)
    busy = Raw(site, receive_buffer=64 * 1024)
    busy.ask(*LOGIN)
    busy.say(b"RETR 1")
    assert busy.line().startswith(b"+OK")
    busy.say(*[b"NOOP"] * 20_000)  # more than is read: closing on it would reset the connection
    daemon.send(signal.SIGTERM)
    daemon.wait_for("ending")
    got = b""
    while len(line := busy.file.read(1 << 16)):
        got += line
    assert got.startswith(b"x" * BIG + b"\r\n.\r\n")
    assert got.endswith(FAREWELL)
    assert set(got[BIG + 5 : -len(FAREWELL)].split(b"\r\n")) <= {b"+OK", b""}
    busy.close()
    assert daemon.end() == 0


def test_who_takes_nothing_is_cut_when_the_time_is_over(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"x" * BIG + b"\n"})
    daemon = configured(site, 1)
    stuck = Raw(site, receive_buffer=64 * 1024)
    stuck.ask(*LOGIN)
    stuck.say(b"RETR 1")
    assert stuck.line().startswith(b"+OK")
    assert daemon.end() == 0
    assert "1 sessions did not end in time and were cut" in daemon.log
    stuck.close()


def test_a_second_signal_does_not_wait(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"x" * BIG + b"\n"})
    daemon = configured(site, 3_600)
    stuck = Raw(site, receive_buffer=64 * 1024)
    stuck.ask(*LOGIN)
    stuck.say(b"RETR 1")
    assert stuck.line().startswith(b"+OK")
    daemon.send(signal.SIGTERM)
    daemon.wait_for("ending")
    assert daemon.end() == 0
    assert 'reason="shutting down at once"' in daemon.log
    stuck.close()


def test_what_a_client_hears_of_its_deletions_is_so(site: Site) -> None:
    box = site.maildir("alice", {f"new/{number}.host": b"x\n" for number in range(1_500)})
    daemon = configured(site, 15)
    client = Raw(site)
    client.ask(*LOGIN)
    assert len(client.ask(*[b"DELE %d" % number for number in range(1, 1_501)])) == 1_500
    client.say(b"QUIT")
    daemon.send(signal.SIGTERM)
    # it may have been heard before the signal or behind it, but never by half
    reply, left = client.line(), len(list(box.glob("new/*")))
    assert (reply, left) in ((b"+OK bye\r\n", 0), (FAREWELL, 1_500))
    assert client.line() == b""
    client.close()
    assert daemon.end() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_clients_that_go_as_the_server_stops_are_no_fault_of_ours(loop: str, tmp_path: Path) -> None:
    """A race, tried with many clients in each of some ways to go; none of them may end as a fault."""
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        for turns in (0, 2):
            folder = tmp_path / str(turns)
            folder.mkdir()
            runner.run(race(folder, turns))


async def race(folder: Path, turns: int) -> None:
    """``turns``: of the event loop, between the end's beginning and the clients' going."""
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    ends: list[str] = []

    class Ends(Observer):
        def ended(self, report: SessionReport) -> None:
            ends.append(report.reason)

    (folder / "users").write_text("".join(f"u{number}:{{PLAIN}}secret\n" for number in range(24)))
    listen = [{"host": "127.0.0.1", "port": 0, "tls": "none"}]
    config = Config.model_validate(
        {
            "state": folder / "state",
            "listen": listen,
            "auth": {"users": folder / "users"},
            "store": {"backend": "memory"},
        }
    )
    server = assemble(config, Ends())
    store = server.store
    assert isinstance(store, MemoryStore)
    store.deliver("u1", b"x\n" * 500_000)
    await server.start()
    clients = [socket.create_connection(server.addresses[0]) for _ in range(24)]
    for number, sock in enumerate(clients):
        sock.sendall(
            b"".join((b"USER u%d\r\n" % number, b"PASS secret\r\n", b"STAT\r\n", b"RETR 1\r\n" * (number % 2)))
        )
    while len(server.registry) < 24:
        await asyncio.sleep(0.01)
    drain = asyncio.create_task(server.drain(1))
    for _ in range(turns):
        await asyncio.sleep(0)
    for number, sock in enumerate(clients):
        if number % 3 == 0:
            sock.sendall(b"NOOP\r\n")  # which nobody will read
        if number % 4 < 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
        sock.close()
    await drain
    assert not faults
    assert len(ends) == 24 and "a fault of ours" not in ends
