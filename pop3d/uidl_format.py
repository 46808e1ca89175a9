"""Dovecot's ``pop3_uidl_format``: how Dovecot makes unique-ids of what it knows about a message.

Two languages. Dovecot 2.3 and before: ``%08Xu%08Xv``, which is ``%``, then an offset and a width, modifiers, and a
letter (its ``src/lib/var-expand.c``). Dovecot 2.4: ``%{uid | hex(8)}``, a name and filters
(``src/lib-var-expand/expansion-filter.c``). Both may stand in one format here. Dovecot works on C strings of octets,
with C's numbers, and so does this.

The configuration checks a format, and the Maildir store expands it: so this stands below both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

__all__ = ["DEFAULT", "UidSource", "UidlFormat"]

DEFAULT: Final = "%08Xu%08Xv"
"""Dovecot's default, also of version 2.4, which writes it in another way."""

_VARIABLES: Final = {"u": "uid", "v": "uidvalidity", "f": "filename", "g": "guid"}
_FORMAT_MAX: Final = 255  # characters of a format: no real one has a quarter of it
_WIDTH_MAX: Final = 255  # octets that one variable is cut or filled to: a unique-id is not as long
_MODIFIERS_MAX: Final = 10  # of one variable, as Dovecot has it
_UINT: Final = 0xFFFFFFFF
_UINT64: Final = 0xFFFFFFFFFFFFFFFF

_SHORT = re.compile(r"(-?)(0?)([0-9]*)(?:\.(0?)(-?)([0-9]*))?([LUEXRHNMDT]*)(.?)", re.DOTALL)
_LONG = re.compile(r"\{\s*(\w+)((?:\s*\|\s*\w+(?:\(\s*-?[0-9]*\s*\))?)*)\s*\}")
_FILTER = re.compile(r"(\w+)(?:\(\s*(-?[0-9]*)\s*\))?")
_MD5: Final = "%m is of mbox: Dovecot has no MD5 sum of the header for a message of a Maildir"

Values: TypeAlias = Mapping[str, bytes]
"""Of one message: ``uid`` and ``uidvalidity`` in decimal digits, ``filename`` without folder and flags, ``guid``."""

_Step: TypeAlias = Callable[[Values], bytes]


class UidlFormat:
    """A format, read. ``text``: as it is written in Dovecot's configuration.

    Raises ValueError, with the part that is wrong in its text.
    """

    def __init__(self, text: str = DEFAULT) -> None:
        self.text = text
        self._variables: set[str] = set()
        self._steps: tuple[_Step, ...] = tuple(self._parsed(text))
        if not self._variables & {"uid", "filename", "guid"}:
            raise ValueError("none of %u, %f and %g is in it, so all messages would have one unique-id")

    @property
    def needs_list(self) -> bool:
        """Whether only Dovecot's list of the mailbox has what it needs: UIDs."""
        return bool(self._variables & {"uid", "uidvalidity"})

    def expand(self, values: Values) -> bytes:
        """The unique-id of a message as Dovecot tells it: of any length, and of any octets but NUL."""
        return b"".join([step(values) for step in self._steps])

    def _parsed(self, text: str) -> list[_Step]:
        if len(text) > _FORMAT_MAX:
            raise ValueError(f"a format has at most {_FORMAT_MAX} characters")
        steps: list[_Step] = []
        at = 0
        while at < len(text):
            found = text.find("%", at)
            literal = text[at:] if found < 0 else text[at:found]
            if literal:
                steps.append(_literal(literal.encode()))
            if found < 0:
                break
            if text.startswith("{", found + 1):
                step, at = self._long(text, found)
            else:
                step, at = self._short(text, found)
            steps.append(step)
        return steps

    def _short(self, text: str, at: int) -> tuple[_Step, int]:
        """``%[<offset>.]<width>[<modifiers>]<variable>``, and where it ends."""
        match = _SHORT.match(text, at + 1)
        assert match is not None  # it matches nothing, too
        sign, zero, first, point_zero, negative, second, modifiers, letter = match.groups()
        part = text[at : match.end()]
        if not letter:
            raise ValueError(f"{part!r} at its end names no variable")
        if letter not in (*_VARIABLES, "%"):
            _unknown(part, letter)
        if len(modifiers) > _MODIFIERS_MAX:
            raise ValueError(f"{part!r} has more than {_MODIFIERS_MAX} modifiers")
        numbers = [int(digits or 0) for digits in (first, second or "")]
        if max(numbers) > _WIDTH_MAX:
            raise ValueError(f"{part!r} has a number over {_WIDTH_MAX}")
        offset, width, padded = 0, numbers[0], bool(zero)  # a sign in front of a width alone says nothing to Dovecot
        if second is not None:
            offset = -numbers[0] if sign else numbers[0]
            width, padded = -numbers[1] if negative else numbers[1], bool(point_zero)
        field = _Field(modifiers, offset, width, padded)
        if letter == "%":
            always = field.made_of(b"%")
            return _literal(always), match.end()
        name = _VARIABLES[letter]
        self._variables.add(name)
        if not (modifiers or offset or width):
            return lambda values: values[name], match.end()
        return lambda values: field.made_of(values[name]), match.end()

    def _long(self, text: str, at: int) -> tuple[_Step, int]:
        """``%{name | filter(number) | ...}``, and where it ends."""
        match = _LONG.match(text, at + 1)
        if match is None:
            raise ValueError(f"{text[at:]!r} is not %{{name}} or %{{name | filter(number)}}")
        name, part = match[1], text[at : match.end()]
        if name not in _VARIABLES.values():
            _unknown(part, name)
        self._variables.add(name)
        filters = [_filter(part, *found.groups()) for found in _FILTER.finditer(match[2])]

        def step(values: Values) -> bytes:
            value = values[name]
            for one in filters:
                value = one(value)
            return value

        return step, match.end()


def _unknown(part: str, name: str) -> NoReturn:
    if name in ("m", "md5"):
        raise ValueError(f"{part!r}: {_MD5}")
    raise ValueError(f"{part!r}: there is no variable {name!r}; there are %u, %v, %f and %g, or {_names()}")


def _names() -> str:
    return ", ".join(f"%{{{name}}}" for name in _VARIABLES.values())


def _literal(octets: bytes) -> _Step:
    return lambda _: octets


@dataclass(frozen=True, slots=True)
class _Field:
    """What Dovecot 2.3 does with a variable's value: ``modifiers`` one after the other, then offset and width."""

    modifiers: str
    offset: int
    width: int
    padded: bool

    def made_of(self, value: bytes) -> bytes:
        offset, width = self.offset, self.width
        for modifier in self.modifiers:
            if modifier in "HN":  # they use up both numbers
                value = _hashed(modifier, value, width).rjust(max(offset, 0), b"0")
                offset = width = 0
            else:
                value = _MODIFIERS[modifier](value)
        value = value[offset:] if offset >= 0 or len(value) > -offset else value
        if self.padded:
            return value.rjust(max(width, 0), b"0")  # and never cut
        if not width:
            return value
        # a negative one says how much to leave out at the end; where that is more than there is, C takes it for endless
        most = width if width > 0 else len(value) + width
        return value[:most] if most >= 0 else value


def _hashed(modifier: str, value: bytes, width: int) -> bytes:
    if modifier == "H":
        number, modulus = _elf_hash(value), width & _UINT
    else:
        number, modulus = int.from_bytes(_digest("md5", value)[:8], "big"), width & _UINT64
    return b"%x" % ((number % modulus if modulus else number) & _UINT)


def _elf_hash(value: bytes) -> int:
    """Of 32 bits, as in the object files of System V."""
    number = 0
    for octet in value:
        number = ((number << 4) + octet) & _UINT
        if high := number & 0xF0000000:
            number ^= high >> 24
            number ^= high
    return number


def _digest(name: str, value: bytes) -> bytes:
    return hashlib.new(name, value, usedforsecurity=False).digest()


def _hex(value: bytes) -> bytes:
    number = int(value) if value.isdigit() else 0
    return b"%x" % (number if number <= _UINT64 else 0)


_MODIFIERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "L": bytes.lower,
    "U": bytes.upper,
    "E": lambda value: re.sub(rb"([\"'\\])", rb"\\\1", value),
    "X": _hex,
    "R": lambda value: value[::-1],
    "M": lambda value: _digest("md5", value).hex().encode(),
    "D": lambda value: value.replace(b".", b",dc="),
    "T": lambda value: value.rstrip(b" \t\n\v\f\r"),
}


def _filter(part: str, name: str, number: str | None) -> Callable[[bytes], bytes]:
    """One filter of Dovecot 2.4."""
    given = int(number) if number not in (None, "", "-") else None
    if given is not None and abs(given) > _WIDTH_MAX:
        raise ValueError(f"{part!r} has a number over {_WIDTH_MAX}")
    if name == "hex":
        return lambda value: _hex_of_width(value, given or 0)
    if name == "truncate" and given is not None and given >= 0:
        return lambda value: value[:given]
    simple = _FILTERS.get(name)
    if simple is None or given is not None:
        known = ", ".join(["hex(number)", "truncate(number)", *_FILTERS])
        raise ValueError(f"{part!r}: no filter {name!r} is known like this; known are {known}")
    return simple


def _hex_of_width(value: bytes, width: int) -> bytes:
    digits = _hex(value)
    if width < 0:
        return digits.ljust(-width, b"0")[:-width]
    return digits.rjust(width, b"0")[-width:] if width else digits


_FILTERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "lower": bytes.lower,
    "upper": bytes.upper,
    "reverse": lambda value: value[::-1],
    "md5": lambda value: _digest("md5", value).hex().encode(),
    "sha1": lambda value: _digest("sha1", value).hex().encode(),
    "sha256": lambda value: _digest("sha256", value).hex().encode(),
}


@dataclass(frozen=True, slots=True)
class UidSource:
    """Whose unique-ids are kept, as ``uidl`` in ``[store]`` says it.

    ``server``: "filename" for nobody's, "dovecot" or "courier". ``format``: Dovecot's, else unused.
    """

    server: str
    format: UidlFormat

    @classmethod
    def of(cls, setting: str) -> UidSource:
        """From the setting: "filename", "courier", "dovecot" or "dovecot:FORMAT". Raises ValueError."""
        server, colon, text = setting.partition(":")
        if server not in ("filename", "dovecot", "courier") or (colon and server != "dovecot"):
            raise ValueError(f'{setting!r} is none of "filename", "dovecot", "dovecot:FORMAT" and "courier"')
        try:
            return cls(server, UidlFormat(text) if colon else UidlFormat())
        except ValueError as fault:
            raise ValueError(f"{setting!r}: {fault}") from None

    @property
    def is_foreign(self) -> bool:
        """Whether another server's ids are kept at all."""
        return self.server != "filename"
