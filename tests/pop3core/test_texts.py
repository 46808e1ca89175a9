"""Replies in other languages say the same things."""

import re
import string

import pytest

from pop3core.texts import _TEXTS, LANGUAGES, choose, translate


@pytest.mark.parametrize("text", _TEXTS)
def test_every_text_is_there_in_every_language(text: str) -> None:
    names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    for language in LANGUAGES:
        spoken = translate(language, text, **dict.fromkeys(names, "x"))
        assert spoken.isprintable()
        assert "{" not in spoken
        assert spoken.count("x") >= len(names)
        assert language != "de" or spoken != translate("en", text, **dict.fromkeys(names, "x"))


def test_each_column_is_filled() -> None:
    short = [text for text, columns in _TEXTS.items() if len(columns) != len(LANGUAGES) - 1]
    assert not short, (
        f"a column for each of {', '.join(LANGUAGES)} but the first, in _TEXTS of pop3core/texts.py: {short}"
    )


def test_a_text_that_nobody_translated_stays() -> None:
    assert translate("de", "the {disk} is full", disk="disk") == "the disk is full"
    assert translate("de", "braces {stay}") == "braces {stay}"


@pytest.mark.parametrize(
    ("tag", "found"),
    [("de", "de"), ("DE", "de"), ("de-AT", "de"), ("de-at-1996", "de"), ("*", "en"), ("pt", None), ("d", None)],
)
def test_a_language_is_chosen_by_its_tag(tag: str, found: str | None) -> None:
    assert choose(tag, ("en", "de")) == found


def test_no_language_is_chosen_from_an_empty_list() -> None:
    assert choose("*", ()) is None
    assert choose("en", ()) is None


def test_tags_are_language_tags() -> None:
    assert all(re.fullmatch("[a-z]{2,3}", tag) for tag in LANGUAGES)
