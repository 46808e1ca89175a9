"""What `/health` says: users and mail are asked, within a time, and nobody waits for that."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from pop3d import health
from pop3d.assembly import assemble
from pop3d.config import load
from pop3d.health import Health
from pop3d.observe.report import ConnectionPool, Observer
from pop3d.server import Server
from tests.site import Site, free_port


class Heard(Observer):
    def __init__(self) -> None:
        self.healthy_now: list[bool] = []
        self.databases: Mapping[str, ConnectionPool | None] = {}

    def healthy(self, healthy: bool, databases: Mapping[str, ConnectionPool | None]) -> None:
        self.healthy_now.append(healthy)
        self.databases = databases


@asynccontextmanager
async def looked_at(site: Site, **tables: str) -> AsyncIterator[tuple[Health, Server, Heard]]:
    text = site.config.read_text()
    for table, keys in tables.items():
        text = text.replace(f"[{table}]\n", f"[{table}]\n{keys}\n# ")
    site.config.write_text(text)
    server, heard = assemble(load(site.config)), Heard()
    asked = Health(server, heard)
    assert asked.troubles() == ["starting"]
    await server.start()
    try:
        yield asked, server, heard
    finally:
        await server.drain(1)
    assert asked.troubles() == ["shutting down"]


async def test_users_and_mail_come_and_go(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"1\n"})
    users, mail = site.root / "users", site.root / "mail"
    async with looked_at(site) as (asked, server, heard):
        opened = await server.store.open(await server.authenticator.account("alice"), utf8=False)  # type: ignore[attr-defined]
        await opened.close()
        await asked.look()
        assert asked.troubles() == []
        users.rename(site.root / "away")
        shutil.move(mail, site.root / "unmounted")
        await asked.look()
        first, second = asked.troubles()
        assert first == f"users: users file {users}: No such file or directory; `pop3d user add NAME` makes it"
        assert second.startswith(f"mail: {mail}: it had mailboxes, and is missing or empty; mount its volume")
        (site.root / "away").rename(users)
        shutil.move(site.root / "unmounted", mail)
        await asked.look()
        assert asked.troubles() == []
    assert heard.healthy_now == [True, False, True]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ('backend = "dovecot"\n[auth.dovecot]\nsocket = "nowhere"', "users: Dovecot cannot be asked"),
        ('backend = "postgres"\n[auth.postgres]\nconninfo = "host=127.0.0.1 port={port}"', "users: connection failed"),
    ],
)
async def test_a_backend_that_is_away(site: Site, keys: str, line: str) -> None:
    if "postgres" in keys:
        pytest.importorskip("psycopg")
    async with looked_at(site, auth=keys.replace("{port}", str(free_port()))) as (asked, _, heard):
        await asked.look()
        assert len(asked.troubles()) == 1
        assert asked.troubles()[0].startswith(line)
        assert "\n" not in asked.troubles()[0]
        if "postgres" in keys:
            database = heard.databases["users"]
            assert database is not None
            assert database.connections == (0, 0)


async def test_what_hangs_is_asked_once_and_what_raises_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    free, asked_times = asyncio.Event(), 0

    async def hangs() -> str | None:
        nonlocal asked_times
        asked_times += 1
        await free.wait()
        return None

    async def raises() -> str | None:
        raise ValueError("what a plug-in does")

    async with looked_at(site) as (asked, server, _):
        monkeypatch.setattr(server.store, "trouble", hangs, raising=False)
        monkeypatch.setattr(server.authenticator, "trouble", raises)
        for _ in range(2):
            await asked.look()
            assert asked.troubles() == ["users: ValueError: what a plug-in does", "mail: no answer for 0.05 seconds"]
        assert asked_times == 1
        free.set()
        monkeypatch.setattr(server.authenticator, "trouble", hangs)
        await asked.look()
        assert asked.troubles() == []


async def test_a_log_that_nobody_writes_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = threading.Thread(target=lambda: None, name="log")
    monkeypatch.setattr(threading, "enumerate", lambda: [writer])
    async with looked_at(site) as (asked, _, _):
        await asked.look()  # it has ended
        assert asked.troubles() == ["the log is not written any more; restart pop3d"]
