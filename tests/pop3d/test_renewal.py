"""Certificates that change while the server runs, and nobody says so: taken once they are whole, and not before."""

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pop3d.assembly import assemble
from pop3d.config import Config
from pop3d.renewal import Renewal
from pop3d.server import Server
from tests.pki import Authority

SECONDS = 0.02  # between two looks


@pytest.fixture
def config(tmp_path: Path) -> Config:
    authority = Authority(tmp_path)
    tls: dict = dict(zip(("certificate", "private_key"), authority.issue("own", dns=["localhost"]), strict=True))
    tls["sni"] = [
        {"hosts": ["a.example.org"]}
        | dict(zip(("certificate", "private_key"), authority.issue("a", dns=["a.example.org"]), strict=True))
    ]
    (tmp_path / "users").write_text("alice:{PLAIN}secret\n")
    new = Authority(tmp_path / "new")
    new.issue("own", dns=["localhost"])
    new.issue("a", dns=["a.example.org"])
    return Config.model_validate(
        {
            "hostname": "localhost",
            "state": tmp_path / "state",
            "listen": [{"host": "127.0.0.1", "port": 0}],
            "tls": tls,
            "auth": {"users": tmp_path / "users"},
            "store": {"backend": "memory"},
            "limits": {"connections": 100},
        }
    )


@asynccontextmanager
async def watched(config: Config) -> AsyncIterator[Server]:
    renewal = Renewal(config)
    server = assemble(config, tls=renewal.begin())
    await server.start()
    watch = asyncio.create_task(renewal.watch(server, SECONDS))
    try:
        async with asyncio.timeout(30):
            yield server
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        assert watch.cancelled()
        await server.drain(1)


async def shown(server: Server, authority: Path, name: str) -> None:
    """Raises ssl.SSLError unless the certificate shown for ``name`` is of that authority."""
    host, port = server.addresses[0]
    context = ssl.create_default_context(cafile=authority)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()
    await writer.wait_closed()


async def said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    while words not in caplog.text:
        await asyncio.sleep(SECONDS)


async def several_looks() -> None:
    await asyncio.sleep(10 * SECONDS)


async def test_files_that_changed_are_taken_pair_by_pair(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pop3d.renewal")
    async with watched(config) as server:
        await several_looks()
        assert caplog.text == ""  # nothing has changed
        for name in ("own.pem", "own.key", "a.pem"):
            shutil.copy(tmp_path / "new" / name, tmp_path / name)
        await said(caplog, "all other certificates reloaded")
        assert "does not belong to certificate" in caplog.text  # a.pem
        await shown(server, tmp_path / "new/authority.pem", "localhost")
        await shown(server, tmp_path / "authority.pem", "a.example.org")
        await several_looks()
        assert caplog.text.count("not reloaded") == 1
        (tmp_path / "new/a.key").replace(tmp_path / "a.key")  # as a renewal should, whole
        await said(caplog, "certificate reloaded")
        for name in ("localhost", "a.example.org"):
            await shown(server, tmp_path / "new/authority.pem", name)
            with pytest.raises(ssl.SSLError):
                await shown(server, tmp_path / "authority.pem", name)


async def test_what_is_wrong_is_tried_and_told_again_after_a_day(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "pop3d.renewal")
    Authority(tmp_path).issue("a", dns=["a.example.org"], days=-1)
    (tmp_path / "own.pem").rename(tmp_path / "kept")
    (tmp_path / "own.pem").symlink_to("kept")
    renewal = Renewal(config)
    server = assemble(config, tls=renewal.begin())
    assert caplog.text.count("a.pem: expired on") == 1
    for _ in range(3):
        await renewal.look(server)
    assert caplog.text.count("a.pem: expired on") == 1
    (tmp_path / "kept").unlink()
    for _ in range(3):
        await renewal.look(server)
    assert caplog.text.count("own.pem: No such file") == 1
    monkeypatch.setattr("pop3d.renewal.REMIND", 0.0)
    await renewal.look(server)
    assert caplog.text.count("own.pem: No such file") == 2
    assert caplog.text.count("a.pem: expired on") == 3
    await server.authenticator.close()


async def test_what_is_being_written_is_not_taken(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that changes at each look, though it is without a fault each time."""
    caplog.set_level(logging.INFO, "pop3d.renewal")
    renewal = Renewal(config)
    server = assemble(config, tls=renewal.begin())
    before = server.tls
    own = tmp_path / "own.pem"
    text = own.read_text()
    for looks in range(1, 6):
        own.write_text(text + "\n" * looks)  # the size tells, however coarse the clock is
        await renewal.look(server)
        assert server.tls is before
    for _ in range(3):
        await renewal.look(server)
    assert server.tls is not before
    assert caplog.text.count("certificate reloaded") == 1
    await server.authenticator.close()


async def test_a_file_that_is_gone_for_a_while(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pop3d.renewal")
    async with watched(config) as server:
        kept = (tmp_path / "own.key").rename(tmp_path / "kept")
        await said(caplog, "own.key: No such file")
        await several_looks()
        assert caplog.text.count("not reloaded") == 1
        await shown(server, tmp_path / "authority.pem", "localhost")
        kept.rename(tmp_path / "own.key")
        await said(caplog, "certificate reloaded")
        await shown(server, tmp_path / "authority.pem", "localhost")


async def test_a_link_that_leads_elsewhere(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pop3d.renewal")
    for name in ("own.pem", "own.key"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
        (tmp_path / name).symlink_to(f"old-{name}")
    async with watched(config) as server:
        for name in ("own.pem", "own.key"):
            (tmp_path / "link").symlink_to(f"new/{name}")
            (tmp_path / "link").replace(tmp_path / name)
        await said(caplog, "certificate reloaded")
        await shown(server, tmp_path / "new/authority.pem", "localhost")
