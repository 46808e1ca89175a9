"""What can be said before and after every command, and the words in which errors speak of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from pop3cli.accounts.url import Settings

if TYPE_CHECKING:
    from pop3cli.errors import MailError
    from pop3cli.net.trace import Trace

__all__ = ["OPTION_OF", "Options", "error_text", "with_options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What can be said before and after every command.

    ``settings``: how the account is reached; ``new_trace``: of a connection, if any.
    """

    json: bool = False
    color: bool = True
    debug: bool = False
    settings: Settings = field(default_factory=Settings)
    new_trace: Callable[[], Trace | None] = lambda: None


_NAMED_OTHERWISE: Final = {"pins": "--pin", "oauth_client_id": "--client-id"}  # --pin is given once for each

OPTION_OF: Final[Mapping[str, str]] = {
    setting.name: _NAMED_OTHERWISE.get(setting.name, f"--{setting.name.replace('_', '-')}")
    for setting in fields(Settings)
    if setting.name != "title"  # the account's name is an argument
}
"""The option of each field of `Settings`."""

_SETTING: Final = re.compile(rf"`({'|'.join(OPTION_OF)})(?:=([\w-]+))?`")


def with_options(text: str) -> str:
    """A text of the library for users of the command line: ```auth=plain``` becomes ``--auth plain``.

    The library names settings, in backticks; all other text stays as it is.
    """
    return _SETTING.sub(lambda found: f"{OPTION_OF[found[1]]} {found[2] or ''}".rstrip(), text)


def error_text(fault: MailError) -> str:
    """An error with its notes, as one line for users of the command line."""
    return with_options("; ".join((str(fault), *getattr(fault, "__notes__", ()))))
