"""The names of password schemes, and what a stored secret is once it has been read.

The names are Dovecot's (``doveadm pw -l``), but for `YESCRYPT`, which stands under ``{CRYPT}`` there. Several names of
one thing become one: ``{CLEAR}`` is `PLAIN`, ``{SHA}`` is `SHA1`, ``{LDAP-MD5}`` is `PLAIN_MD5`, and ``{CRYPT}`` is
what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "ARGON2I",
    "ARGON2ID",
    "BLF_CRYPT",
    "DIGEST_MD5",
    "MD5_CRYPT",
    "NOT_READ",
    "PBKDF2",
    "PLAIN",
    "PLAIN_MD4",
    "PLAIN_MD5",
    "SCHEMES",
    "SCRAM",
    "SCRAM_SHA_1",
    "SHA1",
    "SHA256",
    "SHA256_CRYPT",
    "SHA512",
    "SHA512_CRYPT",
    "SMD5",
    "SSHA",
    "SSHA256",
    "SSHA512",
    "WEAK",
    "YESCRYPT",
    "LockedSecret",
    "Secret",
    "UnknownScheme",
]

ARGON2I: Final = "ARGON2I"
ARGON2ID: Final = "ARGON2ID"
BLF_CRYPT: Final = "BLF-CRYPT"
DIGEST_MD5: Final = "DIGEST-MD5"
MD5_CRYPT: Final = "MD5-CRYPT"
PBKDF2: Final = "PBKDF2"
PLAIN: Final = "PLAIN"
PLAIN_MD4: Final = "PLAIN-MD4"
PLAIN_MD5: Final = "PLAIN-MD5"
SCRAM: Final = "SCRAM-SHA-256"
SCRAM_SHA_1: Final = "SCRAM-SHA-1"
SHA1: Final = "SHA1"
SHA256: Final = "SHA256"
SHA256_CRYPT: Final = "SHA256-CRYPT"
SHA512: Final = "SHA512"
SHA512_CRYPT: Final = "SHA512-CRYPT"
SMD5: Final = "SMD5"
SSHA: Final = "SSHA"
SSHA256: Final = "SSHA256"
SSHA512: Final = "SSHA512"
YESCRYPT: Final = "YESCRYPT"

SCHEMES: Final = (
    ARGON2ID,
    ARGON2I,
    YESCRYPT,
    BLF_CRYPT,
    SHA512_CRYPT,
    SHA256_CRYPT,
    PBKDF2,
    SCRAM,
    SCRAM_SHA_1,
    MD5_CRYPT,
    SSHA512,
    SHA512,
    SSHA256,
    SHA256,
    SSHA,
    SHA1,
    SMD5,
    PLAIN_MD5,
    PLAIN_MD4,
    DIGEST_MD5,
    PLAIN,
)
"""All that can be read, the slowest first."""

WEAK: Final = frozenset({MD5_CRYPT, SHA512, SHA256, SSHA, SHA1, SMD5, PLAIN_MD5, PLAIN_MD4, DIGEST_MD5})
"""Broken digests, and digests without a salt: whoever gets the file finds most passwords in hours."""

_ONE_TIME: Final = "one-time passwords are not supported"
_STATE: Final = "it keeps a state of MD5 for one mechanism, which no password can be compared with here"
NOT_READ: Final[Mapping[str, str]] = {
    "CRAM-MD5": _STATE,
    "HMAC-MD5": _STATE,
    "LANMAN": "it is broken: seven characters at a time can be tried",
    "NTLM": "it serves a mechanism that is not supported",
    "OTP": _ONE_TIME,
    "PLAIN-TRUNC": "it takes any longer password that begins so",
    "RPA": "it serves a mechanism that is not supported",
    "SKEY": _ONE_TIME,
}
"""Schemes of Dovecot that cannot be used, and why."""


class UnknownScheme(ValueError):
    """A secret cannot be used; the text says why and never shows it."""


class LockedSecret(UnknownScheme):
    """There is a marker in the place of a secret, such as ``*`` or ``!``: nobody is to log in with a password."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A stored secret: ``scheme`` one of `SCHEMES`, ``value`` in that scheme's form."""

    scheme: str
    value: str = field(repr=False)
