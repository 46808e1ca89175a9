"""Whose fault it is, said by the type.

`LocalProtocolError` is a mistake of the program that drives the engine, `RemoteProtocolError` one of the peer. A
server engine never raises the second: the peer's mistakes are answered with -ERR there. Any other exception that
leaves the engine is a bug of ours.
"""

from __future__ import annotations

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """Either side broke the protocol; see the two subclasses."""


class LocalProtocolError(ProtocolError):
    """The program that drives the engine did something the protocol, or the engine's own rules, do not allow."""


class RemoteProtocolError(ProtocolError):
    """The server said something POP3 does not allow (raised by the client engine only).

    Attributes:
        code: short stable name of the fault, such as ``"bad-greeting"``.
        state: name of the session's state when it happened, such as ``"TRANSACTION"``.
        command: keyword of the command that was being answered, or None.
        rfc: the rule that was broken, such as ``"RFC 1939 §3"``.
    """

    def __init__(self, text: str, *, code: str, state: str, command: str | None, rfc: str) -> None:
        super().__init__(text)
        self.code = code
        self.state = state
        self.command = command
        self.rfc = rfc
