"""`pop3d check`, and the Maildirs of the users: whether the daemon can open them, and whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pop3d.assembly import maildir_store
from pop3d.auth import Account
from pop3d.auth.stored_user import StoredUser
from pop3d.commands import check_missing, check_names
from pop3d.commands.check_compressed import CompressedMail
from pop3d.commands.check_lists import ForeignLists
from pop3d.commands.finding import CheckFinding, counted, fault, warning
from pop3d.config import Config
from pop3d.stores import MaildropBusy, StoreError
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, mailboxes_root
from pop3d.system.folders import open_inside

__all__ = ["mail"]

_FILES_MAX: Final = 100_000
"""Messages whose owner is looked at, in all mailboxes together: some seconds."""


def mail(config: Config, users: list[StoredUser], owner: int) -> Iterator[CheckFinding]:
    """As the configured user, to whom, by number, all mail should belong: ``owner``."""
    yield from check_missing.kept(config)
    seen = SeenMailboxes(config.state, config.store.path)
    if unusable := list(_root(seen)):
        yield from unusable
        return
    base = None if seen.root is None else Path(seen.root)
    yield from _one_file_system(base, config)
    yield from check_names.other_spellings(config, users)
    mailboxes = _Mailboxes(config, seen, owner)
    for user in users:
        account = Account(user.name, user.home)
        with contextlib.suppress(StoreError):  # told already
            yield from mailboxes.look_into(mailbox_path(config.store.path, account), account)
    yield from mailboxes.all_told(base or "mail")


def _root(seen: SeenMailboxes) -> Iterator[CheckFinding]:
    """The folder of all mailboxes, if it keeps us from looking into any."""
    if seen.root is None:
        return
    if gone := list(check_missing.root(seen)):
        yield from gone
        return
    try:
        os.close(os.open(seen.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        what = "it is not there, so all mailboxes are empty"
        yield warning(seen.root, what, "look whether `path` in [store] is right")
    except OSError as failed:
        yield fault(seen.root, f"cannot be read: {failed.strerror}", "give folder and mail to `user`, or mend `path`")


class _Mailboxes:
    """Mailboxes, looked into one after the other, and what is told of all together."""

    def __init__(self, config: Config, seen: SeenMailboxes, owner: int) -> None:
        self._config, self._seen, self._owner = config, seen, owner
        self._left, self._opened = _FILES_MAX, False
        self._compressed = CompressedMail(refuse=config.store.compressed == "refuse")
        self._lists = ForeignLists(config, seen)

    def look_into(self, mailbox: str, account: Account) -> Iterator[CheckFinding]:
        """One mailbox."""
        try:
            os.lstat(mailbox)
        except (FileNotFoundError, NotADirectoryError):
            yield from check_missing.mailbox(self._seen, mailbox)
            return  # else an empty mailbox
        except OSError as failed:
            yield fault(mailbox, f"cannot be reached: {failed.strerror}", "let `user` into the folders above it")
            return
        if gone := list(check_missing.mailbox(self._seen, mailbox)):
            yield from gone
            return
        try:
            root = open_folder(mailbox)
        except OSError as failed:
            yield fault(mailbox, f"cannot be opened: {failed.strerror}", "give it to `user`, or name the real folder")
            return
        try:
            looked_at, others = _owners(root, self._owner, self._left)
        finally:
            os.close(root)
        self._left -= looked_at
        if others:
            yield _of_others(mailbox, others, self._owner)
        yield from self._compressed.look_into(mailbox)
        of_list = list(self._lists.look_into(mailbox, account))
        yield from of_list
        if not self._opened and not any(finding.fault for finding in of_list):
            self._opened = True
            told = [finding.text for finding in of_list]
            opened = _opened(self._config, account, mailbox)
            yield from (one for one in opened if not any(one.text in text for text in told))

    def all_told(self, where: object) -> Iterator[CheckFinding]:
        """What is told once."""
        yield from self._compressed.served(where)
        yield from self._lists.all_told(where)
        if self._left <= 0:
            what = f"more than {_FILES_MAX} messages: the owners of the others were not looked at"
            yield warning(where, what, "find -not -user tells all")


def _of_others(mailbox: str, others: Counter[int], owner: int) -> CheckFinding:
    """Files that are not ``owner``'s, with the command that gives them to him."""
    number = sum(others.values())
    belong = "belongs" if number == 1 else "belong"
    what = f"{counted(number, 'file')} in it {belong} to another user, such as {_called(min(others))}"
    return fault(mailbox, what, f"chown -R {_called(owner)} {shlex.quote(mailbox)}")


def _called(number: int) -> str:
    """A user by name, where the number has one."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _one_file_system(base: Path | None, config: Config) -> Iterator[CheckFinding]:
    folder = mailboxes_root(config.store.deleted)
    if base is None or folder is None:
        return
    deleted = Path(folder)
    try:
        there = next(above for above in (deleted, *deleted.parents) if above.exists())
        other = there.stat().st_dev != base.stat().st_dev
    except OSError as failed:
        yield fault(
            deleted, f"`deleted` cannot be read: {failed.strerror}", "give it to `user`, or take another folder"
        )
        return
    if other:
        yield fault(deleted, f"`deleted` is on another file system than {base}", "take a folder on the same one")


def _owners(mailbox: int, owner: int, most: int) -> tuple[int, Counter[int]]:
    """How many files were looked at, ``most`` at most, and how many belong to whom else. ``mailbox``: a descriptor."""
    others = Counter([os.fstat(mailbox).st_uid])
    looked_at = 0
    for name in (b"cur", b"new"):
        try:
            folder = open_inside(mailbox, name)
        except OSError:
            continue  # not there, which is no fault; or not readable, which opening it tells
        try:
            others[os.fstat(folder).st_uid] += 1
            with os.scandir(folder) as entries:
                for entry in entries:
                    if looked_at >= most:
                        break
                    looked_at += 1
                    others[entry.stat(follow_symlinks=False).st_uid] += 1
        except OSError:
            pass  # gone meanwhile
        finally:
            os.close(folder)
    del others[owner]
    return looked_at, others


class _Heard(logging.Handler):
    """What the store says to the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _opened(config: Config, account: Account, mailbox: str) -> Iterator[CheckFinding]:
    """Open one mailbox as a login does."""

    async def listed() -> None:
        drop = await maildir_store(config, state=None).open(account, utf8=False)
        await drop.close()

    log, heard = logging.getLogger("pop3d"), _Heard()
    log.addHandler(heard)
    try:
        asyncio.run(listed())
    except MaildropBusy:
        pass  # somebody reads it just now, so it can be opened
    except StoreError as failed:
        yield fault(mailbox, f"cannot be opened: {failed.detail or failed.text}", "give it to `user`")
    finally:
        log.removeHandler(heard)
    yield from (CheckFinding(False, text) for text in heard.lines)
