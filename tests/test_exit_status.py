"""Both programs end with the same codes under the same names, those of sysexits.h where it has one."""

from __future__ import annotations

import os

import pop3cli.exit_status
import pop3d.exit_status

CONVENTIONS = {"OK": 0, "SOME_FAILED": 1, "USAGE": 2, "INTERRUPTED": 130}
"""Of every shell; EX_USAGE is 64, and programs end with 2."""


def codes(module: object) -> dict[str, int]:
    return {name: int(status) for name, status in vars(module)["ExitStatus"].__members__.items()}


def test_both_programs_end_with_the_same_codes() -> None:
    ours, theirs = codes(pop3d.exit_status), codes(pop3cli.exit_status)
    assert ours == theirs, "change pop3d/exit_status.py and pop3cli/exit_status.py together"


def test_names_and_numbers_are_those_of_sysexits() -> None:
    for name, number in codes(pop3d.exit_status).items():
        expected = CONVENTIONS[name] if name in CONVENTIONS else getattr(os, f"EX_{name}")
        assert number == expected, name
