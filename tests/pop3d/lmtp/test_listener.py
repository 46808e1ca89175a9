"""How many may connect, and how long they may take."""

import asyncio
import socket
from pathlib import Path

import pytest

from pop3d.assembly import assemble
from pop3d.auth.users_file import add_user
from pop3d.config import Config, load
from pop3d.lmtp.listener import LmtpConnections
from pop3d.server import Server
from tests.lmtp import LmtpClient

LISTEN = "[[listen]]\nprotocol = 'lmtp'\npath = 'lmtp.sock'\n[limits]\nlmtp_connections = 2\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    add_user(tmp_path / "users", "alice", "secret", scheme="PLAIN")
    (tmp_path / "pop3d.toml").write_text(LISTEN)
    return load(tmp_path / "pop3d.toml")


def connections(server: Server) -> LmtpConnections:
    assert server._lmtp is not None
    return server._lmtp


def test_so_many_and_no_more(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"

    def talk(server: Server) -> None:
        with LmtpClient(path) as one:
            with LmtpClient(path), socket.socket(socket.AF_UNIX) as third:
                third.settimeout(20)
                third.connect(str(path))
                assert third.recv(100) == b""
                assert server.sessions == 2
            one.noop()

    async def run() -> None:
        server = assemble(config)
        await server.start()
        await asyncio.to_thread(talk, server)
        await server.drain(5)
        assert server.sessions == 0

    asyncio.run(run())
    assert not path.exists()


def test_who_says_nothing_is_told_and_who_stops_within_a_message_is_cut(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"

    async def run() -> None:
        server = assemble(config)
        await server.start()
        idle, stopped = await asyncio.to_thread(lambda: (LmtpClient(path), LmtpClient(path)))
        await asyncio.to_thread(stopped.said, "MAIL FROM:<>", "RCPT TO:<alice>", "DATA")
        await asyncio.to_thread(stopped.send, b"Subject: half\r\n")
        of_message, of_command = sorted(connections(server).sessions, key=lambda session: session.deadline)
        now = asyncio.get_running_loop().time()
        assert now + 170 < of_message.deadline < now + 190 < now + 290 < of_command.deadline < now + 310
        for session in (of_message, of_command):
            session.overdue()
        assert await asyncio.to_thread(idle.replied, 1) == ["421 4.3.2"]
        assert await asyncio.to_thread(stopped.sock.recv, 100) == b""  # type: ignore[union-attr]
        idle.close()
        stopped.close()
        await server.drain(5)

    asyncio.run(run())
    assert not (tmp_path / "mail/alice/new").exists()


def test_a_flood_of_nonsense_is_cut_and_told_why(config: Config, tmp_path: Path) -> None:
    def talk() -> None:
        with LmtpClient(tmp_path / "lmtp.sock") as client:
            client.send(b"NONSENSE\r\n" * 5000)
            replies = client.replied(config.limits.bad_commands + 1)
            assert replies == ["500 5.5.1"] * config.limits.bad_commands + ["421 4.7.0"]
            client.close()

    async def run() -> None:
        server = assemble(config)
        await server.start()
        await asyncio.to_thread(talk)
        await server.drain(5)

    asyncio.run(run())
