"""SASLprep: the examples of RFC 4013 §3, and every character by the tables of RFC 3454."""

import stringprep
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.sasl import SaslError
from pop3core.sasl.prep import saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u0627a\u0627", "a\ud800", "\u200e"])
def test_saslprep_prohibits(text: str) -> None:
    with pytest.raises(SaslError):
        saslprep(text)


def by_the_tables(text: str) -> str | None:
    """RFC 4013, character by character with the tables of Python's `stringprep`; None where it is refused."""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    prohibited = [getattr(stringprep, f"in_table_c{table}") for table in ("12", "21_c22", *"3456789")]
    if any(is_prohibited(character) for is_prohibited in prohibited for character in result):
        return None
    leftward = [stringprep.in_table_d1(character) for character in result]
    mixed = any(map(stringprep.in_table_d2, result)) or not (leftward and leftward[0] and leftward[-1])
    return None if any(leftward) and mixed else result


def prepared_or_none(text: str) -> str | None:
    try:
        return saslprep(text)
    except SaslError:
        return None


def test_saslprep_of_every_character() -> None:
    others = [code for code in range(0x110000) if prepared_or_none(chr(code)) != by_the_tables(chr(code))]
    assert others == []


@given(st.text(max_size=8) | st.text("a1 \u05d0\u0627\u00ad\u0301\ufdfa\u0340", max_size=8))
def test_saslprep_by_the_tables(text: str) -> None:
    assert prepared_or_none(text) == by_the_tables(text)


def test_saslprep_of_more_than_any_name_has() -> None:
    assert len(saslprep("\ufdfa" * 341)) == 341 * 18
    assert saslprep("a" * 5000) == "a" * 5000  # nothing to be prepared
    with pytest.raises(SaslError, match="too long"):
        saslprep("\ufdfa" * 342)


def test_saslprep_of_right_to_left() -> None:
    assert saslprep("\u0627\u0628") == "\u0627\u0628"
