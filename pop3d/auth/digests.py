"""Passwords stored as one digest, with a salt or without: what LDAP servers and old mail servers leave behind.

Checked in microseconds. Sources: slappasswd(8) of OpenLDAP ({SHA}, {SSHA}, {MD5}, {SMD5}), and Dovecot's
``password-scheme.c``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pop3d.auth.schemes import (
    DIGEST_MD5,
    PLAIN_MD5,
    SHA1,
    SHA256,
    SHA512,
    SMD5,
    SSHA,
    SSHA256,
    SSHA512,
    Secret,
    UnknownScheme,
)

__all__ = ["DIGESTS", "decoded", "digest_matches", "read_digest"]

_SALT_OCTETS_MAX: Final = 64  # of SSHA; what is in use has 4 to 16


@dataclass(frozen=True, slots=True)
class _DigestForm:
    """``salted``: whatever follows the digest is hashed behind the password."""

    algorithm: str
    salted: bool = False
    hexadecimal: bool = False  # what is said where no encoding is named; both are taken


DIGESTS: Final[Mapping[str, _DigestForm]] = {
    SHA1: _DigestForm("sha1"),
    SHA256: _DigestForm("sha256"),
    SHA512: _DigestForm("sha512"),
    SMD5: _DigestForm("md5", salted=True),
    SSHA: _DigestForm("sha1", salted=True),
    SSHA256: _DigestForm("sha256", salted=True),
    SSHA512: _DigestForm("sha512", salted=True),
    PLAIN_MD5: _DigestForm("md5", hexadecimal=True),
    DIGEST_MD5: _DigestForm("md5", hexadecimal=True),
}


def read_digest(scheme: str, text: str, encoding: str, name: str) -> Secret:
    """The secret of a scheme of `DIGESTS`: its value is digest and salt in base64. Raises `UnknownScheme`.

    ``encoding``: ``HEX``, ``BASE64``, or empty where none is named: then a digest without a salt may be in either.
    ``name``: of the user, which DIGEST-MD5 hashes too, as ``name:realm:`` before the password.
    """
    form = DIGESTS[scheme]
    size = hashlib.new(form.algorithm, usedforsecurity=False).digest_size
    how = "hexadecimal digits" if encoding == "HEX" or (form.hexadecimal and not encoding) else "base64"
    if not encoding and not form.salted:
        encoding = "HEX" if len(text) == 2 * size and _is_hexadecimal(text) else "BASE64"
    octets = decoded(text, encoding or "BASE64") or b""
    salt = len(octets) - size
    if not (0 < salt <= _SALT_OCTETS_MAX if form.salted else salt == 0):
        what = "a digest and its salt" if form.salted else "a digest"
        raise UnknownScheme(f"what follows {{{scheme}}} is not {what} in {how}")
    if scheme == DIGEST_MD5:
        user, _, realm = name.rpartition("@") if "@" in name else (name, "", "")
        octets += f"{user}:{realm}:".encode()
    return Secret(scheme, base64.b64encode(octets).decode())


def decoded(text: str, encoding: str) -> bytes | None:
    """``text`` in ``HEX`` or ``BASE64``, with padding or without; None when it is not."""
    try:
        if encoding == "HEX":
            return bytes.fromhex(text) if _is_hexadecimal(text) else None
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)


def digest_matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password`` is that of a secret that `read_digest` made."""
    octets = base64.b64decode(stored.value)
    made = hashlib.new(DIGESTS[stored.scheme].algorithm, usedforsecurity=False)
    digest, salt = octets[: made.digest_size], octets[made.digest_size :]
    for part in (salt, password) if stored.scheme == DIGEST_MD5 else (password, salt):
        made.update(part)
    return hmac.compare_digest(made.digest(), digest)
