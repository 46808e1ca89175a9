"""Hashing and checking secrets by the scheme that stands before them: ``{ARGON2ID}$argon2id$...``.

Pure computation, some of it slow on purpose: `pop3d.auth.hashing` says where it is run. What is slow is bounded when a
secret is read, for a line of the users file must not be able to hold up a core for long.

Here are Argon2, SCRAM and PBKDF2, and which module has the rest: `pop3d.auth.crypt_hashes` and `pop3d.auth.digests`.

The engine's SASL is imported where it is used: reading a secret needs none of it, and `pop3d deliver`, a process for
each message, does no more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import argon2

from pop3d.auth.crypt_hashes import CRYPT_FORMS, CRYPT_SCHEMES, crypt_cost, crypt_matches, lacks_extra, read_crypt
from pop3d.auth.digests import DIGESTS, decoded, digest_matches, read_digest
from pop3d.auth.schemes import (
    ARGON2I,
    ARGON2ID,
    DIGEST_MD5,
    MD5_CRYPT,
    NOT_READ,
    PBKDF2,
    PLAIN,
    PLAIN_MD4,
    PLAIN_MD5,
    SCRAM,
    SCRAM_SHA_1,
    SHA1,
    LockedSecret,
    Secret,
    UnknownScheme,
)

if TYPE_CHECKING:
    from pop3core.sasl.base import SecretKind

__all__ = [
    "ARGON2ID",
    "DUMMY",
    "PASSWORD_OCTETS_MAX",
    "PLAIN",
    "PROVED_BY",
    "SCRAM",
    "LockedSecret",
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

PROVED_BY: Final[Mapping[str, SecretKind]] = {
    "apop": "APOP",
    "scram-sha-256": "SCRAM-SHA-256",
    "scram-sha-256-plus": "SCRAM-SHA-256",
}
"""Mechanisms, by their names in the configuration, that prove a password without sending it, and what `serves` them."""

PASSWORD_OCTETS_MAX: Final = 1024
"""More is never a password: SHA-crypt takes longer for a longer one. PASS has room for some 250 octets."""

# 19 MiB, 2 passes, 1 lane: OWASP's least for Argon2id; a few tens of milliseconds
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_MEMORY_KIB_MAX: Final = 1024 * 1024  # 1 GiB
_ARGON2_WORK_MAX: Final = 8 * 1024 * 1024  # KiB of memory times passes: some seconds
_ARGON2_LANES_MAX: Final = 64  # each lane is a thread

_SCRAM_ITERATIONS: Final = 4096  # RFC 7677 §4 asks for no less
_ITERATIONS_MAX: Final = 1_000_000  # of SCRAM and PBKDF2: some tenths of a second
_BASE64: Final = r"[A-Za-z0-9+/]+={0,2}"
_VERIFIER = re.compile(rf"([0-9]{{1,7}}),({_BASE64}),({_BASE64}),({_BASE64})")
_PBKDF2 = re.compile(r"\$1\$([^$]{1,64})\$([0-9]{1,7})\$([0-9A-Fa-f]{40})")  # as Dovecot writes it: salt, rounds, SHA-1

DUMMY: Final = "$argon2id$v=19$m=19456,t=2,p=1$lwJx2ihb9Ad7BSWo2JEsRQ$9tcbaewwY9Em+eFUfhM05uAl3nxY70FoFng0adJ17lI"
"""What an unknown user's password is checked against, so that it costs what a known one's costs: as `_HASHER` makes it,
but a random salt and digest, of no password. Written down, since to hash one costs each process 30 ms and 19 MiB.
"""

_OTHER_NAMES: Final = {"CLEAR": PLAIN, "CLEARTEXT": PLAIN, "SHA": SHA1, "LDAP-MD5": PLAIN_MD5}
_ENCODINGS: Final = {"": "", "B64": "BASE64", "BASE64": "BASE64", "HEX": "HEX"}
_LOCKED: Final = ("*", "!")  # how crypt(3) and the tools of the shadow file begin what matches no password
_LOCKED_PLAIN: Final = ("*", "!", "!!")  # no other beginning: "!secret" is a password
_IS_LOCKED: Final = "locked: a marker stands where the secret belongs"
# libpam-pwdfile: the kind of hash behind it, as Dovecot reads it too
_PWDFILE: Final = re.compile(r"([^{$].*)\[([0-9]{2})\]")
_PWDFILE_KINDS: Final = {"34": PLAIN_MD5, "56": DIGEST_MD5}


def parse_secret(text: str, name: str = "") -> Secret:
    """Reads ``{SCHEME}value``, or a hash of crypt(3) without a scheme before it. ``name``: of its user, for DIGEST-MD5.

    Raises `UnknownScheme`; of these `LockedSecret` where there is a marker in the place of a secret.
    """
    named, encoding, value = _divided(text)
    named = _OTHER_NAMES.get(named, named)
    if named == PLAIN:
        if value in _LOCKED_PLAIN:
            raise LockedSecret(_IS_LOCKED)
    elif value.startswith(_LOCKED):
        raise LockedSecret(_IS_LOCKED)
    if not value:
        raise UnknownScheme("the secret is empty")
    if named == "MD5":  # either of two
        octets = decoded(value.strip(), encoding) if encoding else value.encode("utf-8", "surrogateescape")
        named = MD5_CRYPT if octets is not None and octets.startswith(b"$1$") else PLAIN_MD5
    if named in DIGESTS:
        return read_digest(named, value.strip(), encoding, name)
    if named == PLAIN_MD4:
        octets = decoded(value.strip(), encoding or "HEX")
        if octets is None or len(octets) != 16:
            raise UnknownScheme(f"what follows {{{named}}} is not a digest in hexadecimal digits")
        return Secret(named, octets.hex())
    if encoding:
        value = _text(named, decoded(value.strip(), encoding))
        if not value:
            raise UnknownScheme("the secret is empty")
    if named == PLAIN:
        return Secret(PLAIN, value)
    return _read(named, value.strip())


def _divided(text: str) -> tuple[str, str, str]:
    """Scheme, encoding and what follows. Raises `UnknownScheme`."""
    scheme, brace, value = text.removeprefix("{").partition("}")
    if text.startswith("{") and brace:
        named, _, form = scheme.upper().partition(".")
        known = named in _OTHER_NAMES or named in DIGESTS or named in CRYPT_SCHEMES or named in _OTHERS
        if named in NOT_READ:
            raise UnknownScheme(f"{{{named}}} is not read: {NOT_READ[named]}")
        if not known or form not in _ENCODINGS:
            raise UnknownScheme(f"an unknown scheme; use {{{ARGON2ID}}}, or another that the documentation lists")
        return named, _ENCODINGS[form], value
    if text == "x":
        raise UnknownScheme("the secret is in another file (`x`), such as /etc/shadow")
    if text.startswith("$1$"):
        return MD5_CRYPT, "", "$".join(text.split("$")[:4])  # Dovecot ignores a "$" behind the hash, and the rest
    if found := _PWDFILE.fullmatch(text):
        return _PWDFILE_KINDS.get(found[2], "CRYPT"), "", found[1]
    if text and not text.startswith(("$", *_LOCKED)) and not re.fullmatch(r"[./0-9A-Za-z]{13}", text):
        raise UnknownScheme(f"the secret has no scheme before it, such as {{{ARGON2ID}}}")
    return "CRYPT", "", text


_OTHERS: Final = frozenset({ARGON2I, ARGON2ID, PBKDF2, PLAIN, PLAIN_MD4, SCRAM, SCRAM_SHA_1, "MD5"})


def _read(named: str, value: str) -> Secret:
    if named in (ARGON2I, ARGON2ID) or (named == "CRYPT" and value.startswith("$argon2")):
        return _argon2(named, value)
    if named in (SCRAM, SCRAM_SHA_1):
        verifier_of(value, named)
        return Secret(named, value)
    if named == PBKDF2:
        found = _PBKDF2.fullmatch(value)
        if found is None:
            raise UnknownScheme(f"what follows {{{PBKDF2}}} is not $1$salt$rounds$hash, the hash in hexadecimal digits")
        if not 1 <= int(found[2]) <= _ITERATIONS_MAX:
            raise UnknownScheme(f"{{{PBKDF2}}} has 1 to {_ITERATIONS_MAX} rounds")
        return Secret(PBKDF2, value)
    return read_crypt(named, value)


def _text(named: str, octets: bytes | None) -> str:
    try:
        if octets is not None:
            return octets.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise UnknownScheme(f"what follows {{{named}}} is not in the encoding that is named")


def serves(secret: Secret, kind: SecretKind) -> bool:
    """Whether what a client proves by SCRAM or APOP can be checked against a secret.

    Both sides compute with what SASLprep makes of the password (RFC 5802 §2.2, RFC 6856 §2.2), so a plain secret that
    it refuses serves neither. Logins that send the password compare octets, and need no preparation.
    """
    if secret.scheme == SCRAM:
        return kind == "SCRAM-SHA-256"
    if secret.scheme != PLAIN:
        return False
    from pop3core.sasl.base import SaslError
    from pop3core.sasl.prep import prepared

    try:
        prepared(secret.value.encode())
    except SaslError:
        return False
    return True


def cost_of(secret: Secret) -> tuple[str, str]:
    """Scheme and parameters: two secrets with the same take the same time to check."""
    if secret.scheme in (SCRAM, SCRAM_SHA_1):
        return secret.scheme, secret.value.partition(",")[0]
    if secret.scheme == PBKDF2:
        return secret.scheme, secret.value.split("$")[3]
    if secret.scheme in CRYPT_FORMS:
        return secret.scheme, crypt_cost(secret)
    if secret.scheme in (ARGON2ID, ARGON2I):
        return secret.scheme, secret.value.rsplit("$", 2)[0]
    return secret.scheme, ""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What SCRAM needs to check a password (RFC 5802 §3), as the users file keeps it."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def made(cls, password: bytes, salt: bytes, iterations: int = _SCRAM_ITERATIONS) -> Verifier:
        """From a password, by SHA-256. Takes milliseconds. Raises `SaslError` for one that SASLprep refuses."""
        from pop3core.sasl.scram import verifier

        return cls(salt, iterations, *verifier(password, salt, iterations))


def verifier_of(value: str, scheme: str = SCRAM) -> Verifier:
    """Reads ``iterations,salt,StoredKey,ServerKey``, the last three in base64. Raises `UnknownScheme`."""
    found = _VERIFIER.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        salt, stored, server = (base64.b64decode(text, validate=True) for text in found.groups()[1:])
    except ValueError:
        raise UnknownScheme(f"what follows {{{scheme}}} is not iterations,salt,StoredKey,ServerKey") from None
    if not _SCRAM_ITERATIONS <= int(found[1]) <= _ITERATIONS_MAX:
        raise UnknownScheme(f"{{{scheme}}} has {_SCRAM_ITERATIONS} to {_ITERATIONS_MAX} iterations")
    return Verifier(salt, int(found[1]), stored, server)


def _argon2(named: str, value: str) -> Secret:
    """Goes by what it begins with, as libsodium does."""
    try:
        parameters = argon2.extract_parameters(value)
    except argon2.exceptions.InvalidHashError:
        parameters = None
    kinds = {argon2.Type.ID: ARGON2ID, argon2.Type.I: ARGON2I}
    if parameters is None or parameters.type not in kinds:
        form = (
            "no Argon2i hash ($argon2i$v=19$m=...)" if named == ARGON2I else "no Argon2id hash ($argon2id$v=19$m=...)"
        )
        raise UnknownScheme(f"what follows {{{named}}} is {form}")
    if parameters.memory_cost > _MEMORY_KIB_MAX:
        raise UnknownScheme(f"the Argon2 hash asks for more than {_MEMORY_KIB_MAX} KiB of memory")
    if parameters.memory_cost * parameters.time_cost > _ARGON2_WORK_MAX:
        raise UnknownScheme(f"the Argon2 hash has memory times passes (m, t) of more than {_ARGON2_WORK_MAX} KiB")
    if parameters.parallelism > _ARGON2_LANES_MAX:
        raise UnknownScheme(f"the Argon2 hash has more than {_ARGON2_LANES_MAX} lanes (p)")
    return Secret(kinds[parameters.type], value)


def hashed(secret: str, scheme: str = ARGON2ID) -> str:
    """``{SCHEME}value`` for the users file. Raises `UnknownScheme`."""
    if scheme == ARGON2ID:
        return f"{{{ARGON2ID}}}{_HASHER.hash(secret)}"
    if scheme == SCRAM:
        from pop3core.sasl.base import SaslError

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
    if secret in _LOCKED_PLAIN:
        raise UnknownScheme("a plain secret of this kind locks the user; use another")
    return f"{{{PLAIN}}}{secret}"


def matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password``, octets as sent, is the one stored. A secret that cannot be checked matches nothing."""
    if len(password) > PASSWORD_OCTETS_MAX:
        return False
    from pop3core.sasl.base import SaslError

    if stored.scheme == PLAIN:
        return hmac.compare_digest(stored.value.encode(), password)
    if stored.scheme in DIGESTS:
        return digest_matches(stored, password)
    try:
        if stored.scheme == SCRAM:
            kept = verifier_of(stored.value)
            return hmac.compare_digest(Verifier.made(password, kept.salt, kept.iterations).server_key, kept.server_key)
        if stored.scheme in (SCRAM_SHA_1, PBKDF2) and b"\0" in password:
            return False  # HMAC takes a NUL at the end of a key for nothing
        if stored.scheme == SCRAM_SHA_1:
            return _matches_scram_sha_1(verifier_of(stored.value), password)
        if stored.scheme == PBKDF2:
            _, _, salt, rounds, digest = stored.value.split("$")
            made = hashlib.pbkdf2_hmac("sha1", password, salt.encode(), int(rounds))
            return hmac.compare_digest(made, bytes.fromhex(digest))
        if stored.scheme in CRYPT_FORMS or stored.scheme == PLAIN_MD4:
            return crypt_matches(stored, password)
        return _HASHER.verify(stored.value, password)
    # a password that SCRAM prohibits; a hash that is another's; one that is faulty behind its parameters
    except (SaslError, argon2.exceptions.VerificationError, ValueError):
        return False


def _matches_scram_sha_1(kept: Verifier, password: bytes) -> bool:
    # Dovecot, who alone has made such, does not prepare the password
    salted = hashlib.pbkdf2_hmac("sha1", password, kept.salt, kept.iterations)
    return hmac.compare_digest(hmac.digest(salted, b"Server Key", "sha1"), kept.server_key)
