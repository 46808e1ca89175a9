"""The server's side of a session.

The driver asks for the next event and does what it says:

    NeedData           read, `receive_data`
    SendData           write, wait until it has left
    ...Requested       find out, `answer`
    ContentDropped     release the message
    Closed             close the connection

Order decides everything, and stands in one place, `next_event`: output over a threshold leaves first; then a multi-line
reply under way gives its next piece; then a question is put; then the end is told; then the next line is executed; and
only when no line is left does what was answered leave, and the peer gets its turn. So the replies to a pipelined batch
leave in one write, one piece of content is asked for at a time, and memory stays bounded without a queue.

One line is executed at a time: what was sent behind a PASS waits until the login is answered. A session that ends
without a QUIT never asks for a commit (RFC 1939 §6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pop3core import answers as a
from pop3core.capabilities import server_capabilities
from pop3core.commands import Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Top, Uidl, User
from pop3core.errors import LocalProtocolError
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    LoginRequested,
    NeedData,
    Password,
    SendData,
    ServerEvent,
)
from pop3core.framing import TERMINATOR, DotStuffer, LineBuffer, LineFault, TopCutter
from pop3core.limits import DEFAULT_LIMITS, Limits
from pop3core.maildrop import Listing, Marks
from pop3core.replies import Code, encode_err, encode_ok
from pop3core.syntax import BARE, BadCommand, read_arguments, split
from pop3core.table import AFTER, RULE_OF, Home, Rule, State

__all__ = ["CUT_OFF", "ServerConfig", "ServerConnection", "Summary"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What a server is, the same for all its connections.

    ``hostname``: named in the greeting when not empty. ``allow_plaintext``: passwords are taken without TLS too.
    """

    hostname: str = ""
    allow_plaintext: bool = False
    limits: Limits = DEFAULT_LIMITS


@dataclass(slots=True)
class Summary:
    """What happened in a session, counted as it goes. Octets are content as sent, stuffing not counted."""

    commands: int = 0
    bad_commands: int = 0
    auth_failures: int = 0
    retrieved: int = 0
    """Messages sent to their end by RETR."""
    retrieved_octets: int = 0
    """Octets of content sent by RETR and TOP."""
    deleted: int = 0
    """Messages removed by QUIT."""


class _Reading:
    """A RETR or TOP being answered. ``offset``: octets of content given so far."""

    __slots__ = ("cutter", "lines", "number", "offset", "started", "stuffer")

    def __init__(self, number: int, lines: int | None) -> None:
        self.number = number
        self.lines = lines
        self.offset = 0
        self.started = False
        self.stuffer = DotStuffer()
        self.cutter = None if lines is None else TopCutter(lines)

    def request(self) -> ContentRequested:
        return ContentRequested(self.number, self.offset, self.lines)


_OK: Final = encode_ok("")
_END_OF_STREAM: Final = "the client went away without QUIT"
_ENDLESS_LINE: Final = "a line without end"
_BAD_COMMANDS: Final = "too many bad commands"
_FAILED_LOGINS: Final = "too many failed logins"

CUT_OFF: Final = frozenset((_ENDLESS_LINE, _BAD_COMMANDS, _FAILED_LOGINS))
"""Reasons of `Closed` for which the client was cut off, and may still be sending: a driver that reads on for a little
while sees to it that the last reply arrives."""


class ServerConnection:
    """A POP3 session, seen from the server, without I/O.

    `state`, `secure`, `username` and `summary` can be read at any time. Raises `LocalProtocolError`, and nothing else,
    when the driver breaks the rules: an answer that was not asked for, or an event asked for before the answer.
    """

    def __init__(self, config: ServerConfig | None = None) -> None:
        self._config = config or ServerConfig()
        self._limits = self._config.limits
        self._state = State.AUTHORIZATION
        self._target = self._state  # where +OK to the command under way leads
        self._failed: State | None = None  # and where its -ERR leads, when it moves
        self._secure = False
        self._named = ""  # USER's argument
        self._username: str | None = None
        self._lines = LineBuffer(self._limits.line_octets_max)
        self._end_of_stream = False
        self._output: list[bytes] = []
        self._unsent = 0
        self._marks = Marks(Listing())
        self._listing = Listing()
        self._pieces: Iterator[bytes] | None = None  # of the LIST or UIDL under way
        self._reading: _Reading | None = None
        self._question: ServerEvent | None = None
        self._asked = False  # the question was put to the driver
        self._flush_first = True  # before the question is put
        self._dropped: int | None = None
        self._finishing: str | None = None
        self._closed: Closed | None = None
        self._resumed = False
        self._greeted = False
        self.summary = Summary()

    # --- what can be read ---

    @property
    def state(self) -> State:
        """Where the session is (RFC 1939 §3)."""
        return self._state

    @property
    def secure(self) -> bool:
        """True behind TLS."""
        return self._secure

    @property
    def username(self) -> str | None:
        """Who is logged in; None before."""
        return self._username

    @property
    def unsent(self) -> int:
        """Octets of output that wait to be sent."""
        return self._unsent

    # --- what the driver does ---

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; ``b""`` is the end of the stream.

        Any number of octets is taken, but a driver that reads only when told `NeedData` keeps memory bounded.
        """
        if self._closed is not None:
            return
        if data:
            if self._end_of_stream:
                raise LocalProtocolError("data came after the end of the stream")
            self._lines.receive(data)
        else:
            self._end_of_stream = True

    def next_event(self) -> ServerEvent:
        """What is to be done next. Raises `LocalProtocolError` while a question is open."""
        if not self._greeted:
            self._greet()
        limits = self._limits
        while True:
            if self._unsent >= limits.output_octets:
                return self._flush()
            if self._dropped is not None:
                number, self._dropped = self._dropped, None
                return ContentDropped(number)
            if self._pieces is not None:
                self._next_piece()
                continue
            if self._question is not None:
                if self._asked:
                    raise LocalProtocolError(f"{type(self._question).__name__} wants an answer first")
                if self._unsent and self._flush_first:
                    return self._flush()
                self._asked = True
                return self._question
            if self._finishing is not None and self._closed is None:
                self._say(encode_err(f"{self._finishing}; closing", "SYS/TEMP"))
                self._close(self._finishing)
            if self._closed is not None:
                return self._flush() if self._unsent else self._closed
            line = self._lines.next_line(limits.command_octets_max)
            if line is None:
                if self._unsent:
                    return self._flush()
                if self._end_of_stream:
                    self._close(_END_OF_STREAM)
                    continue
                resumed, self._resumed = self._resumed, True
                return NeedData(resumed)
            self._resumed = False
            self._execute(line)

    def answer(self, answer: a.ServerAnswer) -> None:
        """Answer the question that was put last.

        Too late after `hang_up` or `finish` ended the session, an answer is ignored. Raises `LocalProtocolError` for
        one that does not fit; the question stays open then.
        """
        if isinstance(answer, a.TlsEstablished):
            self._tls_established()
            return
        question = self._question
        if question is None or not self._asked:
            if self._closed is not None or self._finishing is not None:
                return
            raise LocalProtocolError(f"{type(answer).__name__} answers nothing")
        match question, answer:
            case LoginRequested(), a.LoginAccepted(messages):
                self._question = None
                self._login_accepted(messages)
            case LoginRequested(), a.LoginRejected(code, text):
                self._question = None
                self._login_rejected(code, text)
            case ContentRequested(), a.Content(data, last):
                self._content(data, last)
            case ContentRequested(), a.ContentFailed(code, text):
                self._content_failed(code, text)
            case ContentRequested(), a.Pending():
                self._ask(question, flush_first=True)
            case CommitRequested(numbers), a.Committed():
                self._committed(len(numbers))
            case CommitRequested(numbers), a.CommitFailed(left, code):
                self._commit_failed(len(left), len(numbers), code)
            case _:
                raise LocalProtocolError(f"{type(answer).__name__} is no answer to {type(question).__name__}")

    def hang_up(self, reason: str) -> None:
        """End at once: nothing more is sent. A commit that was asked for still runs to its end, and is answered."""
        self._pieces = None
        self._output.clear()
        self._unsent = 0
        self._close(reason)
        if self._reading is not None:
            self._dropped = self._reading.number
            self._reading = None
        if not (self._asked and isinstance(self._question, CommitRequested)):
            self._question = None

    def finish(self, reason: str) -> None:
        """End in good order: after the reply under way -ERR [SYS/TEMP] is said; commands that waited are dropped.

        A login that is being checked is refused that way; a commit is answered as it ends.
        """
        if self._closed is not None:
            return
        self._finishing = reason
        self._lines.clear()
        if isinstance(self._question, LoginRequested):
            self._question = None

    # --- output and questions ---

    def _say(self, octets: bytes) -> None:
        self._output.append(octets)
        self._unsent += len(octets)

    def _flush(self) -> SendData:
        data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
        self._output.clear()
        self._unsent = 0
        return SendData(data)

    def _ask(self, question: ServerEvent, *, flush_first: bool) -> None:
        self._question, self._asked, self._flush_first = question, False, flush_first

    def _close(self, reason: str, *, committed: bool = False) -> None:
        if self._closed is None:
            self._closed = Closed(reason, committed)
        self._state = State.CLOSED
        self._lines.clear()

    def _greet(self) -> None:
        self._greeted = True
        name = self._config.hostname
        self._say(encode_ok(f"{name} POP3 server ready" if name else "POP3 server ready"))

    def _tls_established(self) -> None:
        if self._greeted:
            raise LocalProtocolError("TLS was not asked for")
        self._secure = True

    # --- one line ---

    def _execute(self, line: bytes | LineFault) -> None:
        if isinstance(line, LineFault):
            self._line_fault(line)
            return
        self.summary.commands += 1
        bare = BARE.get(line)
        try:
            rule, command = bare if bare is not None else (None, None)
            if rule is None:
                rule, rest = split(line)
                self._check_home(rule)
            target = AFTER[self._state].get(rule.command)
            if target is None:
                raise BadCommand(f"{rule.keyword} is not valid in the {self._state.value} state")
            if command is None:
                command = read_arguments(rule, rest)
        except BadCommand as fault:
            self._bad_command(str(fault))
            return
        self._target, self._failed = target, rule.failed
        self._HANDLERS[rule.command](self, command)

    def _check_home(self, rule: Rule) -> None:
        # Checked at the keyword, before any secret is looked at.
        if rule.home is Home.TLS and not self._passwords_allowed:
            raise BadCommand(f"{rule.keyword} needs TLS first: connect to port 995")

    @property
    def _passwords_allowed(self) -> bool:
        return self._secure or self._config.allow_plaintext

    def _line_fault(self, fault: LineFault) -> None:
        if fault is LineFault.ENDLESS:
            self._say(encode_err(f"{_ENDLESS_LINE}; closing"))
            self._close(_ENDLESS_LINE)
        else:
            # RFC 2449 §4: 255 octets, CRLF included
            self._bad_command(f"a command has at most {self._limits.command_octets_max} octets")

    def _bad_command(self, text: str) -> None:
        self.summary.bad_commands += 1
        if self.summary.bad_commands >= self._limits.bad_commands_max:
            self._say(encode_err(f"{text}; {_BAD_COMMANDS}, closing"))
            self._close(_BAD_COMMANDS)
        else:
            self._say(encode_err(text))

    # --- AUTHORIZATION ---

    def _user(self, command: User) -> None:
        # RFC 1939 §7 USER: +OK may be said even though there is no such mailbox, so that nobody learns names
        self._named = command.name
        self._state = self._target
        self._say(encode_ok("send PASS"))

    def _pass(self, command: Pass) -> None:
        self._ask(LoginRequested(Password(self._named, "", command.password), utf8=False), flush_first=True)

    def _login_accepted(self, messages: Listing) -> None:
        self._username = self._named
        self._state = self._target
        self._listing = messages
        self._marks = Marks(messages)
        self._say(encode_ok(f"{len(messages)} messages ({messages.octets} octets)"))

    def _login_rejected(self, code: Code | None, text: str) -> None:
        self._state = self._failed or self._state
        if code is not None:
            self._say(encode_err(text, code))
            return
        self.summary.auth_failures += 1
        if self.summary.auth_failures >= self._limits.auth_failures_max:
            self._say(encode_err(f"{text}; {_FAILED_LOGINS}, closing", "AUTH"))
            self._close(_FAILED_LOGINS)
        else:
            self._say(encode_err(text, "AUTH"))  # RFC 3206 §5

    def _capa(self, _command: Capa) -> None:
        lines = server_capabilities(passwords=self._passwords_allowed)
        self._say(encode_ok("capabilities follow") + "".join(f"{line}\r\n" for line in lines).encode() + TERMINATOR)

    # --- TRANSACTION ---

    def _noop(self, _command: Noop) -> None:
        self._say(_OK)

    def _stat(self, _command: Stat) -> None:
        self._say(b"+OK %d %d\r\n" % (self._marks.messages, self._marks.octets))

    def _rset(self, _command: Rset) -> None:
        self._marks.reset()
        self._say(encode_ok(f"{self._marks.messages} messages ({self._marks.octets} octets)"))

    def _dele(self, command: Dele) -> None:
        if self._exists(command.number):
            self._marks.mark(command.number)
            self._say(encode_ok("marked as deleted"))

    def _exists(self, number: int) -> bool:
        if self._marks.has(number):
            return True
        self._say(encode_err("no such message"))  # RFC 1939 §5: nor may a marked one be referred to
        return False

    def _list(self, command: List) -> None:
        sizes = self._listing.sizes
        if command.number is None:
            self._say(encode_ok(f"{self._marks.messages} messages ({self._marks.octets} octets)"))
            self._pieces = self._lines_of(lambda number: b"%d %d\r\n" % (number, sizes[number - 1]))
        elif self._exists(command.number):
            self._say(b"+OK %d %d\r\n" % (command.number, sizes[command.number - 1]))

    def _uidl(self, command: Uidl) -> None:
        uids = self._listing.uids
        if command.number is None:
            self._say(encode_ok("unique-ids follow"))
            self._pieces = self._lines_of(lambda number: b"%d %b\r\n" % (number, uids[number - 1]))
        elif self._exists(command.number):
            self._say(b"+OK %d %b\r\n" % (command.number, uids[command.number - 1]))

    def _lines_of(self, line: Callable[[int], bytes]) -> Iterator[bytes]:
        """A line for each message that is not marked, some at a time: a million of them are never in memory at once."""
        piece, octets = [], 0
        for number in self._marks.present(1):
            piece.append(text := line(number))
            octets += len(text)
            if octets >= self._limits.list_piece_octets:
                yield b"".join(piece)
                piece, octets = [], 0
        yield b"".join((*piece, TERMINATOR))

    def _next_piece(self) -> None:
        assert self._pieces is not None
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
        else:
            self._say(piece)

    def _retr(self, command: Retr) -> None:
        if self._exists(command.number):
            self._read(_Reading(command.number, None))

    def _top(self, command: Top) -> None:
        if self._exists(command.number):
            self._read(_Reading(command.number, command.lines))

    def _read(self, reading: _Reading) -> None:
        self._reading = reading
        # Not flushed first: pipelined RETRs leave in few writes.
        self._ask(reading.request(), flush_first=False)

    def _content(self, data: bytes, last: bool) -> None:
        reading = self._reading
        assert reading is not None
        self._check_content(reading, data, last)
        if not reading.started:
            self._start(reading)
        if reading.cutter is not None:
            data = reading.cutter.feed(data)
        if data:
            self._say(reading.stuffer.feed(data))
            reading.offset += len(data)
            self.summary.retrieved_octets += len(data)
        cut = reading.cutter is not None and reading.cutter.ended
        if not (last or cut):
            self._ask(reading.request(), flush_first=False)
            return
        self._say(TERMINATOR)
        self.summary.retrieved += reading.cutter is None
        self._question = self._reading = None
        if not last:
            self._dropped = reading.number

    def _check_content(self, reading: _Reading, data: bytes, last: bool) -> None:
        if len(data) > self._limits.content_octets_max:
            raise LocalProtocolError(f"a piece of content has at most {self._limits.content_octets_max} octets")
        if not data and not last:
            raise LocalProtocolError("a piece of content is empty only when it is the last")
        # the CR may have come with the piece before, so the LF alone is looked for
        if last and not (data.endswith(b"\n") if data else reading.stuffer.at_line_start):
            raise LocalProtocolError("content ends with CRLF")

    def _start(self, reading: _Reading) -> None:
        reading.started = True
        if reading.lines is None:
            self._say(b"+OK %d octets\r\n" % self._listing.sizes[reading.number - 1])
        else:
            self._say(encode_ok("top of message follows"))

    def _content_failed(self, code: Code | None, text: str) -> None:
        reading = self._reading
        assert reading is not None
        self._question = self._reading = None
        if reading.started:
            # +OK has been said, and a terminator would make what was sent look whole: only the connection can tell
            self._close("a message could not be read to its end")
        else:
            self._say(encode_err(text, code))

    # --- UPDATE ---

    def _quit(self, _command: Quit) -> None:
        self._lines.clear()  # nothing is valid behind QUIT
        if self._state is State.TRANSACTION:
            self._ask(CommitRequested(self._marks.numbers()), flush_first=True)
        else:
            self._say(encode_ok("bye"))
            self._close("QUIT")

    def _committed(self, removed: int) -> None:
        self._question = None
        self.summary.deleted = removed
        if self._closed is not None:  # hung up meanwhile
            self._closed = replace(self._closed, committed=True)
            return
        self._say(encode_ok("bye"))
        self._close("QUIT", committed=True)

    def _commit_failed(self, left: int, marked: int, code: Code) -> None:
        self._question = None
        self.summary.deleted = marked - left
        if self._closed is None:
            # RFC 1939 §6: failure is told, and the connection is closed all the same
            self._say(encode_err(f"{left} of {marked} deleted messages could not be removed", code))
            self._close("QUIT, but not all could be removed")

    _HANDLERS: Final[dict[type[Command], Callable[[Any, Any], None]]] = {
        User: _user,
        Pass: _pass,
        Capa: _capa,
        Stat: _stat,
        List: _list,
        Uidl: _uidl,
        Retr: _retr,
        Top: _top,
        Dele: _dele,
        Noop: _noop,
        Rset: _rset,
        Quit: _quit,
    }
    assert _HANDLERS.keys() == RULE_OF.keys()
