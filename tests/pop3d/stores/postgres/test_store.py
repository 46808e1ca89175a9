"""Mail in a real PostgreSQL, and a daemon with users and mail in it."""

import asyncio
import json
import poplib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pop3d.auth import Account
from pop3d.config import load
from pop3d.store_contract import ALICE, StoreContract, content
from pop3d.stores import MaildropBusy, RemovalFailed, Store, StoreError
from pop3d.stores.postgres import delivery
from pop3d.stores.postgres.delivery import deliver, lock_holder
from pop3d.stores.postgres.store import PostgresStore
from pop3d.stores.quota import OverQuota, Quota
from tests.postgres import Cluster, execute
from tests.site import Daemon, Site, free_port


class Stores:
    """Nodes in front of one database; all are closed in the end."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._made: list[PostgresStore] = []

    def node(self) -> PostgresStore:
        self._made.append(PostgresStore(self.conninfo))
        return self._made[-1]

    async def close(self) -> None:
        for store in self._made:
            await store.close()


@pytest.fixture
async def stores(database: str) -> AsyncIterator[Stores]:
    made = Stores(database)
    yield made
    await made.close()


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _stores(self, stores: Stores) -> None:
        self.stores = stores

    async def make(self, messages: list[bytes]) -> Store:
        for message in messages:
            await asyncio.to_thread(deliver, self.stores.conninfo, "alice", [message])
        return self.stores.node()


# --- mail ---


async def test_a_mailbox_is_locked_for_all_nodes_and_free_after_close(stores: Stores) -> None:
    one, other = stores.node(), stores.node()
    drop = await one.open(ALICE, utf8=False)
    for node in (one, other):
        with pytest.raises(MaildropBusy):
            await node.open(ALICE, utf8=False)
    bob = await other.open(Account("bob"), utf8=False)
    held = await asyncio.to_thread(lock_holder, stores.conninfo, "alice")
    assert held is not None
    assert await asyncio.to_thread(lock_holder, stores.conninfo, "carol") is None
    await drop.close()
    assert await asyncio.to_thread(lock_holder, stores.conninfo, "alice") is None
    again = await other.open(ALICE, utf8=False)
    with pytest.raises(MaildropBusy):
        await one.open(ALICE, utf8=False)
    await again.close()
    await bob.close()


async def test_a_lock_dies_with_its_node_which_then_removes_nothing(stores: Stores) -> None:
    deliver(stores.conninfo, "alice", [b"one\n"])
    one, other = stores.node(), stores.node()
    drop = await one.open(ALICE, utf8=False)
    execute(stores.conninfo, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    taken_over = await other.open(ALICE, utf8=False)
    assert await content(drop, 1) == b"one\r\n"  # whoever lost the lock still reads
    with pytest.raises(RemovalFailed) as failed:
        await drop.remove([1])
    assert list(failed.value.left) == [1]
    await drop.close()
    with pytest.raises(MaildropBusy):  # closing has not freed what is another's
        await one.open(ALICE, utf8=False)
    await taken_over.remove([1])
    await taken_over.close()
    last = await one.open(ALICE, utf8=False)
    assert len(last.messages) == 0
    await last.close()


async def test_many_small_messages_and_large_ones_in_any_order(stores: Stores) -> None:
    sizes = [10, 70_000, 20, 65_536, 300_000, *range(5, 250)]
    messages = [b"".join(b"%07d\r\n" % line for line in range(size // 9 + 1)) for size in sizes]
    with psycopg.connect(stores.conninfo) as connection:
        for message in messages:
            connection.execute("insert into pop3_messages (mailbox, content) values ('alice', %b)", (message,))
    drop = await stores.node().open(ALICE, utf8=False)
    assert list(drop.messages.sizes) == [len(message) for message in messages]
    order = [*range(1, len(sizes) + 1), 5, 2, 1, 100, 4, 101, 102]
    for number in order:
        assert await content(drop, number) == messages[number - 1]
        drop.release(number)
    await drop.read(5, 0)
    drop.release(5)
    assert await content(drop, 5) == messages[4]
    await drop.close()


async def test_a_message_that_vanished_spoils_no_other(stores: Stores) -> None:
    for text in (b"one\n", b"two\n", b"x" * 300_000):
        deliver(stores.conninfo, "alice", [text])
    drop = await stores.node().open(ALICE, utf8=False)
    execute(stores.conninfo, "delete from pop3_messages where octets <> 5 or content = %s", b"one\r\n")
    for number in (1, 3):
        with pytest.raises(StoreError, match="not there any more"):
            await content(drop, number)
    assert await content(drop, 2) == b"two\r\n"
    await drop.remove([1, 2])
    await drop.close()


async def test_what_somebody_stored_with_bare_line_feeds_is_sent_with_crlf(stores: Stores) -> None:
    execute(stores.conninfo, "insert into pop3_messages (mailbox, content) values ('alice', %s)", b"a\n.\nb")
    drop = await stores.node().open(ALICE, utf8=False)
    assert await content(drop, 1) == b"a\r\n.\r\nb\r\n"
    await drop.close()


async def test_the_database_goes_and_comes_back(cluster: Cluster, stores: Stores) -> None:
    deliver(stores.conninfo, "alice", [b"one\n"])
    store = stores.node()
    drop = await store.open(ALICE, utf8=False)
    await asyncio.to_thread(cluster.stop)
    try:
        with pytest.raises(StoreError, match="cannot be read now"):
            await content(drop, 1)
        with pytest.raises(RemovalFailed):
            await drop.remove([1])
        await drop.close()
        with pytest.raises(StoreError, match="cannot be opened now"):
            await store.open(ALICE, utf8=False)
        assert "failed" in str(await store.trouble())
    finally:
        await asyncio.to_thread(cluster.start)
    drop = await store.open(ALICE, utf8=False)
    assert await content(drop, 1) == b"one\r\n"
    await drop.remove([1])
    await drop.close()
    assert await store.trouble() is None


async def test_a_removal_is_on_the_disk_although_the_database_would_not_wait(stores: Stores) -> None:
    execute(stores.conninfo, "alter role owner set synchronous_commit = off")
    try:
        deliver(stores.conninfo, "alice", [b"one\n"])
        drop = await stores.node().open(ALICE, utf8=False)
        execute(
            stores.conninfo,
            "create function seen() returns trigger language plpgsql as $$ begin"
            " execute 'create table seen as select current_setting(''synchronous_commit'')::text as was';"
            " return old; end $$; "
            "create trigger seen before delete on pop3_messages for each row execute function seen()",
        )
        await drop.remove([1])
        await drop.close()
        assert execute(stores.conninfo, "select was from seen") == [("on",)]
    finally:
        execute(stores.conninfo, "alter role owner reset synchronous_commit")


def test_quotas_hold_also_for_deliveries_at_the_same_moment(database: str) -> None:
    quota = Quota(octets=100, messages=3)
    deliver(database, "alice", [b"x" * 50, b"\n"], quota)
    with pytest.raises(OverQuota, match="52 of 100 octets, and this message has 52"):
        deliver(database, "alice", [b"x" * 50, b"\n"], quota)
    for _ in range(2):
        deliver(database, "alice", [b"y\n"], quota)
    with pytest.raises(OverQuota, match="3 of 3 messages"):
        deliver(database, "alice", [b"y\n"], quota)
    deliver(database, "bob", [b"y\n"], quota)


def test_a_message_larger_than_the_limit_is_not_taken(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MESSAGE_OCTETS_MAX", 10)
    deliver(database, "alice", [b"x" * 8])
    with pytest.raises(ValueError, match="more than 10 octets"):
        deliver(database, "alice", [b"x" * 9])  # and its line end
    assert execute(database, "select octets from pop3_messages") == [(10,)]


@pytest.mark.parametrize("most", [0, 8, 9])
def test_what_is_stored_is_the_same_by_either_way(database: str, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(delivery, "IN_MEMORY_MAX", most)
    monkeypatch.setattr(delivery, "_PIECE", 4)
    deliver(database, "\u00e4lice", [b"\0a\r", b"\n\xffb"])
    assert execute(database, "select mailbox, content from pop3_messages") == [("\u00e4lice", b"\0a\r\n\xffb\r\n")]


def test_a_connection_is_kept_for_the_next_delivery(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    connect = psycopg.connect

    def counted(*arguments: Any, **named: Any) -> Any:
        made.append(arguments)
        return connect(*arguments, **named)

    monkeypatch.setattr(psycopg, "connect", counted)
    monkeypatch.setattr(delivery, "_KEPT", 0.3)
    for _ in range(3):
        deliver(database, "alice", [b"x\n"], keep=True)
    with pytest.raises(OverQuota):
        deliver(database, "alice", [b"x\n"], Quota(messages=3), keep=True)  # which closes it
    assert len(made) == 1
    deliver(database, "alice", [b"x\n"], keep=True)
    ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'pop3d deliver'"
    assert execute(database, ended) == [(1,)]
    deliver(database, "alice", [b"x\n"], keep=True)  # which finds that one ended
    monkeypatch.undo()
    assert len(made) == 4  # `execute` makes one, too
    assert execute(database, "select count(*) from pop3_messages") == [(5,)]
    deadline = time.monotonic() + 30
    while execute(database, ended.replace("pg_terminate_backend", "")) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert execute(database, ended.replace("pg_terminate_backend", "")) == [(0,)]


# --- the whole ---


def pop3d(*arguments: object, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "pop3d", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)


@pytest.fixture
def postgres_site(site: Site, database: str) -> Site:
    execute(database, "insert into pop3_users values ('alice', '{PLAIN}secret', null)")
    text = site.config.read_text()
    text = text[: text.index("[auth]")]
    text += '[auth]\nbackend = "postgres"\n[auth.postgres]\nconninfo = ' + json.dumps(database) + "\ntimeout = 60"
    text += (
        '\n[store]\nbackend = "postgres"\nquota_messages = 3\n[store.postgres]\nconninfo = '
        + json.dumps(database)
        + "\ntimeout = 60"
    )
    site.config.write_text(text)
    return site


def logged_in(site: Site) -> poplib.POP3_SSL:
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
    client.user("alice")
    client.pass_("secret")
    return client


def test_delivered_served_by_two_nodes_deleted(postgres_site: Site, tmp_path: Path) -> None:
    site = postgres_site
    checked = pop3d("check", "--config", site.config)
    assert checked.returncode == 0, checked.stdout
    for text in (b"Subject: one\n\n.dot\n", b"Subject: two\n\ntwo"):
        delivered = pop3d("deliver", "alice", "--config", site.config, data=text)
        assert (delivered.returncode, delivered.stderr) == (0, b"")
    assert pop3d("deliver", "nobody", "--config", site.config, data=b"x").returncode == 67
    mbox = tmp_path / "mbox"
    mbox.write_bytes(b"From x\nSubject: three\n\nthree\n\nFrom x\nSubject: four\n\nfour\n")
    full = pop3d("import", "alice", mbox, "--config", site.config)
    assert full.returncode == 75
    assert b"3 of 3 messages" in full.stderr
    assert pop3d("undelete", "alice", "--config", site.config).returncode == 78

    other = Site(tmp_path / "other", free_port())
    shutil.copytree(site.root, other.root, ignore=lambda *_: ["other"])
    other.config.write_text(site.config.read_text().replace(str(site.port), str(other.port)))
    nodes = [Daemon(site), Daemon(other)]
    try:
        client = logged_in(site)
        assert client.stat()[0] == 3
        shown = json.loads(pop3d("mailbox", "alice", "--json", "--config", site.config).stdout)
        assert (shown["messages"], shown["locked"], shown["holder"]["address"]) == (3, True, "127.0.0.1")
        assert shown["octets_sent"] == shown["octets"] == client.stat()[1]
        assert b"\n".join(client.retr(1)[1]) == b"Subject: one\n\n.dot"
        refused = poplib.POP3_SSL("localhost", other.port, context=other.context(), timeout=20)
        refused.user("alice")
        with pytest.raises(poplib.error_proto, match="IN-USE"):
            refused.pass_("secret")
        refused.quit()
        client.dele(1)
        client.quit()
        client = logged_in(other)
        assert [client.top(number, 0)[1][0] for number in (1, 2)] == [b"Subject: two", b"Subject: three"]
        nodes[1].process.kill()
        nodes[1].process.wait()
        client.close()
        client = logged_in(site)  # the lock died with the node that held it
        assert client.stat()[0] == 2
        client.quit()
    finally:
        assert nodes[0].end() == 0
        nodes[1].end()


def test_check_finds_a_database_without_tables(cluster: Cluster, postgres_site: Site) -> None:
    text = postgres_site.config.read_text()
    postgres_site.config.write_text(re.sub("dbname=[a-z0-9]+", "dbname=postgres", text))
    checked = pop3d("check", "--config", postgres_site.config)
    assert checked.returncode == 78
    for table in (b"[auth.postgres]", b"[store.postgres]"):
        assert table in checked.stdout
    assert b"examples/postgres/schema.sql" in checked.stdout


def test_the_password_of_the_database_is_never_shown(postgres_site: Site) -> None:
    text = postgres_site.config.read_text()
    postgres_site.config.write_text(re.sub("host=[^ ]+", "password=sesame host=/nowhere", text))
    config = load(postgres_site.config)
    assert "sesame" not in repr(config)
    checked = pop3d("check", "--config", postgres_site.config)
    assert checked.returncode == 78
    assert b"/nowhere" in checked.stdout
    delivered = pop3d("deliver", "alice", "--config", postgres_site.config, data=b"x")
    assert delivered.returncode == 75
    assert b"sesame" not in checked.stdout + checked.stderr + delivered.stderr


async def test_how_long_a_message_has_been_there(stores: Stores) -> None:
    for text in (b"new\n", b"old\n", b"of a clock without a battery\n", b"of the future\n"):
        deliver(stores.conninfo, "alice", [text])
    ids = [row[0] for row in execute(stores.conninfo, "select id from pop3_messages order by id")]
    for identity, when in zip(ids[1:], ("2020-01-02", "1970-01-02", "2999-01-01"), strict=True):
        execute(stores.conninfo, "update pop3_messages set delivered = %s where id = %s", when, identity)
    drop = await stores.node().open(ALICE, utf8=False)
    deliver(stores.conninfo, "alice", [b"later\n"])
    assert await drop.older_than(1577836800.0) == []  # 2020-01-01
    assert await drop.older_than(1578009600.0) == [2]
    assert await drop.older_than(4e9) == [1, 2]  # 2096
    await drop.close()
    empty = await stores.node().open(Account("nobody"), utf8=False)
    assert await empty.older_than(4e9) == []
    await empty.close()
