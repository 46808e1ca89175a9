"""Where a user's mail goes, for the commands that bring mail into a mailbox."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pop3d.auth import Account
from pop3d.commands.configured import configured
from pop3d.commands.whose import become_user, known_account
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.stores import StoreError
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there
from pop3d.stores.maildir.store import mailbox_path
from pop3d.stores.quota import OverQuota, Quota, quota_of

__all__ = ["InMaildir", "InPostgres", "Recipient", "check_store", "recipient", "recipient_of", "tried_again_later"]


class Recipient(Protocol):
    """Where a user's mail goes."""

    def deliver(self, content: Iterable[bytes]) -> None:
        """Deliver a message, as new mail."""
        ...


@dataclass(frozen=True, slots=True)
class InMaildir:
    """A user's Maildir, its deleted messages (empty for none), and its quota."""

    path: str
    deleted: str
    quota: Quota

    def deliver(self, content: Iterable[bytes]) -> None:
        """See `Recipient`. Raises OSError and `OverQuota`."""
        deliver(self.path, content, self.quota)


@dataclass(frozen=True, slots=True)
class InPostgres:
    """A user's mailbox in a database."""

    conninfo: str = field(repr=False)
    timeout: float
    name: str
    quota: Quota

    def deliver(self, content: Iterable[bytes]) -> None:
        """See `Recipient`. Raises `CommandError` and `OverQuota`."""
        from pop3d.postgres import DatabaseFault  # of an extra, which the configuration has looked for
        from pop3d.stores.postgres import delivery as postgres_delivery

        try:
            postgres_delivery.deliver(self.conninfo, self.name, content, self.quota, self.timeout)
        except DatabaseFault as fault:
            raise CommandError(f"not delivered: {fault}; try again later", ExitStatus.TEMPFAIL) from None
        except ValueError as fault:
            raise CommandError(f"not delivered: {fault}", ExitStatus.DATAERR) from None


def recipient(user: str, path: Path | None) -> InMaildir | InPostgres:
    """Where mail of ``user`` goes, by the configuration at ``path``, or the one found. Raises `CommandError`.

    On the way this process becomes whom the configuration says.
    """
    config = configured(path)
    check_store(config)
    account = known_account(config, user)
    become_user(config)
    return recipient_of(config, account)


def check_store(config: Config) -> None:
    """Raises `CommandError` for a store that nothing can be delivered into."""
    if config.store.backend not in ("maildir", "postgres"):
        what = f'the store is "{config.store.backend}": there is no Maildir to deliver into'
        raise CommandError(what, ExitStatus.CONFIG)


def recipient_of(config: Config, account: Account) -> InMaildir | InPostgres:
    """Where mail of an account goes. Raises `CommandError`."""
    store = config.store
    quota = quota_of(store.quota_octets, store.quota_messages, account.limits)
    if store.postgres is not None:
        return InPostgres(store.postgres.conninfo.get_secret_value(), store.postgres.timeout, account.name, quota)
    try:
        path = mailbox_path(store.path, account)
        deleted = mailbox_path(store.deleted, account) if store.deleted else ""
    except StoreError as fault:
        raise CommandError(f"{account.name}: {fault.detail}", ExitStatus.CONFIG) from None
    _refuse_if_gone(config, path)
    return InMaildir(path, deleted, quota)


def _refuse_if_gone(config: Config, path: str) -> None:
    """A mailbox that should be there is not made anew: what is delivered onto a mount point is hidden by the mount."""
    try:
        why = None if is_there(path) else SeenMailboxes(config.state, config.store.path).gone(path)
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}"
    if why is not None:
        raise CommandError(f"this mailbox cannot be used now: {why}; try again later", ExitStatus.TEMPFAIL)


@contextlib.contextmanager
def tried_again_later() -> Iterator[None]:
    """Faults of the disk, and a full mailbox: the MTA keeps the message and tries again."""
    try:
        yield
    except OverQuota as fault:
        raise CommandError(f"not delivered: {fault}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        raise CommandError(f"not delivered: {where}{fault.strerror}; try again later", ExitStatus.TEMPFAIL) from None
