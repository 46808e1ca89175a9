"""LMTP without I/O: what the client says goes in, what is to be done comes out, as with the engine of POP3.

`LmtpConnection.receive_data` and `LmtpConnection.next_event`; "read" and "write" are events too. Two things the engine
cannot know and asks: whether there is a recipient (`RecipientAsked`), and what became of a message for each recipient
(`DeliveryRequested`). The driver answers. Content is told as it comes (`ContentArrived`), and never kept here.

RFC 2033 is SMTP (RFC 5321) with LHLO, and with a reply for each accepted recipient behind the content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from pop3core.errors import LocalProtocolError
from pop3core.events import NeedData, SendData
from pop3core.framing import DotUnstuffer, LineBuffer, LineFault
from pop3core.value import value
from pop3d.lmtp import replies
from pop3d.lmtp.events import (
    ContentArrived,
    ContentDiscarded,
    DeliveryRequested,
    LmtpClosed,
    LmtpEvent,
    RecipientAsked,
)
from pop3d.lmtp.grammar import NOBODY, LmtpRefused, MailPath, mail_arguments, mail_path
from pop3d.lmtp.replies import BAD_SYNTAX, LmtpReply

__all__ = ["COMMANDS", "CUT_OFF", "LmtpConnection", "LmtpSettings"]

LINE_OCTETS_MAX: Final = 2048
"""Octets of a command line. RFC 5321 §4.5.3.1.4 asks for 512, extensions for some more, and paths may be longer."""

ENDLESS_OCTETS_MAX: Final = 64 * 1024
"""Octets without a line's end, behind which the connection is closed: no client means that."""

RECIPIENTS_MAX: Final = 1000
"""Recipients of one message. RFC 5321 §4.5.3.1.8 asks for 100, Postfix sends 50 at a time; each is some 200 octets."""

SENT_TOGETHER_MAX: Final = 4096
"""Octets of replies to a pipelined batch, behind which they leave: the driver gives way then, within some 2 ms."""

_BAD: Final = frozenset({500, 501, 502, 503, 504, 555})
"""Replies to what no client should say; so many, and the connection is closed."""

CUT_OFF: Final = frozenset({"too many bad commands", "a line without end"})
"""Why the server closes a connection on which the client may still be sending."""

_NAME: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
"""What a client may call itself: a name, or an address in brackets. It stands in ``Received:``."""


@value
class LmtpSettings:
    """``message_octets``: of the largest message that is taken. ``bad_commands_max``: then the connection is closed."""

    hostname: str = "localhost"
    message_octets: int = 50 * 1024 * 1024
    bad_commands_max: int = 20
    recipients_max: int = RECIPIENTS_MAX


class Stage(Enum):
    """Where a client is."""

    GREETED = "before LHLO"
    READY = "ready"
    MAIL = "in a transaction"
    """A sender was accepted."""
    CONTENT = "in the content"


class LmtpConnection:
    """The server's side of one connection."""

    def __init__(self, settings: LmtpSettings) -> None:
        self._settings = settings
        self._lines = LineBuffer(ENDLESS_OCTETS_MAX)
        self._out = bytearray(LmtpReply(220, "", f"{settings.hostname} LMTP pop3d").wire)
        self._stage = Stage.GREETED
        self._content: DotUnstuffer | None = None
        self._received = b""  # of the content, not looked at yet
        self._content_octets = 0
        self._asked: RecipientAsked | DeliveryRequested | None = None
        self._eof = False
        self._ending: str | None = None
        self._closed: LmtpClosed | None = None
        self._resumed = False
        self._bad_commands = 0
        self.client = ""
        """What the client calls itself in LHLO."""
        self._begin()

    def _begin(self) -> None:
        """No transaction."""
        self._sender: MailPath = NOBODY
        self._recipients: list[MailPath] = []
        self._utf8 = False

    # --- for the driver ---

    @property
    def in_content(self) -> bool:
        """Whether a message is arriving."""
        return self._stage is Stage.CONTENT

    def receive_data(self, data: bytes) -> None:
        """What the client said; ``b""`` is the end of the stream."""
        if not data:
            self._eof = True
        elif self._content is not None:
            self._received += data
        else:
            self._lines.receive(data)

    def answer(self, answer: LmtpReply | Sequence[LmtpReply]) -> None:
        """To `RecipientAsked` a reply; to `DeliveryRequested` as many as there are recipients.

        Ignored once the connection is closed. Raises `pop3core.errors.LocalProtocolError` for an answer to nothing.
        """
        if self._closed is not None:
            return
        asked, self._asked = self._asked, None
        match asked, answer:
            case RecipientAsked(path=path), LmtpReply():
                if answer.positive:
                    self._recipients.append(path)
                self._say(answer)
            case DeliveryRequested(), Sequence() if len(answer) == len(self._recipients):
                for one in answer:  # RFC 2033 §4.2: in the order of the recipients, one for each
                    self._say(one)
                self._stage = Stage.READY
                self._begin()
            case _:
                raise LocalProtocolError("this is no answer to what was asked")

    def finish(self, reason: str) -> None:
        """End behind what is under way: a message that arrives, or its delivery; then 421 (RFC 5321 §3.8)."""
        self._ending = self._ending or reason

    def hang_up(self, reason: str) -> None:
        """End now; the client is told nothing."""
        if self._closed is None:
            self._out.clear()
            self._closed = LmtpClosed(reason)

    def next_event(self) -> LmtpEvent:
        """What is to be done now."""
        while True:
            if len(self._out) >= SENT_TOGETHER_MAX:
                return self._sent()
            if self._closed is not None:
                return self._sent() if self._out else self._closed
            if self._asked is not None:
                return self._asked
            if self._content is not None:
                if (event := self._content_event(self._content)) is not None:
                    return event
            elif self._ending is not None:
                self._close(LmtpReply(421, "4.3.2", self._ending), self._ending)
            else:
                line = self._lines.next_line(LINE_OCTETS_MAX)
                if line is None:
                    return self._wait()
                self._resumed = False
                self._execute(line)

    # --- the transaction ---

    def _sent(self) -> SendData:
        data = bytes(self._out)
        self._out.clear()
        return SendData(data)

    def _wait(self) -> LmtpEvent:
        if self._out:
            return self._sent()
        if self._eof:
            self._closed = LmtpClosed("the client went away without QUIT")
            return self._closed
        resumed, self._resumed = self._resumed, True
        return NeedData(resumed)

    def _say(self, reply: LmtpReply) -> None:
        self._out += reply.wire

    def _close(self, reply: LmtpReply, reason: str) -> None:
        self._say(reply)
        self._closed = LmtpClosed(reason)

    def _bad(self, reply: LmtpReply) -> None:
        self._say(reply)
        self._bad_commands += 1
        if self._bad_commands >= self._settings.bad_commands_max:
            self._close(LmtpReply(421, "4.7.0", "too many bad commands"), "too many bad commands")

    def _execute(self, line: bytes | LineFault) -> None:
        if line is LineFault.ENDLESS:
            return self._close(LmtpReply(421, "4.7.0", "a line without end"), "a line without end")
        if isinstance(line, LineFault):
            return self._bad(LmtpReply(500, "5.5.2", "the line is too long"))  # RFC 5321 §4.5.3.1.9
        try:
            keyword, _, argument = line.decode().rstrip(" ").partition(" ")
        except UnicodeDecodeError:
            return self._bad(LmtpReply(500, "5.5.2", "this is not UTF-8"))
        row = COMMANDS.get(keyword.upper()) if keyword.isascii() else None  # RFC 5321 §2.4: in any case of letters
        if row is None:
            return self._bad(replies.UNKNOWN)
        if self._stage not in row.valid:
            return self._bad(replies.NO_LHLO if self._stage is Stage.GREETED else row.elsewhere)
        try:
            row.carry_out(self, argument)
        except LmtpRefused as fault:
            (self._bad if fault.reply.code in _BAD else self._say)(fault.reply)
        return None

    def _lhlo(self, argument: str) -> None:
        if not _NAME.fullmatch(argument):
            raise LmtpRefused(BAD_SYNTAX)
        self.client, self._stage = argument, Stage.READY
        self._begin()  # RFC 5321 §4.1.4: as RSET does
        extensions = ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8")  # RFC 2920, 2034, 6152, 6531
        names = [self._settings.hostname, *extensions, f"SIZE {self._settings.message_octets}"]  # RFC 1870 §3
        for name in names[:-1]:
            self._out += f"250-{name}\r\n".encode("ascii")
        self._say(LmtpReply(250, "", names[-1]))

    def _mail(self, argument: str) -> None:
        path, said = mail_arguments("FROM", argument)
        utf8 = "SMTPUTF8" in said
        sender = mail_path(path, replies.BAD_SENDER, utf8=utf8) if path else NOBODY
        for name, text in said.items():
            match name:
                case "SIZE" if text.isascii() and text.isdecimal() and len(text) <= 20:  # RFC 1870 §3
                    if int(text) > self._settings.message_octets:
                        raise LmtpRefused(replies.TOO_LARGE)  # RFC 1870 §6.1
                case "BODY" if text.upper() in ("7BIT", "8BITMIME"):  # RFC 6152 §3
                    pass
                case "SMTPUTF8" if not text:  # RFC 6531 §3.4
                    pass
                case "SIZE" | "BODY" | "SMTPUTF8":
                    raise LmtpRefused(BAD_SYNTAX)
                case _:
                    raise LmtpRefused(replies.UNKNOWN_PARAMETER)
        self._sender, self._utf8, self._stage = sender, utf8, Stage.MAIL
        self._say(replies.SENDER_OK)

    def _rcpt(self, argument: str) -> None:
        path, said = mail_arguments("TO", argument)
        if said:
            raise LmtpRefused(replies.UNKNOWN_PARAMETER)
        recipient = mail_path(path, replies.BAD_RECIPIENT, utf8=self._utf8)
        if len(self._recipients) >= self._settings.recipients_max:
            raise LmtpRefused(replies.TOO_MANY_RECIPIENTS)
        self._asked = RecipientAsked(recipient, not self._recipients)

    def _data(self, argument: str) -> None:
        if argument:
            raise LmtpRefused(BAD_SYNTAX)
        if not self._recipients:
            raise LmtpRefused(replies.NO_RECIPIENTS)  # RFC 2033 §4.2
        self._say(replies.GO_AHEAD)
        self._stage, self._content, self._content_octets = Stage.CONTENT, DotUnstuffer(), 0
        self._received = self._lines.take_rest()

    def _rset(self, argument: str) -> None:
        if argument:
            raise LmtpRefused(BAD_SYNTAX)
        if self._stage is Stage.MAIL:
            self._stage = Stage.READY
        self._begin()
        self._say(replies.OK)

    def _noop(self, argument: str) -> None:
        self._say(replies.OK)  # RFC 5321 §4.1.1.9: what stands behind it is ignored

    def _vrfy(self, argument: str) -> None:
        self._say(LmtpReply(252, "2.1.5", "send mail and see"))  # RFC 5321 §3.5.3, §7.3: nobody is told who there is

    def _quit(self, argument: str) -> None:
        self._close(LmtpReply(221, "2.0.0", "goodbye"), "QUIT")

    # --- the content ---

    def _content_event(self, content: DotUnstuffer) -> LmtpEvent | None:
        """What the octets that came mean; None when the message was seen to its end and is too large."""
        data, self._received = self._received, b""
        if not data:
            return self._wait_for_content()
        self._resumed = False
        data = content.feed(data)
        before, self._content_octets = self._content_octets, self._content_octets + len(data)
        largest = self._settings.message_octets
        if content.ended:
            self._content = None
            self._lines.receive(content.rest)
            self._asked = DeliveryRequested(self._sender, tuple(self._recipients), self._utf8)
        if self._content_octets <= largest:
            return ContentArrived(data) if data else None
        if content.ended:
            self.answer([replies.TOO_LARGE] * len(self._recipients))
        # the rest of it is read, and thrown away
        return ContentDiscarded("it is too large") if before <= largest else None

    def _wait_for_content(self) -> LmtpEvent:
        if not self._out and self._eof:
            # RFC 5321 §4.1.1.4: without the final dot there is no message
            self._content, self._closed = None, LmtpClosed("the client went away within a message")
            return ContentDiscarded("its sender has gone")
        return self._wait()


# --- the protocol ---


@value
class LmtpCommand:
    """``valid``: the stages in which it is; ``elsewhere``: the reply in others, behind LHLO; ``rule``: its source."""

    valid: frozenset[Stage]
    elsewhere: LmtpReply
    carry_out: Callable[[LmtpConnection, str], None]
    rule: str


def _refused(reply: LmtpReply) -> Callable[[LmtpConnection, str], None]:
    def carry_out(connection: LmtpConnection, argument: str) -> None:
        raise LmtpRefused(reply)

    return carry_out


_ANY: Final = frozenset({Stage.GREETED, Stage.READY, Stage.MAIL})
_READY: Final = frozenset({Stage.READY})
_MAIL: Final = frozenset({Stage.MAIL})

COMMANDS: Final = {
    # command            valid   elsewhere                 carried out by                   defined in
    "LHLO": LmtpCommand(_ANY, replies.OK, LmtpConnection._lhlo, "RFC 2033 §4.1"),
    "MAIL": LmtpCommand(_READY, replies.ALREADY_A_SENDER, LmtpConnection._mail, "RFC 5321 §4.1.1.2"),
    "RCPT": LmtpCommand(_MAIL, replies.NO_SENDER, LmtpConnection._rcpt, "RFC 5321 §4.1.1.3"),
    "DATA": LmtpCommand(_MAIL, replies.NO_RECIPIENTS, LmtpConnection._data, "RFC 2033 §4.2"),
    "RSET": LmtpCommand(_ANY, replies.OK, LmtpConnection._rset, "RFC 5321 §4.1.1.5"),
    "NOOP": LmtpCommand(_ANY, replies.OK, LmtpConnection._noop, "RFC 5321 §4.1.1.9"),
    "VRFY": LmtpCommand(_ANY, replies.OK, LmtpConnection._vrfy, "RFC 5321 §4.1.1.6"),
    "QUIT": LmtpCommand(_ANY, replies.OK, LmtpConnection._quit, "RFC 5321 §4.1.1.10"),
    "HELP": LmtpCommand(_ANY, replies.OK, _refused(replies.NOT_OFFERED), "RFC 5321 §4.1.1.8"),
    "EXPN": LmtpCommand(_ANY, replies.OK, _refused(replies.NOT_OFFERED), "RFC 5321 §4.1.1.7"),
    "HELO": LmtpCommand(_ANY, replies.OK, _refused(replies.NOT_LMTP), "RFC 2033 §4.1"),
    "EHLO": LmtpCommand(_ANY, replies.OK, _refused(replies.NOT_LMTP), "RFC 2033 §4.1"),
}
"""Each command there is. XCLIENT, XFORWARD and AUTH are not: who connects is trusted, and says nothing of others."""
