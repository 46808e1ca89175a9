"""`pop3d check`, and what `auth.usernames` makes of names: users who become one, and mailboxes that nobody reaches."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Final

from pop3d.auth import Account, AuthError, AuthUnavailable, check_user_name
from pop3d.auth.name_index import NameIndex
from pop3d.auth.names import UserNames
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.users_file import Line
from pop3d.commands.finding import CheckFinding, counted, fault
from pop3d.config import Config
from pop3d.stores import StoreError
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.seen_mailboxes import is_there, mailboxes_root

__all__ = ["clashes", "other_spellings", "unreachable"]

_FOLDERS_MAX: Final = 100_000
"""Folders that are compared with the names of users: less than a second."""

_USERS_MAX: Final = 100_000
"""Users of a database whose names are looked at: likewise."""

_LOOKED_FOR_MAX: Final = 1_000
"""Of these, users who are looked for by a query each."""


def clashes(config: Config, lines: list[Line]) -> Iterator[CheckFinding]:
    """Lines of the users file whose names are one by the configuration."""
    numbers = {line.name: line.number for line in lines}
    index = NameIndex((line.user.name for line in lines if line.user is not None), UserNames.of(config.auth))
    for name, users in index.clashes.items():
        where = f"{config.auth.users} lines {' and '.join(str(numbers[user]) for user in users)}"
        spellings = " and ".join(repr(user) for user in users)
        what = f"{spellings} are one name, {name!r}, so none of them can log in, and mail for them waits"
        yield fault(where, what, 'rename or remove all but one, or set `auth.usernames = "as-is"`')


def unreachable(config: Config) -> Iterator[CheckFinding]:
    """Users of a database whose names no login finds, because `usernames` makes others of them."""
    postgres, names = config.auth.postgres, UserNames.of(config.auth)
    if postgres is None or (listing := postgres.statements["list_users"]) is None:
        return
    from pop3d.auth.postgres_edit import UsersTable, UserStatements  # of an extra

    statements = UserStatements(postgres.query, "", "", "", listing)
    lost: list[str] = []
    try:
        with UsersTable(postgres.conninfo.get_secret_value(), statements, names, postgres.timeout) as table:
            everybody = chain.from_iterable(table.users())
            others = [name for name, _ in islice(everybody, _USERS_MAX) if names(name) != name]
            lost = [name for name in others[:_LOOKED_FOR_MAX] if table.found_by_login(name) != name]
    except (AuthError, AuthUnavailable):
        return  # told by whoever tries the query; and this role need not be allowed to list users
    if lost:
        users = counted(len(lost), "user")
        what = f"no login finds {users}, such as {lost[0]!r}, for it is looked up as {names(lost[0])!r}"
        remedy = 'store names so, or let `query` compare with lower(name), or set `auth.usernames = "as-is"`'
        yield fault("[auth.postgres]", what, remedy)


def other_spellings(config: Config, users: list[StoredUser]) -> Iterator[CheckFinding]:
    """Mailboxes that no user's name leads to, but one in other letters: of another time, or of another program.

    Where users are in no file, any folder whose name no login can have. As the configured user.
    """
    names = UserNames.of(config.auth)
    homes = {user.name: user.home for user in users}
    index = NameIndex(homes, names)
    for name, folder in _folders(config.store.path):
        try:
            check_user_name(name)
            if config.auth.backend == "file":
                user = index.find(names(name)) or index.find(names.key(name))
                if user is None or user == name:
                    continue
                account = Account(user, homes[user])
            elif names(name) != name and not config.auth.is_plugin:
                account = Account(names(name))
            else:
                continue
            path = mailbox_path(config.store.path, account)
            if os.path.realpath(folder) == os.path.realpath(path) or not is_there(folder):
                continue
            there = is_there(path)
        except (ValueError, StoreError, OSError):
            continue
        what = f"the mailbox of {account.name!r} is {path}, and what is in this one is shown to nobody"
        if there:
            remedy = f"`pop3d import {shlex.quote(account.name)} {shlex.quote(folder)}` copies it; then remove this one"
            yield fault(folder, what, remedy)
        else:
            in_file = f", or name the user {name!r} in the users file" if config.auth.backend == "file" else ""
            yield fault(folder, what, _move(folder, path) + in_file)


def _move(folder: str, path: str) -> str:
    """The command that makes a mailbox's folder the one at ``path``, where no mailbox is.

    Folders above it that are spelled otherwise move as a whole, unless those at the other place are there.
    """
    source, target = Path(folder), Path(path)
    while source.name == target.name and not os.path.exists(target.parent):
        source, target = source.parent, target.parent
    command = f"mv {shlex.quote(str(source))} {shlex.quote(str(target))}"
    if os.path.exists(target):
        return f"rmdir {shlex.quote(str(target))} && {command}"
    if os.path.exists(target.parent):
        return command
    return f"mkdir -p {shlex.quote(str(target.parent))} && {command}"


def _folders(template: str) -> Iterator[tuple[str, str]]:
    """Names of users and folders, as a path of folders that are one placeholder each tells them."""
    root = mailboxes_root(template)
    if root is None:
        return
    parts = [part for part in template[len(root) :].split("/") if part]
    depth = 1 + max(number for number, part in enumerate(parts) if "{" in part)
    if any(part not in ("{user}", "{local}", "{domain}") for part in parts[:depth]):
        return
    rest = parts[depth:]
    left = _FOLDERS_MAX
    reached: list[tuple[dict[str, str], Path]] = [({}, Path(root))]
    for part in parts[:depth]:
        below: list[tuple[dict[str, str], Path]] = []
        for values, folder in reached:
            try:
                found = sorted(os.listdir(folder))[:left]
            except OSError:
                continue  # told by others
            left -= len(found)
            below += (({**values, part: entry}, folder / entry) for entry in found)
        reached = below
    for values, folder in reached:
        name = values.get("{user}") or f"{values.get('{local}', '')}@{values.get('{domain}', '')}"
        yield name, str(folder.joinpath(*rest))
