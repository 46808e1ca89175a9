"""Lines to commands and back, by the table's *arguments* column.

This stands above `pop3core.table` because it reads it: a command's form is written down once, there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pop3core.commands import Command
from pop3core.grammar import BadArgument, Reader
from pop3core.table import RULE_BY_KEYWORD, RULE_OF, RULES, Rule

__all__ = ["BadCommand", "encode", "parse", "read_arguments", "split", "words"]


class BadCommand(ValueError):
    """A line is no command, or not here; the text says what is wrong, and repeats nothing sent.

    ``text`` is a text of `pop3core.texts` to be filled in with ``values``; ``usage``, when not empty, how the command
    is used.
    """

    def __init__(self, text: str, usage: str = "", **values: object) -> None:
        self.text, self.usage, self.values = text, usage, values
        words = text.format(**values) if values else text
        super().__init__("; ".join(filter(None, (words, usage and f"usage: {usage}"))))


BARE: Final[dict[bytes, tuple[Rule, Command]]] = {
    rule.keyword.encode(): (rule, rule.make()) for rule in RULES if all(reader.optional for reader in rule.arguments)
}
"""Lines that are a keyword and nothing else, with their command made beforehand: the bulk of a pipelined session."""


def split(line: bytes) -> tuple[Rule, bytes | None]:
    """A line's row of the table, and what stands behind the keyword's blank (None without a blank).

    Raises `BadCommand` for an unknown keyword.
    """
    keyword, blank, rest = line.partition(b" ")
    rule = RULE_BY_KEYWORD.get(keyword.upper())  # RFC 1939 §3: keywords are case-insensitive
    if rule is None:
        raise BadCommand("unknown command")
    return rule, rest if blank else None


def read_arguments(rule: Rule, rest: bytes | None) -> Command:
    """The command that ``rest`` makes, as `split` gave it. Raises `BadCommand`."""
    arguments = rule.arguments
    if len(arguments) == 1 and rest is not None:  # most commands that come in numbers: it takes all there is
        try:
            return rule.make(arguments[0].read(rest))
        except BadArgument as fault:
            raise BadCommand(str(fault), rule.usage) from None
    found = [] if rest is None else words(arguments, rest)
    try:
        values = [reader.read(octets) for reader, octets in zip(arguments, found, strict=False)]
    except BadArgument as fault:
        raise BadCommand(str(fault), rule.usage) from None
    # the optional ones stand last
    if len(found) > len(arguments) or (len(found) < len(arguments) and not arguments[len(found)].optional):
        raise BadCommand("", rule.usage)
    return rule.make(*values)


def words(arguments: Sequence[Reader], rest: bytes) -> list[bytes]:
    """What stands behind a keyword, cut as its arguments are: one word or more, perhaps more than arguments."""
    # RFC 1939 §3: one space between arguments. A second one makes an empty word, which no reader takes. The last
    # argument takes all that is left, so a blank in it is its reader's business: part of a password, refused elsewhere.
    return rest.split(b" ", max(len(arguments) - 1, 0))


def parse(line: bytes) -> Command:
    """The command in a line, its end taken off. Raises `BadCommand`."""
    return read_arguments(*split(line))


def encode(command: Command) -> bytes:
    """The line that says a command, CRLF included.

    Raises `BadCommand` for an argument that cannot be said: nothing with CR, LF or NUL in it ever leaves.
    """
    rule = RULE_OF[type(command)]
    values = (getattr(command, name) for name in command.__match_args__)
    try:
        words = [
            reader.write(value)
            for reader, value in zip(rule.arguments, values, strict=True)
            if value is not None or not reader.optional
        ]
    except (BadArgument, TypeError, AttributeError) as fault:
        raise BadCommand(f"{rule.keyword}: {fault}", rule.usage) from None
    return b" ".join((rule.keyword.encode(), *words)) + b"\r\n"
