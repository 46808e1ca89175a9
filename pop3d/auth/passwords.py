"""Hashing and checking secrets by the scheme that stands before them: ``{ARGON2ID}$argon2id$...``.

Pure computation, some of it slow on purpose: `pop3d.auth.hashing` says where it is run. What is slow is bounded when a
secret is read, for a line of the users file must not be able to hold up a core for long.

Of the schemes that other servers leave behind, SSHA256 and SSHA512 need nothing; the three of crypt(3) need the extra
`crypt`. Without it such a secret is read all the same (`lacks_extra`), but matches nothing.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import argon2

from pop3core.sasl.base import SaslError, SecretKind
from pop3core.sasl.prep import prepared
from pop3core.sasl.scram import verifier

__all__ = [
    "ARGON2ID",
    "BLF_CRYPT",
    "CRYPT_EXTRA",
    "DUMMY",
    "PASSWORD_OCTETS_MAX",
    "PLAIN",
    "PROVED_BY",
    "SCHEMES",
    "SCRAM",
    "SHA256_CRYPT",
    "SHA512_CRYPT",
    "SSHA256",
    "SSHA512",
    "Secret",
    "UnknownScheme",
    "Verifier",
    "cost_of",
    "hashed",
    "lacks_extra",
    "matches",
    "parse_secret",
    "serves",
    "verifier_of",
]

ARGON2ID: Final = "ARGON2ID"
PLAIN: Final = "PLAIN"
SCRAM: Final = "SCRAM-SHA-256"
SSHA256: Final = "SSHA256"
SSHA512: Final = "SSHA512"
SHA256_CRYPT: Final = "SHA256-CRYPT"
SHA512_CRYPT: Final = "SHA512-CRYPT"
BLF_CRYPT: Final = "BLF-CRYPT"
SCHEMES: Final = (ARGON2ID, BLF_CRYPT, SHA512_CRYPT, SHA256_CRYPT, SCRAM, SSHA512, SSHA256, PLAIN)
"""All that can be read, the slowest first."""

PROVED_BY: Final[Mapping[str, SecretKind]] = {
    "apop": "APOP",
    "scram-sha-256": "SCRAM-SHA-256",
    "scram-sha-256-plus": "SCRAM-SHA-256",
}
"""Mechanisms, by their names in the configuration, that prove a password without sending it, and what `serves` them."""

CRYPT_EXTRA: Final = "pip install 'pop3core[crypt]'"
"""What to type where `lacks_extra`."""

PASSWORD_OCTETS_MAX: Final = 1024
"""More is never a password: SHA-crypt takes longer for a longer one. PASS has room for some 250 octets."""

# 19 MiB, 2 passes, 1 lane: OWASP's least for Argon2id; a few tens of milliseconds
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MEMORY_KIB_MAX: Final = 1024 * 1024  # 1 GiB
_ARGON2_WORK_MAX: Final = 8 * 1024 * 1024  # KiB of memory times passes: some seconds
_ARGON2_LANES_MAX: Final = 64  # each lane is a thread

_SCRAM_ITERATIONS: Final = 4096  # RFC 7677 §4 asks for no less
_SCRAM_ITERATIONS_MAX: Final = 1_000_000  # some tenths of a second
_BASE64: Final = r"[A-Za-z0-9+/]+={0,2}"
_VERIFIER = re.compile(rf"([0-9]{{1,7}}),({_BASE64}),({_BASE64}),({_BASE64})")

_DIGESTS: Final = {SSHA256: "sha256", SSHA512: "sha512"}
_SALT_OCTETS_MAX: Final = 64  # of SSHA; what is in use has 4 to 16

_CRYPT_ROUNDS: Final = (1_000, 1_000_000)  # the specification's least; a second or two
_BLF_COST: Final = (4, 16)  # the algorithm's least; 2 to the power of that many rounds: some seconds
# {SCHEME}: what follows, with rounds as the first group. Salts of other characters are read by no library.
_CRYPT: Final = {
    SHA256_CRYPT: re.compile(r"\$5\$(?:rounds=([0-9]{1,9})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{43}"),
    SHA512_CRYPT: re.compile(r"\$6\$(?:rounds=([0-9]{1,9})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{86}"),
    BLF_CRYPT: re.compile(r"\$2[aby]\$([0-9]{2})\$[./0-9A-Za-z]{53}"),
}
_CRYPT_FORMS: Final = {
    SHA256_CRYPT: "$5$salt$hash or $5$rounds=N$salt$hash",
    SHA512_CRYPT: "$6$salt$hash or $6$rounds=N$salt$hash",
    BLF_CRYPT: "$2y$NN$ with salt and hash",
}
_CRYPT_MODULES: Final = {SHA256_CRYPT: "passlib", SHA512_CRYPT: "passlib", BLF_CRYPT: "bcrypt"}
_BLF_OCTETS: Final = 72  # bcrypt looks at no more of a password

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
    if not text.startswith("{") or not brace:
        raise UnknownScheme("the secret has no scheme before it, such as {ARGON2ID}")
    scheme, _, form = scheme.upper().partition(".")
    if scheme not in SCHEMES or (form and (scheme not in _DIGESTS or form not in ("HEX", "B64", "BASE64"))):
        raise UnknownScheme(f"an unknown scheme; use one of {', '.join(SCHEMES)}")
    if not value:
        raise UnknownScheme("the secret is empty")
    if scheme == ARGON2ID:
        _check_argon2(value)
    elif scheme == SCRAM:
        verifier_of(value)
    elif scheme in _CRYPT:
        _check_crypt(scheme, value)
    elif scheme in _DIGESTS:
        value = _salted_digest(scheme, value, hexadecimal=form == "HEX")
    return Secret(scheme, value)


def lacks_extra(scheme: str) -> bool:
    """Whether secrets of that scheme cannot be checked here, for want of `CRYPT_EXTRA`."""
    return scheme in _CRYPT_MODULES and not _is_there(_CRYPT_MODULES[scheme])


@functools.cache
def _is_there(module: str) -> bool:
    try:
        # not only looked for: once `serve` has become another user, it may not be able to read it any more
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def serves(secret: Secret, kind: SecretKind) -> bool:
    """Whether what a client proves by SCRAM or APOP can be checked against a secret.

    Both sides compute with what SASLprep makes of the password (RFC 5802 §2.2, RFC 6856 §2.2), so a plain secret that
    it refuses serves neither. Logins that send the password compare octets, and need no preparation.
    """
    if secret.scheme == SCRAM:
        return kind == "SCRAM-SHA-256"
    if secret.scheme != PLAIN:
        return False
    try:
        prepared(secret.value.encode())
    except SaslError:
        return False
    return True


def cost_of(secret: Secret) -> tuple[str, str]:
    """Scheme and parameters: two secrets with the same take the same time to check."""
    if secret.scheme == SCRAM:
        return secret.scheme, secret.value.partition(",")[0]
    if secret.scheme in (ARGON2ID, SHA256_CRYPT, SHA512_CRYPT, BLF_CRYPT):
        return secret.scheme, secret.value.rsplit("$", 1 if secret.scheme == BLF_CRYPT else 2)[0]
    return secret.scheme, ""


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
    if parameters.memory_cost * parameters.time_cost > _ARGON2_WORK_MAX:
        raise UnknownScheme(f"the Argon2id hash has memory times passes (m, t) of more than {_ARGON2_WORK_MAX} KiB")
    if parameters.parallelism > _ARGON2_LANES_MAX:
        raise UnknownScheme(f"the Argon2id hash has more than {_ARGON2_LANES_MAX} lanes (p)")


def _check_crypt(scheme: str, value: str) -> None:
    found = _CRYPT[scheme].fullmatch(value)
    if found is None:
        raise UnknownScheme(f"what follows {{{scheme}}} is not {_CRYPT_FORMS[scheme]}")
    (least, most), what = (_BLF_COST, "a cost") if scheme == BLF_CRYPT else (_CRYPT_ROUNDS, "rounds")
    if found[1] is not None and not least <= int(found[1]) <= most:
        raise UnknownScheme(f"{{{scheme}}} has {what} of {least} to {most} here")


def _salted_digest(scheme: str, value: str, *, hexadecimal: bool) -> str:
    """Digest and salt, in base64."""
    try:
        octets = bytes.fromhex(value) if hexadecimal else base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        octets = b""
    salt = len(octets) - hashlib.new(_DIGESTS[scheme]).digest_size
    if not 0 < salt <= _SALT_OCTETS_MAX:
        form = "in hexadecimal digits" if hexadecimal else "in base64"
        raise UnknownScheme(f"what follows {{{scheme}}} is not a digest and its salt {form}")
    return base64.b64encode(octets).decode()


def hashed(secret: str, scheme: str = ARGON2ID) -> str:
    """``{SCHEME}value`` for the users file. Raises `UnknownScheme`."""
    if scheme == ARGON2ID:
        return f"{{{ARGON2ID}}}{_HASHER.hash(secret)}"
    if scheme == SCRAM:
        try:
            made = Verifier.made(secret.encode(), os.urandom(16))
        except SaslError as fault:
            remedy = f"take another password, or --scheme {ARGON2ID.lower()}, which serves PLAIN alone"
            raise UnknownScheme(f"the password cannot be used with SCRAM: {fault}; {remedy}") from None
        parts = (base64.b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key))
        return f"{{{SCRAM}}}{made.iterations},{','.join(parts)}"
    if scheme != PLAIN:
        raise UnknownScheme(f"no secrets are made for that scheme; use {ARGON2ID}, {SCRAM} or {PLAIN}")
    if ":" in secret or not secret.isprintable():
        raise UnknownScheme('a plain secret has no ":" and no control characters; use ARGON2ID')
    return f"{{{PLAIN}}}{secret}"


def matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password``, octets as sent, is the one stored. A secret that cannot be checked matches nothing."""
    if len(password) > PASSWORD_OCTETS_MAX:
        return False
    if stored.scheme == PLAIN:
        return hmac.compare_digest(stored.value.encode(), password)
    if stored.scheme in _DIGESTS:
        return _matches_digest(stored, password)
    try:
        if stored.scheme == SCRAM:
            kept = verifier_of(stored.value)
            return hmac.compare_digest(Verifier.made(password, kept.salt, kept.iterations).server_key, kept.server_key)
        if stored.scheme in _CRYPT:
            return _matches_crypt(stored, password)
        return _HASHER.verify(stored.value, password)
    # a password that SCRAM prohibits; a hash that is another's; one that is faulty behind its parameters
    except (SaslError, argon2.exceptions.VerificationError, ValueError):
        return False


def _matches_digest(stored: Secret, password: bytes) -> bool:
    octets = base64.b64decode(stored.value)
    made = hashlib.new(_DIGESTS[stored.scheme], password)
    digest, salt = octets[: made.digest_size], octets[made.digest_size :]
    made.update(salt)
    return hmac.compare_digest(made.digest(), digest)


def _matches_crypt(stored: Secret, password: bytes) -> bool:
    if lacks_extra(stored.scheme) or b"\0" in password:  # crypt(3) reads up to a NUL, so what is behind would not count
        return False
    if stored.scheme == BLF_CRYPT:
        return bool(importlib.import_module("bcrypt").checkpw(password[:_BLF_OCTETS], stored.value.encode()))
    schemes = importlib.import_module("passlib.hash")
    scheme = schemes.sha256_crypt if stored.scheme == SHA256_CRYPT else schemes.sha512_crypt
    return bool(scheme.verify(password, stored.value))
