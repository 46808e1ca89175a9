"""An answer of `pop3d.auth.KeepsSecrets`. It is imported as `pop3d.auth.CannotServe`."""

from __future__ import annotations

from dataclasses import dataclass

from pop3core.answers import NoSecret

__all__ = ["CannotServe"]


@dataclass(frozen=True, slots=True)
class CannotServe(NoSecret):
    """There is such a user, whose secret does not serve this mechanism. The client sees what it sees of `NoSecret`."""
