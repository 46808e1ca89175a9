"""What fills a mailbox, at bounded memory."""

from __future__ import annotations

import pytest

from pop3cli.message.reading import MessageSummary, summarize
from pop3cli.message.statistics import Statistics


def test_senders_without_end() -> None:
    found = Statistics()
    for number in range(1, 21_001):
        found.add(number, 1 << 70, MessageSummary(f"x{number}@" + "y" * 300, "s" * 5000, None, ""))
    assert len(found.senders) == 20_001
    assert found.senders["(others)"].messages == 1_000
    assert max(map(len, found.senders)) == 200
    assert len(found.largest) == 10
    assert found.sizes["larger"].messages == 21_000


@pytest.mark.parametrize(
    ("sender", "counted"),
    [
        ("Bob <Bob@Example.org>", "bob@example.org"),
        ('"x <y>" <bob@example.org>', "bob@example.org"),
        ("bob@example.org (Bob)", "bob@example.org"),
        ("undisclosed", "undisclosed"),
        ("", "(no sender)"),
    ],
)
def test_who_has_sent(sender: str, counted: str) -> None:
    found = Statistics()
    found.add(1, 1, summarize(f"From: {sender}\r\n\r\n".encode()))
    assert list(found.senders) == [counted]
