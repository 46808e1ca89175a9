"""Hashing and checking secrets by the scheme that stands before them: ``{ARGON2ID}$argon2id$...``.

Pure computation, some of it slow on purpose: callers run `matches` and `hashed` off the event loop.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

import argon2

__all__ = ["ARGON2ID", "DUMMY", "PLAIN", "Secret", "UnknownScheme", "hashed", "matches", "parse_secret"]

ARGON2ID: Final = "ARGON2ID"
PLAIN: Final = "PLAIN"
_LATER: Final = ("SSHA256", "SSHA512", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT", "SCRAM-SHA-256")

# 19 MiB, 2 passes, 1 lane: OWASP's least for Argon2id; a few tens of milliseconds
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MEMORY_KIB_MAX: Final = 1024 * 1024  # a hash in the users file must not be able to take more than 1 GiB

DUMMY: Final = _HASHER.hash("nobody knows this one")
"""What an unknown user's password is checked against, so that it costs what a known one's costs."""


class UnknownScheme(ValueError):
    """A secret cannot be used; the text says why and never shows it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A stored secret: ``scheme`` in capitals, ``value`` in that scheme's form."""

    scheme: str
    value: str = field(repr=False)


def parse_secret(text: str) -> Secret:
    """Reads ``{SCHEME}value``. Raises `UnknownScheme`."""
    scheme, brace, value = text.removeprefix("{").partition("}")
    scheme = scheme.upper()
    if not text.startswith("{") or not brace:
        raise UnknownScheme("the secret has no scheme before it, such as {ARGON2ID}")
    if scheme in _LATER:
        raise UnknownScheme(f"the scheme {{{scheme}}} is not yet supported; use {{{ARGON2ID}}}")
    if scheme not in (ARGON2ID, PLAIN):
        raise UnknownScheme(f"an unknown scheme; use {{{ARGON2ID}}}")
    if not value:
        raise UnknownScheme("the secret is empty")
    if scheme == ARGON2ID:
        _check_argon2(value)
    return Secret(scheme, value)


def _check_argon2(value: str) -> None:
    try:
        parameters = argon2.extract_parameters(value)
    except argon2.exceptions.InvalidHashError:
        parameters = None
    if parameters is None or parameters.type is not argon2.Type.ID:
        raise UnknownScheme("what follows {ARGON2ID} is no Argon2id hash ($argon2id$v=19$m=...)")
    if parameters.memory_cost > _MEMORY_KIB_MAX:
        raise UnknownScheme(f"the Argon2id hash asks for more than {_MEMORY_KIB_MAX} KiB of memory")


def hashed(secret: str, scheme: str = ARGON2ID) -> str:
    """``{SCHEME}value`` for the users file. Raises `UnknownScheme`."""
    if scheme == ARGON2ID:
        return f"{{{ARGON2ID}}}{_HASHER.hash(secret)}"
    if scheme != PLAIN:
        raise UnknownScheme(f"an unknown scheme; use {ARGON2ID} or {PLAIN}")
    if ":" in secret or not secret.isprintable():
        raise UnknownScheme('a plain secret has no ":" and no control characters; use ARGON2ID')
    return f"{{{PLAIN}}}{secret}"


def matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password``, octets as sent, is the one stored."""
    if stored.scheme == PLAIN:
        return hmac.compare_digest(stored.value.encode(), password)
    try:
        return _HASHER.verify(stored.value, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
