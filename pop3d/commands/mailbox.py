"""`pop3d mailbox USER`: what is in a user's mailbox, and, with `--forget`, that one which is missing is meant to be."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pop3d.assembly import maildir_store
from pop3d.auth import Account, check_user_name
from pop3d.commands.configured import configured
from pop3d.commands.mailbox_holder import MailboxHolder, holder_of
from pop3d.commands.whose import become_user, known_account
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.observe.log import sanitized
from pop3d.stores import StoreError
from pop3d.stores.maildir.delivery import sizes_in
from pop3d.stores.maildir.folders import named_below, open_folder
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.mailbox_records import MailboxRecords
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there
from pop3d.stores.quota import quota_of
from pop3d.system.flocks import flock_holder
from pop3d.system.folders import open_inside
from pop3d.system.state_folder import KEEP

__all__ = ["forget", "show"]


@dataclass(frozen=True, slots=True)
class _Count:
    """Messages, and octets as stored."""

    messages: int
    octets: int


@dataclass(frozen=True, slots=True)
class _MailboxView:
    """What is shown. ``seen``: by a login before; ``gone``: why it should be there, and is not.

    ``messages``, ``octets`` (as stored) and ``octets_sent`` (as LIST has them) are None for one that is gone: nobody
    knows. ``quota``: None for no limit, 0 in it for none of that kind. ``locked``: a session has it; None where there
    is no mailbox; ``holder``: then who. ``kept_ids``: how many unique-ids are kept for it. ``path``: None for one in a
    database, of which ``seen``, ``kept_ids`` and ``deleted`` are not known.
    """

    user: str
    path: str | None
    there: bool
    seen: bool
    gone: str | None
    messages: int | None
    octets: int | None
    octets_sent: int | None
    quota: _Count | None
    locked: bool | None
    holder: MailboxHolder | None
    kept_ids: int | None
    deleted: _Count | None


def show(user: str, config: Path | None, *, as_json: bool) -> None:
    """Show a mailbox: a table on a terminal, lines with a tab elsewhere, or one JSON object."""
    settings = configured(config)
    if settings.store.postgres is None:
        _refuse_others(settings)
    account = known_account(settings, user)
    become_user(settings)
    try:
        found = _looked_at(settings, account) if settings.store.postgres is None else _in_database(settings, account)
    except OSError as fault:
        raise CommandError(f"{fault.filename}: {fault.strerror}; let `user` read it", ExitStatus.TEMPFAIL) from None
    if as_json:
        print(json.dumps(asdict(found)))
        return
    console = Console()
    if not console.is_terminal:
        for name, value, _ in _lines(found):
            print(f"{name}\t{sanitized(value)}")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value, style in _lines(found):
        table.add_row(name, Text(sanitized(value), style))
    console.print(table)


def forget(user: str, config: Path | None) -> None:
    """Let a mailbox that is missing count as one that never was, and its unique-ids too.

    So does the folder of all mailboxes, if that is missing or empty, once no other mailbox was seen in it.
    """
    settings = _settings(config)
    account = _account_of_once(settings, user)
    become_user(settings)
    path = _path(settings.store.path, account)
    seen = SeenMailboxes(settings.state, settings.store.path)
    try:
        if is_there(path):
            raise CommandError(f"{path} is there; only a mailbox that is missing can be forgotten", ExitStatus.DATAERR)
        KeptIds(settings.state / KEEP).forget(path)
        known = seen.records.forget(path)
        print(f"{path} is forgotten" if known else f"{path} was never seen: nothing to forget")
        if seen.root is not None and seen.root_gone() is not None:
            _forget_root(seen.root, seen.records)
    except OSError as fault:
        text = f"not forgotten: {fault.filename}: {fault.strerror}; run this as root, or as `user`"
        raise CommandError(text, ExitStatus.IOERR) from None


def _forget_root(root: str, records: MailboxRecords) -> None:
    others = [record.path for record in records.below(root)]
    if others:
        print(
            f"{root} is missing or empty, and {len(others)} more mailboxes were seen in it, such as {others[0]}: "
            "no login works until it is back, or they are forgotten too"
        )
    elif records.forget_root(root):
        print(f"{root} is forgotten too: no other mailbox was seen in it")


def _settings(path: Path | None) -> Config:
    config = configured(path)
    _refuse_others(config)
    return config


def _refuse_others(config: Config) -> None:
    if config.store.backend != "maildir":
        what = f'the store is "{config.store.backend}": there is no Maildir to look at'
        raise CommandError(what, ExitStatus.CONFIG)


def _account_of_once(config: Config, user: str) -> Account:
    """A user who may have been removed, unless only a user who is there says where the mailbox is."""
    try:
        return known_account(config, user)
    except CommandError as fault:
        if fault.status != ExitStatus.NOUSER or "{home}" in config.store.path:
            raise
        try:
            check_user_name(user)
        except ValueError:
            raise fault from None
    return Account(user)


def _path(template: str, account: Account) -> str:
    try:
        return mailbox_path(template, account)
    except StoreError as fault:
        raise CommandError(f"{account.name}: {fault.detail}", ExitStatus.CONFIG) from None


def _in_database(config: Config, account: Account) -> _MailboxView:
    from pop3d.postgres import DatabaseFault  # of an extra, which the configuration has looked for
    from pop3d.stores.postgres.delivery import lock_holder, usage

    database = config.store.postgres
    assert database is not None
    conninfo = database.conninfo.get_secret_value()
    try:
        messages, octets = usage(conninfo, account.name, database.timeout)
        lock = lock_holder(conninfo, account.name, database.timeout)
    except DatabaseFault as fault:
        raise CommandError(f"mail in PostgreSQL: {fault}; try again later", ExitStatus.TEMPFAIL) from None
    return _MailboxView(
        account.name,
        path=None,
        there=True,
        seen=False,
        gone=None,
        messages=messages,
        octets=octets,
        octets_sent=octets,  # what is stored is what is sent
        quota=_quota(config, account),
        locked=lock is not None,
        holder=None if lock is None else holder_of(config, account.name, *lock),
        kept_ids=None,
        deleted=None,
    )


def _quota(config: Config, account: Account) -> _Count | None:
    quota = quota_of(config.store.quota_octets, config.store.quota_messages, account.limits)
    return _Count(quota.messages, quota.octets) if quota.messages or quota.octets else None


def _looked_at(config: Config, account: Account) -> _MailboxView:
    """Raises OSError."""
    store = config.store
    path = _path(store.path, account)
    seen = SeenMailboxes(config.state, store.path)
    there = is_there(path)
    gone = None if there else seen.gone(path)
    count = _counted(path) if gone is None else None
    locked, pid = _lock_of(path) if there else (None, None)
    return _MailboxView(
        account.name,
        path=path,
        there=there,
        seen=seen.records.load(path) is not None,
        gone=gone,
        messages=None if count is None else count.messages,
        octets=None if count is None else count.octets,
        octets_sent=None if gone is not None else maildir_store(config, config.state).look(account).octets,
        quota=_quota(config, account),
        locked=locked,
        holder=holder_of(config, account.name, pid) if locked else None,
        kept_ids=len(KeptIds(config.state / KEEP).load(path)),
        deleted=_counted(_path(store.deleted, account)) if store.deleted else None,
    )


def _counted(path: str) -> _Count:
    try:
        root = open_folder(path)
    except FileNotFoundError:
        return _Count(0, 0)
    try:
        sizes: list[int] = []
        for name in (b"new", b"cur"):
            with contextlib.suppress(FileNotFoundError), named_below(path):
                folder = open_inside(root, name)
                try:
                    sizes += sizes_in(folder)
                finally:
                    os.close(folder)
    finally:
        os.close(root)
    return _Count(len(sizes), sum(sizes))


def _lock_of(path: str) -> tuple[bool, int | None]:
    """Whether a session has the mailbox, and in which process, if that is known.

    One that begins just now waits for us: this takes some microseconds.
    """
    root = open_folder(path)
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = os.fstat(root)
        return True, flock_holder(found.st_dev, found.st_ino)
    finally:
        os.close(root)
    return False, None


def _lines(found: _MailboxView) -> list[tuple[str, str, str]]:
    """Names, values and their styles."""
    if found.there:
        state, style = ("in use by a session", "yellow") if found.locked else ("there", "green")
    else:
        state, style = (f"gone: {found.gone}", "bold red") if found.gone else ("not there: an empty mailbox", "")
    quota = found.quota or _Count(0, 0)
    lines = [("user", found.user, "")]
    if found.path is not None:
        lines += [("path", found.path, ""), ("state", state, style), ("seen before", "yes" if found.seen else "no", "")]
    lines += [
        ("messages", _of(found.messages, quota.messages), _full(found.messages, quota.messages)),
        ("octets", _of(found.octets, quota.octets), _full(found.octets, quota.octets)),
    ]
    if found.octets_sent is not None:
        lines.append(("as sent", str(found.octets_sent), ""))
    if found.kept_ids:
        lines.append(("kept ids", str(found.kept_ids), ""))
    if found.holder is not None:
        lines.append(("held by", str(found.holder), "yellow"))
    if found.deleted is not None:
        lines.append(("deleted", f"{found.deleted.messages} messages, {found.deleted.octets} octets", ""))
    return lines


def _of(number: int | None, quota: int) -> str:
    if number is None:
        return "unknown"
    return f"{number} of {quota} ({100 * number // quota} %)" if quota else str(number)


def _full(number: int | None, quota: int) -> str:
    return "red" if quota and number is not None and number >= quota else ""
