"""Where a user's mail goes, for the commands that bring mail into a mailbox, and their words for what goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pop3d.commands.configured import configured
from pop3d.commands.whose import become_user, known_account
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.recipients import DeliverLater, InMaildir, InPostgres, MessageRefused, NoMailbox, recipient_of
from pop3d.stores.quota import OverQuota

__all__ = ["check_store", "delivery_faults", "recipient"]


def recipient(user: str, path: Path | None) -> InMaildir | InPostgres:
    """Where mail of ``user`` goes, by the configuration at ``path``, or the one found. Raises `CommandError`.

    On the way this process becomes whom the configuration says.
    """
    config = configured(path)
    check_store(config)
    account = known_account(config, user)
    become_user(config)
    with delivery_faults():
        return recipient_of(config, account)


def check_store(config: Config) -> None:
    """Raises `CommandError` for a store that nothing can be delivered into."""
    if config.store.backend not in ("maildir", "postgres"):
        what = f'the store is "{config.store.backend}": there is no Maildir to deliver into'
        raise CommandError(what, ExitStatus.CONFIG)


@contextlib.contextmanager
def delivery_faults() -> Iterator[None]:
    """What a `pop3d.recipients.Recipient` raises becomes a `CommandError`, by whose status an MTA goes: it keeps the
    message and tries again (75, 78), or gives it back to its sender (65).
    """
    try:
        yield
    except OverQuota as fault:
        raise CommandError(f"not delivered: {fault}; try again later", ExitStatus.TEMPFAIL) from None
    except NoMailbox as fault:
        raise CommandError(str(fault), ExitStatus.CONFIG) from None
    except DeliverLater as fault:
        raise CommandError(f"{fault}; try again later", ExitStatus.TEMPFAIL) from None
    except MessageRefused as fault:
        raise CommandError(str(fault), ExitStatus.DATAERR) from None
