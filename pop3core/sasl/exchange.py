"""An AUTH exchange under way: lines in, the next step out.

Base64, ``*`` and what a mechanism raises are dealt with here, so that mechanisms see octets and the engines see steps.
A server's `Exchange` drives the mechanism; a client's driver does that itself, and its `ClientExchange` lives from the
line of AUTH to the reply that ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

from pop3core.commands import Auth
from pop3core.grammar import BadArgument, decode_base64, initial_response
from pop3core.sasl import Mechanism
from pop3core.sasl.base import Challenge, Outcome, SaslError, SecretWanted, ServerProved, Stored, Tls, VerdictWanted

__all__ = ["ClientExchange", "Exchange", "Failed", "Step"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over and nothing was learned. ``text``: why, for the client."""

    text: str


Step: TypeAlias = Challenge | SecretWanted | VerdictWanted | Outcome | Failed
"""What is to be done next; behind an outcome or a failure, nothing."""


class Exchange:
    """One exchange by ``mechanism``, on a connection of which ``tls`` tells."""

    __slots__ = ("_steps",)

    def __init__(self, mechanism: Mechanism, tls: Tls) -> None:
        self._steps = mechanism.steps(tls)

    def begin(self, initial: bytes | None) -> Step:
        """The first step. An initial response answers the first challenge before it is sent (RFC 5034 §4)."""
        first = next(self._steps)
        return first if initial is None else self.given(initial)

    def respond(self, line: bytes) -> Step:
        """The step behind a line of the client's."""
        if line == b"*":
            return Failed("authentication was cancelled")  # RFC 5034 §4
        try:
            data = decode_base64(line)
        except BadArgument as fault:
            return Failed(str(fault))
        return self.given(data)

    def given(self, answer: bytes | Stored) -> Step:
        """The step behind octets of the client's, or behind what the driver was asked for."""
        try:
            return self._steps.send(answer)
        except StopIteration as done:
            return cast("Outcome", done.value)
        except SaslError as fault:
            return Failed(str(fault))


class ClientExchange:
    """A client's side of the exchange that ``command`` begins.

    ``held``: an initial response that may not stand in the line of AUTH. It answers the first, empty challenge instead
    (RFC 5034 §4), and is forgotten with the exchange.
    """

    __slots__ = ("_cancelled", "_held", "_proved", "challenged", "command", "line")

    def __init__(self, command: Auth, held: bytes | None) -> None:
        self.command = command
        self._held = held
        self._cancelled = False  # by us, for the server's challenge
        self.challenged = False
        """The driver's answer to a challenge is wanted."""
        self.line: bytes | None = None
        """What may leave, without its end; taken by whoever sends it."""
        self._proved = False  # the server has proved that it knows the password, and nothing came behind that

    @property
    def is_proved(self) -> bool:
        """The server has proved what it must: in SCRAM, that it knows the password (RFC 5802 §5)."""
        return self._proved or not self.command.mechanism.startswith("SCRAM-")

    def challenge(self, octets: bytes) -> bytes | None:
        """The challenge in base64 that the driver is to answer; None when the answer is known.

        One that is no base64 cancels the exchange (RFC 5034 §4); another one behind it raises `BadArgument`.
        """
        try:
            data = decode_base64(octets)
        except BadArgument:
            if self._cancelled:
                raise
            self.line, self._held, self._cancelled = b"*", None, True
            return None
        self._proved = False
        if self._held is not None and not data:
            self.line, self._held = initial_response.write(self._held), None
            return None
        self.challenged = True
        return data

    def respond(self, data: bytes) -> None:
        """The driver's answer."""
        self.challenged = False
        self._proved = isinstance(data, ServerProved)
        self.line = b"" if not data else initial_response.write(data)

    def cancel(self) -> None:
        """The driver breaks the exchange off."""
        self.challenged = self._proved = False
        self.line = b"*"
