"""`pop3cli stats`: who fills a mailbox, and with what."""

from __future__ import annotations

import json

from pop3cli.commands.stats import bar
from tests.pop3cli.conftest import Cli, Mailbox, Serve, many_messages


def test_stats(pop3cli: Cli, serve: Serve) -> None:
    messages = [*many_messages(7), b"Subject: \x1b[2J\r\n\r\n" + b"x\r\n" * 10_000]
    server = serve(Mailbox(messages))
    common = (server.account(), "--cacert", server.certificate)
    found = json.loads(pop3cli("stats", *common, "--json").out)
    assert (found["messages"], found["octets"]) == (8, sum(map(len, messages)))
    counted = {one["sender"]: one["messages"] for one in found["senders"]}
    assert counted == {"(no sender)": 1, "p0@example.org": 2, "p1@example.org": 3, "p2@example.org": 2}
    assert {one["month"]: one["messages"] for one in found["months"]} == {"(no date)": 1, "2010-01": 3, "2011-01": 4}
    assert [one["messages"] for one in found["sizes"]] == [7, 1, 0, 0, 0]
    assert found["largest"][0]["number"] == 8
    ran = pop3cli("stats", *common, "--top", 1)
    assert ran.status == 0
    assert b"\x1b" not in ran.out
    text = ran.out.decode()
    assert text.startswith("8 messages, 29.9 KiB, 3.7 KiB on average\n\nSenders")
    assert "(no sender)                           1    29.3 KiB  ████████████████████\n(others) " in text
    assert "(earlier)                             3" in text


def test_stats_of_little(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox([]))
    ran = pop3cli("stats", server.account(), "--cacert", server.certificate)
    assert (ran.status, ran.out) == (0, b"0 messages, 0 B\n")
    server = serve(Mailbox(many_messages(2), unreadable=(2,)))
    ran = pop3cli("stats", server.account(), "--cacert", server.certificate)
    assert (ran.status, "the headers of 1 of 2 messages were refused" in ran.err) == (1, True)


def test_bars() -> None:
    assert [bar(part, 160) for part in (0, 1, 8, 12, 160)] == ["", "▏", "█", "█▌", "█" * 20]
    assert bar(1, 10**9) == "▏"
    assert bar(0, 0) == ""
