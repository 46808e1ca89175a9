"""`pop3d user ...`: the users file, or the users in a database."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pop3d.auth import AuthError, AuthUnavailable, check_user_name
from pop3d.auth.names import AS_IS, UserNames
from pop3d.auth.passwords import PASSWORD_OCTETS_MAX, PROVED_BY, serves
from pop3d.auth.schemes import ARGON2ID, PLAIN, SCRAM, Secret
from pop3d.auth.users_file import UnknownUser, UserExists
from pop3d.commands.configured import configured
from pop3d.commands.user_backends import EditableUsers, UsersInDatabase, UsersInFile
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.observe.log import sanitized

__all__ = ["add", "list_users", "passwd", "remove"]

_SCHEMES: Final = {"argon2id": ARGON2ID, "scram-sha-256": SCRAM, "plain": PLAIN}


@dataclass(frozen=True, slots=True)
class _Site:
    """Which users; and, if a configuration was read, what they log in with and how their names are made."""

    users: EditableUsers
    mechanisms: tuple[str, ...] = ()
    names: UserNames = AS_IS

    def scheme(self, wanted: str | None) -> str:
        """As wanted; else a SCRAM verifier where SCRAM is offered, which serves passwords too, else Argon2id."""
        if wanted is None:
            return SCRAM if any(name.startswith("scram-") for name in self.mechanisms) else ARGON2ID
        if wanted.lower() not in _SCHEMES:
            raise CommandError(
                f"--scheme: no secrets are made for {wanted!r}; use argon2id, scram-sha-256 or plain", ExitStatus.USAGE
            )
        return _SCHEMES[wanted.lower()]

    def tell(self, done: str, scheme: str, password: str) -> None:
        print(f"{done}{self.users.noticed}")
        if scheme != PLAIN:
            unserved, why = [name for name in self.mechanisms if name == "apop"], "that takes `--scheme plain`"
        else:
            plain = Secret(PLAIN, password)
            unserved = [name for name in self.mechanisms if name in PROVED_BY and not serves(plain, PROVED_BY[name])]
            why = "SASLprep refuses the password"
        if unserved:
            names = ", ".join(unserved).upper()
            print(f"pop3d: {names} will not work for this user: {why}", file=sys.stderr)


def _site(config: Path | None, users: Path | None) -> _Site:
    if users is not None and config is None:
        return _Site(UsersInFile(users))
    found = configured(config)
    auth, names = found.auth, UserNames.of(found.auth)
    if users is None and auth.backend == "postgres":
        return _Site(UsersInDatabase(found, names), auth.mechanisms, names)
    if users is None and auth.backend != "file":
        what = (
            f'with backend = "{auth.backend}" users are in no file, and others know them; `--users FILE` names a file'
        )
        raise CommandError(what, ExitStatus.CONFIG)
    return _Site(UsersInFile(auth.users if users is None else users, names), auth.mechanisms, names)


def add(name: str, *, config: Path | None, users: Path | None, scheme: str | None, password_stdin: bool) -> None:
    """Add a user to ``users``, or to those of the configuration."""
    site = _site(config, users)
    chosen = site.scheme(scheme)
    with _told("not added", site.users):
        name = site.names(name)
        check_user_name(name)
        password = _password(name, from_stdin=password_stdin)
        site.users.add(name, password, chosen)
    site.tell(f"added {name} to {site.users.where}", chosen, password)


def passwd(name: str, *, config: Path | None, users: Path | None, scheme: str | None, password_stdin: bool) -> None:
    """Give a user another password."""
    site = _site(config, users)
    chosen = site.scheme(scheme)
    with _told("not changed", site.users):
        called = site.users.called(name)  # before anybody types a password in vain
        password = _password(called, from_stdin=password_stdin)
        site.users.set_password(called, password, chosen)
    site.tell(f"changed the password of {called} in {site.users.where}", chosen, password)


def remove(name: str, *, config: Path | None, users: Path | None) -> None:
    """Remove a user; the mail stays."""
    site = _site(config, users)
    with _told("not removed", site.users):
        called = site.users.remove(name)
        warning = site.users.warning_after_removal()
    print(f"removed {called} from {site.users.where}, the mail stays{site.users.noticed}")
    if warning:
        print(f"pop3d: {warning}", file=sys.stderr)


def list_users(*, config: Path | None, users: Path | None) -> None:
    """Show names and schemes: tables on a terminal, lines with a tab elsewhere; never a secret."""
    site = _site(config, users)
    console = Console()
    with _told("not listed", site.users):
        for some in site.users.listed():
            if not console.is_terminal:
                for user in some:
                    print(f"{sanitized(user.name) or '?'}\t{user.scheme}")
                continue
            table = Table("name", "scheme", "fields", box=None, header_style="bold", pad_edge=False)
            for user in some:
                style = "red" if user.faulty else ""
                table.add_row(Text(sanitized(user.name) or "?"), Text(user.scheme), Text(sanitized(user.notes), style))
            console.print(table)


@contextmanager
def _told(failed: str, users: EditableUsers) -> Iterator[None]:
    """Whatever editing raises, as a line and an exit code."""
    try:
        yield
    except UserExists as fault:
        text = f"{failed}: {fault}; `pop3d user passwd` changes a password"
        raise CommandError(text, ExitStatus.DATAERR) from None
    except UnknownUser as fault:
        text = f"{failed}: {fault.args[0]}; `pop3d user list` shows who is there"
        raise CommandError(text, ExitStatus.NOUSER) from None
    except ValueError as fault:
        raise CommandError(f"{failed}: {fault}", ExitStatus.DATAERR) from None
    except AuthError as fault:
        raise CommandError(f"{failed}: {fault}", ExitStatus.CONFIG) from None
    except AuthUnavailable as fault:
        raise CommandError(f"{failed}: {fault}; try again later", ExitStatus.TEMPFAIL) from None
    except TimeoutError as fault:
        raise CommandError(f"{failed}: {users.where}: {fault.strerror}", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        raise CommandError(f"{failed}: {users.where}: {fault.strerror}", ExitStatus.IOERR) from None


def _password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        octets = sys.stdin.buffer.readline(PASSWORD_OCTETS_MAX + 2).rstrip(b"\r\n")
        if len(octets) > PASSWORD_OCTETS_MAX:
            raise ValueError(f"the password has more than {PASSWORD_OCTETS_MAX} octets")
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("the password is not UTF-8") from None
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the password on; use --password-stdin", ExitStatus.USAGE)
    try:
        password = getpass.getpass(f"Password for {name}: ")
        again = getpass.getpass("Once more: ")
    except EOFError:
        raise ValueError("no password was given") from None
    if again != password:
        raise ValueError("the two passwords differ")
    return password
