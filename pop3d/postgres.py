"""PostgreSQL, for users and for mail: a few connections, bounded waits, faults as one clear line.

A database can fall silent: its connections stay open, and nothing comes back (the host stopped, its address moved, a
link went down). So every wait has an end. An operation has a deadline, ``timeout`` seconds behind its beginning, and
each answer that shows progress moves it. Past it the connection's socket is shut down on this side: whatever waits for
it, inside psycopg too (a rollback, a cancellation), ends at once with a fault.

Needs psycopg 3 (the extra `postgres`), so nothing imports this module but what the configuration asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Self
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

__all__ = [
    "DURABLE",
    "TIMEOUT",
    "Database",
    "DatabaseConnection",
    "DatabaseFault",
    "Lease",
    "bounded",
    "one_line",
    "settings",
    "shut",
    "silent",
    "ways",
]

log = logging.getLogger("pop3d.postgres")

TIMEOUT: Final = 10.0
"""Seconds for an answer of the database, unless the configuration says otherwise."""

_FREE: Final = 3  # seconds to wait for a connection that is free
_PATIENCE: Final = 1.0  # seconds, at most, for a connection that was idle to answer, before a new one is tried
_GONE: Final = 1  # seconds for the database to end a connection that we have given up
_REMEMBERED: Final = 1_000  # connections given up, of which the database may not know
_DEAD: Final = (("idle", 10), ("interval", 5), ("count", 3))
"""Seconds: when a machine has gone without a word, its peer notices after 25; the database then frees its locks."""
_UNANSWERED: Final = (
    25_000  # milliseconds, likewise for what was sent: keepalives are not asked while that is under way
)


DURABLE: Final = (
    "select set_config('synchronous_commit', 'on', true)"
    " where current_setting('synchronous_commit') in ('off', 'local')"
)
"""In a transaction: its commit is on the disk before it is answered, whatever the database does otherwise."""


class DatabaseFault(Exception):
    """The database did not do what it was asked; one line, without secrets."""


def one_line(fault: psycopg.Error) -> str:
    """What the database, or the way to it, complains about."""
    text = " ".join(str(fault).split())
    return text[:300] or type(fault).__name__


def silent(seconds: float) -> str:
    """The line for a database that says nothing."""
    return f"no answer for {seconds:g} seconds"


def settings(timeout: float) -> str:
    """What a session of ours says first: by when the database gives up on a statement, and on us."""
    milliseconds = int(timeout * 1000)
    return "; ".join(
        [
            f"set statement_timeout = {milliseconds}",
            f"set idle_in_transaction_session_timeout = {milliseconds}",
            *(f"set tcp_keepalives_{name} = {value}" for name, value in _DEAD),
            f"set tcp_user_timeout = {_UNANSWERED}",
        ]
    )


@contextlib.contextmanager
def bounded(connection: psycopg.Connection[TupleRow], seconds: float, late: threading.Event) -> Iterator[None]:
    """Whatever waits for the connection inside gets a fault when the time is over, and ``late`` is set."""

    def end() -> None:
        late.set()
        shut(connection)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # its descriptor is somebody else's once the connection is closed


def ways(conninfo: str, timeout: float) -> dict[str, Any]:
    """Parameters of libpq beside ``conninfo``, where it does not say otherwise: they bound what no deadline sees."""
    given = conninfo_to_dict(conninfo)
    hosts = str(given.get("hostaddr") or given.get("host") or "/").split(",")
    addresses = sum(1 if _is_one_address(host) else 2 for host in hosts)
    wanted = {
        "connect_timeout": max(2, int(timeout / addresses)),  # a silent address leaves time for the next
        "tcp_user_timeout": int(timeout * 1000),
        **{f"keepalives_{name}": value for name, value in _DEAD},
    }
    return {name: value for name, value in wanted.items() if name not in given}


def _is_one_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith(("/", "@"))  # a Unix socket; a name may have several
    return True


def shut(connection: psycopg.BaseConnection[TupleRow]) -> None:
    """End a connection's traffic at once: who waits for it gets a fault, and what was not sent yet never is.

    (To close it would free its descriptor, of which whoever waits still knows.)
    """
    with contextlib.suppress(psycopg.Error, OSError):
        sock = socket.socket(fileno=connection.fileno())
        try:
            # a COMMIT that a dead link holds back must not arrive after we have said that nothing was deleted
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RDWR)
        finally:
            sock.detach()


class DatabaseConnection:
    """A connection in autocommit mode. ``raw``: psycopg's; ``name``: by which the database knows it, and no other.

    ``lost``: it is closed or given up; nobody may count on what its session in the database held.
    """

    def __init__(self, raw: psycopg.AsyncConnection[TupleRow], name: str, database: Database) -> None:
        self.raw, self.name, self.database = raw, name, database
        self.lost = False
        self.leases = 0

    def until(self, deadline: float) -> Lease:
        """For a ``with`` block in which no wait goes past ``deadline`` (the event loop's clock)."""
        return Lease(self, deadline)

    async def answers(self, deadline: float) -> bool:
        """Whether it says anything by ``deadline``. If it stays silent, it is given up."""
        with contextlib.suppress(DatabaseFault), self.until(deadline) as lease:
            await lease.raw.execute(b"select 1")
            return True
        return False

    def give_up(self) -> None:
        """Wait for it no more: who does gets a fault. The database may think that its session lives on."""
        if not self.lost:
            shut(self.raw)
            self.database.given_up.append(self.name)
            self.close()

    def close(self) -> None:
        """End it; as soon as nobody waits for it any more, who would be left with a descriptor of somebody else's."""
        self.lost = True
        if not self.leases:
            self.raw.pgconn.finish()


class Lease:
    """A connection for some statements, which are given up with it when their time is over. Raises `DatabaseFault`."""

    __slots__ = ("_connection", "_timer", "raw")

    def __init__(self, connection: DatabaseConnection, deadline: float) -> None:
        self.raw, self._connection = connection.raw, connection
        self._timer = asyncio.get_running_loop().call_at(deadline, connection.give_up)

    def __enter__(self) -> Self:
        self._connection.leases += 1
        return self

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        connection = self._connection
        connection.leases -= 1
        if connection.lost:
            connection.close()
        if isinstance(fault, psycopg.Error):
            raise DatabaseFault(silent(connection.database.timeout) if connection.lost else one_line(fault)) from None

    def progress(self) -> None:
        """The database has answered, and goes on with a long piece of work: its time begins anew."""
        self._timer.cancel()
        connection = self._connection
        self._timer = asyncio.get_running_loop().call_at(connection.database.deadline(), connection.give_up)


class Database:
    """At most ``connections`` to the database of ``conninfo`` (a string of libpq); they are made when needed.

    ``timeout``: seconds that an operation may wait for an answer.
    (psycopg's own pool tries again in the background, less and less often: it does not say why there is none, and finds
    out late that there could be.)
    """

    def __init__(self, conninfo: str, connections: int, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        self._conninfo, self._connections = conninfo, connections
        self._ways, self._settings = ways(conninfo, timeout), settings(timeout).encode()
        self._places = asyncio.Semaphore(connections)
        self._idle: list[DatabaseConnection] = []
        self._made: WeakSet[DatabaseConnection] = WeakSet()
        self._closed = False
        self.given_up: deque[str] = deque(maxlen=_REMEMBERED)  # by name, until the database knows

    def __repr__(self) -> str:
        return f"<Database, up to {self._connections} connections>"  # conninfo may have a password

    @property
    def connections(self) -> tuple[int, int]:
        """How many are open, those that hold locks too, and how many of them are idle."""
        return sum(not one.lost for one in self._made), len(self._idle)

    def deadline(self) -> float:
        """By when an operation that begins now has to be answered (the event loop's clock)."""
        return asyncio.get_running_loop().time() + self.timeout

    def soon(self) -> float:
        """By when a connection answers that is there: one that does not need not be lost (the event loop's clock)."""
        return asyncio.get_running_loop().time() + min(_PATIENCE, self.timeout / 4)

    @contextlib.asynccontextmanager
    async def lease(self, deadline: float | None = None) -> AsyncIterator[Lease]:
        """A connection in autocommit mode, up to ``deadline``: by default, that of an operation that begins now.

        Raises `DatabaseFault`, also for what goes wrong inside.
        """
        if deadline is None:
            deadline = self.deadline()
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + _FREE)):
                await self._places.acquire()
        except TimeoutError:
            raise DatabaseFault(f"all {self._connections} connections were busy for {_FREE} seconds") from None
        try:
            connection = await self._usable(deadline)
            try:
                with connection.until(deadline) as lease:
                    yield lease
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    async def rows(self, query: str, parameters: Any = None) -> list[TupleRow]:
        """All that a query gives, in binary form. Raises `DatabaseFault`."""
        async with self.lease() as lease:
            cursor = lease.raw.cursor(binary=True)
            await cursor.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def connect(self, deadline: float) -> DatabaseConnection:
        """A connection of one's own; whoever has it closes it, or gives it up. Raises `DatabaseFault`.

        Soon after this machine is gone, the database ends it. What was given up before is ended first, so that
        whatever it held there is free.
        """
        if self._closed:
            raise DatabaseFault("pop3d ends")
        name = f"pop3d {secrets.token_hex(8)}"
        try:
            async with asyncio.timeout_at(deadline):
                raw = await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, application_name=name, **self._ways
                )
        except TimeoutError:
            raise DatabaseFault(silent(self.timeout)) from None
        except psycopg.Error as fault:
            raise DatabaseFault(one_line(fault)) from None
        connection = DatabaseConnection(raw, name, self)
        self._made.add(connection)
        try:
            with connection.until(deadline) as lease:
                await lease.raw.execute(self._settings)
                if self.given_up:
                    await self._end_given_up(lease.raw)
        except BaseException:
            connection.give_up()
            raise
        return connection

    async def _end_given_up(self, raw: psycopg.AsyncConnection[TupleRow]) -> None:
        # they may be alive for the database, with locks and half a transaction. Their names are random and were said to
        # nobody else, so they are ours, also behind a pooler, and after a failover
        names = list(self.given_up)
        ours = b"from pg_stat_activity where application_name = any(%s) and usename = session_user"
        try:
            cursor = await raw.execute(b"select pg_terminate_backend(pid) " + ours, (names,))
            ended = cursor.rowcount
            patience = asyncio.get_running_loop().time() + _GONE
            while ended and asyncio.get_running_loop().time() < patience:
                row = await (await raw.execute(b"select count(*) " + ours, (names,))).fetchone()
                if row is None or row[0] == 0:
                    break
                await asyncio.sleep(0.01)
        except psycopg.errors.InsufficientPrivilege as fault:
            log.warning("connections that were given up stay until the database notices: %s", one_line(fault))
        for name in names:
            with contextlib.suppress(ValueError):
                self.given_up.remove(name)

    async def _usable(self, deadline: float) -> DatabaseConnection:
        while self._idle:
            connection = self._idle.pop()
            usable = False
            try:
                usable = await connection.answers(min(deadline, self.soon()))
            finally:
                if not usable:
                    connection.give_up()
            if usable:
                return connection
            while self._idle:  # the others went the same way: none is waited for
                self._idle.pop().give_up()
        return await self.connect(deadline)  # a restart of the database is nobody's failed login

    def _give_back(self, connection: DatabaseConnection) -> None:
        if not connection.lost and connection.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.give_up()  # lost, or left in the middle of something

    def close(self) -> None:
        """End all connections; who still waits for one gets a fault. Never waits."""
        self._closed = True
        for connection in list(self._made):
            if connection.leases:
                connection.give_up()
            else:
                connection.close()
        self._idle.clear()
