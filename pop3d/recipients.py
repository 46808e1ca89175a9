"""Where a user's mail goes, for all that bring mail: one message into one mailbox, whatever store it is in.

Three kinds of faults are told apart, since whoever brings the mail answers each of them otherwise: it may come again
(`DeliverLater`), there is no room for it (`pop3d.stores.quota.OverQuota`), or it will never be taken
(`MessageRefused`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pop3d.auth import Account
from pop3d.config import Config
from pop3d.stores import StoreError
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there
from pop3d.stores.quota import Quota, quota_of

__all__ = ["DeliverLater", "InMaildir", "InPostgres", "MessageRefused", "NoMailbox", "Recipient", "recipient_of"]


class DeliverLater(Exception):
    """No fault of the message: the disk, the database, a volume that is not mounted. One line: what failed, why."""


class NoMailbox(DeliverLater):
    """The configuration leads to no mailbox for this user; its administrator has to mend it."""


class MessageRefused(Exception):
    """The message is not taken, now or later. One line: what failed, why."""


class Recipient(Protocol):
    """Where a user's mail goes."""

    def deliver(self, content: Iterable[bytes]) -> None:
        """Deliver a message, in pieces of any size, as new mail: it is there whole and durable, or not at all.

        Blocking. Raises `DeliverLater`, `pop3d.stores.quota.OverQuota` and `MessageRefused`. An OSError of ``content``
        is a `DeliverLater`; anything else that it raises passes.
        """
        ...


@dataclass(frozen=True, slots=True)
class InMaildir:
    """A user's Maildir, its deleted messages (empty for none), and its quota."""

    path: str
    deleted: str
    quota: Quota

    def deliver(self, content: Iterable[bytes]) -> None:
        """See `Recipient`."""
        try:
            deliver(self.path, content, self.quota)
        except OSError as fault:
            raise _not_delivered(fault) from None


@dataclass(frozen=True, slots=True)
class InPostgres:
    """A user's mailbox in a database. ``folder``: where large messages are kept on their way; None: where temporary
    files are. ``keep``: connections, for the next delivery.
    """

    conninfo: str = field(repr=False)
    timeout: float
    name: str
    quota: Quota
    folder: str | None = None
    keep: bool = False

    def deliver(self, content: Iterable[bytes]) -> None:
        """See `Recipient`. With `DeliverLater` the message may be there all the same, when a last answer was lost."""
        from pop3d.postgres import DatabaseFault  # of an extra, which the configuration has looked for
        from pop3d.stores.postgres import delivery as postgres_delivery

        try:
            postgres_delivery.deliver(self.conninfo, self.name, content, self.quota, self.timeout, folder=self.folder)
        except DatabaseFault as fault:
            raise DeliverLater(f"not delivered: {fault}") from None
        except OSError as fault:
            raise _not_delivered(fault) from None
        except ValueError as fault:
            raise MessageRefused(f"not delivered: {fault}") from None


def _not_delivered(fault: OSError) -> DeliverLater:
    where = f"{fault.filename}: " if fault.filename else ""
    return DeliverLater(f"not delivered: {where}{fault.strerror or fault}")


def recipient_of(config: Config, account: Account, *, many: bool = False) -> InMaildir | InPostgres:
    """Where mail of an account goes; the store is `maildir` or `postgres`. Blocking. ``many``: this process delivers
    more than one message.

    Raises `DeliverLater` for a mailbox that should be there and is missing, and `NoMailbox`.
    """
    store = config.store
    quota = quota_of(store.quota_octets, store.quota_messages, account.limits)
    if store.postgres is not None:
        conninfo = store.postgres.conninfo.get_secret_value()
        folder = str(config.state) if os.access(config.state, os.W_OK) else None  # who only delivers may have none
        return InPostgres(conninfo, store.postgres.timeout, account.name, quota, folder, many)
    try:
        path = mailbox_path(store.path, account)
        deleted = mailbox_path(store.deleted, account) if store.deleted else ""
    except StoreError as fault:
        raise NoMailbox(f"{account.name}: {fault.detail}") from None
    _refuse_if_gone(config, path)
    return InMaildir(path, deleted, quota)


def _refuse_if_gone(config: Config, path: str) -> None:
    """A mailbox that should be there is not made anew: what is delivered onto a mount point is hidden by the mount."""
    try:
        why = None if is_there(path) else SeenMailboxes(config.state, config.store.path).gone(path)
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}"
    if why is not None:
        raise DeliverLater(f"this mailbox cannot be used now: {why}")
