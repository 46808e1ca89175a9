"""From a configuration to a server: the one place that knows every concrete store and authenticator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from pop3d.abuse.known_users import KnownUsers
from pop3d.accounts import dovecot_users, plugin_authenticator, plugin_of, postgres_users
from pop3d.auth import Authenticator, AuthError, KeepsSecrets, KnowsUsers
from pop3d.auth.names import UserNames
from pop3d.auth.passwords import PROVED_BY
from pop3d.auth.users_file import UsersFile
from pop3d.config import Config, ConfigError, OAuth, Pam
from pop3d.extras import install_line
from pop3d.key_pairs import tls_of
from pop3d.net.tls import ServerTls
from pop3d.observe.report import Observer
from pop3d.plugins import STORES
from pop3d.server import Server
from pop3d.stores import Store
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from pop3d.stores.memory import MemoryStore
from pop3d.system.ownership import acting
from pop3d.system.secret import secret_of

if TYPE_CHECKING:
    from pop3d.stores.postgres.store import PostgresStore

__all__ = [
    "assemble",
    "authenticator_again",
    "by_pam",
    "maildir_store",
    "plugin_faults",
    "postgres_store",
    "store_again",
    "users_and_store",
    "with_tokens",
]

T = TypeVar("T")


def assemble(config: Config, observer: Observer | None = None, tls: ServerTls | None = None) -> Server:
    """A server that is not started yet. ``observer``: told what happens; ``tls``: where it was read already.

    Raises `pop3d.auth.AuthError` for a users file that is not usable, `ConfigError` for certificates and plug-ins.
    """
    faults: list[str] = []
    with acting(config.owner):
        secret = secret_of(config.state)
    authenticator = _collected(faults, config, lambda config: _authenticator(config, secret))
    with acting(config.owner):
        store = _collected(faults, config, _store)
    if authenticator is None or store is None:
        raise ConfigError(faults)
    tls = tls or tls_of(config)
    with acting(config.owner):
        return Server(config, authenticator, store, tls, observer, KnownUsers(config.state), secret)


def users_and_store(config: Config) -> tuple[Authenticator, Store]:
    """What a server asks at a login, for who wants to know what it would say. Raises as `assemble` does."""
    with acting(config.owner):
        store = _store(config)
    return _authenticator(config), store


def authenticator_again(config: Config) -> Authenticator:
    """For a server that runs, and whose users are no plug-in's: it had users, so now there must be some. Blocking.

    Raises as `assemble` does.
    """
    return _authenticator(config, secret_of(config.state), may_be_empty=False)


def store_again(config: Config) -> Store:
    """For a server that runs, and whose store is no plug-in."""
    return _store(config)


def plugin_faults(config: Config) -> list[str]:
    """What is wrong with the plug-ins of a configuration, one line each; they are made for it."""
    faults: list[str] = []
    if config.auth.is_plugin:
        _collected(faults, config, _authenticator)
    if config.store.is_plugin:
        _collected(faults, config, _store)
    return faults


def _collected(faults: list[str], config: Config, make: Callable[[Config], T]) -> T | None:
    """What ``make`` makes; or None, and then its faults are added."""
    try:
        return make(config)
    except ConfigError as fault:
        faults += fault.faults
    return None


def _authenticator(config: Config, salts: bytes | None = None, *, may_be_empty: bool = True) -> Authenticator:
    """As configured. ``salts``: see `pop3d.auth.stored`; ``may_be_empty``: see `pop3d.auth.users_file.UsersFile`.

    Raises `pop3d.auth.AuthError`, and `ConfigError` for a plug-in.
    """
    auth, names = config.auth, UserNames.of(config.auth)
    others: Authenticator | None = None
    guessable = [name for name in auth.mechanisms if name in PROVED_BY]
    if auth.is_plugin:
        others = plugin_authenticator(config)
        if guessable and not isinstance(others, KeepsSecrets):
            lacks = f"{guessable[0]} needs the method `secret`, which {auth.backend!r} lacks; remove it"
            raise ConfigError([f"{config.file}: `auth.mechanisms`: {lacks}"])
        if config.has_lmtp and not isinstance(others, KnowsUsers):
            lacks = f"{auth.backend!r} cannot say who there is: it lacks the method `account`"
            raise ConfigError([f'{config.file}: protocol = "lmtp": {lacks}; remove that [[listen]]'])
    elif auth.backend == "pam":
        others = by_pam(auth.pam or Pam())
    elif auth.backend == "file":
        latin1 = auth.latin1_passwords
        others = users = UsersFile(auth.users, salts, latin1_passwords=latin1, names=names, may_be_empty=may_be_empty)
        users.tell_faults()
    elif auth.backend == "postgres":
        others = postgres_users(config, salts)
    elif auth.backend == "dovecot":
        others = dovecot_users(config)
    if auth.oauth is not None:
        with acting(config.owner):  # a secret that it reads is sent to where the configuration says
            return with_tokens(auth.oauth, others, names)
    assert others is not None  # with backend = "oauth" there is [auth.oauth]: the configuration has seen to that
    return others


def postgres_store(config: Config) -> PostgresStore:
    """Mail as ``[store.postgres]`` says."""
    from pop3d.stores.postgres.store import PostgresStore

    assert config.store.postgres is not None
    return PostgresStore(config.store.postgres.conninfo.get_secret_value(), config.store.postgres.timeout)


def with_tokens(oauth: OAuth, others: Authenticator | None, names: UserNames | None = None) -> Authenticator:
    """Tokens beside other users, or alone; ``names``: what is made of their claims. Raises `pop3d.auth.AuthError`."""
    try:
        from pop3d.auth.oauth import oauth_tokens
    except ModuleNotFoundError as fault:
        raise _extra_missing("[auth.oauth]", "oauth", fault) from None
    return oauth_tokens(oauth, others, names=names)


def by_pam(pam: Pam) -> Authenticator:
    """Users as PAM knows them. Raises `pop3d.auth.AuthError`."""
    try:
        from pop3d.auth.pam import PamUsers
    except ModuleNotFoundError as fault:
        raise _extra_missing('backend = "pam"', "pam", fault) from None
    return PamUsers(pam.service)


def _extra_missing(what: str, extra: str, fault: ModuleNotFoundError) -> AuthError:
    return AuthError(f"{what} needs the Python module {fault.name}: {install_line(extra)}")


def _store(config: Config) -> Store:
    if config.store.is_plugin:
        return cast("Store", plugin_of(config, STORES, ("open",)))
    if config.store.backend == "memory":
        return MemoryStore()
    if config.store.backend == "postgres":
        return postgres_store(config)
    return maildir_store(config, config.state)


def maildir_store(config: Config, state: Path | None) -> MaildirStore:
    """As configured, but for ``state``: the state folder, or None to keep nothing."""
    store = config.store
    options = MaildirOptions(
        utf8_downgrade=store.utf8_downgrade,
        sizes_in_names=store.sizes_in_names,
        mark_seen=store.mark_seen,
        deleted=store.deleted,
        retention_days=store.retention_days,
        uidl=store.uidl,
        control=store.control,
        refuse_compressed=store.compressed == "refuse",
    )
    return MaildirStore(store.path, state, options)
