"""What an examination says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Skip", "Verdict", "Violation", "failed", "passed", "warned"]


class Verdict(Enum):
    """How an examination ended."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``seen``: what was; ``remedy``: what to do about it. Neither holds a secret; `Patient.shown` made it harmless."""

    verdict: Verdict
    seen: str
    remedy: str = ""


class Skip(Exception):
    """An examination cannot be made here; the text says why."""


class Violation(Exception):
    """What an examination stands on is not as the RFC asks: it fails with this text."""

    def __init__(self, seen: str, remedy: str = "") -> None:
        super().__init__(seen)
        self.finding = Finding(Verdict.FAIL, seen, remedy)


def passed(seen: str) -> Finding:
    """As the RFC asks."""
    return Finding(Verdict.PASS, seen)


def warned(seen: str, remedy: str) -> Finding:
    """Allowed, or harmless as a rule, but not as it should be."""
    return Finding(Verdict.WARN, seen, remedy)


def failed(seen: str, remedy: str) -> Finding:
    """Not as the RFC asks."""
    return Finding(Verdict.FAIL, seen, remedy)
