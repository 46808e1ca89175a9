"""The server's side of a session.

The driver asks for the next event and does what it says:

    NeedData           read, `receive_data`
    MoreWork           nothing; ask again, or let others have their turn first (`Limits.turn_commands`)
    SendData           write, wait until it has left
    ...Requested       find out, `answer`
    ContentDropped     release the message
    Closed             close the connection

Order decides everything, and stands in one place, `next_event`: output over a threshold leaves first; then a multi-line
reply under way gives its next piece; then a question is put; then the end is told; then the next line is executed; and
only when no line is left does what was answered leave, and the peer gets its turn. So the replies to a pipelined batch
leave in one write, one piece of content is asked for at a time, and memory stays bounded without a queue. What is done
for one event can be bounded too, whatever a client sends: that is what `MoreWork` is for.

Who is let in is decided by `pop3core.login`, a machine of its own: it is fed commands, lines of a SASL exchange and the
driver's answers, and says what is to be done. STLS is a question to the driver, and nothing that was read before the
handshake survives it.

One line is executed at a time: what was sent behind a PASS waits until the login is answered. A session that ends
without a QUIT never asks for a commit (RFC 1939 §6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from pop3core import answers as a
from pop3core import commands as c
from pop3core.errors import LocalProtocolError
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    LoginRequested,
    MoreWork,
    NeedData,
    SecretRequested,
    SendData,
    ServerEvent,
    TlsRequested,
)
from pop3core.framing import TERMINATOR, LineBuffer, LineFault
from pop3core.login import Login, LoginRefusal, Step
from pop3core.maildrop import Listing, MarkedNumbers, Marks
from pop3core.reading import Reading
from pop3core.replies import Code, encode_challenge, encode_err, encode_ok
from pop3core.sasl import TOKEN_LINES
from pop3core.sasl.base import Challenge
from pop3core.settings import ServerConfig, Summary
from pop3core.syntax import BARE, BadCommand, read_arguments, split
from pop3core.table import AFTER, State
from pop3core.texts import DEFAULT_LANGUAGE, LANGUAGES, choose, translate

__all__ = ["CUT_OFF", "ServerConfig", "ServerConnection", "Summary"]


_OK: Final = encode_ok("")
_END_OF_STREAM: Final = "the client went away without QUIT"
_NEED: Final = NeedData(False)
_RESUMED: Final = NeedData(True)
_MORE: Final = MoreWork()
_LIST_OCTETS: Final = 2048  # of a LIST, that count like one of `Limits.turn_commands`
_ENDLESS_LINE: Final = "a line without end"
_BAD_COMMANDS: Final = "too many bad commands"
_FAILED_LOGINS: Final = "too many failed logins"
_INJECTION: Final = "clear text behind STLS"
_NOT_COMPLETED: Final = "the client broke its login off"

CUT_OFF: Final = frozenset((_ENDLESS_LINE, _BAD_COMMANDS, _FAILED_LOGINS, _INJECTION))
"""Reasons of `Closed` for which the client was cut off, and may still be sending: a driver that reads on for a little
while sees to it that the last reply arrives."""


class ServerConnection:
    """A POP3 session, seen from the server, without I/O.

    `state`, `secure`, `username` and `summary` can be read at any time. Raises `LocalProtocolError`, and nothing else,
    when the driver breaks the rules: an answer that was not asked for, or an event asked for before the answer.
    """

    __slots__ = (  # noqa: RUF023 - in groups
        "_config", "_limits", "_login", "_language", "summary",
        "_state", "_target", "_failed", "_greeted", "_finishing", "_closed",  # where the session is
        "_lines", "_end_of_stream", "_resumed",  # what came in
        "_output", "_unsent",  # what is to go out
        "_question", "_asked", "_flush_first",  # what the driver is asked
        "_listing", "_marks",  # the maildrop
        "_pieces", "_reading", "_dropped",  # the reply of several lines under way, and a message to be released
    )  # fmt: skip

    def __init__(self, config: ServerConfig | None = None, *, timestamp: str | None = None) -> None:
        """``timestamp``: one that never comes again, such as ``<1896.697170952@mail.example.org>``: APOP is offered."""
        self._config = config or ServerConfig()
        self._limits = self._config.limits
        self.summary = Summary()
        self._login = Login(self._config, self.summary, timestamp)
        self._state = State.AUTHORIZATION
        self._target = self._state  # where +OK to the command under way leads
        self._failed: State | None = None  # and where its -ERR leads, when it moves
        self._language = DEFAULT_LANGUAGE
        self._lines = LineBuffer(self._limits.line_octets_max, TOKEN_LINES, self._limits.sasl_octets_max)
        self._end_of_stream = False
        self._output: list[bytes] = []
        self._unsent = 0
        self._marks = Marks(Listing())
        self._listing = Listing()
        self._pieces: Iterator[bytes] | None = None  # of the LIST or UIDL under way
        self._reading: Reading | None = None
        self._question: ServerEvent | None = None
        self._asked = False  # the question was put to the driver
        self._flush_first = True  # before the question is put
        self._dropped: int | None = None
        self._finishing: str | None = None
        self._closed: Closed | None = None
        self._resumed = False
        self._greeted = False

    # --- what can be read ---

    @property
    def state(self) -> State:
        """Where the session is (RFC 1939 §3)."""
        return self._state

    @property
    def secure(self) -> bool:
        """True behind TLS."""
        return self._login.secure

    @property
    def username(self) -> str | None:
        """Who is logged in; None before."""
        return self._login.username

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
        if isinstance(self._question, TlsRequested):
            raise LocalProtocolError("what comes behind STLS is for the TLS handshake")
        if data:
            if self._end_of_stream:
                raise LocalProtocolError("data came after the end of the stream")
            self._lines.receive(data)
        else:
            self._end_of_stream = True

    def next_event(self) -> ServerEvent:
        """What is to be done next. Raises `LocalProtocolError` while a question is open."""
        if not self._greeted and self._closed is None:
            self._greet()
        limits, commands = self._limits, 0
        while True:
            if self._unsent >= limits.output_octets:
                return self._flush()
            if self._dropped is not None:
                number, self._dropped = self._dropped, None
                return ContentDropped(number)
            if self._pieces is not None:
                if commands >= limits.turn_commands:
                    return _MORE
                commands += self._next_piece() // _LIST_OCTETS
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
            if commands >= limits.turn_commands and len(self._lines):
                return _MORE
            waiting = self._login.exchange is not None
            line = self._lines.next_line(limits.sasl_octets_max if waiting else limits.command_octets_max)
            if line is None:
                if self._unsent:
                    return self._flush()
                if self._end_of_stream:
                    self._close(_END_OF_STREAM)
                    continue
                resumed, self._resumed = self._resumed, True
                return _RESUMED if resumed else _NEED
            self._resumed = False
            commands += 1
            self._execute(line)  # RFC 2449 §6.6: in turn, one behind the other

    def answer(self, answer: a.ServerAnswer) -> None:
        """Answer the question that was put last.

        Too late after `hang_up` or `finish` ended the session, an answer is ignored. Raises `LocalProtocolError` for
        one that does not fit; the question stays open then.
        """
        question = self._question
        if isinstance(answer, a.Content) and isinstance(question, ContentRequested) and self._asked:
            self._content(answer.data, answer.last)  # by far the most: to match patterns would take four times as long
            return
        if isinstance(answer, a.TlsEstablished) and not self._greeted:
            self._tls_established(answer)
            return
        if question is None or not self._asked:
            if self._closed is not None or self._finishing is not None:
                return
            raise LocalProtocolError(f"{type(answer).__name__} answers nothing")
        match question, answer:
            case LoginRequested() | SecretRequested(), _:
                step = self._login.answer(question, answer)
                self._question = None
                self._follow(step)
            case TlsRequested(), a.TlsEstablished():  # RFC 2595 §2.5: nothing goes on without it
                self._question = None
                self._tls_established(answer)
            case ContentRequested(), a.ContentFailed(code, text):
                self._content_failed(code, text)
            case ContentRequested(), a.Pending():
                self._ask(question, flush_first=True)
            case CommitRequested(numbers), a.Committed():
                self._committed(len(numbers))
            case CommitRequested(MarkedNumbers() as numbers), a.CommitFailed(left, code) if (
                there := numbers.left_of(left)
            ) is not None:
                self._commit_failed(there, len(numbers), code)
            case _:
                raise LocalProtocolError(f"{type(answer).__name__} is no answer to {type(question).__name__}")

    def hang_up(self, reason: str) -> None:
        """End at once: nothing more is sent. A commit that was asked for still runs to its end, and is answered.

        None is asked for: without a QUIT nothing is removed (RFC 1939 §6), not even what was retrieved (RFC 1939 §8).
        """
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
        if isinstance(self._question, TlsRequested):
            self._close(reason)  # the client waits for TLS: nothing can be said
        if isinstance(self._question, LoginRequested | SecretRequested | TlsRequested):
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

    def _ok(self, text: str, **values: object) -> None:
        """Say +OK, in the language that was asked for."""
        self._say(encode_ok(translate(self._language, text, **values)))

    def _err(self, text: str, code: Code | None = None, **values: object) -> None:
        """Say -ERR, likewise."""
        self._say(encode_err(translate(self._language, text, **values), code))

    def _greet(self) -> None:
        # RFC 1939 §4: one positive line; §7 APOP: with the timestamp exactly when APOP is offered
        self._greeted = True
        words = (self._config.hostname, "POP3 server ready", self._login.timestamp)
        self._say(encode_ok(" ".join(filter(None, words))))

    def _tls_established(self, answer: a.TlsEstablished) -> None:
        self._login.tls_established(answer)
        # RFC 2595 §4: what the client said before is forgotten. RFC 8314 §3.1: no certificate is a login by itself.
        self._lines.clear()
        self._language, self._state = DEFAULT_LANGUAGE, State.AUTHORIZATION

    # --- one line ---

    def _execute(self, line: bytes | LineFault) -> None:
        if isinstance(line, LineFault):
            self._line_fault(line)
            return
        login = self._login
        if login.exchange is not None:
            self._follow(login.respond(line))
            return
        self.summary.commands += 1
        bare = BARE.get(line)
        try:
            rest: bytes | None = None
            rule, command = bare if bare is not None else (None, None)
            if rule is None:
                rule, rest = split(line)
            if rule.command not in login.open:
                login.refuse(rule)
            target = AFTER[self._state].get(rule.command)
            if target is None:
                raise BadCommand(
                    "{keyword} is not valid in the {state} state", keyword=rule.keyword, state=self._state.value
                )
            if command is None:
                command = read_arguments(rule, rest)
        except BadCommand as fault:
            self._bad_command(fault.text, fault.usage, **fault.values)
            return
        counts, keyword = self.summary.by_keyword, rule.command.keyword
        counts[keyword] = counts.get(keyword, 0) + 1
        self._target, self._failed = target, rule.failed
        self._HANDLERS[rule.command](self, command)

    def _line_fault(self, fault: LineFault) -> None:
        if fault is LineFault.ENDLESS:
            self._say(encode_err(f"{_ENDLESS_LINE}; closing"))
            self._close(_ENDLESS_LINE)
        elif self._login.exchange is not None:
            self._follow(self._login.too_long(self._limits.sasl_octets_max))
        else:
            # RFC 2449 §4: 255 octets, CRLF included; an answer to a challenge may be longer
            self._bad_command("a command has at most {octets} octets", octets=self._limits.command_octets_max)

    def _bad_command(self, text: str, usage: str = "", **values: object) -> None:
        self.summary.bad_commands += 1
        words = translate(self._language, text, **values)
        used = usage and translate(self._language, "usage: {usage}", usage=usage)
        words = "; ".join(filter(None, (words, used)))
        if self.summary.bad_commands >= self._limits.bad_commands_max:
            self._say(encode_err(f"{words}; {_BAD_COMMANDS}, closing"))
            self._close(_BAD_COMMANDS)
        else:
            self._say(encode_err(words))

    # --- AUTHORIZATION ---

    def _user(self, command: c.User) -> None:
        # RFC 1939 §7 USER: +OK may be said even though there is no such mailbox, so that nobody learns names; nor is
        # there a code to learn from (RFC 2449 §8.1.1, RFC 3206 §5)
        self._login.named = command.name
        self._state = self._target
        self._ok("send PASS")

    def _log_in(self, command: c.Pass | c.Apop | c.Auth) -> None:
        self._follow(self._login.begin(command))

    def _follow(self, step: Step) -> None:
        """Do what the login wants next."""
        match step:
            case Challenge(data):
                self._say(encode_challenge(data))
            case LoginRequested() | SecretRequested():
                self._ask(step, flush_first=True)
            case a.LoginAccepted(messages):
                self._state = self._target
                self._listing = messages
                self._marks = Marks(messages)  # RFC 1939 §4: none is marked when TRANSACTION begins
                self._totals()
            case LoginRefusal():
                self._refused(step)
            case _:
                # RFC 5034 §4: -ERR, and as if the command had not been said
                self._state = self._failed or self._state
                self._bad_command(step.text, "", **step.values)
                if step.granted:
                    self._close(_NOT_COMPLETED)  # the maildrop is open, and who it is for does not want it

    def _refused(self, refused: LoginRefusal) -> None:
        self._state = self._failed or self._state
        if refused.challenge is not None:
            self._say(encode_challenge(refused.challenge))
            return
        words = translate(self._language, refused.text)
        self._say(encode_err(f"{words}; {_FAILED_LOGINS}, closing" if refused.last else words, refused.code))
        if refused.last:
            self._close(_FAILED_LOGINS)

    def _capa(self, _command: c.Capa) -> None:
        self._ok("capabilities follow")  # RFC 2449 §5: and end with a dot
        self._say("".join(f"{line}\r\n" for line in self._login.capabilities(self._state)).encode() + TERMINATOR)

    def _utf8_on(self, _command: c.Utf8) -> None:
        self._login.utf8 = True
        self._ok("UTF8 is on")

    def _lang(self, command: c.Lang) -> None:
        offered = self._config.languages
        if command.tag is None:
            self._ok("languages follow")
            self._say("".join(f"{tag} {LANGUAGES[tag]}\r\n" for tag in offered).encode() + TERMINATOR)
        elif (found := choose(command.tag, offered)) is None:
            self._err("this language is not spoken")
        else:
            self._language = found
            # RFC 6856 §3.2: the tag, then words in that language. RFC 6856 §7: "*" is the same for everybody.
            self._say(encode_ok(f"{found} {translate(found, 'this is spoken now')}"))

    # --- STLS ---

    def _stls(self, _command: c.Stls) -> None:
        if self._login.utf8:
            self._err("{keyword} is not valid in the {state} state", keyword="STLS", state="UTF8")  # RFC 6856 §2.1
        elif len(self._lines):
            # Octets behind STLS are in clear text, and would be taken for what came inside TLS (RFC 2595 §4).
            self._err("nothing may follow STLS before TLS; closing")
            self._close(_INJECTION)
        else:
            self._ok("begin TLS now")
            self._ask(TlsRequested(), flush_first=True)

    # --- TRANSACTION ---

    def _noop(self, _command: c.Noop) -> None:
        self._say(_OK)

    def _stat(self, _command: c.Stat) -> None:
        self._say(b"+OK %d %d\r\n" % (self._marks.messages, self._marks.octets))

    def _rset(self, _command: c.Rset) -> None:
        self._marks.reset()
        self._totals()

    def _totals(self) -> None:
        self._ok("{messages} messages ({octets} octets)", messages=self._marks.messages, octets=self._marks.octets)

    def _dele(self, command: c.Dele) -> None:
        if self._exists(command.number):
            self._marks.mark(command.number)
            self._ok("marked as deleted")

    def _exists(self, number: int) -> bool:
        if self._marks.has(number):
            return True
        self._err("no such message")  # RFC 1939 §5: nor may a marked one be referred to
        return False

    def _list(self, command: c.List) -> None:
        sizes = self._listing.sizes  # RFC 6856 §2.1: the octets that RETR sends
        if command.number is None:
            self._totals()
            self._pieces = self._marks.lines(b"%d %d\r\n", sizes, self._limits.list_piece_octets)
        elif self._exists(command.number):
            self._say(b"+OK %d %d\r\n" % (command.number, sizes[command.number - 1]))

    def _uidl(self, command: c.Uidl) -> None:
        uids = self._listing.uids
        if command.number is None:
            self._ok("unique-ids follow")
            self._pieces = self._marks.lines(b"%d %b\r\n", uids, self._limits.list_piece_octets)
        elif self._exists(command.number):
            self._say(b"+OK %d %b\r\n" % (command.number, uids[command.number - 1]))

    def _next_piece(self) -> int:
        """Say the next piece of a list; how many octets it has."""
        assert self._pieces is not None
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
            return 0
        self._say(piece)
        return len(piece)

    def _retr(self, command: c.Retr) -> None:
        if self._exists(number := command.number):
            self._read(Reading(number, None, b"+OK %d octets\r\n" % self._listing.sizes[number - 1]))

    def _top(self, command: c.Top) -> None:
        if self._exists(command.number):
            opening = encode_ok(translate(self._language, "top of message follows"))
            self._read(Reading(command.number, command.lines, opening))

    def _read(self, reading: Reading) -> None:
        self._reading = reading
        # Not flushed first: pipelined RETRs leave in few writes.
        self._ask(reading.request(), flush_first=False)

    def _content(self, data: bytes, last: bool) -> None:
        reading, summary = self._reading, self.summary
        assert reading is not None
        before = reading.offset
        self._say(reading.feed(data, last, self._limits.content_octets_max))
        summary.retrieved_octets += reading.offset - before
        if not reading.ended:
            self._ask(reading.request(), flush_first=False)
            return
        summary.retrieved += reading.lines is None
        self._question = self._reading = None
        if not last:
            self._dropped = reading.number

    def _content_failed(self, code: Code | None, text: str) -> None:
        reading = self._reading
        assert reading is not None
        self._question = self._reading = None
        if reading.started:
            # +OK has been said, and a terminator would make what was sent look whole: only the connection can tell
            self._close("a message could not be read to its end")
        else:
            self._err(text, code)  # RFC 3206 §4: SYS/... may stand in -ERR to any command

    # --- UPDATE ---

    def _quit(self, _command: c.Quit) -> None:
        # RFC 1939 §4: before login it only ends the session; §6: behind it, it is what removes
        self._lines.clear()  # nothing is valid behind QUIT
        if self._state is State.TRANSACTION:
            self._ask(CommitRequested(self._marks.numbers()), flush_first=True)
        else:
            self._ok("bye")
            self._close("QUIT")

    def _committed(self, removed: int) -> None:
        self._question = None
        self.summary.deleted = removed
        if self._closed is not None:  # hung up meanwhile
            self._closed = replace(self._closed, committed=True)
            return
        self._ok("bye")
        self._close("QUIT", committed=True)

    def _commit_failed(self, left: int, marked: int, code: Code) -> None:
        self._question = None
        self.summary.deleted = marked - left
        if self._closed is None:
            # RFC 1939 §6: failure is told, and the connection is closed all the same
            self._err("{left} of {marked} deleted messages could not be removed", code, left=left, marked=marked)
            self._close("QUIT, but not all could be removed")

    _HANDLERS: Final[dict[type[c.Command], Callable[[Any, Any], None]]] = {
        c.User: _user,
        c.Pass: _log_in,
        c.Apop: _log_in,
        c.Auth: _log_in,
        c.Stls: _stls,
        c.Utf8: _utf8_on,
        c.Lang: _lang,
        c.Capa: _capa,
        c.Stat: _stat,
        c.List: _list,
        c.Uidl: _uidl,
        c.Retr: _retr,
        c.Top: _top,
        c.Dele: _dele,
        c.Noop: _noop,
        c.Rset: _rset,
        c.Quit: _quit,
    }
