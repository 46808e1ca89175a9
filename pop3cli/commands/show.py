"""``pop3cli show`` and ``pop3cli get``: one message, as a person reads it, or its exact octets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.errors import CommandRefused, TooLarge, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.files import whole_file
from pop3cli.mailbox.visit import logged_in
from pop3cli.message.attachments import save_attachments
from pop3cli.message.reading import BEGINNING, HEADERS_MAX, WHOLE_MAX, Readable, parse_headers, read_message
from pop3cli.net.session import Session
from pop3cli.options import Options
from pop3cli.terminal.terminal import ContentPrinter, Terminal
from pop3cli.terminal.units import human_size

__all__ = ["get", "show"]

_SAVED_MAX: Final = 64 * 1024 * 1024
"""Octets of a message whose attachments are saved, which takes several times as much memory."""


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
