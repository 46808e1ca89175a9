"""Mail into PostgreSQL: for `pop3d deliver` and `pop3d import`, which serve nobody else meanwhile, so it blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from pop3core.framing import CrlfNormalizer
from pop3d.postgres import DURABLE, TIMEOUT, DatabaseFault, bounded, one_line, settings, silent, ways
from pop3d.stores.postgres.locks import key
from pop3d.stores.quota import OverQuota, Quota

__all__ = ["MESSAGE_OCTETS_MAX", "OCTETS_A_SECOND", "check_quota", "deliver", "usage", "whole_text"]

MESSAGE_OCTETS_MAX: Final = 256 * 1024 * 1024
"""The largest message that `deliver` takes: PostgreSQL wants it in memory, a few times."""

OCTETS_A_SECOND: Final = 1024 * 1024
"""What a database takes at least; for larger messages a delivery gets more time."""


def deliver(
    conninfo: str, mailbox: str, content: Iterable[bytes], quota: Quota | None = None, timeout: float = TIMEOUT
) -> None:
    """Deliver a message, in pieces of any size; it is there whole and durable, or not at all. Blocking.

    The database has ``timeout`` seconds, and another one for each MiB. Raises `OverQuota`, `DatabaseFault` (the message
    may be there all the same, when its last answer was lost), and ValueError for more than `MESSAGE_OCTETS_MAX`.
    """
    whole = whole_text(content)
    seconds = timeout + len(whole) // OCTETS_A_SECOND
    with _connected(conninfo, timeout, seconds) as connection:
        _insert(connection, mailbox, whole, quota or Quota(), settings(seconds))


def usage(conninfo: str, mailbox: str, timeout: float = TIMEOUT) -> tuple[int, int]:
    """Messages in a mailbox, and their octets. Blocking. Raises `DatabaseFault`."""
    with _connected(conninfo, timeout, timeout) as connection:
        connection.execute(settings(timeout).encode())
        return _counted(connection, mailbox)


@contextlib.contextmanager
def _connected(conninfo: str, timeout: float, seconds: float) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection for as long as that; ``timeout``: to connect. Raises `DatabaseFault`."""
    late = threading.Event()
    try:
        connection = psycopg.connect(conninfo, application_name="pop3d deliver", **ways(conninfo, timeout))
        try:
            with bounded(connection, seconds, late):
                yield connection
        finally:
            connection.close()
    except psycopg.Error as fault:
        raise DatabaseFault(silent(seconds) if late.is_set() else one_line(fault)) from None


def whole_text(content: Iterable[bytes]) -> bytearray:
    """A message as it is stored, and sent. Raises ValueError for more than `MESSAGE_OCTETS_MAX`."""
    text, whole = CrlfNormalizer(), bytearray()
    for piece in content:
        whole += text.feed(piece)
        if len(whole) > MESSAGE_OCTETS_MAX:
            raise ValueError(f"a message of more than {MESSAGE_OCTETS_MAX} octets is not taken")
    whole += text.finish()
    return whole


def _insert(connection: psycopg.Connection[TupleRow], mailbox: str, whole: bytearray, quota: Quota, first: str) -> None:
    connection.execute(f"{first}; {DURABLE}".encode())
    check_quota(connection, mailbox, quota, 1, len(whole))
    connection.execute("insert into pop3_messages (mailbox, content) values (%s, %b)", (mailbox, whole))
    connection.commit()


def check_quota(
    connection: psycopg.Connection[TupleRow], mailbox: str, quota: Quota, messages: int, octets: int
) -> None:
    """Raises `OverQuota` when there is no room for so much more. To the end of the transaction it is nobody else's."""
    if not (quota.octets or quota.messages):
        return
    # others that deliver here wait: two must not find the same room
    connection.execute("select pg_advisory_xact_lock(%s::bigint)", (key(f"{mailbox}\0quota"),))
    messages_there, octets_there = _counted(connection, mailbox)
    if quota.messages and messages_there + messages > quota.messages:
        raise OverQuota(f"the mailbox is full: {messages_there} of {quota.messages} messages")
    if quota.octets and octets_there + octets > quota.octets:
        what = "this message has" if messages == 1 else "these messages have"
        raise OverQuota(f"the mailbox is full: {octets_there} of {quota.octets} octets, and {what} {octets}")


def _counted(connection: psycopg.Connection[TupleRow], mailbox: str) -> tuple[int, int]:
    row = connection.execute(
        "select count(*), coalesce(sum(octets), 0)::bigint from pop3_messages where mailbox = %s", (mailbox,)
    ).fetchone()
    assert row is not None
    return row[0], row[1]
