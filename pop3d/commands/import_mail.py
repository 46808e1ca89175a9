"""`pop3d import`: the mail of another mailbox into a user's, with its unique-ids."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pop3d.auth import Account
from pop3d.commands.configured import configured
from pop3d.commands.import_source import ImportOptions, Opener, opener_of, source_fault, source_password
from pop3d.commands.recipient import check_store, delivery_faults
from pop3d.commands.whose import become_user, known_account, prepare_state
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.imports.journal import DamagedJournal, ImportJournal
from pop3d.imports.run import ImportTally, import_messages
from pop3d.observe.log import sanitized
from pop3d.recipients import InMaildir, recipient_of
from pop3d.stores.arriving import MailDestination, MailSource, SourceEnded, SourceUnusable
from pop3d.stores.maildir.destination import MaildirDestination, new_stamp
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.foreign_uids import foreign_list
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.system.state_folder import KEEP
from pop3d.uidl_format import UidSource

__all__ = ["GO_ON", "bring", "complain", "details_of", "import_mail", "interruptible"]

GO_ON: Final = "run the same command again to go on"
"""What to do after an import that has not come to its end."""


def import_mail(user: str, source: str, config_path: Path | None, options: ImportOptions) -> ExitStatus:
    """Import all messages of a source that are not there yet. Raises `CommandError`."""
    config = configured(config_path)
    check_store(config)
    account = known_account(config, user)
    opener = opener_of(source, options, lambda: source_password(source, options))
    prepare_state(config)
    become_user(config)
    tally = ImportTally()
    with interruptible(), _told(tally), _progress() as show:
        bring(config, account, opener, options, tally, show)
    complain(*tally.remarks, *(f"not imported: {line}" for line in tally.failed))
    print(f"imported {messages(tally.imported)} for {user}{details_of(tally)}")
    return ExitStatus.SOME_FAILED if tally.failed else ExitStatus.OK


def complain(*lines: str) -> None:
    """Lines to standard error. Names of files and of users may have anything in them."""
    for line in lines:
        print(f"pop3d: {sanitized(line)}", file=sys.stderr)


def messages(number: int) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} message{'' if number == 1 else 's'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def details_of(tally: ImportTally) -> str:
    """What else there is to say of an import."""
    parts = []
    if tally.failed:
        parts.append(f"{len(tally.failed)} {_were(len(tally.failed))} not")
    if tally.before:
        parts.append(f"{tally.before} {_were(tally.before)} imported before (--again brings them once more)")
    if lost := tally.invalid + tally.double:
        parts.append(
            f"{lost} got a new unique-id, because theirs was invalid ({tally.invalid}) or there already"
            f" ({tally.double})"
        )
    return "".join(f", {part}" for part in parts)


def bring(
    config: Config,
    account: Account,
    opener: Opener,
    options: ImportOptions,
    tally: ImportTally,
    show: Callable[[int, int], None],
) -> None:
    """Import from a source into an account's mailbox; this process is whom the configuration says.

    ``show``: called now and then with what was done and what there is. Raises `CommandError`; ``tally`` says how far it
    came.
    """
    try:
        with delivery_faults(), ExitStack() as opened:
            source = opener()
            opened.callback(source.close)
            destination, journal = _opened(config, account, source, options, opened)
            import_messages(source, destination, journal, tally, lambda: show(source.progress, source.total))
    except SourceUnusable as fault:
        raise source_fault(fault) from None
    except DamagedJournal as fault:
        raise CommandError(str(fault), ExitStatus.DATAERR) from None
    except SourceEnded as fault:
        raise CommandError(f"{fault}; {GO_ON}", ExitStatus(fault.status)) from None
    except BlockingIOError:
        why = "another import into this mailbox is under way"
        raise CommandError(f"not imported: {why}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        raise CommandError(f"not imported: {where}{fault.strerror}; {GO_ON}", ExitStatus.TEMPFAIL) from None


def _opened(
    config: Config, account: Account, source: MailSource, options: ImportOptions, opened: ExitStack
) -> tuple[MailDestination, ImportJournal]:
    """An account's mailbox, and the journal for this source."""
    recipient = recipient_of(config, account)
    keep = config.state / KEEP
    if isinstance(recipient, InMaildir):
        _refuse_itself(source, recipient.path)
        name = f"maildir {recipient.path}"
        journal = opened.enter_context(ImportJournal(keep, name, source.identity, new_stamp(), again=options.again))
        destination: MailDestination = MaildirDestination(
            recipient.path,
            recipient.quota,
            KeptIds(keep),
            journal.stamp,
            journal.count + 1,
            journal.last,
            _listed_ids(config, account, recipient.path),
            UidSource.of(config.store.uidl).server != "filename",
        )
        opened.callback(destination.close)
        return destination, journal
    from pop3d.postgres import DatabaseFault  # of an extra, which the configuration has looked for
    from pop3d.stores.postgres.destination import PostgresDestination

    opened.push(_database_fault(DatabaseFault))
    in_database = PostgresDestination(recipient.conninfo, recipient.name, recipient.quota, recipient.timeout)
    opened.callback(in_database.close)
    journal = ImportJournal(keep, in_database.name, source.identity, new_stamp(), again=options.again)
    return in_database, opened.enter_context(journal)


def _database_fault(kind: type[Exception]) -> Callable[..., None]:
    """What an `ExitStack` calls at its end: a fault of the database becomes a command's error."""

    def told(_: object, fault: BaseException | None, __: object) -> None:
        if isinstance(fault, kind):
            raise CommandError(f"not imported: {fault}; {GO_ON}", ExitStatus.TEMPFAIL) from None

    return told


def _refuse_itself(source: MailSource, path: str) -> None:
    kind, _, place = source.identity.partition(" ")
    # a folder that is mounted in two places has two paths
    if kind == "maildir" and os.path.exists(path) and os.path.samefile(place, path):
        raise CommandError(f"{path}: source and mailbox are the same Maildir; name another source", ExitStatus.DATAERR)


def _listed_ids(config: Config, account: Account, path: str) -> list[bytes]:
    """Unique-ids that another server's list gives to messages that are in the mailbox already."""
    source = UidSource.of(config.store.uidl)
    control = mailbox_path(config.store.control, account) if config.store.control else None
    try:
        root = open_folder(path)
    except FileNotFoundError:
        return []
    try:
        return list(foreign_list(root, source, control).uids.values())
    except ValueError:
        return []  # whoever serves the mailbox complains
    finally:
        os.close(root)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends an import as Ctrl-C does: cleanly, and it can go on later."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told(tally: ImportTally) -> Iterator[None]:
    """Whatever ends an import early, say how far it came: what was imported stays."""
    try:
        yield
    except BaseException as fault:
        if tally.imported:
            one = tally.imported == 1
            stay = "was imported before that, and stays" if one else "were imported before that, and stay"
            print(f"pop3d: {messages(tally.imported)} {stay}", file=sys.stderr)
        if isinstance(fault, KeyboardInterrupt):
            print(f"pop3d: interrupted; {GO_ON}", file=sys.stderr)
        raise


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _, __: None
        return
    columns = (TextColumn("importing"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
