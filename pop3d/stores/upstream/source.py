"""A mailbox on another POP3 server as a source of messages (`pop3d.stores.arriving`), behind verified TLS.

Nothing is deleted there, ever: DELE is not said, and neither is QUIT, behind which some servers delete what was read by
rules of their own (RFC 1939 §6: without QUIT there is no UPDATE state). A message without its end is not imported. A
connection that is cut is made anew, and goes on with the next message by its unique-id, for numbers may be others.

Blocking, for a process of its own: the client's event loop runs only while something is asked for. `close` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - looks up host names, when this process may no longer read Python's library
import functools
import hashlib
import os
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pop3cli.auth.login import LoginPlan, plan_of
from pop3cli.auth.passwords import password_by_command, prompt_password
from pop3cli.net import MailError
from pop3cli.net.session import Said, Session
from pop3cli.net.tls import client_context
from pop3core.commands import Retr
from pop3core.events import ContentEnded, ContentReceived, Replied
from pop3d.stores.arriving import ArrivingMessage, MessageCut, SourceEnded, SourceUnusable

__all__ = ["Pop3Source", "login_plan", "password_of"]

_PAUSES: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each new connection while no message comes through in between; then it is given up."""

_IN_MEMORY: Final = 1024 * 1024  # octets of a message that has to be read before it is known which one it is
_OPENINGS: Final = (0.0, 1.0, 2.0)
"""Seconds before each attempt to get in for the first time, where that may pass: a mailbox that is in use, say."""

_BUSY: Final = (75, 76)
"""Exit codes of faults that may pass: try later, and what a server says out of turn that is in trouble itself."""

_CUT: Final = (69, *_BUSY)  # and of those of a connection that was there before


def password_of(command: str | None, variable: str, whose: str) -> bytes:
    """The password for ``whose``: what ``command`` prints, what the environment's ``variable`` is, or what a person at
    the terminal says. Raises `SourceUnusable`.
    """
    try:
        if command is not None:
            return password_by_command(command)
        if value := os.environb.get(os.fsencode(variable)):
            return value
        if sys.stdin.isatty():
            return prompt_password(f"Password of {whose}: ")
    except MailError as fault:
        raise _unusable(fault) from None
    remedy = f"give --password-command CMD, or set {variable}"
    raise SourceUnusable(f"no password for {whose}: there is no terminal to ask at; {remedy}", status=2)


def login_plan(
    url: str, secret: Callable[[], bytes], *, cacert: Path | None = None, pins: tuple[str, ...] = ()
) -> LoginPlan:
    """What it takes to get into the mailbox that ``url`` names: ``pop3s://user@host``, or ``pop3://`` with STLS.

    ``secret``: asked for the password, once the rest is known to be usable; ``cacert``: whom to trust; ``pins``: of the
    server, as `pop3cli` has them. Raises `SourceUnusable`.
    """
    try:
        plan = plan_of(url, _trust(cacert, pins))
        return replace(plan, secret=secret())
    except MailError as fault:
        raise _unusable(fault) from None


@functools.cache
def _trust(cacert: Path | None, pins: tuple[str, ...]) -> ssl.SSLContext:
    """One for all accounts of a run: each would read all authorities anew, and hold them."""
    return client_context(cacert, pins=pins)


def _unusable(fault: MailError) -> SourceUnusable:
    return SourceUnusable(str(fault), status=int(fault.status))


class Pop3Source:
    """The mailbox that ``plan`` gets into; see `pop3d.stores.arriving.MailSource`. Raises `SourceUnusable`."""

    def __init__(self, plan: LoginPlan) -> None:
        self._plan = plan
        self.identity = plan.account.url
        self.total = self.progress = 0
        self.failed: list[str] = []
        self.remarks: list[str] = []
        self._runner = asyncio.Runner()
        self._session = Session()
        self._uids: dict[int, bytes | None] = {}
        self._brought: set[bytes] = set()  # keys that came to their end in this run, be it a refusal
        self._cut: MailError | None = None
        self._ended = True  # the message under way
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        last = None
        for pause in _OPENINGS:
            time.sleep(pause)
            try:
                return self._runner.run(self._open())
            except MailError as fault:
                last = fault
                if int(fault.status) not in _BUSY:
                    break
        assert last is not None
        raise _unusable(last) from None

    def close(self) -> None:
        """End the connection, without QUIT."""
        with contextlib.suppress(MailError, OSError):
            self._runner.run(self._session.close())
        self._runner.close()

    async def _open(self) -> None:
        """Connect, log in, and list. Raises `MailError`."""
        await self._session.close()
        await self._plan.connect(self._session)
        await self._plan.log_in(self._session)
        self._uids = {item.number: None async for item in self._session.list()}
        try:
            async for named in self._session.uidl():
                if named.number in self._uids:
                    self._uids[named.number] = named.uid.encode("utf-8", "surrogateescape")
        except MailError as fault:
            if not self._session.connected:
                raise
            remark = f"{self.identity}: it has no unique-ids ({fault}); messages get new ones"
            self.remarks = [remark]
        self.total = len(self._uids)

    def messages(self, done: Container[bytes]) -> Iterator[ArrivingMessage]:
        """See `pop3d.stores.arriving.MailSource.messages`."""
        pauses = iter(_PAUSES)
        brought = 0
        while True:
            try:
                yield from self._pass(done)
                self.progress = self.total
                return
            except MailError as fault:
                if len(self._brought) > brought:
                    pauses, brought = iter(_PAUSES), len(self._brought)
                self._again(fault, pauses)

    def _again(self, fault: MailError, pauses: Iterator[float]) -> None:
        """Connect once more, a few times. Raises `SourceEnded`."""
        while int(fault.status) in _CUT and (pause := next(pauses, None)) is not None:
            time.sleep(pause)
            try:
                return self._runner.run(self._open())
            except MailError as another:
                fault = another
        raise SourceEnded(str(fault), status=int(fault.status))

    def _pass(self, done: Container[bytes]) -> Iterator[ArrivingMessage]:
        """All messages that are missing, over one connection. Raises `MailError` when it is cut."""
        counted = Counter(self._uids.values())
        wanted: list[tuple[int, bytes | None]] = []  # number, and key where the unique-id gives one
        for number, uid in self._uids.items():
            key = None if uid is None or counted[uid] > 1 else b"uid " + uid
            if key is None or not (key in done or key in self._brought):
                wanted.append((number, key))
        self.progress = self.total - len(wanted)
        said = self._said(Retr(number) for number, _ in wanted)
        seen: Counter[bytes] = Counter()
        for number, key in wanted:
            place = f"{self.identity} message {number}"
            status = next(said)
            assert isinstance(status, Replied)
            if not status.ok:
                self.failed.append(f"{place}: {_harmless(status.text)}")
                self._brought.add(key or b"")
                self.progress += 1
                continue
            self._ended = False
            if key is not None:
                yield ArrivingMessage(key, self._uids[number], lambda: _lines(self._content(said)), place)
                self._finish(said)
                self._brought.add(key)
            else:
                yield from self._unnamed(_lines(self._content(said)), number, seen, done, place)
            self.progress += 1

    def _unnamed(
        self, content: Iterable[bytes], number: int, seen: Counter[bytes], done: Container[bytes], place: str
    ) -> Iterator[ArrivingMessage]:
        """A message that only its content tells from others."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            digest = hashlib.sha256()
            try:
                for piece in content:
                    spool.write(piece)
                    digest.update(piece)
            except MessageCut:
                raise self._fault() from None
            seen[digest.digest()] += 1
            key = b"content %b %d" % (digest.digest(), seen[digest.digest()])
            if key not in done and key not in self._brought:
                spool.seek(0)
                yield ArrivingMessage(key, self._uids[number], lambda: iter(lambda: spool.read(1 << 16), b""), place)
                self._brought.add(key)

    def _said(self, commands: Iterable[Retr]) -> Iterator[Said]:
        """What the server says to commands, sent ahead where it allows that. Raises `MailError`."""
        said: AsyncIterator[Said] = self._session.pipeline(commands)

        async def following() -> Said | None:
            return await anext(said, None)

        while (one := self._runner.run(following())) is not None:
            yield one

    def _content(self, said: Iterator[Said]) -> Iterator[bytes]:
        """What is left of the message under way, to its end. Raises `MessageCut`."""
        try:
            for one in said:
                if isinstance(one, ContentEnded):
                    self._ended = True
                    return
                if isinstance(one, ContentReceived):
                    yield one.data
        except MailError as fault:
            self._cut = fault
            raise MessageCut(str(fault)) from None

    def _finish(self, said: Iterator[Said]) -> None:
        """Read away what nobody wanted of the message under way. Raises `MailError` when the connection is cut."""
        if self._cut is None and not self._ended:
            with contextlib.suppress(MessageCut):
                for _ in self._content(said):
                    pass
        if self._cut is not None:
            raise self._fault()

    def _fault(self) -> MailError:
        fault, self._cut = self._cut, None
        assert fault is not None
        return fault


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with LF at their end, as mail is stored here, whatever pieces they come in."""
    held = b""
    for piece in pieces:
        piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""
        yield piece[: len(piece) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def _harmless(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
