"""An AUTH exchange under way, seen from the server: lines in, the next step out.

Base64, ``*`` and what a mechanism raises are dealt with here, so that mechanisms see octets and the engine sees steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

from pop3core.grammar import BadArgument, decode_base64
from pop3core.sasl import Mechanism
from pop3core.sasl.base import Challenge, Outcome, SaslError, SecretWanted, Stored, Tls, VerdictWanted

__all__ = ["Exchange", "Failed", "Step"]


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
