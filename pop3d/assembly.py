"""From a configuration to a server: the one place that knows every concrete store and authenticator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from pop3d.auth import Account, Authenticator, AuthError, check_user_name
from pop3d.auth.users_file import UsersFile
from pop3d.certificates import authority_faults, load_faults
from pop3d.config import Config, OAuth, Pam
from pop3d.report import Observer
from pop3d.secret import secret_of
from pop3d.server import Server
from pop3d.stores import Store
from pop3d.stores.maildir import MaildirOptions, MaildirStore
from pop3d.stores.memory import MemoryStore
from pop3d.tls import ServerTls, server_tls

if TYPE_CHECKING:
    from pop3d.auth.postgres import PostgresUsers
    from pop3d.stores.postgres import PostgresStore

__all__ = [
    "account_of",
    "assemble",
    "by_pam",
    "maildir_store",
    "postgres_store",
    "postgres_users",
    "tls_faults",
    "tls_of",
    "with_tokens",
]


def assemble(config: Config, observer: Observer | None = None) -> Server:
    """A server that is not started yet. ``observer``: told what happens.

    Raises `pop3d.auth.AuthError` for a users file that is not usable, OSError for such a certificate.
    """
    return Server(config, _authenticator(config), _store(config), tls_of(config), observer)


def tls_of(config: Config) -> ServerTls | None:
    """TLS as configured; None when no listener has it. Raises OSError (ssl.SSLError is one)."""
    if config.tls is None or all(listen.tls == "none" for listen in config.listen):
        return None
    first, *more = config.tls.pairs
    names = {host: sni.pairs for sni in config.tls.sni for host in sni.hosts}
    return server_tls(*first, config.tls.minimum_version, more=more, names=names, client_ca=config.tls.client_ca)


def tls_faults(config: Config) -> list[str]:
    """What makes files of ``[tls]`` unusable, one line each; empty when nothing does."""
    faults: list[str] = []
    for files in (config.tls, *config.tls.sni) if config.tls is not None else ():
        beside = files.certificate_rsa is not None
        for number, pair in enumerate(files.pairs):
            faults += load_faults(*pair, rsa=number == 1 if beside else None)
    if config.tls is not None and config.tls.client_ca is not None:
        faults += authority_faults(config.tls.client_ca)
    return list(dict.fromkeys(faults))  # two names may share a file


def _authenticator(config: Config) -> Authenticator:
    auth = config.auth
    others: Authenticator | None = None
    guessable = {"apop", "scram-sha-256", "scram-sha-256-plus"} & set(auth.mechanisms)
    salts = secret_of(config.state) if guessable else None
    if auth.backend == "pam":
        others = by_pam(auth.pam or Pam())
    elif auth.backend == "file":
        others = users = UsersFile(auth.users, salts, latin1_passwords=auth.latin1_passwords)
        users.tell_who_cannot_log_in()
    elif auth.backend == "postgres":
        others = postgres_users(config, salts)
    if auth.oauth is not None:
        return with_tokens(auth.oauth, others)
    assert others is not None  # with backend = "oauth" there is [auth.oauth]: the configuration has seen to that
    return others


def account_of(config: Config, user: str) -> Account | None:
    """A user by name, to whom mail is delivered; None when there is no such. Raises `pop3d.auth.AuthError`.

    Where users are not in a file, any name that could be one is: what delivers mail has to know its users.
    """
    if config.auth.backend in ("file", "postgres"):
        return asyncio.run(_stored_account(config, user))
    try:
        check_user_name(user)
    except ValueError:
        return None
    return Account(user)


async def _stored_account(config: Config, user: str) -> Account | None:
    users = UsersFile(config.auth.users) if config.auth.postgres is None else postgres_users(config)
    try:
        return await users.account(user)
    finally:
        await users.close()


def postgres_users(config: Config, salts: bytes | None = None) -> PostgresUsers:
    """Users as ``[auth.postgres]`` says."""
    from pop3d.auth.postgres import PostgresUsers  # of an extra, which the configuration has looked for

    auth = config.auth
    assert auth.postgres is not None
    conninfo = auth.postgres.conninfo.get_secret_value()
    return PostgresUsers(conninfo, auth.postgres.query, salts, latin1_passwords=auth.latin1_passwords)


def postgres_store(config: Config) -> PostgresStore:
    """Mail as ``[store.postgres]`` says."""
    from pop3d.stores.postgres import PostgresStore

    assert config.store.postgres is not None
    return PostgresStore(config.store.postgres.conninfo.get_secret_value())


def with_tokens(oauth: OAuth, others: Authenticator | None) -> Authenticator:
    """Tokens beside other users, or alone. Raises `pop3d.auth.AuthError`."""
    try:
        from pop3d.auth.oauth import oauth_tokens
    except ModuleNotFoundError as fault:
        raise _extra_missing("[auth.oauth]", "oauth", fault) from None
    return oauth_tokens(oauth, others)


def by_pam(pam: Pam) -> Authenticator:
    """Users as PAM knows them. Raises `pop3d.auth.AuthError`."""
    try:
        from pop3d.auth.pam import PamUsers
    except ModuleNotFoundError as fault:
        raise _extra_missing('backend = "pam"', "pam", fault) from None
    return PamUsers(pam.service)


def _extra_missing(what: str, extra: str, fault: ModuleNotFoundError) -> AuthError:
    return AuthError(f"{what} needs the Python module {fault.name}: pip install 'pop3core[{extra}]'")


def _store(config: Config) -> Store:
    if config.store.backend == "memory":
        return MemoryStore()
    if config.store.backend == "postgres":
        return postgres_store(config)
    return maildir_store(config, config.state)


def maildir_store(config: Config, state: Path | None) -> MaildirStore:
    """As configured, but for ``state``: the folder for what can be rebuilt, or None to keep nothing."""
    store = config.store
    options = MaildirOptions(
        utf8_downgrade=store.utf8_downgrade,
        sizes_in_names=store.sizes_in_names,
        mark_seen=store.mark_seen,
        deleted=store.deleted,
        retention_days=store.retention_days,
        uidl=store.uidl,
    )
    return MaildirStore(store.path, state, options)
