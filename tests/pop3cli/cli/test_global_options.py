"""Options that may stand before and after a command."""

from __future__ import annotations

import pytest

from pop3cli.cli.global_options import sorted_out


@pytest.mark.parametrize(
    ("arguments", "ours", "others"),
    [
        ("list URL --json", "--json", "list URL"),
        ("--cacert F list URL", "--cacert F", "list URL"),
        ("list URL --cacert F", "--cacert F", "list URL"),
        ("get URL --cacert=F 1 -o X --json", "--cacert=F --json", "get URL 1 -o X"),
        ("get -- --json URL", "", "get -- --json URL"),
        ("list URL --cacert", "--cacert", "list URL"),
    ],
)
def test_options_anywhere(arguments: str, ours: str, others: str) -> None:
    assert sorted_out(arguments.split(), {"--json": False, "--cacert": True}) == (ours.split(), others.split())
