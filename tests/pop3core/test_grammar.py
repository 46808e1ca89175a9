"""Arguments, one by one: what is read, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.commands import (
    List,
    Top,
)
from pop3core.grammar import BadArgument, count, number, password, word
from pop3core.table import RULE_OF


@given(st.text(min_size=1, max_size=20))
def test_words_survive_or_are_refused(text: str) -> None:
    try:
        octets = word.write(text)
    except BadArgument:
        return
    assert word.read(octets) == text
    assert b" " not in octets
    assert b"\r" not in octets
    assert b"\n" not in octets


def test_readers_say_what_they_take() -> None:
    for reader, octets in ((number, b"0"), (count, b"-"), (word, b""), (password, b"")):
        with pytest.raises(BadArgument):
            reader.read(octets)
    assert [reader.usage for reader in RULE_OF[Top].arguments] == ["msg", "n"]
    assert [reader.usage for reader in RULE_OF[List].arguments] == ["[msg]"]
