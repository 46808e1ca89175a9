"""Dovecot's authentication protocol, version 1: lines over a Unix socket, any number of questions at a time.

A line is a word, the number of the question, and fields, with a TAB between any two; what a field may not have in it is
escaped. One connection serves all questions. When it breaks, those under way fail, and the next one opens another.
Nothing that Dovecot says is believed to be well-formed: lines, the handshake and all waits are bounded.

Source: https://doc.dovecot.org/main/developers/design/auth_protocol.html
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pop3d.auth import AuthUnavailable

__all__ = ["LINE_OCTETS_MAX", "DovecotReply", "DovecotSocket", "escaped"]

LINE_OCTETS_MAX: Final = 16384
"""Octets of a line that Dovecot takes (AUTH_CLIENT_MAX_LINE_LENGTH); it hangs up on a longer one."""

_REPLY_OCTETS_MAX: Final = 64 * 1024  # of a line that we take: passdbs add fields of their own
_HANDSHAKE_LINES_MAX: Final = 200  # Dovecot says some ten, one for each mechanism
_HANDSHAKE_SECONDS: Final = 5.0
_PAUSE_MIN: Final = 0.1  # seconds before another attempt to connect, behind one that failed; doubled up to the next one
_PAUSE_MAX: Final = 1.0  # so a Dovecot that has come back is found at once by whoever waits at the door
_AGE_MAX: Final = 60.0  # seconds that one connection takes new questions
_NUMBER_MAX: Final = 2**32 - 1  # a question's number has 32 bits
_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_ESCAPES: Final = {b"\0": b"\x010", b"\x01": b"\x011", b"\t": b"\x01t", b"\r": b"\x01r", b"\n": b"\x01n"}
_UNESCAPES: Final = {code[1:]: octet for octet, code in _ESCAPES.items()}


def escaped(octets: bytes) -> bytes:
    """A field as it may stand in a line."""
    return re.sub(rb"[\0\x01\t\r\n]", lambda found: _ESCAPES[found[0]], octets)


def _unescaped(octets: bytes) -> bytes:
    return re.sub(rb"\x01(.?)", lambda found: _UNESCAPES.get(found[1], found[1]), octets, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class DovecotReply:
    """``word``: such as OK or FAIL. ``first``: the first field as it is; ``fields``: all, by their names.

    A field without a ``=`` has the value ``""``. Octets that are no UTF-8 are surrogates.
    """

    word: str
    first: str
    fields: dict[str, str] = field(repr=False)


class _Broken(Exception):
    """The other side does not speak this protocol; one line."""


@dataclass(slots=True)
class _Question:
    answer: asyncio.Future[DovecotReply]
    continued: bytes | None
    """What is said to a challenge, in base64; None: there must be none."""


class DovecotSocket:
    """One socket of Dovecot's service auth. Opened with the first question.

    ``master``: it is one for userdb lookups (auth-userdb), whose handshake is shorter; else one for clients.
    ``seconds_max``: for an answer; to connect takes some seconds at most.
    """

    def __init__(self, path: Path, *, master: bool = False, seconds_max: float) -> None:
        self.path, self._master, self._seconds_max = path, master, seconds_max
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None
        self._pause = 0.0
        self._not_before = 0.0  # of the loop's clock

    async def mechanisms(self) -> frozenset[str]:
        """Those that it announces, in capitals; connects if need be. Raises `AuthUnavailable`."""
        return (await self._connected()).mechanisms

    async def ask(self, word: str, *fields: bytes, continued: bytes | None = None) -> DovecotReply:
        """Ask a question: ``word``, a number, and ``fields``, escaped already. Raises `AuthUnavailable`.

        ``continued``: what is said to a challenge, in base64, once.
        """
        connection = await self._connected()
        try:
            return await connection.ask(word, fields, continued, self._seconds_max)
        except TimeoutError:
            raise AuthUnavailable(f"Dovecot at {self.path} did not answer in {self._seconds_max:g} s") from None

    def renew(self) -> None:
        """Ask the next question by another connection; those under way are answered."""
        if self._connection is not None:
            self._connection.retire()
            self._connection = None

    async def close(self) -> None:
        """Hang up. What is under way fails."""
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.ended:
            if not self._connection.is_old:
                return self._connection
            self.renew()
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
        # all who wait share one attempt, and whoever goes does not end it for the others
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Connection:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._not_before - clock())
        self._pause = min(max(2 * self._pause, _PAUSE_MIN), _PAUSE_MAX)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                self._connection = await _Connection.open(self.path, master=self._master)
        except TimeoutError:
            raise self._unavailable("it takes connections, and says nothing; is it a socket of Dovecot's?") from None
        except OSError as fault:
            raise self._unavailable(f"{fault.strerror}; {_remedy(fault)}") from None
        except _Broken as fault:
            raise self._unavailable(f"{fault}; is it the right socket of Dovecot's?") from None
        finally:
            self._not_before = clock() + self._pause
        self._pause = self._not_before = 0.0
        return self._connection

    def _unavailable(self, why: str) -> AuthUnavailable:
        return AuthUnavailable(f"Dovecot cannot be asked at {self.path}: {why}")


class _Connection:
    """One connection, behind its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
        self.mechanisms: frozenset[str] = frozenset()
        self.ended = False
        self._reader, self._writer, self._path = reader, writer, path
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._heard = 0  # lines
        self._listening: asyncio.Task[None] | None = None
        self._opened = asyncio.get_running_loop().time()
        self._retired = False

    @property
    def is_old(self) -> bool:
        """Whether another one should be opened: `doveadm reload` leaves a process to its clients, as it was before."""
        return asyncio.get_running_loop().time() - self._opened >= _AGE_MAX

    def retire(self) -> None:
        """Hang up as soon as all questions are answered; there will be no more."""
        self._retired = True
        if not self._questions:
            self._end("we hang up")

    @classmethod
    async def open(cls, path: Path, *, master: bool) -> _Connection:
        """Raises OSError and `_Broken`."""
        reader, writer = await asyncio.open_unix_connection(path, limit=_REPLY_OCTETS_MAX)
        made = cls(reader, writer, path)
        try:
            # Dovecot 2.4 waits for the version before it says what it can
            writer.write(b"VERSION\t1\t1\n" if master else b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid())
            await made._shake_hands("SPID" if master else "DONE")
        except BaseException:
            writer.close()
            raise
        made._listening = asyncio.create_task(made._listen())
        return made

    async def ask(self, word: str, fields: tuple[bytes, ...], continued: bytes | None, seconds: float) -> DovecotReply:
        """See `DovecotSocket.ask`. Raises TimeoutError as well."""
        number = self._number = self._number % _NUMBER_MAX + 1
        answer: asyncio.Future[DovecotReply] = asyncio.get_running_loop().create_future()
        self._questions[number] = _Question(answer, continued)
        heard = self._heard
        # not drained: what can be under way is bounded by our callers, and what stands still is cut by its time
        self._writer.write(b"\t".join((word.encode(), b"%d" % number, *fields)) + b"\n")
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            if self._heard == heard:
                self._end("it says nothing")  # to anybody; another connection may find another process
            raise
        finally:
            del self._questions[number]
            if answer.cancelled() and not self.ended:
                self._writer.write(b"CANCEL\t%d\n" % number)
            if self._retired:
                self.retire()

    async def close(self) -> None:
        self._end("we hang up")
        if self._listening is not None:
            await asyncio.wait([self._listening])

    async def _line(self) -> list[bytes]:
        """Raises `_Broken` at the end as well."""
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise _Broken(f"a line has more than {_REPLY_OCTETS_MAX} octets") from None
        except asyncio.IncompleteReadError:
            raise _Broken("the connection was closed") from None
        except OSError as fault:
            raise _Broken(str(fault.strerror)) from None
        self._heard += 1
        return line[:-1].split(b"\t")

    async def _shake_hands(self, last: str) -> None:
        found = set()
        for number in range(_HANDSHAKE_LINES_MAX):
            word, *fields = await self._line()
            if number == 0 and (word, fields[:1]) != (b"VERSION", [b"1"]):
                raise _Broken("it does not speak version 1 of the authentication protocol")
            if word == b"MECH" and fields:
                found.add(fields[0].decode("ascii", "replace").upper())
            if word == last.encode():
                self.mechanisms = frozenset(found)
                return
        raise _Broken("its handshake has no end")

    async def _listen(self) -> None:
        why = "we hang up"
        try:
            while True:
                self._told(await self._line())
        except _Broken as fault:
            why = str(fault)
        finally:
            self._end(why)

    def _told(self, line: list[bytes]) -> None:
        word, *fields = line
        if word not in (b"OK", b"FAIL", b"CONT", b"USER", b"NOTFOUND") or not _NUMBER.fullmatch(b"".join(fields[:1])):
            raise _Broken("it says what is not of the authentication protocol")
        question = self._questions.get(int(fields[0]))
        if question is None or question.answer.done():
            return  # nobody waits for it any more
        if word == b"CONT":
            if question.continued is None:
                raise _Broken("it asks for more than a password")
            self._writer.write(b"CONT\t%s\t%s\n" % (fields[0], question.continued))
            question.continued = None
            return
        texts = [_unescaped(one).decode("utf-8", "surrogateescape") for one in fields[1:]]
        named = {name: value for name, _, value in (text.partition("=") for text in texts)}
        question.answer.set_result(DovecotReply(word.decode(), texts[0] if texts else "", named))

    def _end(self, why: str) -> None:
        if self.ended:
            return
        self.ended = True
        if self._listening is not None:
            self._listening.cancel()
        with contextlib.suppress(OSError):
            self._writer.transport.abort()
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(AuthUnavailable(f"Dovecot at {self._path} did not answer: {why}"))


def _remedy(fault: OSError) -> str:
    match fault.errno:
        case errno.ENOENT | errno.ECONNREFUSED:
            return "start Dovecot, with this unix_listener in its `service auth`"
        case errno.EACCES | errno.EPERM:
            return "give this unix_listener in Dovecot's `service auth` a user and mode that let pop3d's `user` connect"
        case _:
            return "look at this unix_listener in Dovecot's `service auth`"
