"""Hashing and checking secrets by the scheme that stands before them: ``{ARGON2ID}$argon2id$...``.

Pure computation, some of it slow on purpose: callers run `matches` and `hashed` off the event loop.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from dataclasses import dataclass, field
from typing import Final

import argon2

from pop3core.sasl.scram import verifier

__all__ = [
    "ARGON2ID",
    "DUMMY",
    "PLAIN",
    "SCRAM",
    "Secret",
    "UnknownScheme",
    "Verifier",
    "hashed",
    "matches",
    "parse_secret",
    "verifier_of",
]

ARGON2ID: Final = "ARGON2ID"
PLAIN: Final = "PLAIN"
SCRAM: Final = "SCRAM-SHA-256"
_LATER: Final = ("SSHA256", "SSHA512", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT")

# 19 MiB, 2 passes, 1 lane: OWASP's least for Argon2id; a few tens of milliseconds
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MEMORY_KIB_MAX: Final = 1024 * 1024  # a hash in the users file must not be able to take more than 1 GiB

_SCRAM_ITERATIONS: Final = 4096  # RFC 7677 §4 asks for no less
_SCRAM_ITERATIONS_MAX: Final = 1_000_000  # a line of the users file must not be able to hold up a thread for long
_BASE64: Final = r"[A-Za-z0-9+/]+={0,2}"
_VERIFIER = re.compile(rf"([0-9]{{1,7}}),({_BASE64}),({_BASE64}),({_BASE64})")

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
    if scheme not in (ARGON2ID, PLAIN, SCRAM):
        raise UnknownScheme(f"an unknown scheme; use {{{ARGON2ID}}}")
    if not value:
        raise UnknownScheme("the secret is empty")
    if scheme == ARGON2ID:
        _check_argon2(value)
    if scheme == SCRAM:
        verifier_of(value)
    return Secret(scheme, value)


@dataclass(frozen=True, slots=True)
class Verifier:
    """What SCRAM-SHA-256 needs to check a password (RFC 5802 §3), as the users file keeps it."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def made(cls, password: bytes, salt: bytes, iterations: int = _SCRAM_ITERATIONS) -> Verifier:
        """From a password. Takes milliseconds."""
        return cls(salt, iterations, *verifier(password, salt, iterations))


def verifier_of(value: str) -> Verifier:
    """Reads ``iterations,salt,StoredKey,ServerKey``, the last three in base64. Raises `UnknownScheme`."""
    found = _VERIFIER.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        salt, stored, server = (base64.b64decode(text, validate=True) for text in found.groups()[1:])
    except ValueError:
        raise UnknownScheme(f"what follows {{{SCRAM}}} is not iterations,salt,StoredKey,ServerKey") from None
    if not _SCRAM_ITERATIONS <= int(found[1]) <= _SCRAM_ITERATIONS_MAX:
        raise UnknownScheme(f"{{{SCRAM}}} has {_SCRAM_ITERATIONS} to {_SCRAM_ITERATIONS_MAX} iterations")
    return Verifier(salt, int(found[1]), stored, server)


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
    if scheme == SCRAM:
        made = Verifier.made(secret.encode(), os.urandom(16))
        parts = (base64.b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key))
        return f"{{{SCRAM}}}{made.iterations},{','.join(parts)}"
    if scheme != PLAIN:
        raise UnknownScheme(f"an unknown scheme; use {ARGON2ID}, {SCRAM} or {PLAIN}")
    if ":" in secret or not secret.isprintable():
        raise UnknownScheme('a plain secret has no ":" and no control characters; use ARGON2ID')
    return f"{{{PLAIN}}}{secret}"


def matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password``, octets as sent, is the one stored."""
    if stored.scheme == PLAIN:
        return hmac.compare_digest(stored.value.encode(), password)
    if stored.scheme == SCRAM:
        kept = verifier_of(stored.value)
        return hmac.compare_digest(Verifier.made(password, kept.salt, kept.iterations).server_key, kept.server_key)
    try:
        return _HASHER.verify(stored.value, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
