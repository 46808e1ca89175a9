"""`pop3d deliver`, `pop3d import` and `pop3d undelete`: mail into a user's mailbox."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pop3d.auth import Account
from pop3d.commands.configured import configured
from pop3d.commands.whose import become_user, known_account
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.stores import StoreError, mbox
from pop3d.stores.maildir.compressed import HEAD, NotMail, form_of, verified
from pop3d.stores.maildir.content import OPEN_MESSAGE
from pop3d.stores.maildir.deleted import put_back
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.folders import named_below, open_folder
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there
from pop3d.stores.maildir.store import mailbox_path
from pop3d.stores.quota import OverQuota, Quota, quota_of
from pop3d.system.folders import open_inside

__all__ = ["deliver_stdin", "import_mail", "undelete"]

_PIECE = 64 * 1024  # octets
_FLAGS = re.compile(r":2,([A-Za-z]*)$")


class _Recipient(Protocol):
    """Where a user's mail goes."""

    def deliver(self, content: Iterable[bytes], flags: str | None = None) -> None:
        """Deliver a message; ``flags`` as `pop3d.stores.maildir.delivery.deliver`."""
        ...


@dataclass(frozen=True, slots=True)
class _Maildir:
    """A user's Maildir, its deleted messages (empty for none), and its quota."""

    path: str
    deleted: str
    quota: Quota

    def deliver(self, content: Iterable[bytes], flags: str | None = None) -> None:
        deliver(self.path, content, self.quota, flags=flags)


@dataclass(frozen=True, slots=True)
class _InPostgres:
    """A user's mailbox in a database, which knows no flags."""

    conninfo: str = field(repr=False)
    timeout: float
    name: str
    quota: Quota

    def deliver(self, content: Iterable[bytes], flags: str | None = None) -> None:
        from pop3d.postgres import DatabaseFault  # of an extra, which the configuration has looked for
        from pop3d.stores.postgres import delivery as postgres_delivery

        try:
            postgres_delivery.deliver(self.conninfo, self.name, content, self.quota, self.timeout)
        except DatabaseFault as fault:
            raise CommandError(f"not delivered: {fault}; try again later", ExitStatus.TEMPFAIL) from None
        except ValueError as fault:
            raise CommandError(f"not delivered: {fault}", ExitStatus.DATAERR) from None


def _mailbox(user: str, path: Path | None) -> _Recipient:
    """Where a user's mail is. On the way this process becomes whom the configuration says."""
    config = configured(path)
    store = config.store
    if store.backend not in ("maildir", "postgres"):
        raise CommandError(f'the store is "{store.backend}": there is no Maildir to deliver into', ExitStatus.CONFIG)
    account = known_account(config, user)
    become_user(config)
    quota = quota_of(store.quota_octets, store.quota_messages, account.limits)
    if store.postgres is not None:
        database = store.postgres
        return _InPostgres(database.conninfo.get_secret_value(), database.timeout, account.name, quota)
    return _located(config, account, quota)


def _located(config: Config, account: Account, quota: Quota) -> _Maildir:
    store = config.store
    try:
        path = mailbox_path(store.path, account)
        deleted = mailbox_path(store.deleted, account) if store.deleted else ""
    except StoreError as fault:
        raise CommandError(f"{account.name}: {fault.detail}", ExitStatus.CONFIG) from None
    _refuse_if_gone(config, path)
    return _Maildir(path, deleted, quota)


def _refuse_if_gone(config: Config, path: str) -> None:
    """A mailbox that should be there is not made anew: what is delivered onto a mount point is hidden by the mount."""
    try:
        why = None if is_there(path) else SeenMailboxes(config.state, config.store.path).gone(path)
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}"
    if why is not None:
        raise CommandError(f"this mailbox cannot be used now: {why}; try again later", ExitStatus.TEMPFAIL)


@contextmanager
def _tried_again_later() -> Iterator[None]:
    """Faults of the disk, and a full mailbox: the MTA keeps the message and tries again."""
    try:
        yield
    except OverQuota as fault:
        raise CommandError(f"not delivered: {fault}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        raise CommandError(f"not delivered: {where}{fault.strerror}; try again later", ExitStatus.TEMPFAIL) from None


def deliver_stdin(user: str, config: Path | None) -> None:
    """Deliver one message from standard input."""
    mailbox = _mailbox(user, config)
    with _tried_again_later():
        mailbox.deliver(mbox.without_from_line(sys.stdin.buffer))


def import_mail(user: str, source: Path, config: Path | None) -> ExitStatus:
    """Deliver all messages of an mbox file or a Maildir."""
    try:
        is_maildir = source.is_dir()
        total = len(_entries(source)) if is_maildir else source.stat().st_size
    except OSError as fault:
        where = fault.filename or source
        raise CommandError(f"{where}: {fault.strerror}; name an mbox file or a Maildir", ExitStatus.DATAERR) from None
    mailbox = _mailbox(user, config)
    failed: list[str] = []
    done = 0
    with _progress(total) as advance, _told(lambda: done), _tried_again_later():
        arriving = _from_maildir(source, failed, advance) if is_maildir else _from_mbox(source, advance)
        for content, flags in arriving:
            mailbox.deliver(content, flags)
            done += 1
    for line in failed:
        print(f"pop3d: not imported: {line}", file=sys.stderr)
    print(f"imported {done} messages for {user}" + (f", {len(failed)} were not" if failed else ""))
    return ExitStatus.SOME_FAILED if failed else ExitStatus.OK


@contextmanager
def _told(done: Callable[[], int]) -> Iterator[None]:
    """Whatever ends an import early, say how far it came: what was delivered stays."""
    try:
        yield
    except BaseException:
        if done():
            print(f"pop3d: {done()} messages were imported before that, and stay", file=sys.stderr)
        raise


def _from_mbox(source: Path, advance: Callable[[int], None]) -> Iterator[tuple[Iterable[bytes], str | None]]:
    with source.open("rb") as file:
        at = 0
        try:
            for message in mbox.messages(file):
                yield message, None
                advance(file.tell() - at)
                at = file.tell()
        except ValueError as fault:
            raise CommandError(f"{source}: no mbox file: {fault}", ExitStatus.DATAERR) from None


@contextmanager
def _folders(source: Path) -> Iterator[dict[str, int]]:
    """Descriptors of cur/ and new/ of a Maildir: what a link in place of one leads to is somebody else's mail."""
    with ExitStack() as opened:
        root = open_folder(str(source))
        opened.callback(os.close, root)
        folders: dict[str, int] = {}
        for name in ("cur", "new"):
            with suppress(FileNotFoundError), named_below(str(source)):
                folders[name] = open_inside(root, name.encode())
                opened.callback(os.close, folders[name])
        if not folders:
            raise CommandError(f"{source}: a folder without cur/ and new/ is no Maildir", ExitStatus.DATAERR)
        yield folders


def _entries(source: Path) -> list[tuple[str, str, bool]]:
    """Name, folder, and whether it is a regular file, of each that could be a message of a Maildir, by name."""
    found: list[tuple[str, str, bool]] = []
    with _folders(source) as folders:
        for folder, descriptor in folders.items():
            with os.scandir(descriptor) as entries:
                found += ((one.name, folder, one.is_file(follow_symlinks=False)) for one in entries)
    return sorted(entry for entry in found if not entry[0].startswith("."))


def _from_maildir(
    source: Path, failed: list[str], advance: Callable[[int], None]
) -> Iterator[tuple[Iterable[bytes], str | None]]:
    with _folders(source) as folders:
        for name, folder, is_regular in _entries(source):
            try:
                if not is_regular:
                    raise OSError(0, "not a regular file")
                with open(os.open(name, OPEN_MESSAGE, dir_fd=folders[folder]), "rb") as file:
                    yield _message(file), _kept_flags(name) if folder == "cur" else None
            except OSError as fault:
                failed.append(f"{source / folder / name}: {fault.strerror}")
            except NotMail as fault:
                failed.append(f"{source / folder / name}: {fault}")
            advance(1)


def _message(file: BinaryIO) -> Iterator[bytes]:
    """The message in a file, unpacked where another server has compressed it. Raises OSError and `NotMail`."""
    form = form_of(os.pread(file.fileno(), HEAD, 0))
    return _pieces(file) if form is None else verified(file.fileno(), form)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _kept_flags(name: str) -> str:
    """Without Z: Dovecot's sites mark compressed files with it, and what is imported is not compressed."""
    flags = _FLAGS.search(name)
    return flags[1].replace("Z", "") if flags else ""


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("importing"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda step: bar.advance(task, step)


def undelete(user: str, config: Path | None) -> ExitStatus:
    """Bring back what a user has deleted."""
    mailbox = _mailbox(user, config)
    if not isinstance(mailbox, _Maildir) or not mailbox.deleted:
        remedy = 'deleted = "deleted/{user}" keeps what is deleted from then on'
        raise CommandError(
            f"nothing is kept: the configuration has no `deleted` in [store]; {remedy}", ExitStatus.CONFIG
        )
    try:
        found = put_back(mailbox.path, mailbox.deleted)
    except BlockingIOError as fault:
        raise CommandError(f"not brought back: {fault.strerror}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = fault.filename or mailbox.deleted
        raise CommandError(f"not brought back: {where}: {fault.strerror}", ExitStatus.IOERR) from None
    for line in found.failed:
        print(f"pop3d: not brought back: {line}", file=sys.stderr)
    print(
        f"brought back {found.messages} messages for {user}"
        + (f", {len(found.failed)} were not" if found.failed else "")
    )
    return ExitStatus.SOME_FAILED if found.failed else ExitStatus.OK
