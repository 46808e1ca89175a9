"""Sizes and dates as people read them."""

from __future__ import annotations

import pytest

from pop3cli.terminal.units import human_size


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1023 * 1024, "1.0 MiB"), (5 * 1024**4 * 1024, "5120.0 TiB")],
)
def test_sizes(octets: int, text: str) -> None:
    assert human_size(octets) == text
