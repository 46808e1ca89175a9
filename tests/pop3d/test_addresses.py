"""Clients' addresses, through a real server: at a socket of both families, IPv4 is told as IPv4, everywhere."""

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from pop3d.assembly import assemble
from pop3d.config import Config
from pop3d.server import Server
from tests.pop3d.test_guessing import REFUSED, connected

USERS = "alice:{PLAIN}secret::::::allow_nets=127.0.0.0/8\nbob:{PLAIN}secret::::::allow_nets=::1\n"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no sockets of both families")
async def test_a_client_of_ipv4_at_a_socket_of_both_families(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").write_text(USERS)
    listen = {"port": 0, "tls": "none", "insecure": True}
    config = Config.model_validate(
        {
            "hostname": "localhost",
            "state": tmp_path / "state",
            "listen": [listen, {**listen, "proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}],
            "auth": {"users": tmp_path / "users", "trusted_networks": ["::ffff:127.0.0.0/104"]},
            "store": {"backend": "memory"},
            "limits": {"connections_per_ip": 1, "auth_penalty": 0},
        }
    )
    caplog.set_level(logging.INFO, "pop3d")
    monkeypatch.setattr(logging.getLogger("pop3d"), "propagate", True)
    server: Server = assemble(config)
    # as systemd makes them, unless BindIPv6Only= says otherwise
    both = {index: [socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)] for index in range(2)}
    ports = [sock.getsockname()[1] for (sock,) in both.values()]
    await server.bind(both)
    await server.serve()
    try:
        async with connected(server, "127.0.0.1") as alice, connected(server, "127.0.0.1") as bob:  # trusted: two
            assert (await alice.login("alice", "secret")).startswith("+OK")  # allow_nets
            (session,) = server.registry
            assert session.address == "127.0.0.1"
            assert await bob.login("bob", "secret") == REFUSED
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[1])
        writer.write(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 995\r\n")  # by a trusted proxy
        assert (await reader.readline()).startswith(b"+OK")
        writer.write(b"QUIT\r\n")
        await reader.read()
        writer.close()
    finally:
        await server.drain(1)
    told = " ".join(caplog.messages)
    assert "session ip=127.0.0.1 user=alice" in told and "authentication failed ip=127.0.0.1 user=bob" in told
    assert "session ip=192.0.2.7" in told and "::ffff" not in told
