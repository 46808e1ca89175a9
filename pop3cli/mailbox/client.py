"""A mailbox as a program wants it: messages by unique-id, over as many connections as it takes.

    async with Client.connect("pop3s://alice@mail.example.org", password=password) as mailbox:
        async for message in mailbox.messages(headers=True):
            if (await message.headers())["Subject"] == "old news":
                message.delete()

A message's number never shows: it means something in one session only, and a client may need several. When a connection
is cut, the next one is made after a pause (`Reconnect`), the mailbox is listed anew, and what was being read goes on
where it was; whether it is still the same content is checked.

Deleting is the one thing that cannot be repeated, so it is done once and at the end. `Message.delete` makes a note;
`Client.commit` says DELE for all notes, and QUIT. Leaving the block in an orderly way commits; leaving it by an
exception, a cancelled task among them, deletes nothing (RFC 1939 §6). A connection that is cut before QUIT was said has
deleted nothing, and is replaced; one that is cut behind it may have, which is an error and never tried again.

Every wait has its limit, ``timeout``. A mailbox is one conversation: one thing at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pop3cli.accounts.connect import connect
from pop3cli.accounts.url import parse_account
from pop3cli.errors import (
    CommandRefused,
    ConnectionCut,
    MailError,
    NoSuchMessage,
    NotValid,
    ServerBroken,
    ServerDown,
    TimedOut,
    TooLarge,
    TryLater,
    refusal,
)
from pop3cli.mailbox.index import Index, Reconnect, read_index
from pop3cli.message.mime import Parts
from pop3cli.net.connection import TIMEOUT
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3core.commands import Dele
from pop3core.events import Replied

__all__ = ["Client", "Message", "Reconnect"]

READ_MAX: Final = 64 * 1024 * 1024
"""Octets that `Message.read` and `Message.parse` take at most, unless said otherwise."""

_VALUE_MAX: Final = 4096
"""Characters of a header value that are parsed: the parser's time grows faster than its input."""

_AHEAD: Final = 64
"""Messages whose headers are held at once."""

_PASSING: Final = (ConnectionCut, ServerDown, TimedOut, TryLater)  # worth another connection

_T = TypeVar("_T")


class Client:
    """A mailbox. Made by `Client.connect`, used with ``async with``. Methods raise `MailError`.

    Of the subclasses, `Refused` (`LoginRefused`, `CommandRefused`, `TryLater`) has the server's response ``code`` and
    ``text``; `ConnectionCut`, `ServerDown` and `TimedOut` come when no attempt of `Reconnect` is left.
    """

    def __init__(self, open_session: Callable[[Session], Awaitable[None]], reconnect: Reconnect) -> None:
        self._open_session = open_session
        self._reconnect = reconnect
        self._session = Session()
        self._index = Index({})
        self._marked: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._stream: object = None  # which `Message.stream` the session is reading for

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        password: str | bytes = b"",
        login: Callable[[Session], Awaitable[object]] | None = None,
        cacert: str | Path | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT,
        reconnect: Reconnect | None = None,
    ) -> Self:
        """The mailbox at ``pop3s://user@host[:port]``; the connection is made by ``async with``.

        ``login``: does another login than USER and PASS with ``password``, such as
        ``lambda session: session.authenticate(...)``. ``cacert``: trust the certificates in that file alone; ``tls``: a
        context of your own. ``timeout``: seconds the server may take for each thing. Raises `UsageFault` for another
        URL, `SettingFault` for a file that cannot be used.
        """
        account = parse_account(url)
        context = tls or client_context(None if cacert is None else Path(cacert))

        async def open_session(session: Session) -> None:
            await connect(session, account, context, timeout)
            await (login(session) if login is not None else session.login(account.user or "", password))

        return cls(open_session, reconnect or Reconnect())

    async def __aenter__(self) -> Self:
        try:
            await self._listed()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.commit()
        finally:
            await self._session.close()

    # --- what there is ---

    def __len__(self) -> int:
        """How many messages there are, of those with a unique-id of their own."""
        return len(self._index.places)

    def __contains__(self, uid: object) -> bool:
        return uid in self._index.places

    def __getitem__(self, uid: str) -> Message:
        if uid not in self._index.places:
            raise KeyError(uid)
        return Message(self, uid)

    @property
    def shared(self) -> frozenset[str]:
        """Unique-ids that several messages have, against RFC 1939 §7. These messages cannot be had by unique-id."""
        return self._index.shared

    def __aiter__(self) -> AsyncIterator[Message]:
        return self.messages()

    async def messages(self, *, headers: bool = False) -> AsyncIterator[Message]:
        """Every message, in the server's order, as listed when the loop begins; what arrives later is left out.

        ``headers``: they are fetched before, many at a time where the server can (TOP, pipelined), and
        `Message.headers` has them without a further question.
        """
        uids = list(self._index.places)
        for start in range(0, len(uids), _AHEAD):
            some = uids[start : start + _AHEAD]
            found = await self._headers(some) if headers else {}
            for uid in some:
                yield Message(self, uid, found.get(uid))

    async def refresh(self) -> None:
        """List the mailbox anew, in a new session (RFC 1939: what a session sees never changes). Marks stay."""
        async with self._one_at_a_time:
            await self._leave()
            await self._listed()

    # --- deleting ---

    async def commit(self) -> None:
        """Delete what is marked, and end the session; whatever is asked for next begins another.

        Raises `CommandRefused` when the server refuses to mark one: then none is deleted; or to delete what was marked:
        then `refresh` shows what is left. Raises `ConnectionCut` or `TimedOut` when QUIT was not answered: then nobody
        knows, and nothing is tried again.
        """
        if not self._marked:
            async with self._one_at_a_time:
                await self._leave()
            return
        wanted = frozenset(self._marked)  # what is marked from now on waits for the next commit
        await self._again(lambda session: self._mark(session, wanted))
        async with self._one_at_a_time:
            self._marked -= wanted
            await self._session.quit()

    def rollback(self) -> None:
        """Take all marks back."""
        self._marked.clear()

    async def _mark(self, session: Session, wanted: frozenset[str]) -> None:
        # the index is of this very session, so the numbers are; what is gone already needs no deleting
        places = (self._index.places.get(uid) for uid in sorted(wanted))
        refused: Replied | None = None
        async for said in session.pipeline(Dele(place.number) for place in places if place is not None):
            if isinstance(said, Replied) and not said.ok:
                refused = refused or said
        if refused is not None:
            await session.rset()
            raise refusal(session.where, refused)

    # --- sessions ---

    async def _leave(self) -> None:
        """QUIT where nothing was marked, so that it does not matter whether it arrives."""
        if self._session.connected:
            with contextlib.suppress(ConnectionCut, TimedOut):
                await self._session.quit()

    async def _again(self, work: Callable[[Session], Awaitable[_T]]) -> _T:
        """Do a piece of work that may be repeated, in as many sessions as it takes."""
        pauses = self._reconnect.pauses()
        async with self._one_at_a_time:
            while True:
                try:
                    await self._opened()
                    return await work(self._session)
                except _PASSING as fault:
                    await self._pause(pauses, fault)

    async def _pause(self, pauses: Iterator[float], fault: MailError) -> None:
        """Wait before the next attempt; without one left, or for what no new connection can mend, raise."""
        if self._session.connected:  # so it is the command that was refused
            raise fault
        seconds = next(pauses, None)
        if seconds is None:
            raise fault
        await asyncio.sleep(seconds)

    async def _opened(self) -> None:
        self._stream = None
        if not self._session.connected:
            await self._listed()

    async def _listed(self) -> None:
        try:
            await self._open_session(self._session)
            self._index = await read_index(self._session)
        except BaseException:
            await self._session.close()
            raise

    def _number(self, uid: str) -> int:
        place = self._index.places.get(uid)
        if place is None:
            text = "it is not there any more"
            raise NoSuchMessage(f"message {uid}", text, code=None, text=text)
        return place.number

    async def _headers(self, uids: list[str]) -> dict[str, bytes]:
        async def work(session: Session) -> dict[str, bytes]:
            by_number = {place.number: uid for uid in uids if (place := self._index.places.get(uid)) is not None}
            answers = session.headers(by_number)
            return {by_number[number]: answer async for number, answer in answers if isinstance(answer, bytes)}

        return await self._again(work)

    async def _pieces(self, uid: str) -> AsyncIterator[bytes]:
        pauses = self._reconnect.pauses()
        given, seen = 0, hashlib.sha256()
        while True:
            me, to_skip, again = object(), given, hashlib.sha256()
            try:
                async with self._one_at_a_time:
                    await self._opened()
                    pieces, self._stream = self._session.retrieve(self._number(uid)), me
                while (piece := await self._piece(pieces, me)) is not None:
                    if to_skip:  # behind a cut: what was given already, which must be the same
                        skipped, piece = piece[:to_skip], piece[to_skip:]
                        to_skip -= len(skipped)
                        again.update(skipped)
                        if not to_skip and again.digest() != seen.digest():
                            raise ServerBroken(f"message {uid}", "its content has changed since the connection was cut")
                    if piece:
                        given += len(piece)
                        seen.update(piece)
                        yield piece
                if to_skip:
                    raise ServerBroken(f"message {uid}", "it has become shorter since the connection was cut")
                return
            except _PASSING as fault:
                await self._pause(pauses, fault)

    async def _piece(self, pieces: AsyncIterator[bytes], me: object) -> bytes | None:
        async with self._one_at_a_time:
            if self._stream is not me:
                raise NotValid(
                    "stream", "something else was asked of the mailbox meanwhile", "read a message to its end"
                )
            return await anext(pieces, None)


class Message:
    """A message of a mailbox, known by its unique-id. ``uid``: 1 to 70 printable ASCII characters, foreign text."""

    def __init__(self, client: Client, uid: str, headers: bytes | None = None) -> None:
        self._client = client
        self._headers = headers
        self.uid = uid

    def __repr__(self) -> str:
        return f"Message({self.uid!r})"

    @property
    def octets(self) -> int:
        """Its size as the server says, line ends as CRLF. Raises `NoSuchMessage`."""
        self._client._number(self.uid)
        return self._client._index.places[self.uid].octets

    async def headers(self) -> EmailMessage:
        """Its headers, by TOP. Raises `CommandRefused` where the server has no TOP, `NoSuchMessage` if it is gone."""
        if self._headers is None:
            self._headers = await self._client._again(self._top)
        return _parsed_header(self._headers)

    async def _top(self, session: Session) -> bytes:
        number = self._client._number(self.uid)
        async for _, answer in session.headers([number]):
            if isinstance(answer, CommandRefused):
                raise answer
            return answer
        raise AssertionError("every TOP is answered")

    def stream(self) -> AsyncIterator[bytes]:
        """The message in pieces, octets as sent (CRLF); the next is read when this one was taken.

        A loop that ends has seen all of it. Survives cuts as `Reconnect` says; asking the mailbox for anything else
        before the end ends it with `NotValid`. Raises `NoSuchMessage` if the message is gone.
        """
        return self._client._pieces(self.uid)

    async def read(self, octets_max: int = READ_MAX) -> bytes:
        """The whole message. Raises `TooLarge` when it has more than ``octets_max`` octets."""
        content = bytearray()
        async for piece in self.stream():
            content += piece
            if len(content) > octets_max:
                raise TooLarge(f"message {self.uid}", f"larger than {octets_max:,} octets", "read it with stream()")
        return bytes(content)

    async def parse(self, octets_max: int = READ_MAX) -> EmailMessage:
        """The whole message, parsed with ``email.policy.default``, line ends as LF; as `read` otherwise.

        Of a header value the first 4,096 characters are parsed; one that the library cannot parse is text. Raises
        `TooLarge` as well for a message of more parts or header fields than mail has.
        """
        return _parsed(await self.read(octets_max))

    def delete(self) -> None:
        """Mark it: `Client.commit`, or leaving the mailbox in an orderly way, deletes it."""
        self._client._marked.add(self.uid)

    def undelete(self) -> None:
        """Take the mark back."""
        self._client._marked.discard(self.uid)

    @property
    def deleted(self) -> bool:
        """Whether it is marked."""
        return self.uid in self._client._marked


class _Policy(email.policy.EmailPolicy):
    """``email.policy.default`` for what strangers have sent.

    The library's parser of header values goes one call deeper for each parenthesis, fails on some values, and takes
    minutes for long ones; a value that it cannot read is text.
    """

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """What `email.message.EmailMessage` returns for a header."""
        value = value[:_VALUE_MAX]
        try:
            return super().header_fetch_parse(name, value)
        except Exception:  # it raises what it likes
            return super().header_fetch_parse("Comments", value)


_POLICY: Final = _Policy()


def _parsed(content: bytes) -> EmailMessage:
    """Raises `TooLarge` for a message of more parts or header fields than mail has."""
    if not Parts.of(content).whole:
        raise TooLarge("a message", "it has more parts or header fields than can be parsed", "read it with stream()")
    return _parsed_as_it_is(content)


def _parsed_header(content: bytes) -> EmailMessage:
    """The header alone: some servers answer TOP n 0 with more."""
    header, _, _ = content.partition(b"\r\n\r\n")
    return _parsed_as_it_is(header + b"\r\n\r\n")


def _parsed_as_it_is(content: bytes) -> EmailMessage:
    # as a program has it that reads mail from a file: the text that is got from it has "\n" at its line ends
    message = email.message_from_bytes(content.replace(b"\r\n", b"\n"), policy=_POLICY)
    assert isinstance(message, EmailMessage)
    return message
