"""What stands in a transcript in place of secrets: octets of equal length that the engine treats as it treated those.

What the engine accepts has a stand-in that it accepts, and what it refuses one that it refuses with the same words, so
that a session in which somebody typed a password in the wrong place replays exactly, without that password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pop3core.grammar import BadArgument, Reader
from pop3core.sasl.base import SaslError, text_of
from pop3core.sasl.prep import acting_as

__all__ = ["for_argument", "for_message", "of_equal_length"]

_BAD_ENDS: Final = (b"!", b"\xff", b"\x7f")
"""Octets that make a word of x one that is no digit, tag or base64; no UTF-8; not printable."""


def of_equal_length(secret: bytes) -> bytes:
    """x for each octet."""
    return b"x" * len(secret)


def for_argument(secret: bytes, reader: Reader | None) -> bytes:
    """For an argument of a command. ``reader``: its reader, whose verdict is the same; None where nothing reads it."""
    if reader is None or not secret:
        return of_equal_length(secret)
    verdict = _verdict(secret, reader)
    begun = b"x" * (len(secret) - 1)
    candidates = (begun + b"x", b"0" * len(secret), b"1" * len(secret), *(begun + end for end in _BAD_ENDS))
    fitting = (candidate for candidate in candidates if _verdict(candidate, reader) == verdict)
    return next(fitting, of_equal_length(secret))


def _verdict(octets: bytes, reader: Reader) -> str:
    try:
        reader.read(octets)
    except BadArgument as fault:
        return str(fault)
    return ""


def for_message(mechanism: str, number: int, message: bytes) -> bytes:
    """For a client's message of a SASL exchange, all but SCRAM's. ``number``: 1 for the first.

    Names stay where a well-formed message has them; all else is x.
    """
    make = _FIRST.get(mechanism) if number == 1 else None
    return of_equal_length(message) if make is None else make(message)


def _plain(message: bytes) -> bytes:
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        return b"\0".join(map(of_equal_length, parts))
    return b"\0".join((_name(parts[0]), _name(parts[1]), of_equal_length(parts[2])))


def _bearer(message: bytes) -> bytes:
    header, *fields = message.split(b"\x01")
    found = re.fullmatch(rb"([ny],a=|[ny],(?=,))([^,]*)(,)", header)  # RFC 7628 §3.1
    shown = of_equal_length(header) if found is None else found[1] + _name(found[2]) + found[3]
    return b"\x01".join((shown, *map(_field, fields)))


def _xoauth2(message: bytes) -> bytes:
    user, *fields = message.split(b"\x01")
    shown = b"user=" + _name(user[5:]) if user.startswith(b"user=") else of_equal_length(user)
    return b"\x01".join((shown, *map(_field, fields)))


def _field(field: bytes) -> bytes:
    if not field.startswith(b"auth="):
        return of_equal_length(field)
    token = re.fullmatch(rb"auth=bearer ([A-Za-z0-9._~+/-]+=*)", field, re.I)  # RFC 6750 §2.1
    kept, fill = (5, b"!") if token is None else (token.start(1), b"x")
    return field[:kept] + fill * (len(field) - kept)


def _identity(identity: bytes) -> bytes:
    """An identity that is not the certificate's, or one that is refused with the same words."""
    refusal, begun = _refusal(identity), b"x" * (len(identity) - 1)
    mixed = begun[:-1] + "\u05d0".encode()  # a letter of Hebrew behind others: two directions
    candidates = (b"!" * len(identity), *(begun + end for end in (b"\0", b"\xff", b"\x7f")), mixed)
    fitting = (candidate for candidate in candidates if _refusal(candidate) == refusal)
    return next(fitting, identity)  # none fits only where there is nothing but what cannot be seen


def _refusal(identity: bytes) -> str:
    try:
        acting_as(text_of(identity))
    except SaslError as fault:
        return str(fault)
    return ""


def _name(name: bytes) -> bytes:
    """A name as it is; what is none, by one that is none for the same reason."""
    try:
        text_of(name)
    except SaslError:
        reason = b"\0" if name.decode("utf-8", "ignore").encode() == name else b"\xff"
        return b"x" * (len(name) - 1) + reason
    return name


_FIRST: Final[dict[str, Callable[[bytes], bytes]]] = {
    "PLAIN": _plain,
    "LOGIN": _name,
    "OAUTHBEARER": _bearer,
    "XOAUTH2": _xoauth2,
    "EXTERNAL": _identity,
}
