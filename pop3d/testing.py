"""A real POP3S server inside a test: in memory, on a free port of loopback, with a certificate of its own.

async with serving({"alice": [b"Subject: hello\\n\\nworld\\n"]}, password="secret") as server:
    ...  # connect to server.host, server.port, trusting server.certificate
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pop3d.auth.names import UserNames
from pop3d.auth.users_file import UsersFile, add_user
from pop3d.config import Config
from pop3d.net.certificates import create_self_signed
from pop3d.net.tls import server_tls
from pop3d.server import Server
from pop3d.stores.memory import MemoryStore

__all__ = ["RunningServer", "serving"]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs. ``certificate``: the file a client should trust; ``store``: deliver and look here."""

    host: str
    port: int
    certificate: Path
    store: MemoryStore
    server: Server


@asynccontextmanager
async def serving(
    mailboxes: Mapping[str, Iterable[bytes]], *, password: str = "secret", limits: Mapping[str, float] | None = None
) -> AsyncIterator[RunningServer]:
    """Serve ``mailboxes`` (messages by user, oldest first), each with the same password.

    ``limits``: keys of the configuration's ``[limits]``; without ``auth_penalty`` a refused login is told at once here.
    """
    with tempfile.TemporaryDirectory(prefix="pop3d-testing-") as name:
        folder = Path(name)
        certificate, private_key = create_self_signed(["localhost", "127.0.0.1"], folder)
        users = folder / "users"
        for user in mailboxes:
            add_user(users, user, password, scheme="PLAIN")
        config = Config.model_validate(
            {
                "hostname": "localhost",
                "state": folder / "state",
                "listen": [{"host": "127.0.0.1", "port": 0}],
                "tls": {"certificate": certificate, "private_key": private_key},
                "auth": {"users": users},
                "store": {"backend": "memory"},
                "limits": {"connections": 1000, "auth_penalty": 0, **(limits or {})},
            }
        )
        store = MemoryStore(mailboxes)
        server = Server(
            config, UsersFile(users, names=UserNames.of(config.auth)), store, server_tls(certificate, private_key)
        )
        await server.start()
        try:
            (host, port), *_ = server.addresses
            yield RunningServer(host, port, certificate, store, server)
        finally:
            await server.drain(1)
