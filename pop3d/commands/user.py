"""`pop3d user ...`: the users file."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from pop3d.auth import AuthError, check_user_name
from pop3d.auth.passwords import ARGON2ID, PLAIN, SCRAM
from pop3d.auth.users_file import UserExists, add_user
from pop3d.config import find, load
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus

__all__ = ["add"]

_SCHEMES = {"argon2id": ARGON2ID, "scram-sha-256": SCRAM, "plain": PLAIN}


def add(name: str, *, config: Path | None, users: Path | None, scheme: str, password_stdin: bool) -> None:
    """Add a user to ``users``, or to the users file of the configuration."""
    if scheme.lower() not in _SCHEMES:
        raise CommandError(
            f"--scheme: {scheme!r} is not yet supported; use argon2id, scram-sha-256 or plain", ExitStatus.USAGE
        )
    path = users if users is not None else load(find(config)).auth.users
    try:
        check_user_name(name)
        add_user(path, name, _password(name, from_stdin=password_stdin), _SCHEMES[scheme.lower()])
    except UserExists as fault:
        raise CommandError(f"not added: {fault}; choose another name", ExitStatus.DATA) from None
    except ValueError as fault:
        raise CommandError(f"not added: {fault}", ExitStatus.DATA) from None
    except AuthError as fault:
        raise CommandError(f"not added: {fault}", ExitStatus.CONFIG) from None
    except OSError as fault:
        raise CommandError(f"not added: {path}: {fault.strerror}", ExitStatus.CANNOT_WRITE) from None
    print(f"added {name} to {path}; a daemon that runs takes notice at SIGHUP")


def _password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        try:
            return sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError("the password is not UTF-8") from None
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the password on; use --password-stdin", ExitStatus.USAGE)
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise ValueError("the two passwords differ")
    return password
