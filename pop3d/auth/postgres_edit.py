"""Editing the users of a database: for `pop3d user`, which serves nobody else meanwhile, so it blocks.

What is done to the table stands in statements of the configuration (`pop3d.config.PostgresUsers`), which have defaults
for the table `pop3_users` of ours. Names and secrets are passed beside a statement, never in its text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg.rows import TupleRow

from pop3d.auth import AuthError, AuthUnavailable, check_user_name
from pop3d.auth.names import UserNames
from pop3d.auth.users_file import UnknownUser, UserExists
from pop3d.postgres import DURABLE, bounded, one_line, settings, silent, ways

__all__ = ["UserStatements", "UsersTable"]

_ROWS: Final = 1_000  # of users, listed at a time


@dataclass(frozen=True, slots=True)
class UserStatements:
    """``query``: of logins; ``add`` and ``set_password`` have the parameters ``%(user)s`` and ``%(password)s``,
    ``remove`` has ``%(user)s``; ``list`` gives columns ``name`` and ``password``.
    """

    query: str
    add: str
    set_password: str
    remove: str
    list: str


class UsersTable:
    """A connection to the database; use it with ``with``. Blocking.

    ``timeout``: seconds for each statement. All methods raise `AuthUnavailable` when the database does not answer, and
    `AuthError` for what it does not permit or understand.
    """

    def __init__(self, conninfo: str, statements: UserStatements, names: UserNames, timeout: float) -> None:
        self._statements, self._names, self._timeout = statements, names, timeout
        try:
            self._connection: psycopg.Connection[TupleRow] = psycopg.connect(
                conninfo, application_name="pop3d user", **ways(conninfo, timeout)
            )
        except psycopg.Error as fault:
            raise AuthUnavailable(f"users in PostgreSQL: {one_line(fault)}") from None
        self._ask(f"{settings(timeout)}; {DURABLE}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._connection.close()  # what is not committed is undone

    def called(self, name: str) -> str:
        """What a user is called whom a login by ``name`` would find; the name to the letter goes first.

        Raises `UnknownUser`.
        """
        for spelling in dict.fromkeys((name, self._names(name), self._names.key(name))):
            if (found := self._find(spelling)) is not None:
                return found
        raise UnknownUser(f"the database has no user {name!r}")

    def found_by_login(self, name: str) -> str | None:
        """What a user is called whom a login by ``name`` finds; None: nobody."""
        for spelling in dict.fromkeys((self._names(name), self._names.key(name))):
            if (found := self._find(spelling)) is not None:
                return found
        return None

    def add(self, name: str, secret: str) -> None:
        """Add a user. ``name``: as `UserNames` made it. Raises `UserExists`."""
        if (there := self._find(name)) is not None:
            raise UserExists(f"the database has a user {there!r} already")
        self._change(self._statements.add, {"user": name, "password": secret})

    def set_password(self, called: str, secret: str) -> None:
        """Give a user another secret. Raises `UnknownUser`."""
        self._change(self._statements.set_password, {"user": called, "password": secret})

    def remove(self, called: str) -> None:
        """Remove a user. Raises `UnknownUser`."""
        self._change(self._statements.remove, {"user": called})

    def users(self) -> Iterator[list[tuple[str, str]]]:
        """Names and secrets, some at a time: a million of them are never in memory at once."""
        # held outside a transaction: whoever reads the list may take his time
        self._ask(f"declare pop3d_users no scroll cursor with hold for {self._statements.list}")
        while True:
            self._ask("commit")
            cursor = self._ask(f"fetch {_ROWS} from pop3d_users")
            columns = _columns(cursor)
            if not {"name", "password"} <= set(columns):
                raise AuthError(f"`list_users` gives no columns `name` and `password`, but {', '.join(columns)}")
            name, password = columns.index("name"), columns.index("password")
            rows = cursor.fetchall()
            yield [(str(row[name]), str(row[password] or "")) for row in rows]
            if len(rows) < _ROWS:
                return

    def _find(self, name: str) -> str | None:
        try:
            check_user_name(name)
        except ValueError:
            return None
        cursor = self._ask(self._statements.query, {"user": name})
        row, columns = cursor.fetchone(), _columns(cursor)
        if row is None:
            return None
        return str(row[columns.index("name")] or name) if "name" in columns else name

    def _change(self, statement: str, parameters: Mapping[str, str]) -> None:
        changed = self._ask(statement, parameters).rowcount
        if changed > 1:  # undone: nothing is committed
            raise AuthError(f"the statement would change {changed} users, not one: {statement}")
        if changed < 1:
            raise UnknownUser(f"the database has no user {parameters['user']!r}")
        self._ask("commit")

    def _ask(self, statement: str, parameters: Mapping[str, str] | None = None) -> psycopg.Cursor[TupleRow]:
        late = threading.Event()
        try:
            with bounded(self._connection, self._timeout, late):
                return self._connection.execute(statement.encode(), parameters)
        except psycopg.errors.UniqueViolation:
            name = parameters["user"] if parameters else ""
            raise UserExists(f"the database has a user {name!r} already") from None
        except psycopg.errors.InsufficientPrivilege as fault:
            remedy = "grant it to this role, or set `admin_conninfo` in [auth.postgres]"
            raise AuthError(f"users in PostgreSQL: {one_line(fault)}; {remedy}") from None
        except (psycopg.ProgrammingError, psycopg.IntegrityError, psycopg.DataError) as fault:
            raise AuthError(f"users in PostgreSQL: {one_line(fault)}; mend the statement: {statement}") from None
        except psycopg.Error as fault:
            why = silent(self._timeout) if late.is_set() else one_line(fault)
            raise AuthUnavailable(f"users in PostgreSQL: {why}") from None


def _columns(cursor: psycopg.Cursor[TupleRow]) -> list[str]:
    return [column.name for column in cursor.description or ()]
