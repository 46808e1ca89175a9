"""Maildirs for tests, and how long ago their changes count as being."""

from pathlib import Path

import pytest

from pop3d.stores.maildir import memory_cache as recent

TICK = 0.02
"""Seconds: more than the grain of files' times."""


def make_maildir(root: Path, messages: dict[str, bytes]) -> Path:
    for folder in ("tmp", "new", "cur"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, octets in messages.items():
        (root / name).write_bytes(octets)
    return root


def files(box: Path) -> list[str]:
    """Of a Maildir, by their paths in it."""
    return sorted(path.relative_to(box).as_posix() for path in box.glob("*/*"))


def grain(monkeypatch: pytest.MonkeyPatch, nanoseconds: int) -> None:
    """Changes so long ago count as long enough ago."""
    monkeypatch.setattr(recent, "_FINE", nanoseconds)
    monkeypatch.setattr(recent, "_COARSE", nanoseconds)


LONG, NONE = 10**15, 0
