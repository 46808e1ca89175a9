"""Why there is no connection, or no more: what the system says, as an error that a person can use."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Final, assert_never

from pop3cli.errors import ConnectionCut, MailError, ServerBroken, ServerDown, TimedOut
from pop3core.commands import Command, Quit

__all__ = ["cut", "cut_in_plaintext", "no_connection"]


def cut(where: str, unanswered: tuple[Command, ...]) -> ConnectionCut:
    """The server went away. ``unanswered``: what it has not answered, the oldest first."""
    if not unanswered:
        return ConnectionCut(where, "the server closed the connection", "try again")
    command = unanswered[0]
    during = f"the server went away during {command.keyword}"
    if isinstance(command, Quit):
        return ConnectionCut(where, during, "whether marked messages were deleted is unknown; `list` shows it")
    return ConnectionCut(where, during, "try again")


def cut_in_plaintext(where: str) -> ConnectionCut:
    """The server closed a connection without TLS, and had not greeted: it may have waited for a TLS handshake."""
    what = "the server closed the connection without a greeting"
    return ConnectionCut(where, what, "if the port speaks TLS from the first octet, as 995 does, use pop3s://")


def no_connection(where: str, timeout: float, fault: OSError | UnicodeError) -> MailError:
    """A connection, or its TLS, did not come about. ``timeout``: the seconds it had."""
    match fault:
        case TimeoutError() | ConnectionAbortedError():  # the latter: asyncio's limit on the handshake
            return TimedOut(where, f"no connection within {timeout:g} s", "is it the right host and port?")
        case ssl.SSLEOFError() | ConnectionResetError():
            return ServerDown(where, "the server closed the connection during the TLS handshake", "try again later")
        case ssl.SSLError():
            return _no_tls(where, fault)
        case socket.gaierror():
            return ServerDown(where, f"no such host ({fault.strerror})", "is the name spelled right?")
        case OSError():
            return ServerDown(where, _reason(fault), "is the server running, and is it the right host and port?")
        case UnicodeError():
            return ServerDown(where, "no such host (not a valid name)", "is the name spelled right?")
        case unknown:
            assert_never(unknown)


_NOT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
_OLD_TLS: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


def _no_tls(where: str, fault: ssl.SSLError) -> ServerBroken:
    if fault.reason in _NOT_TLS:
        return ServerBroken(where, "that port does not speak TLS", "POP3 over TLS is on port 995, as a rule")
    if fault.reason in _OLD_TLS:
        return ServerBroken(where, "the server has no TLS 1.2 or later", "it must be brought up to date")
    return ServerBroken(where, f"TLS failed ({fault.reason or fault})")


def _reason(fault: OSError) -> str:
    """Why a connection was not made. When several addresses were tried, asyncio has only a text with all reasons."""
    numbers = [fault.errno] if fault.errno else [int(n) for n in re.findall(r"\[Errno (\d+)\]", str(fault))]
    return os.strerror(numbers[-1]) if numbers else str(fault)
