"""What `pop3d check` finds at a site."""

import os
import re
import subprocess
import sys

import pytest

from pop3d.commands.check import findings
from tests.site import Site

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def found(site: Site) -> list[tuple[str, str]]:
    """What is found, but for what is so on a test's site: it runs as root."""
    return [
        ("fault" if one.fault else "warning", one.text)
        for one in findings(site.config)
        if not one.text.startswith("`user`: root")
    ]


def only(site: Site, kind: str, words: str) -> str:
    """The text of the one thing that is found."""
    seen = found(site)
    assert [one[0] for one in seen] == [kind], seen
    assert re.search(words, seen[0][1]), seen
    return seen[0][1]


def change(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


def checked(site: Site) -> list[str]:
    """By a process of its own, which becomes somebody else."""
    done = subprocess.run(
        [sys.executable, "-m", "pop3d", "check", "--config", str(site.config)], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()
