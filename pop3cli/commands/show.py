"""What each command of ``pop3cli`` does, from connecting to the last line shown.

A command is plain code that runs one piece after the other on an event loop of its own (`Visit`): between the pieces it
may ask a person, and Ctrl-C is then the person's business and nobody else's. All that a command has to say goes through
the `Terminal`; that it went well is its status, that it failed is an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from pop3cli.accounts.url import Account
from pop3cli.auth.login import prepare
from pop3cli.commands.message_table import NUMBER, Row, as_json, count_of, gather, mail_table
from pop3cli.errors import CommandRefused, NoSuchMessage, Refused, TooLarge, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.files import whole_file
from pop3cli.message.attachments import save_attachments
from pop3cli.message.reading import BEGINNING, HEADERS_MAX, WHOLE_MAX, Readable, parse_headers, read_message, summarize
from pop3cli.net.session import Session
from pop3cli.net.trace import Trace
from pop3cli.options import Options
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import ContentPrinter, Terminal
from pop3cli.terminal.units import human_size

__all__ = ["Visit", "delete", "get", "list_messages", "logged_in", "show", "stat", "uidl"]

_SAVED_MAX: Final = 64 * 1024 * 1024
"""Octets of a message whose attachments are saved, which takes several times as much memory."""

_NAMED_MAX: Final = 20
"""Messages that are named before they are deleted; of more, only how many."""

_T = TypeVar("_T")


class Visit:
    """A session and the loop it runs on; both end with the block. Without a QUIT the server then deletes nothing."""

    def __init__(self, trace: Trace | None = None) -> None:
        self._runner = asyncio.Runner()
        self.session = Session(trace=trace)

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self.session.close())

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end. Ctrl-C cancels it, and is raised here as KeyboardInterrupt."""
        return self._runner.run(work)


@contextmanager
def logged_in(account: Account, options: Options) -> Iterator[Visit]:
    """A visit that is logged in. What can be wrong on our side is found before a connection is made."""
    entrance = prepare(account, options.settings)
    with Visit(options.new_trace()) as visit:
        visit.do(entrance.connect(visit.session))
        visit.do(entrance.log_in(visit.session))
        yield visit


# --- what there is ---


def stat(account: Account, options: Options, terminal: Terminal) -> ExitStatus:
    """How many messages, how large together."""
    with logged_in(account, options) as visit:
        item = visit.do(visit.session.stat())
        visit.do(visit.session.quit())
    if options.json:
        terminal.json({"messages": item.messages, "octets": item.octets})
    else:
        size = f", {human_size(item.octets)}"
        terminal.line((count_of(item.messages), "strong"), size, (f" ({item.octets:,} octets)", "faint"))
    return ExitStatus.OK


def uidl(account: Account, options: Options, terminal: Terminal) -> ExitStatus:
    """Number and unique-id of each message."""
    with logged_in(account, options) as visit, ExitStack() as output:
        if options.json:
            add = output.enter_context(terminal.json_array())
            visit.do(_uidl(visit.session, lambda number, uid: add({"number": number, "uid": uid})))
        else:
            table = terminal.table((NUMBER, Column("Unique id", 20, share=1)))
            visit.do(_uidl(visit.session, lambda number, uid: table.row(str(number), uid)))
    return ExitStatus.OK


async def _uidl(session: Session, show: Callable[[int, str], None]) -> None:
    async for item in session.uidl():
        show(item.number, item.uid)
    await session.quit()


def list_messages(account: Account, options: Options, terminal: Terminal, last: int | None = None) -> ExitStatus:
    """From, Subject, Date and size of each message, or of the ``last`` ones: those are the newest, as a rule."""
    with logged_in(account, options) as visit, ExitStack() as output:
        if options.json:
            add = output.enter_context(terminal.json_array())
            outcome = visit.do(gather(visit.session, terminal, lambda *row: add(as_json(*row)), last))
        else:
            show = mail_table(terminal)
            outcome = visit.do(gather(visit.session, terminal, show, last))
    return outcome.tell(terminal)


# --- one message ---


def show(
    account: Account,
    number: int,
    options: Options,
    terminal: Terminal,
    *,
    headers_only: bool,
    save_to: Path | None = None,
) -> ExitStatus:
    """A message as a person reads it, or all its headers. ``save_to``: a folder for what is attached."""
    most = WHOLE_MAX if save_to is None else _SAVED_MAX
    with logged_in(account, options) as visit:
        session = visit.session
        work = (
            _fetch_headers(session, number, terminal) if headers_only else _fetch(session, number, terminal, most=most)
        )
        content = visit.do(work)
        if session.connected:
            visit.do(session.quit())
    if headers_only:
        _show_headers(parse_headers(content), number, options, terminal)
    else:
        whole = len(content) <= most
        if not whole and save_to is not None:
            why = f"larger than {human_size(_SAVED_MAX)}, too large to take apart"
            raise TooLarge(f"message {number}", why, "use get with -o FILE")
        message = read_message(content if whole else content[:BEGINNING], whole=whole)
        saved = [] if save_to is None else save_attachments(message.attachments, save_to)
        _show_message(message, saved, number, options, terminal)
        if save_to is not None and len(saved) < len(message.attachments):
            terminal.note(f"the first {len(saved)} of {len(message.attachments)} attachments were saved, and no more")
            return ExitStatus.SOME_FAILED
    return ExitStatus.OK


async def _fetch_headers(session: Session, number: int, terminal: Terminal) -> bytes:
    """A message's header, of which no more is read than is shown."""
    octets = await session.size(number)
    try:
        content = await _collect(session.top(number, 0), number, terminal, 0, HEADERS_MAX)
    except CommandRefused:  # TOP is optional (RFC 1939 §7)
        content = await _collect(session.retrieve(number), number, terminal, octets, HEADERS_MAX)
    if len(content) > HEADERS_MAX:  # some servers answer TOP with the whole message
        await session.close()
    return content


async def _fetch(session: Session, number: int, terminal: Terminal, *, most: int) -> bytes:
    """A message; of one with more than ``most`` octets so many and one, and the connection is dropped behind them."""
    octets = await session.size(number)
    content = await _collect(session.retrieve(number), number, terminal, octets, most)
    if len(content) > most:
        await session.close()  # the rest may be gigabytes; without QUIT nothing is deleted (RFC 1939 §6)
    return content


async def _collect(pieces: AsyncIterator[bytes], number: int, terminal: Terminal, octets: int, most: int) -> bytes:
    content = bytearray()
    with terminal.progress(f"message {number}", octets) as meter:
        async for piece in pieces:
            content += piece[: most + 1 - len(content)]
            meter.advance(len(piece))
            if len(content) > most:
                break
    return bytes(content)


def _show_headers(headers: list[tuple[str, str]], number: int, options: Options, terminal: Terminal) -> None:
    if options.json:
        terminal.json({"number": number, "headers": headers})
        return
    for name, value in headers:
        terminal.line((f"{name}:", "label"), f" {value}")


def _show_message(message: Readable, saved: Sequence[Path], number: int, options: Options, terminal: Terminal) -> None:
    files = [*map(str, saved), *[None] * (len(message.attachments) - len(saved))]
    if options.json:
        attachments = [
            {"name": a.name, "type": a.type, "octets": a.octets} | ({} if file is None else {"file": file})
            for a, file in zip(message.attachments, files, strict=True)
        ]
        headers = {name.lower(): value for name, value in message.headers}
        found = {"number": number, **headers, "text": message.text, "attachments": attachments}
        terminal.json(found | ({"cut": message.cut} if message.cut else {}))
        return
    for name, value in message.headers:
        terminal.line((f"{name + ':':<9}", "label"), (value, "strong" if name == "Subject" else ""))
    terminal.line()
    terminal.body(message.text)
    if message.attachments:
        terminal.line()
    for attachment, file in zip(message.attachments, files, strict=True):
        name = attachment.name or "(no name)"
        kind = (f"{attachment.type}, {human_size(attachment.octets)}", "faint")
        terminal.line(("Attached:", "label"), f" {name} ", kind, "" if file is None else f" saved as {file}")
    if message.cut:
        terminal.note(f"{message.cut}; get -o FILE has all of it")


def get(account: Account, number: int, file: Path | None, options: Options, terminal: Terminal) -> ExitStatus:
    """A message's exact octets, to standard output or into a file that appears whole or not at all."""
    if options.json and file is None:
        raise UsageFault("get --json", "standard output is the message's", "give -o FILE as well")
    with logged_in(account, options) as visit:
        if file is None:
            octets = visit.do(_get(visit.session, number, terminal, _standard_output(terminal)))
        else:
            with whole_file(file) as stream:
                octets = visit.do(_get(visit.session, number, terminal, stream.write))
        visit.do(visit.session.quit())
    if options.json:
        terminal.json({"number": number, "octets": octets, "file": str(file)})
    elif file is None and terminal.is_terminal:
        terminal.note("shown with control characters made harmless; -o FILE has the exact octets")
    return ExitStatus.OK


def _standard_output(terminal: Terminal) -> Callable[[bytes], object]:
    # no message may work a terminal, not even one that was asked for exactly
    return ContentPrinter(terminal).feed if terminal.is_terminal else terminal.octets


async def _get(session: Session, number: int, terminal: Terminal, write: Callable[[bytes], object]) -> int:
    total, octets = await session.size(number), 0
    with terminal.progress(f"message {number}", total) as meter:
        async for piece in session.retrieve(number):
            write(piece)
            octets += len(piece)
            meter.advance(len(piece))
    return octets


# --- deleting ---


def delete(account: Account, numbers: Sequence[int], options: Options, terminal: Terminal, *, sure: bool) -> ExitStatus:
    """Delete messages: all that are named, or none."""
    if not sure and not terminal.can_ask:
        raise UsageFault("delete", "there is no terminal to ask at", "give --yes to delete without being asked")
    wanted = sorted(set(numbers))
    with logged_in(account, options) as visit:
        sizes = visit.do(_check(visit.session, wanted))
        if not sure and not _confirmed(visit, account, sizes, terminal):
            visit.do(visit.session.quit())
            terminal.line("nothing was deleted")
            return ExitStatus.SOME_FAILED
        visit.do(_mark(visit.session, wanted))  # RFC 1939 §8: nothing is left to the server's own tidying
        visit.do(visit.session.quit())  # RFC 1939 §6: only this removes them, and only its +OK says so
    if options.json:
        terminal.json({"deleted": wanted})
    else:
        terminal.line((f"{count_of(len(wanted))} deleted", "ok"))
    return ExitStatus.OK


async def _check(session: Session, wanted: Sequence[int]) -> dict[int, int]:
    """The sizes of the messages wanted. Raises `NoSuchMessage` unless all are there."""
    missing = set(wanted)
    sizes = {item.number: item.octets async for item in session.list() if item.number in missing}
    missing -= sizes.keys()
    if missing:
        named = ", ".join(map(str, sorted(missing)[:_NAMED_MAX]))
        raise NoSuchMessage(f"message {named}", "no such message", "nothing was deleted", code=None, text="")
    return sizes


def _confirmed(visit: Visit, account: Account, sizes: dict[int, int], terminal: Terminal) -> bool:
    if len(sizes) <= _NAMED_MAX:
        visit.do(_name_them(visit.session, sizes, mail_table(terminal, aside=True)))
    question = f"Delete {'this' if len(sizes) == 1 else 'these'} {count_of(len(sizes))} of {account.name}? [y/N] "
    return terminal.ask(question) in ("y", "yes")


async def _name_them(session: Session, sizes: dict[int, int], show: Row) -> None:
    async for number, headers in session.headers(sorted(sizes)):
        show(number, sizes[number], summarize(headers) if isinstance(headers, bytes) else None)


async def _mark(session: Session, wanted: Sequence[int]) -> None:
    try:
        for number in wanted:
            await session.dele(number)
    except Refused as fault:
        fault.add_note("nothing was deleted")
        raise
