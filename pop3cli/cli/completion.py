"""What a shell (bash, zsh, fish) may complete on ``pop3cli``'s command line beside commands and options.

Accounts by name, from the accounts file if there is one. A shell that completes is no place for errors: whatever is
wrong with the file, there are no names.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

__all__ = ["account_names", "complete_account"]

_FILE_MAX: Final = 1024 * 1024  # octets
_PLAIN: Final = re.compile(r"[\w.:/@%+-]+")  # what no shell takes for anything else


def account_names() -> list[tuple[str, str]]:
    """Names of accounts, and what they stand for; the file is `pop3cli.accounts.registry.accounts_file`."""
    from pop3cli.accounts.registry import accounts_file  # while a shell completes, and at no other time

    try:
        with accounts_file().open("rb") as stream:
            tables = tomllib.loads(stream.read(_FILE_MAX).decode("utf-8"))
    except (OSError, ValueError, RuntimeError):
        return []
    found = ((name, table) for name, table in tables.items() if isinstance(table, dict) and _PLAIN.fullmatch(name))
    return sorted((name, _meaning(table)) for name, table in found)


def _meaning(table: dict[str, Any]) -> str:
    url = str(table.get("url", ""))
    return url if _PLAIN.fullmatch(url) else ""


def complete_account(incomplete: str) -> list[tuple[str, str]]:
    """The accounts that a word may become, and the beginnings of a URL."""
    urls = [("pop3s://", "TLS, port 995"), ("pop3://", "STLS, port 110")]
    return [(word, remark) for word, remark in [*account_names(), *urls] if word.startswith(incomplete)]
