"""`pop3d import` from the real Dovecot: over its POP3 server, and from its Maildirs, every message as it was told."""

import asyncio
import os
import poplib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pop3d.net.certificates import create_self_signed
from pop3d.store_contract import ALICE, content
from pop3d.stores import Closes, Store
from pop3d.stores.maildir.store import MaildirStore
from tests.interop import dovecot
from tests.maildirs import make_maildir
from tests.site import site_configuration

if TYPE_CHECKING:
    from tests.postgres import Cluster

pytestmark = pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))

Told = list[tuple[bytes, bytes]]
"""Unique-ids and contents, in the order of the numbers."""


def told_by_dovecot(port: int, cafile: Path, user: str) -> Told:
    client = poplib.POP3_SSL("localhost", port, timeout=20, context=ssl.create_default_context(cafile=cafile))
    client.user(user)
    client.pass_("secret")
    uids = [line.split(b" ")[1] for line in client.uidl()[1]]
    texts = [b"".join(line + b"\r\n" for line in client.retr(number)[1]) for number in range(1, len(uids) + 1)]
    client.quit()
    return list(zip(uids, texts, strict=True))


def told_by_pop3d(store: Store) -> Told:
    async def told() -> Told:
        drop = await store.open(ALICE, utf8=False)
        try:
            return [(uid, await content(drop, number)) for number, uid in enumerate(drop.messages.uids, 1)]
        finally:
            await drop.close()
            if isinstance(store, Closes):
                await store.close()

    return asyncio.run(told())


def imported(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pop3d", "import", *arguments, "--config", site / "pop3d.toml"]
    environment = {**os.environ, "POP3D_IMPORT_PASSWORD": "secret"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Dovecot with two users: its Maildirs, its port."""
    mail = tmp_path / "old"
    for user in ("alice", "bob"):
        box = {}
        for number in range(1, 30):
            place = ("cur/{}:2,RS", "new/{}", "new/{}")[number % 3].format(f"17000000{number:02}.M{number}P1.host")
            box[place] = f"From: {user}\nSubject: {number}\n\n.\n..\n>From {'x' * number * 20}\n".encode()
        make_maildir(mail / user, box)
    for path in (mail, *mail.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    create_self_signed(["localhost"], tmp_path)
    with dovecot.serving(
        tmp_path / "dovecot", str(mail / "%u"), certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem"
    ) as port:
        told_by_dovecot(port, tmp_path / "cert.pem", "alice")
        # a list that is not in the order of the names
        late = mail / "alice" / "new" / "1600000000.M1P1.host"
        late.write_bytes(b"Subject: older, and came later\n\nx\n")
        shutil.chown(late, "nobody", "nogroup")
        yield mail, port


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "pop3d.toml").write_text(site_configuration(0))
    (root / "users").write_text("alice:{PLAIN}x\nbob:{PLAIN}x\n")
    create_self_signed(["localhost"], root)
    return root


def store_of(site: Path) -> Store:
    return MaildirStore(str(site / "mail" / "{user}"), site / "state")


def test_from_its_pop3_server_into_a_maildir(old: tuple[Path, int], site: Path, tmp_path: Path) -> None:
    _, port = old
    told = told_by_dovecot(port, tmp_path / "cert.pem", "alice")
    assert len(told) == 30
    url = f"pop3s://alice@localhost:{port}"
    refused = imported(site, "alice", url)
    assert (refused.returncode, refused.stdout) == (77, "")
    assert (
        "not signed by anyone trusted; if it is the right one, give its certificate with --cacert FILE"
        in refused.stderr
    )
    done = imported(site, "alice", url, "--cacert", tmp_path / "cert.pem")
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported 30 messages for alice\n", "")
    assert told_by_pop3d(store_of(site)) == told
    again = imported(site, "alice", url, "--cacert", tmp_path / "cert.pem")
    assert again.stdout.startswith("imported 0 messages for alice, 30 were imported before")
    assert told_by_pop3d(store_of(site)) == told
    assert told_by_dovecot(port, tmp_path / "cert.pem", "alice") == told


def test_from_its_pop3_server_into_postgresql(
    old: tuple[Path, int], site: Path, tmp_path: Path, cluster: "Cluster"
) -> None:
    from pop3d.stores.postgres.store import PostgresStore

    _, port = old
    database = cluster.database()
    text = site_configuration(0).partition("[store]")[0] + '[store]\nbackend = "postgres"\n[store.postgres]\n'
    (site / "pop3d.toml").write_text(f'{text}conninfo = "{database}"\n')
    told = told_by_dovecot(port, tmp_path / "cert.pem", "alice")
    done = imported(site, "alice", f"pop3s://alice@localhost:{port}", "--cacert", tmp_path / "cert.pem")
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported 30 messages for alice\n", "")
    assert told_by_pop3d(PostgresStore(database)) == told


def test_from_its_maildir(old: tuple[Path, int], site: Path, tmp_path: Path) -> None:
    mail, port = old
    told = told_by_dovecot(port, tmp_path / "cert.pem", "alice")
    flagged = len(list((mail / "alice" / "cur").glob("*:2,RS")))
    done = imported(site, "alice", mail / "alice")
    assert (done.returncode, done.stdout) == (0, "imported 30 messages for alice\n")
    assert done.stderr == f"pop3d: {mail / 'alice'}: unique-ids are those of its dovecot-uidlist\n"
    assert told_by_pop3d(store_of(site)) == told
    assert len(list((site / "mail/alice/cur").glob("*:2,RS"))) == flagged > 5


def test_of_all_users_at_once(old: tuple[Path, int], site: Path, tmp_path: Path) -> None:
    _, port = old
    told = told_by_dovecot(port, tmp_path / "cert.pem", "alice")
    (tmp_path / "people").write_text("alice:{CRYPT}x::::/home/alice\ncarol:x\nbob:x\n")
    url, trust = f"pop3s://{{user}}@localhost:{port}", ("--cacert", tmp_path / "cert.pem")
    done = imported(site, "--all", tmp_path / "people", url, *trust)
    assert done.returncode == 1
    assert done.stderr == "pop3d: carol: no such user: 'carol'; `pop3d user add carol` makes one\n"
    assert done.stdout.splitlines() == [
        "alice: imported 30 messages",
        "bob: imported 29 messages",
        "imported 59 messages for 2 of 3 users; 1 failed: carol",
    ]
    assert told_by_pop3d(store_of(site)) == told
