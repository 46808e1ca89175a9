"""What `pop3d user` edits: a users file, or a table of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pop3d.auth.names import AS_IS, UserNames
from pop3d.auth.passwords import LockedSecret, hashed, parse_secret
from pop3d.auth.users_file import Line, add_user, lines_named, read_lines, remove_user, set_password
from pop3d.commands.whose import become_user
from pop3d.config import Config, PostgresUsers
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus

if TYPE_CHECKING:
    from pop3d.auth.postgres_edit import UsersTable

__all__ = ["EditableUsers", "ListedUser", "UsersInDatabase", "UsersInFile"]

_LOCKED: Final = "locked"  # in place of a scheme: no password of this user is right, on purpose


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A line of `pop3d user list`. ``notes``: fields that are filled in, or what is wrong, if it is ``faulty``."""

    name: str
    scheme: str
    notes: str = ""
    faulty: bool = False


class EditableUsers(Protocol):
    """Methods raise `pop3d.auth.users_file.UserExists` and `UnknownUser`, ValueError for a name or password that cannot
    be used, `pop3d.auth.AuthError`, `pop3d.auth.AuthUnavailable` and OSError.
    """

    @property
    def where(self) -> str:
        """As a message calls it."""
        ...

    @property
    def noticed(self) -> str:
        """When a daemon that runs takes notice."""
        ...

    def add(self, name: str, password: str, scheme: str) -> None:
        """Add a user, whose name is as `UserNames` made it."""
        ...

    def called(self, name: str) -> str:
        """What a user is called whom a login by ``name`` would find."""
        ...

    def set_password(self, called: str, password: str, scheme: str) -> None:
        """Give a user another password."""
        ...

    def remove(self, name: str) -> str:
        """Remove the user whom a login by ``name`` would find; what it was called."""
        ...

    def warning_after_removal(self) -> str:
        """What is to be known when a user was removed, in one line; empty when nothing is."""
        ...

    def listed(self) -> Iterator[list[ListedUser]]:
        """All users, some at a time."""
        ...


@dataclass(frozen=True, slots=True)
class UsersInFile:
    """A users file; see `EditableUsers`."""

    path: Path
    names: UserNames = AS_IS
    noticed: str = "; a daemon that runs takes notice at SIGHUP"

    @property
    def where(self) -> str:
        """See `EditableUsers`."""
        return str(self.path)

    def add(self, name: str, password: str, scheme: str) -> None:
        """See `EditableUsers`."""
        add_user(self.path, name, password, scheme, self.names)

    def called(self, name: str) -> str:
        """See `EditableUsers`."""
        lines = [f"{line.name}:" for line in read_lines(self.path)]
        return lines[lines_named(lines, name, self.names, self.path)[0]][:-1]

    def set_password(self, called: str, password: str, scheme: str) -> None:
        """See `EditableUsers`."""
        set_password(self.path, called, password, scheme)

    def remove(self, name: str) -> str:
        """See `EditableUsers`."""
        return remove_user(self.path, name, self.names)

    def warning_after_removal(self) -> str:
        """See `EditableUsers`."""
        if any(line.user is not None for line in read_lines(self.path)):
            return ""
        return f"{self.path} has no users now; a daemon that runs keeps its old users at SIGHUP: stop it"

    def listed(self) -> Iterator[list[ListedUser]]:
        """See `EditableUsers`."""
        yield [_of_line(line) for line in read_lines(self.path)]


@dataclass(frozen=True, slots=True)
class UsersInDatabase:
    """The table of `[auth.postgres]`; see `EditableUsers`. On the way this process becomes the configured `user`, as
    whom the database knows pop3d; but with `admin_conninfo` it stays who it is.
    """

    config: Config = field(repr=False)
    names: UserNames
    where: str = "the database"
    noticed: str = ""

    def add(self, name: str, password: str, scheme: str) -> None:
        """See `EditableUsers`."""
        secret = _secret(password, scheme)
        with self._table("add_user") as table:
            table.add(name, secret)

    def called(self, name: str) -> str:
        """See `EditableUsers`."""
        with self._table("set_password") as table:
            return table.called(name)

    def set_password(self, called: str, password: str, scheme: str) -> None:
        """See `EditableUsers`."""
        secret = _secret(password, scheme)
        with self._table("set_password") as table:
            table.set_password(called, secret)

    def remove(self, name: str) -> str:
        """See `EditableUsers`."""
        with self._table("remove_user") as table:
            called = table.called(name)
            table.remove(called)
            return called

    def warning_after_removal(self) -> str:
        """See `EditableUsers`."""
        return ""

    def listed(self) -> Iterator[list[ListedUser]]:
        """See `EditableUsers`."""
        with self._table("list_users") as table:
            for users in table.users():
                yield [_listed(name, password) for name, password in users]

    def _table(self, wanted: str) -> UsersTable:
        from pop3d.auth.postgres_edit import UsersTable, UserStatements  # of an extra

        postgres = self.config.auth.postgres
        assert postgres is not None
        statements = UserStatements(postgres.query, **_statements(postgres, wanted))
        conninfo = postgres.admin_conninfo
        if conninfo is None:
            become_user(self.config)
            conninfo = postgres.conninfo
        return UsersTable(conninfo.get_secret_value(), statements, self.names, postgres.timeout)


def _statements(postgres: PostgresUsers, wanted: str) -> dict[str, str]:
    statements = postgres.statements
    if statements[wanted] is None:
        what = "`query` of [auth.postgres] does not use our table pop3_users, and nothing says how to do this"
        raise CommandError(f"{what}; set `{wanted}`", ExitStatus.CONFIG)
    names = {"add_user": "add", "set_password": "set_password", "remove_user": "remove", "list_users": "list"}
    return {names[key]: statement or "" for key, statement in statements.items()}


def _secret(password: str, scheme: str) -> str:
    if not password:
        raise ValueError("the password is empty")
    return hashed(password, scheme)


def _of_line(line: Line) -> ListedUser:
    if line.fault and not line.locked:
        return ListedUser(line.name, "?", f"line {line.number}: {line.fault}", faulty=True)
    fields = ", ".join(line.user.fields) if line.user is not None else ""
    secret = line.user.secret if line.user is not None else None
    return ListedUser(line.name, _LOCKED if secret is None else secret.scheme, fields)


def _listed(name: str, password: str) -> ListedUser:
    try:
        return ListedUser(name, parse_secret(password, name).scheme)
    except LockedSecret:
        return ListedUser(name, _LOCKED)
    except ValueError as fault:
        return ListedUser(name, "?", str(fault), faulty=True)
