"""Text from outside does nothing to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.sanitize import harmless, harmless_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\r\nb\tc\x00\x7f", "a␍␊b␉c␀␡"),
        ("\x9b31m\x85", "\ufffd31m\ufffd"),
        ("\u202etxt.exe\u202c \u2066x\u2069\u200f\u061c\u200b\ufeff", "txt.exe x"),
        ("a\u2028b\u2029c", "a b c"),
        ("\udcff", "\ufffd"),
        ("Jörg ✓ 👩\u200d💻", "Jörg ✓ 👩\u200d💻"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_harmless_lines_keep_lines() -> None:
    assert harmless_lines("a\r\nb\rc\n\td\x1b\x0ce") == "a\nb\nc\n        d␛\ne"


@given(st.text())
def test_harmless_is_harmless(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable() or all(
        c.isprintable() or c in "\u200c\u200d" or c.isspace() or c >= "\x80" for c in shown
    )
    assert not set(shown) & {chr(octet) for octet in (*range(0x20), *range(0x7F, 0xA0))}
    assert harmless(shown) == shown
