"""What of a command line may be shown: in a transcript, a trace, a history, a log.

The table's column *secret* and its readers decide, here and nowhere else. Shown is a keyword of the table, and behind
it, in a line that is a valid command, each argument that is not secret. All else is masked: a mistyped keyword
(``PAS hunter2``), an argument too many (``USER alice hunter2``), a password typed where a command belongs, a SASL
mechanism that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pop3core.grammar import Reader
from pop3core.grammar import mechanism as mechanism_reader
from pop3core.sasl import MECHANISMS
from pop3core.syntax import BadCommand, read_arguments, split, words

__all__ = ["is_harmless", "masked"]

_KNOWN: Final = frozenset(name.encode() for name in MECHANISMS)


def masked(line: bytes, mask: Callable[[bytes, Reader | None], bytes]) -> bytes:
    """``line``, its end taken off, with all that may be secret replaced.

    ``mask``: given what is to be replaced, and the reader of that argument (None for a whole line whose keyword is
    unknown, and for what stands behind a keyword without arguments); it returns what is shown in its place.
    """
    try:
        rule, rest = split(line)
    except BadCommand:
        return mask(line, None)
    if rest is None:
        return line
    try:
        read_arguments(rule, rest)
        valid = True
    except BadCommand:
        valid = False
    shown = [line.partition(b" ")[0]]
    for number, word in enumerate(words(rule.arguments, rest)):
        reader = rule.arguments[number] if rule.arguments else None
        harmless = valid and reader is not None and _is_harmless(word, reader, rule.secret)
        shown.append(word if harmless else mask(word, reader))
    return b" ".join(shown)


def _is_harmless(word: bytes, reader: Reader, secret: Reader | None) -> bool:
    """Whether a word that its reader takes may be shown."""
    if reader is mechanism_reader:
        return word.upper() in _KNOWN
    return secret is None or reader.name != secret.name


def is_harmless(line: bytes) -> bool:
    """Whether nothing of ``line`` is to be masked."""
    return masked(line, lambda octets, _reader: octets + b"*") == line
