"""What can go wrong with a mailbox, one class for each thing a caller may want to treat in its own way.

Each error is one line, "what failed: why; what to do", and knows the exit status a program should end with. What a
server said is in it as harmless text; `Refused` has code and text as they came.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from pop3cli.exit_status import ExitStatus
from pop3cli.extras import install_line
from pop3cli.sanitize import Echo, sanitized
from pop3core.commands import Auth, Command, Dele, List, Pass, Quit, Retr, Top, Uidl, User
from pop3core.events import Replied
from pop3core.grammar import initial_response

__all__ = [
    "BadState",
    "CertificateRefused",
    "CommandRefused",
    "ConnectionCut",
    "FilterFailed",
    "InUse",
    "LoginRefused",
    "MailError",
    "MissingExtra",
    "NoSuchMessage",
    "NoTls",
    "NoUniqueIds",
    "NotConnected",
    "NotValid",
    "OutputFailed",
    "Refused",
    "ServerBroken",
    "ServerDown",
    "SettingFault",
    "TimedOut",
    "TooLarge",
    "TryLater",
    "UsageFault",
    "refusal",
    "text_of",
]


_REASON_MAX: Final = 1000  # characters: servers may say 16 KiB, and an error is a line


class MailError(Exception):
    """Something failed. ``status``: what a program should exit with; the text is one line, fit for a terminal."""

    status: ClassVar[ExitStatus] = ExitStatus.SOME_FAILED

    def __init__(self, what: str, why: str, remedy: str = "") -> None:
        if why.rstrip(".").lower().endswith(remedy):
            remedy = ""  # the server has said it
        if len(why) > _REASON_MAX:
            why = f"{why[:_REASON_MAX]}..."
        super().__init__(sanitized(f"{what}: {why}; {remedy}" if remedy else f"{what}: {why}"))


class UsageFault(MailError):
    """An argument cannot be meant so."""

    status = ExitStatus.USAGE


class NotValid(UsageFault):
    """A command cannot be said at all, or not in the state the session is in."""


class NotConnected(UsageFault):
    """A command before the session was connected, or after it ended."""


class SettingFault(MailError):
    """A setting is unusable: the file of trusted certificates, the password command."""

    status = ExitStatus.CONFIG


class MissingExtra(SettingFault):
    """A part that is installed by its own name is not there. ``extra``: that name."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, "a part it needs is not installed", install_line(extra))


class BadState(MailError):
    """What is remembered of a mailbox is damaged, or of another account."""

    status = ExitStatus.DATAERR


class FilterFailed(MailError):
    """The user's filter has not said what becomes of a message."""


class InUse(MailError):
    """Another program of this machine is at work on it."""

    status = ExitStatus.TEMPFAIL


class TooLarge(MailError):
    """A message is larger than can be shown."""

    status = ExitStatus.DATAERR


class OutputFailed(MailError):
    """What was received cannot be written. ``quiet``: nobody reads any more (a pipe's other end), so say nothing."""

    status = ExitStatus.IOERR

    def __init__(self, what: str, fault: OSError) -> None:
        super().__init__(what, f"cannot write: {fault.strerror or fault}")
        self.quiet = isinstance(fault, BrokenPipeError)


# --- the connection ---


class ServerDown(MailError):
    """No connection: refused, unreachable, or no such name."""

    status = ExitStatus.UNAVAILABLE


class TimedOut(MailError):
    """The server did not answer in time; the connection is dropped."""

    status = ExitStatus.UNAVAILABLE


class ConnectionCut(MailError):
    """The server went away in the middle. What was not received to its end was not received."""

    status = ExitStatus.UNAVAILABLE


class CertificateRefused(MailError):
    """The server's certificate does not prove that it is the server asked for."""

    status = ExitStatus.NOPERM


class NoTls(MailError):
    """The server has no TLS to offer, so nothing is said to it."""

    status = ExitStatus.NOPERM


class ServerBroken(MailError):
    """The server does not speak POP3, or not over TLS; the connection is dropped."""

    status = ExitStatus.PROTOCOL


# --- what the server refuses ---


class Refused(MailError):
    """The server said -ERR. ``code``: the response code without brackets, or None; ``text``: foreign text."""

    def __init__(self, what: str, why: str, remedy: str = "", *, code: str | None, text: str) -> None:
        super().__init__(what, why, remedy)
        self.code = code
        self.text = text


class LoginRefused(Refused):
    """Wrong user name or password."""

    status = ExitStatus.NOPERM


class CommandRefused(Refused):
    """A command was refused."""


class NoSuchMessage(CommandRefused):
    """There is no message of this number, or it is marked as deleted."""

    status = ExitStatus.NOUSER


class NoUniqueIds(CommandRefused):
    """The server knows no UIDL, which is optional (RFC 1939 §7)."""

    status = ExitStatus.PROTOCOL


class TryLater(CommandRefused):
    """Not now: the mailbox is open elsewhere, or the server has a passing trouble."""

    status = ExitStatus.TEMPFAIL


# RFC 2449 §8.1 and RFC 3206 §4: what is not the user's fault and passes
_PASSING: Final = {
    "IN-USE": "the mailbox is open in another session; try again when that has ended",
    "LOGIN-DELAY": "logged in too often; try again later",
    "SYS/TEMP": "try again later",
}


def _passing(code: str | None) -> str | None:
    """What to do about a code of `_PASSING`. More detail than we know is ignored (RFC 2449 §8)."""
    while code:
        if code in _PASSING:
            return _PASSING[code]
        code = code.rpartition("/")[0]
    return None


# RFC 1939 has no code for it, so servers' own words have to do
_NO_SUCH_MESSAGE: Final = re.compile(
    r"no such|no message|(?:not|n't) exist|not found|(?:invalid|bad|unknown) (?:message|msg)|out of range|deleted", re.I
)


def refusal(where: str, said: Replied, echo: Echo | None = None) -> Refused:
    """The error that a reply of -ERR means. ``where``: the server, for the text.

    ``echo``: what else was secret in the exchange. The text has none of it, nor of the command's own secret.
    """
    command, code, text = said.command, said.code, text_of(said, echo)
    keyword = command.keyword
    shown = " ".join(filter(None, (f"[{code}]" if code else "", text))) or "no reason given"
    passing = _passing(code)
    if isinstance(command, User | Pass | Auth):
        login = f"{where} refused the login"
        if passing is not None:
            return TryLater(login, shown, passing, code=code, text=text)
        return LoginRefused(login, shown, "check user name and password", code=code, text=text)
    if passing is not None:
        return TryLater(f"{keyword} refused by {where}", shown, passing, code=code, text=text)
    if code is None and _is_about_the_number(command, text):
        message = f"message {getattr(command, 'number', None)}"
        return NoSuchMessage(message, shown, "`list` shows what there is", code=code, text=text)
    # RFC 1939 §6: whatever happened to the messages, the session has ended
    remedy = "not all marked messages were deleted; `list` shows what is left" if isinstance(command, Quit) else ""
    return CommandRefused(f"{_form(command)} refused by {where}", shown, remedy, code=code, text=text)


def text_of(said: Replied, echo: Echo | None = None) -> str:
    """What the server said, without a password that it repeats."""
    echo = echo or Echo(everyday=False)
    match said.command:
        case Pass(secret):
            echo.remember(secret)
        case Auth(_, bytes(message)):
            echo.remember(initial_response.write(message))
        case _:
            pass
    return echo.masked(said.text.encode()).decode("utf-8", "replace")


def _is_about_the_number(command: Command, text: str) -> bool:
    match command:
        case List(int()) | Uidl(int()):
            return True  # there is nothing else to refuse
        case Retr() | Top() | Dele():
            return _NO_SUCH_MESSAGE.search(text) is not None
        case _:
            return False


def _form(command: Command) -> str:
    number = getattr(command, "number", None)
    return command.keyword if number is None else f"{command.keyword} {number}"
