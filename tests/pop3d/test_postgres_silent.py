"""A PostgreSQL that falls silent, and comes back: every wait has an end, and nothing is deleted that was not answered.

No time is asserted but that there is an end at all: what hangs is cut off by `within`, far behind every bound. What has
to succeed gets `LONG` for it, on a machine that does much else; what has to fail is `brief`.
"""

import asyncio
import json
import poplib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from pop3core.events import Password
from pop3d.auth import Account, AuthUnavailable
from pop3d.auth.postgres import PostgresUsers
from pop3d.postgres import Database, DatabaseFault
from pop3d.store_contract import ALICE, content
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.postgres.delivery import deliver
from pop3d.stores.postgres.store import PostgresMaildrop, PostgresStore
from tests.postgres import Cluster, Relay
from tests.site import Daemon, Site

TIMEOUT, LONG = 1.5, 60.0
CAROL = Account("carol")
QUERY = "select password, home from pop3_users where name = %(user)s"


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    way = Relay(cluster)
    yield way
    way.close()


@pytest.fixture
async def node(relay: Relay, database: str) -> AsyncIterator[PostgresStore]:
    """A node that reaches the database by the relay; alice has three messages."""
    for text in (b"one\n", b"two\n", b"three\n" * 50_000):
        deliver(database, "alice", [text])
    store = PostgresStore(relay.conninfo(database), LONG)
    yield store
    await store.close()


@pytest.fixture
async def other(database: str) -> AsyncIterator[PostgresStore]:
    """Another node, whose way to the database is never silent."""
    store = PostgresStore(database, LONG)
    yield store
    await store.close()


@asynccontextmanager
async def within() -> AsyncIterator[None]:
    async with asyncio.timeout(LONG):
        yield


@asynccontextmanager
async def brief(database: Database) -> AsyncIterator[None]:
    """It is given up soon; and that comes to an end."""
    database.timeout = TIMEOUT
    async with within():
        yield
    database.timeout = LONG


def left(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("select count(*) from pop3_messages").fetchone()
    assert row is not None
    return int(row[0])


def execute(database: str, query: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(query.encode())


async def opened(store: PostgresStore, account: Account = ALICE) -> PostgresMaildrop:
    """Once the sessions of others have ended: for a backend, that takes a moment."""
    for _ in range(100):
        try:
            return await store.open(account, utf8=False)
        except MaildropBusy:
            await asyncio.sleep(0.1)
    raise AssertionError("in use for 10 seconds")


# --- those there are fall silent, new connections go through ---


async def test_what_a_session_asks_is_answered_by_new_connections(relay: Relay, node: PostgresStore) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.freeze()
    async with within():
        assert await content(drop, 1) == b"one\r\n"
        carol = await node.open(CAROL, utf8=False)  # though the locks of others wait for one that is silent
        await carol.close()
    async with brief(node.database):
        await drop.close()


async def test_who_cannot_ask_for_his_lock_removes_nothing_and_gets_in_again_at_once(
    relay: Relay, node: PostgresStore, other: PostgresStore, database: str
) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.freeze()
    async with brief(node.database):
        with pytest.raises(RemovalFailed) as failed:
            await drop.remove([1, 3])
        assert list(failed.value.left) == [1, 3]
        await drop.close()
    assert left(database) == 3
    with pytest.raises(MaildropBusy):  # to the database, the silent connection is as good as any
        await other.open(ALICE, utf8=False)
    async with within():
        again = await node.open(ALICE, utf8=False)  # but who made it has it ended
        await again.remove([1, 3])
        await again.close()
    assert left(database) == 1


async def test_a_connection_that_is_only_slow_keeps_its_locks(
    relay: Relay, node: PostgresStore, other: PostgresStore
) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.freeze()
    carol = await node.open(CAROL, utf8=False)
    relay.up(thaw=True)
    with pytest.raises(MaildropBusy):
        await other.open(ALICE, utf8=False)
    await drop.remove([2])
    await drop.close()
    await carol.close()
    taken_over = await other.open(ALICE, utf8=False)
    assert len(taken_over.messages) == 2
    await taken_over.close()


async def test_a_removal_whose_answer_is_lost_is_none_that_was_done(
    relay: Relay, node: PostgresStore, database: str
) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.last_request = b"commit\0"
    removing = asyncio.create_task(drop.remove([1, 2]))
    async with within():
        while left(database) != 1:  # it was done: nobody can know that
            await asyncio.sleep(0.05)
        node.database.close()
        with pytest.raises(RemovalFailed) as failed:
            await removing
        assert list(failed.value.left) == [1, 2]


@pytest.mark.parametrize("request_", [b"begin", b"pg_try_advisory_xact_lock", b"delete from", b"pg_advisory_unlock"])
async def test_silence_anywhere_in_a_removal_ends_it(
    relay: Relay, node: PostgresStore, database: str, request_: bytes
) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.last_request = request_
    if request_ == b"pg_advisory_unlock":
        await drop.remove([1, 2, 3])
    async with brief(node.database):
        if request_ != b"pg_advisory_unlock":
            with pytest.raises(RemovalFailed):
                await drop.remove([1, 2, 3])
        await drop.close()
    relay.up()
    again = await opened(node)
    assert len(again.messages) == left(database) == (0 if request_ == b"pg_advisory_unlock" else 3)
    await again.close()


@pytest.mark.parametrize(
    "request_", [b"statement_timeout", b"pg_try_advisory_lock", b"begin", b"declare", b"fetch", b"commit\0"]
)
async def test_silence_anywhere_in_an_opening_ends_it_and_keeps_no_lock(
    relay: Relay, node: PostgresStore, request_: bytes
) -> None:
    relay.last_request = request_
    async with brief(node.database):
        with pytest.raises(StoreError, match="cannot be opened now") as refused:
            await node.open(ALICE, utf8=False)
        assert refused.value.code == "SYS/TEMP"
    relay.up()
    again = await opened(node)
    await again.close()


# --- all fall silent ---


async def test_nothing_answers_and_then_it_is_back(relay: Relay, node: PostgresStore, database: str) -> None:
    drop = await node.open(ALICE, utf8=False)
    relay.down()
    async with brief(node.database):
        with pytest.raises(StoreError, match="cannot be read now"):
            await content(drop, 3)
        with pytest.raises(RemovalFailed):
            await drop.remove([1])
        await drop.close()
        for account in (ALICE, CAROL):
            with pytest.raises(StoreError, match="cannot be opened now"):
                await node.open(account, utf8=False)
        assert await node.trouble() is not None
    relay.up()
    async with within():
        drop = await node.open(ALICE, utf8=False)
        assert await content(drop, 3) == b"three\r\n" * 50_000
        await drop.remove([1, 2, 3])
        await drop.close()
    assert left(database) == 0


async def test_many_that_wait_at_once_wait_no_longer_than_one_and_leave_nothing_behind(
    relay: Relay, node: PostgresStore
) -> None:
    drops = [await node.open(Account(f"user{number}"), utf8=False) for number in range(20)]
    relay.down()
    async with brief(node.database):  # 60 waits one behind the other would not fit
        ends = await asyncio.gather(
            *(node.open(Account(f"more{number}"), utf8=False) for number in range(40)),
            *(drop.close() for drop in drops),
            return_exceptions=True,
        )
        assert all(isinstance(end, StoreError) for end in ends[:40])
    relay.up()
    async with within():
        again = [await opened(node, Account(f"{kind}{number}")) for kind in ("user", "more") for number in range(20)]
        await asyncio.gather(*(drop.close() for drop in again))


async def test_a_store_that_closes_waits_for_nobody(relay: Relay, node: PostgresStore) -> None:
    drop = await node.open(ALICE, utf8=False)
    node.database.timeout = 100 * LONG
    relay.down()
    reading = asyncio.create_task(content(drop, 1))
    await asyncio.sleep(0.1)
    async with within():
        await node.close()
        with pytest.raises(StoreError):
            await reading


async def test_users_that_cannot_be_looked_up_are_not_refused(relay: Relay, database: str) -> None:
    execute(database, "insert into pop3_users values ('bob', '{PLAIN}bob', null)")
    users = PostgresUsers(relay.conninfo(database), QUERY, timeout=LONG)
    credential = Password("bob", "", b"bob")
    assert await users.authenticate(credential) == Account("bob")
    relay.freeze()
    assert await users.authenticate(credential) == Account("bob")
    relay.down()
    async with brief(users.database):
        for _ in range(2):
            with pytest.raises(AuthUnavailable):
                await users.authenticate(credential)
        with pytest.raises(AuthUnavailable):
            await users.secret("bob", "SCRAM-SHA-256", "nonce")
    relay.up()
    assert await users.authenticate(credential) == Account("bob")
    await users.close()


# --- the database is there, and works, or waits itself ---


async def test_a_removal_may_take_long_as_long_as_it_goes_on(node: PostgresStore, database: str) -> None:
    execute(
        database,
        "insert into pop3_messages (mailbox, content) select 'carol', 'x' from generate_series(1, 5000); "
        "create function slow() returns trigger language plpgsql"
        " as $$ begin perform pg_sleep(1); return null; end $$; "
        "create trigger slow before delete on pop3_messages for each statement execute function slow()",
    )
    drop = await node.open(CAROL, utf8=False)
    node.database.timeout = 4  # for each of five
    await drop.remove(range(1, 5001))
    await drop.close()
    assert left(database) == 3


async def test_a_removal_that_comes_to_a_halt_in_the_middle_removes_nothing(node: PostgresStore, database: str) -> None:
    execute(
        database,
        "insert into pop3_messages (mailbox, content) select 'carol', 'x' from generate_series(1, 3000); "
        "create table batches (); create function halts() returns trigger language plpgsql as $$ begin "
        "if (select count(*) from batches) = 2 then perform pg_sleep(600); end if; "
        "insert into batches default values; return null; end $$; "
        "create trigger halts before delete on pop3_messages for each statement execute function halts()",
    )
    drop = await node.open(CAROL, utf8=False)
    async with brief(node.database):
        with pytest.raises(RemovalFailed) as failed:
            await drop.remove(range(1, 3001))
        await drop.close()
    assert len(failed.value.left) == 3000
    assert left(database) == 3003


async def test_a_lock_that_another_program_holds_on_the_table_is_waited_for_but_not_for_ever(
    node: PostgresStore, database: str
) -> None:
    with psycopg.connect(database) as another:
        another.execute("lock table pop3_messages in access exclusive mode")
        async with brief(node.database):
            with pytest.raises(StoreError, match="cannot be opened now"):
                await node.open(ALICE, utf8=False)
            with pytest.raises(DatabaseFault):
                await asyncio.to_thread(deliver, database, "alice", [b"four\n"], None, TIMEOUT)
    drop = await opened(node)
    assert len(drop.messages) == 3
    await drop.close()


async def test_nobody_opens_a_mailbox_while_a_removal_that_lost_its_lock_still_runs(
    node: PostgresStore, other: PostgresStore, database: str
) -> None:
    execute(
        database,
        "create function waits() returns trigger language plpgsql as $$ begin "
        "perform pg_advisory_lock(4711); return null; end $$; "
        "create trigger waits before delete on pop3_messages for each statement execute function waits()",
    )
    drop = await node.open(ALICE, utf8=False)
    with psycopg.connect(database, autocommit=True) as another:
        another.execute("select pg_advisory_lock(4711)")
        removing = asyncio.create_task(drop.remove([1, 2]))
        held = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        while another.execute(held).fetchone() is None:
            await asyncio.sleep(0.02)
        another.execute(  # the connection that holds the mailbox's lock, and nothing else
            "select pg_terminate_backend(pid) from pg_locks l where locktype = 'advisory' and pid <> pg_backend_pid()"
            " and not exists (select from pg_locks w where w.pid = l.pid and not w.granted)"
        )
        for _ in range(3):
            with pytest.raises(MaildropBusy):
                await other.open(ALICE, utf8=False)
        another.execute("select pg_advisory_unlock(4711)")
        await removing  # it asked for its lock before, and nobody has got in since
    taken_over = await opened(other)
    assert len(taken_over.messages) == 1
    await taken_over.close()
    await drop.close()


async def test_only_connections_of_our_own_are_ended(relay: Relay, database: str) -> None:
    """Another node, and another program under the same role, keep theirs."""
    ours, theirs = Database(relay.conninfo(database), 2, LONG), Database(database, 2, LONG)
    try:
        held = await theirs.connect(theirs.deadline())
        lost = await ours.connect(ours.deadline())
        with psycopg.connect(database, application_name="pop3d") as program:
            relay.freeze()
            assert not await lost.answers(ours.soon())
            names = await ours.rows("select application_name from pg_stat_activity where datname = current_database()")
            assert (lost.name,) not in names
            assert (held.name,) in names
            assert await held.answers(theirs.deadline())
            program.execute("select 1")
    finally:
        ours.close()
        theirs.close()


async def test_a_silent_host_leaves_time_for_the_next(relay: Relay, database: str) -> None:
    relay.down()
    silent = dict(word.split("=") for word in relay.conninfo(database).split())
    direct = dict(word.split("=") for word in database.split())
    hosts = f"host={silent['host']},{direct['host']} port={silent['port']},5432"
    both = Database(f"{hosts} user={direct['user']} dbname={direct['dbname']}", 2, timeout=10)
    try:
        assert await both.rows("select 1") == [(1,)]
    finally:
        both.close()


# --- delivery ---


@pytest.mark.parametrize("request_", [None, b"statement_timeout", b"insert into", b"commit\0"])
def test_a_delivery_into_a_silent_database_is_to_be_tried_again(
    relay: Relay, database: str, request_: bytes | None
) -> None:
    if request_ is None:
        relay.down()
    relay.last_request = request_
    with pytest.raises(DatabaseFault):
        deliver(relay.conninfo(database), "alice", [b"one\n"], timeout=TIMEOUT)
    assert left(database) <= (request_ == b"commit\0")  # there, and not answered: rather twice than never
    relay.up()
    deliver(relay.conninfo(database), "alice", [b"one\n"], timeout=LONG)


# --- the whole ---


@pytest.fixture
def silent_site(site: Site, database: str, relay: Relay) -> Site:
    execute(
        database, "insert into pop3_users values ('alice', '{PLAIN}secret', null), ('carol', '{PLAIN}secret', null)"
    )
    conninfo = f"conninfo = {json.dumps(relay.conninfo(database))}\ntimeout = 5\n"
    text = site.config.read_text()
    text = text[: text.index("[auth]")]
    text += (
        f'[auth]\nbackend = "postgres"\nmechanisms = ["plain", "apop", "scram-sha-256"]\n[auth.postgres]\n{conninfo}'
    )
    text += f'[store]\nbackend = "postgres"\n[store.postgres]\n{conninfo}'
    site.config.write_text(text)
    return site


class Client(poplib.POP3_SSL):
    def __init__(self, site: Site) -> None:
        super().__init__("localhost", site.port, context=site.context(), timeout=LONG)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_in(self, user: str = "alice") -> None:
        self.user(user)
        self.pass_("secret")


def test_clients_are_told_and_get_in_when_it_is_back(silent_site: Site, relay: Relay, database: str) -> None:
    deliver(database, "alice", [b"one\n"])
    daemon = Daemon(silent_site)
    try:
        with Client(silent_site) as client:
            client.log_in()
            client.dele(1)
            relay.down()
            with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\] 1 of 1"):
                client.quit()
        with Client(silent_site) as client:
            with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
                client.log_in()
            client.sock.sendall(b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg=\r\n")
            assert client.file.readline().startswith(b"-ERR [SYS/TEMP]")
            relay.up()
            client.log_in()
            assert client.stat()[0] == 1
            client.dele(1)
            client.quit()
        assert left(database) == 0
    finally:
        assert daemon.end() == 0
    assert "Traceback" not in daemon.log
    assert "fault of ours" not in daemon.log


def test_commands_end_while_the_database_is_silent(silent_site: Site, relay: Relay) -> None:
    def pop3d(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "pop3d", *arguments, "--config", str(silent_site.config)]
        return subprocess.run(command, input=b"x", capture_output=True, timeout=LONG, check=False)

    relay.down()
    checked, delivered = pop3d("check"), pop3d("deliver", "alice")
    assert checked.returncode == 78
    assert b"[auth.postgres]: " in checked.stdout
    assert b"[store.postgres]: " in checked.stdout
    assert delivered.returncode == 75
    assert delivered.stderr.endswith(b"try again later\n")


def test_a_daemon_ends_in_time_while_the_database_is_silent(silent_site: Site, relay: Relay, database: str) -> None:
    deliver(database, "alice", [b"one\n"])
    patient = silent_site.config.read_text().replace("timeout = 5\n", "timeout = 300\n")
    silent_site.config.write_text("drain_timeout = 1\n" + patient)
    daemon = Daemon(silent_site)
    with Client(silent_site) as client:
        client.log_in()
        relay.down()
        client.sock.sendall(b"RETR 1\r\n")
        time.sleep(0.5)
        assert daemon.end() == 0  # `end` waits for 20 seconds
    assert "Traceback" not in daemon.log
