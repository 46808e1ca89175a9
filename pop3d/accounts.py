"""Who there is: users by name, for those that bring mail to them, and the authenticators that know users of elsewhere.

Each is imported only where the configuration asks for it: `pop3d deliver` is a process for each message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pop3d.auth import Account, Authenticator, AuthError, AuthUnavailable, KnowsUsers, check_user_name
from pop3d.auth.names import UserNames
from pop3d.auth.users_lookup import account_in_file
from pop3d.config import Config, ConfigError, Dovecot
from pop3d.system.ownership import acting

if TYPE_CHECKING:
    from pop3d.auth.dovecot import DovecotUsers
    from pop3d.auth.postgres import PostgresUsers

__all__ = ["accounts_of", "dovecot_users", "plugin_authenticator", "plugin_of", "postgres_users"]


def accounts_of(config: Config, users: Sequence[str]) -> list[Account | None]:
    """Users by name, as a sender spells it, to whom mail is delivered; None where there is no such.

    Where users are PAM's, or an issuer's of tokens, or Dovecot's without its userdb, any name that could be one is:
    what delivers mail has to know its users. Raises `pop3d.auth.AuthError`, `pop3d.auth.AuthUnavailable`, and
    `ConfigError` for a plug-in.
    """
    names = [*map(UserNames.of(config.auth), users)]
    dovecot = config.auth.backend == "dovecot"
    if config.auth.backend in ("pam", "oauth") or (dovecot and _asked(config).userdb_socket is None):
        return [Account(name) if _may_be_a_user(name) else None for name in names]
    if config.auth.backend == "file" and len(names) == 1:
        return [account_in_file(config.auth.users, names[0], UserNames.of(config.auth))]
    import asyncio

    return asyncio.run(_accounts_known(config, names))


def _may_be_a_user(name: str) -> bool:
    try:
        check_user_name(name)
    except ValueError:
        return False
    return True


async def _accounts_known(config: Config, names: Sequence[str]) -> list[Account | None]:
    users: Authenticator
    if config.auth.backend == "file":
        from pop3d.auth.users_file import UsersFile

        try:
            users = UsersFile(config.auth.users, names=UserNames.of(config.auth))
        except AuthError as fault:  # somebody mends the file, and no mail is to come back meanwhile
            raise AuthUnavailable(str(fault)) from None
    elif config.auth.backend == "postgres":
        users = postgres_users(config)
    elif config.auth.backend == "dovecot":
        users = dovecot_users(config)
    else:
        users = plugin_authenticator(config)
    try:
        if not isinstance(users, KnowsUsers):
            lacks = f"{config.auth.backend!r} cannot say who there is: it lacks the method `account`"
            raise AuthError(f"`auth.backend`: {lacks}; deliver into the Maildir by other means")
        return [await users.account(name) for name in names]
    finally:
        await users.close()


def postgres_users(config: Config, salts: bytes | None = None) -> PostgresUsers:
    """Users as ``[auth.postgres]`` says."""
    from pop3d.auth.postgres import PostgresUsers  # of an extra, which the configuration has looked for

    auth = config.auth
    assert auth.postgres is not None
    return PostgresUsers(
        auth.postgres.conninfo.get_secret_value(),
        auth.postgres.query,
        salts,
        latin1_passwords=auth.latin1_passwords,
        timeout=auth.postgres.timeout,
        names=UserNames.of(auth),
    )


def dovecot_users(config: Config) -> DovecotUsers:
    """Users as ``[auth.dovecot]`` says."""
    from pop3d.auth.dovecot import DovecotUsers

    asked = _asked(config)
    homes = "{home}" in config.store.path + config.store.deleted + config.store.control
    return DovecotUsers(asked.socket, asked.userdb_socket, homes=homes, seconds_max=asked.timeout)


def _asked(config: Config) -> Dovecot:
    return config.auth.dovecot or Dovecot()


def plugin_authenticator(config: Config) -> Authenticator:
    """Users of a plug-in. Raises `ConfigError`."""
    from pop3d.plugins import AUTHENTICATORS

    # what methods it has is looked at; what they take and return is its author's affair
    return cast("Authenticator", plugin_of(config, AUTHENTICATORS, ("authenticate", "reload", "close")))


def plugin_of(config: Config, group: str, methods: tuple[str, ...]) -> object:
    """The plug-in of ``[store]`` or ``[auth]``, which has these methods. Raises `ConfigError`."""
    from pop3d.plugins import STORES, PluginError, plugin

    table, found = ("store", config.store) if group == STORES else ("auth", config.auth)
    folder = config.file.absolute().parent if config.file is not None else Path.cwd()
    try:
        with acting(config.owner):
            return plugin(group, table, found.backend, found.options, folder, methods, config.trusted, found.built_in)
    except PluginError as fault:
        raise ConfigError([f"{config.file or folder}: {text}" for text in fault.faults]) from None
