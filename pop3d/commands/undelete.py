"""`pop3d undelete`: messages that a user has deleted, listed, and back into the mailbox."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.parser import BytesHeaderParser
from email.policy import default
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pop3d.commands.asking import iso, octets, when
from pop3d.commands.configured import configured
from pop3d.commands.finding import counted
from pop3d.commands.recipient import recipient
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.observe.log import sanitized
from pop3d.recipients import InMaildir
from pop3d.stores.maildir.deleted import DeletedMessage, beginnings, deleted_messages, put_back
from pop3d.stores.maildir.given_ids import id_of_name
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.system.state_folder import KEEP

__all__ = ["Choice", "undelete"]

_HEADER_OCTETS_MAX: Final = 64 * 1024  # octets of a message in which From and Subject are looked for
_TEXT_MAX: Final = 200  # characters of each that are shown


@dataclass(frozen=True, slots=True)
class Choice:
    """Which messages. ``words``: numbers of the list, or unique-ids; ``since``: deleted then or later, seconds since
    1970. Without any of them nothing is chosen, and the list is shown.
    """

    words: tuple[str, ...] = ()
    since: float | None = None
    everything: bool = False

    @classmethod
    def of(cls, words: Sequence[str], since: str | None, *, everything: bool) -> Choice:
        """``since``: as ISO 8601 says it, local time. Raises `CommandError`."""
        if (len(words) > 0) + (since is not None) + everything > 1:
            raise CommandError("give messages, or --since, or --all", ExitStatus.USAGE)
        try:
            at = None if since is None else datetime.fromisoformat(since).timestamp()
        except (ValueError, OverflowError):
            raise CommandError(
                f"--since {since!r}: a date is like 2026-11-27 or 2026-11-27T14:00", ExitStatus.USAGE
            ) from None
        return cls(tuple(words), at, everything)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is chosen."""
        return not self.words and self.since is None and not self.everything


def undelete(user: str, config: Path | None, choice: Choice, *, dry_run: bool, sure: bool, as_json: bool) -> ExitStatus:
    """Show what a user has deleted, or bring back what is chosen. ``sure``: a terminal is not asked.

    Raises `CommandError`.
    """
    settings = configured(config)
    mailbox = recipient(user, config)
    if not isinstance(mailbox, InMaildir) or not mailbox.deleted:
        remedy = 'deleted = "deleted/{user}" keeps what is deleted from then on'
        raise CommandError(
            f"nothing is kept: the configuration has no `deleted` in [store]; {remedy}", ExitStatus.CONFIG
        )
    try:
        found = deleted_messages(mailbox.deleted)
        ids = KeptIds(settings.state / KEEP).load(mailbox.path)
        listed = {number: (one, _id(one, ids)) for number, one in enumerate(found, 1)}
        chosen = {number: listed[number] for number in _chosen(choice, listed)}
        if choice.is_empty or dry_run or (not sure and sys.stdin.isatty()):
            _show(mailbox.deleted, listed if choice.is_empty else chosen, as_json=as_json, hint=choice.is_empty)
        if choice.is_empty or dry_run:
            return ExitStatus.OK
        if not sure and sys.stdin.isatty() and not _is_confirmed(len(chosen)):
            print("nothing was brought back")
            return ExitStatus.OK
        return _bring_back(user, mailbox, [one for one, _ in chosen.values()])
    except BlockingIOError as fault:
        raise CommandError(f"not brought back: {fault.strerror}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = fault.filename or mailbox.deleted
        raise CommandError(f"not brought back: {where}: {fault.strerror}", ExitStatus.IOERR) from None


def _id(one: DeletedMessage, ids: dict[bytes, bytes]) -> str:
    return ids.get(one.unique, id_of_name(one.unique)).decode("ascii", "replace")


def _chosen(choice: Choice, listed: dict[int, tuple[DeletedMessage, str]]) -> Iterator[int]:
    """Numbers. Raises `CommandError`."""
    if not choice.words:
        for number, (one, _) in listed.items():
            if choice.everything or (choice.since is not None and one.at >= choice.since):
                yield number
        return
    for word in dict.fromkeys(choice.words):
        numbers = [number for number, (_, uid) in listed.items() if uid == word.removeprefix("uid:")]
        if word.isascii() and word.isdecimal():
            numbers = [int(word)] if int(word) in listed else []
        if not numbers:
            what = f"no such message: {word!r}; `pop3d undelete USER` shows numbers and unique-ids"
            raise CommandError(what, ExitStatus.NOUSER)
        yield from numbers


def _bring_back(user: str, mailbox: InMaildir, chosen: Sequence[DeletedMessage]) -> ExitStatus:
    """Raises OSError."""
    found = put_back(mailbox.path, mailbox.deleted, chosen={one.name for one in chosen})
    for line in found.failed:
        print(f"pop3d: not brought back: {line}", file=sys.stderr)
    failed = len(found.failed)
    left = f", {failed} {'was' if failed == 1 else 'were'} not" if failed else ""
    print(f"brought back {counted(found.messages, 'message')} for {user}{left}")
    return ExitStatus.SOME_FAILED if found.failed else ExitStatus.OK


def _is_confirmed(number: int) -> bool:
    try:
        return input(f"Bring back {counted(number, 'message')}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _show(deleted: str, listed: dict[int, tuple[DeletedMessage, str]], *, as_json: bool, hint: bool) -> None:
    """A table on a terminal, lines with tabs elsewhere, or a JSON object a line."""
    console = Console(highlight=False)
    table = Table("number", "deleted", "octets", "from", "subject", box=None, header_style="bold", pad_edge=False)
    names = [one.name for one, _ in listed.values()]
    heads = beginnings(deleted, names, _HEADER_OCTETS_MAX) if names else iter(())
    for (number, (one, uid)), head in zip(listed.items(), heads, strict=True):
        sender, subject = _headers(head)
        if as_json:
            about = {"number": number, "uid": uid, "deleted": one.at, "octets": one.octets}
            print(json.dumps({**about, "from": sender, "subject": subject}))
        elif not console.is_terminal:
            print("\t".join((str(number), iso(one.at), str(one.octets), uid, sender, subject)))
        else:
            cells = (str(number), when(one.at), octets(one.octets), sender, subject)
            table.add_row(*map(Text, cells))
    if console.is_terminal and not as_json:
        console.print(table)
        told = "; give numbers, --since or --all to bring them back" if hint and listed else ""
        console.print(f"{counted(len(listed), 'message')}{told}")


def _headers(head: bytes) -> tuple[str, str]:
    """From and Subject, decoded, and without what a terminal obeys; empty where there are none."""
    try:
        message = BytesHeaderParser(policy=default).parsebytes(head)
        found = [str(message.get(name, "")) for name in ("From", "Subject")]
    except Exception:  # the library stumbles over some that are malformed
        found = ["", ""]
    return _clean(found[0]), _clean(found[1])


def _clean(text: str) -> str:
    return sanitized(" ".join(text.encode("utf-8", "replace").decode().split()))[:_TEXT_MAX]
