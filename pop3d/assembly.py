"""From a configuration to a server: the one place that knows every concrete store and authenticator."""

from __future__ import annotations

from pathlib import Path

from pop3d.auth import Authenticator
from pop3d.auth.users_file import UsersFile
from pop3d.certificates import authority_faults, load_faults
from pop3d.config import Config
from pop3d.report import Observer
from pop3d.secret import secret_of
from pop3d.server import Server
from pop3d.stores import Store
from pop3d.stores.maildir import MaildirOptions, MaildirStore
from pop3d.stores.memory import MemoryStore
from pop3d.tls import ServerTls, server_tls

__all__ = ["assemble", "maildir_store", "tls_faults", "tls_of"]


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
    guessable = {"apop", "scram-sha-256", "scram-sha-256-plus"} & set(config.auth.mechanisms)
    salts = secret_of(config.state) if guessable else None
    users = UsersFile(config.auth.users, salts, latin1_passwords=config.auth.latin1_passwords)
    users.tell_who_cannot_log_in()
    return users


def _store(config: Config) -> Store:
    if config.store.backend == "memory":
        return MemoryStore()
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
