"""Sizes and dates as people read them."""

from __future__ import annotations

from datetime import datetime

__all__ = ["human_date", "human_size"]


def human_size(octets: int) -> str:
    """Octets for people, such as ``12.3 KiB``."""
    if octets < 1024:
        return f"{octets} B"
    size, unit = octets / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size < 999.95:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"


def human_date(date: datetime) -> str:
    """A date for people, such as ``2024-01-31 09:00``; the same width always."""
    return f"{date:%Y-%m-%d %H:%M}"
