"""The check of a release refuses what it is there to refuse, and lets go what is in order."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.release import faults

ROOT = Path(__file__).parents[1]


def page(text: str) -> str:
    elsewhere = "Write to <elsewhere@example.org>, a placeholder."
    return f"# Security\n\n{elsewhere}\n\n## Report a vulnerability\n\n{text}\n\n## More\n\n{elsewhere}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Write to <security@pop3core.invalid>.", "security@pop3core.invalid is a placeholder"),
        ("Write to <a@mail.example>.", "a@mail.example is a placeholder"),
        ("Write to <a@Example.ORG>.", "a@Example.ORG is a placeholder"),
        ("Write to <a@localhost>.", "a@localhost is a placeholder"),
        ("Write to us.", "there is no address"),
        ("Write to <a@pop3core.net>. It is a placeholder.", "still says that the address is a placeholder"),
    ],
)
def test_a_placeholder_is_refused(text: str, words: str) -> None:
    (fault,) = faults(page(text))
    assert words in fault


def test_an_address_is_accepted() -> None:
    assert faults(page("Write to <security@pop3core.net>.")) == []


def test_the_command_says_of_this_page_what_the_check_says() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.release"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    found = faults((ROOT / "docs/security.md").read_text())
    assert result.stderr.splitlines() == found
    assert result.returncode == (1 if found else 0)
