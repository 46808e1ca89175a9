"""Options that hold for every command may stand before it or after it.

That is not what click does, so the arguments are put in order before it sees them, and each command's help says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from typer.core import TyperGroup

__all__ = ["EPILOG", "GlobalOptionsGroup", "sorted_out"]

EPILOG: Final = (
    "Also, before or after the command: --json, --no-color, --cacert FILE, --pin SHA256, --timeout SECONDS,"
    " --password-command CMD, --trace and more; see pop3cli --help."
)
"""Below each command's help."""


class GlobalOptionsGroup(TyperGroup):
    """Options of the whole program may stand behind the command as well: they are moved before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse with our own options first."""
        takes_value = {name: not getattr(param, "is_flag", True) for param in self.params for name in param.opts}
        ours, others = sorted_out(args, takes_value)
        return super().parse_args(ctx, [*ours, *others])


def sorted_out(args: list[str], takes_value: dict[str, bool]) -> tuple[list[str], list[str]]:
    """The arguments that are options of ours, with their values, and the rest; behind ``--`` nothing is an option."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for word in rest:
        name, _, _ = word.partition("=")
        if word == "--":
            others += [word, *rest]
        elif name not in takes_value:
            others.append(word)
        else:
            ours.append(word)
            if takes_value[name] and word == name:
                ours += list(_next_of(rest))
    return ours, others


def _next_of(words: Iterator[str]) -> list[str]:
    word = next(words, None)
    return [] if word is None else [word]
