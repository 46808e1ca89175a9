"""Whose mailbox a command is about, and whom the process becomes before it looks at it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Final

from pop3d.accounts import accounts_of
from pop3d.auth import Account, AuthError, AuthUnavailable
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.system.privileges import become, process_identity
from pop3d.system.state_folder import prepare

__all__ = ["become_user", "known_account", "known_accounts", "prepare_state", "unknown"]

_NO_NAME: Final = 'the name cannot be a user\'s: one has no blanks, no "/" and no ":", and begins with no dot'
"""Where everybody is a user whose name can be one."""


def known_account(config: Config, user: str) -> Account:
    """The user of that name. Raises `CommandError`: 67 when there is no such, 75 when nobody can be asked now."""
    (account,) = known_accounts(config, [user])
    if account is None:
        raise unknown(config, user)
    return account


def known_accounts(config: Config, users: Sequence[str]) -> list[Account | None]:
    """The users of those names, None where there is no such. Raises `CommandError` when nobody can be asked now."""
    try:
        return accounts_of(config, users)
    except AuthError as fault:
        raise CommandError(str(fault), ExitStatus.CONFIG) from None
    except AuthUnavailable as fault:
        raise CommandError(f"{fault}; try again later", ExitStatus.TEMPFAIL) from None


def unknown(config: Config, user: str) -> CommandError:
    """The error that says that there is no such user."""
    what = {
        "file": f"`pop3d user add {shlex.quote(user)}` makes one",
        "postgres": "`query` in [auth.postgres] finds no row for that name",
        "dovecot": "Dovecot's userdb does not know it",
        "pam": _NO_NAME,
        "oauth": _NO_NAME,
    }.get(config.auth.backend, f"the plug-in {config.auth.backend} does not know it")
    return CommandError(f"no such user: {user!r}; {what}", ExitStatus.NOUSER)


def prepare_state(config: Config) -> None:
    """A process of root makes the state folder, as `serve` does, for the configured `user`, who may not.

    To be called before `become_user`. Raises `CommandError`.
    """
    if os.geteuid() != 0:
        return
    try:
        becomes = process_identity(config.user, config.group).becomes
    except LookupError:
        return  # told by `become_user`
    try:
        prepare(config.state, None if becomes is None else (becomes.uid, becomes.gid))
    except OSError as fault:
        what = f"state folder {config.state}: {fault.strerror}; root must be able to make it"
        raise CommandError(what, ExitStatus.IOERR) from None


def become_user(config: Config) -> None:
    """A process of root becomes the configured `user`. Raises `CommandError`."""
    if os.geteuid() != 0:
        return  # and whom it names does not matter
    try:
        if (identity := process_identity(config.user, config.group).becomes) is not None:
            become(identity)
    except (LookupError, OSError) as fault:
        raise CommandError(f"`user` or `group` in the configuration: {fault}", ExitStatus.CONFIG) from None
