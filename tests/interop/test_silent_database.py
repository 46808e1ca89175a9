"""The link to the database goes down in the middle of QUIT, or of a login. Nothing is closed: packets are dropped.

pop3d is in a network namespace with two links: clients come by one, the database is behind the other. With ``-s`` the
seconds to each answer are shown.
"""

import contextlib
import json
import os
import poplib
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pop3d.net.certificates import create_self_signed
from pop3d.stores.postgres.delivery import deliver
from tests.postgres import Cluster
from tests.site import Daemon, Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and links take root")

TIMEOUT = float(os.environ.get("POP3_DATABASE_TIMEOUT", "5"))  # seconds
LONGEST = 20 * TIMEOUT  # seconds; what takes that long hangs
NET = f"10.213.{os.getpid() % 250}"  # of this process: another one on this machine may run the same
DATABASE, DATABASE_NODE = f"{NET}.1", f"{NET}.2"
CLIENTS, CLIENTS_NODE = f"{NET}.5", f"{NET}.6"
PORT = 8995


@dataclass
class Node:
    """A namespace for pop3d. ``database``, ``clients``: its links, by the names of their ends on our side."""

    namespace: str
    database: str
    clients: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    def cut(self, side: str) -> None:
        """``far``: the node's own end stays up, and what it sends is lost; ``near``: it knows of no way any more."""
        self._link(side, "down")

    def mend(self, side: str) -> None:
        self._link(side, "up")

    def _link(self, side: str, state: str) -> None:
        where = ["-n", self.namespace] if side == "near" else []
        ip(*where, "link", "set", "db0" if side == "near" else self.database, state)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"`ip {' '.join(arguments)}` is refused here: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    number = os.getpid()
    node = Node(f"pop-{number}", f"pd{number}", f"pc{number}")
    try:
        ip("netns", "add", node.namespace)
    except FileNotFoundError:
        pytest.skip("ip is missing; install iproute2")
    try:
        for link, end, ours, theirs in (
            (node.database, "db0", DATABASE, DATABASE_NODE),
            (node.clients, "pop0", CLIENTS, CLIENTS_NODE),
        ):
            ip("link", "add", link, "type", "veth", "peer", "name", end, "netns", node.namespace)
            ip("addr", "add", f"{ours}/30", "dev", link)
            ip("-n", node.namespace, "addr", "add", f"{theirs}/30", "dev", end)
            ip("link", "set", link, "up")
            ip("-n", node.namespace, "link", "set", end, "up")
        yield node
    finally:
        subprocess.run(["ip", "netns", "del", node.namespace], check=False)


@pytest.fixture(scope="module")
def cluster(node: Node) -> Iterator[Cluster]:
    try:
        running = Cluster(listen=DATABASE)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    yield running
    running.close()


@pytest.fixture
def database(cluster: Cluster) -> str:
    direct = cluster.database()
    execute(direct, "insert into pop3_users select name, '{PLAIN}secret' from unnest('{alice,bob}'::text[]) name")
    deliver(direct, "alice", [b"one\n"])
    return direct


@pytest.fixture
def daemon(node: Node, database: str, tmp_path: Path) -> Iterator[Daemon]:
    name = database.rpartition("dbname=")[2]
    conninfo = json.dumps(f"host={DATABASE} user=owner dbname={name}")
    create_self_signed([CLIENTS_NODE], tmp_path)
    site = Site(tmp_path, PORT)
    site.config.write_text(f"""
user = "root"
listen = [{{host = "{CLIENTS_NODE}", port = {PORT}}}]
tls = {{certificate = "cert.pem", private_key = "key.pem"}}
auth = {{backend = "postgres", postgres = {{conninfo = {conninfo}, timeout = {TIMEOUT}}}}}
store = {{backend = "postgres", postgres = {{conninfo = {conninfo}, timeout = {TIMEOUT}}}}}
""")
    running = Daemon(site, node.prefix)
    yield running
    assert running.end() == 0
    assert "Traceback" not in running.log


def execute(conninfo: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def client(folder: Path) -> Iterator[poplib.POP3_SSL]:
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    connected = poplib.POP3_SSL(CLIENTS_NODE, PORT, context=context, timeout=LONGEST)
    try:
        yield connected
    finally:
        connected.close()


def log_in(pop: poplib.POP3_SSL, user: str = "alice") -> None:
    pop.user(user)
    pop.pass_("secret")


def timed(what: str, ask: Callable[[], object]) -> object:
    began = time.monotonic()
    try:
        said: object = ask()
    except poplib.error_proto as refused:
        said = refused.args[0]
    print(f"{what}: {said!r} after {time.monotonic() - began:.1f} s")
    return said


@contextlib.contextmanager
def a_moment_later(do: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(0.5, do)
    timer.start()
    yield
    timer.join()


@pytest.mark.parametrize("side", ["far", "near"])
def test_the_link_goes_down_in_the_middle_of_quit(
    daemon: Daemon, node: Node, database: str, tmp_path: Path, side: str
) -> None:
    execute(
        database,
        "create function slow() returns trigger language plpgsql"
        " as $$ begin perform pg_sleep(1.5); return null; end $$; "
        "create trigger slow before delete on pop3_messages for each statement execute function slow()",
    )
    with client(tmp_path) as pop:
        log_in(pop)
        pop.dele(1)
        with a_moment_later(lambda: node.cut(side)):
            said = timed(f"{side} end down in the middle of QUIT", pop.quit)
    assert isinstance(said, bytes)
    assert b"[SYS/TEMP] 1 of 1" in said
    with client(tmp_path) as pop:
        said = timed("login while it is down", lambda: log_in(pop))
        assert isinstance(said, bytes)
        assert b"[SYS/TEMP]" in said
        node.mend(side)
        assert timed("login when it is back", lambda: log_in(pop)) is None
        assert pop.stat()[0] == 1  # nothing was deleted
        pop.quit()


@pytest.mark.parametrize("side", ["far", "near"])
def test_the_link_goes_down_in_the_middle_of_a_login(
    daemon: Daemon, node: Node, database: str, tmp_path: Path, side: str
) -> None:
    with psycopg.connect(database) as another:
        another.execute("lock table pop3_messages in access exclusive mode")  # the listing waits for that
        with client(tmp_path) as pop, a_moment_later(lambda: node.cut(side)):
            said = timed(f"{side} end down in the middle of a login", lambda: log_in(pop))
    assert isinstance(said, bytes)
    assert b"[SYS/TEMP]" in said
    node.mend(side)
    with client(tmp_path) as pop:
        assert timed("login when it is back", lambda: log_in(pop)) is None
        pop.quit()


@pytest.mark.parametrize("answering", [False, True])
def test_the_database_frees_the_locks_of_a_node_that_is_gone(
    daemon: Daemon, node: Node, database: str, tmp_path: Path, answering: bool
) -> None:
    """``answering``: an answer is under way, which TCP repeats for a quarter of an hour, without asking for life."""
    locks = "select l.pid from pg_locks l join pg_database d on d.oid = l.database where locktype = 'advisory'"
    locks += " and datname = current_database()"
    with client(tmp_path) as pop, client(tmp_path) as later:
        log_in(pop)
        pop.dele(1)
        ((holder,),) = execute(database, locks)
        if answering:
            assert isinstance(holder, int)
            os.kill(holder, signal.SIGSTOP)
            timed("login while the holder of the locks is stopped", lambda: log_in(later, "bob"))
            node.cut("far")
            os.kill(holder, signal.SIGCONT)  # it answers now
        else:
            node.cut("far")
        began = time.monotonic()
        while execute(database, locks) and time.monotonic() - began < 120:
            time.sleep(0.2)
        print(f"the database frees the locks after {time.monotonic() - began:.1f} s")
        assert not execute(database, locks)
        node.mend("far")
        said = timed("QUIT of the session whose lock is gone, when it is back", pop.quit)
        assert isinstance(said, bytes)
        assert b"[SYS/TEMP] 1 of 1" in said
    with client(tmp_path) as pop:
        assert timed("login then", lambda: log_in(pop)) is None
        assert pop.stat()[0] == 1
        pop.quit()
