"""Hashes of crypt(3), which go by what they begin with: ``$1$`` ``$2y$`` ``$5$`` ``$6$`` ``$y$``.

The system's libcrypt checks them where it knows them (`is_native`), without the interpreter's lock: that of libxcrypt,
which all Linux distributions but those with musl have. Elsewhere it takes the extra `crypt`, which has no yescrypt. So
has MD4, which OpenSSL no longer offers. A secret that nothing here can check is read all the same (`lacks_extra`), but
matches nothing. DES is not read: eight characters of a password count, and all of them can be tried.
"""

from __future__ import annotations

import ctypes
import functools
import hmac
import importlib
import re
from dataclasses import dataclass
from typing import Final

from pop3d.auth.schemes import (
    BLF_CRYPT,
    MD5_CRYPT,
    PLAIN_MD4,
    SHA256_CRYPT,
    SHA512_CRYPT,
    YESCRYPT,
    Secret,
    UnknownScheme,
)
from pop3d.extras import install_line

__all__ = [
    "CRYPT_FORMS",
    "CRYPT_SCHEMES",
    "crypt_cost",
    "crypt_matches",
    "is_native",
    "lacks_extra",
    "read_crypt",
    "remedy",
]

_ROUNDS: Final = (1_000, 1_000_000)  # of SHA-crypt: the specification's least; a second or two
_BLF_COST: Final = (4, 16)  # the algorithm's least; 2 to the power of that many rounds: some seconds
_YESCRYPT_OCTETS_MAX: Final = 1024 * 1024 * 1024  # of memory: a second or two
_BLF_OCTETS: Final = 72  # bcrypt looks at no more of a password
_DIGITS: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of crypt(3), in their order


@dataclass(frozen=True, slots=True)
class _CryptForm:
    """``pattern``: of the whole, with what it costs as groups; ``shown``: for people; ``module``: of the extra.

    ``samples``: parameters and salt of each way to begin, from which libcrypt can tell whether it knows it.
    """

    begins: tuple[str, ...]
    pattern: re.Pattern[str]
    shown: str
    module: str
    samples: tuple[str, ...]


# Salts of other characters are read by no library.
CRYPT_FORMS: Final = {
    MD5_CRYPT: _CryptForm(
        ("$1$",),
        re.compile(r"\$1\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22}"),
        "$1$salt$hash",
        "passlib",
        ("$1$saltsalt",),
    ),
    SHA256_CRYPT: _CryptForm(
        ("$5$",),
        re.compile(r"\$5\$(?:rounds=([0-9]{1,9})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{43}"),
        "$5$salt$hash or $5$rounds=N$salt$hash",
        "passlib",
        ("$5$saltsalt",),
    ),
    SHA512_CRYPT: _CryptForm(
        ("$6$",),
        re.compile(r"\$6\$(?:rounds=([0-9]{1,9})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{86}"),
        "$6$salt$hash or $6$rounds=N$salt$hash",
        "passlib",
        ("$6$saltsalt",),
    ),
    BLF_CRYPT: _CryptForm(
        ("$2a$", "$2b$", "$2y$"),
        re.compile(r"\$2[aby]\$([0-9]{2})\$[./0-9A-Za-z]{53}"),
        "$2y$NN$ with salt and hash",
        "bcrypt",
        tuple(f"$2{letter}$05$abcdefghijklmnopqrstuu" for letter in "aby"),
    ),
    # j: the kind; then N and r, a digit each. More parameters are used by nobody.
    YESCRYPT: _CryptForm(
        ("$y$",),
        re.compile(r"\$y\$j([./0-9A-Za-z])([./0-9A-Za-j])\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}"),
        "$y$jNr$salt$hash",
        "libcrypt",
        ("$y$j9T$saltsalt",),
    ),
}
CRYPT_SCHEMES: Final = frozenset({"CRYPT", "DES-CRYPT", BLF_CRYPT, MD5_CRYPT, SHA256_CRYPT, SHA512_CRYPT})
"""Names of schemes that stand before such a hash. Dovecot lets crypt(3) see what follows most of them."""

_DES: Final = re.compile(r"[./0-9A-Za-z]{13}|_[./0-9A-Za-z]{19}")
_READ: Final = "$1$, $2a$, $2b$, $2y$, $5$, $6$ and $y$"


def read_crypt(named: str, value: str) -> Secret:
    """The secret of a hash under ``{named}``. Raises `UnknownScheme`."""
    scheme = next((name for name, form in CRYPT_FORMS.items() if value.startswith(form.begins)), None)
    if scheme is None:
        if _DES.fullmatch(value):
            raise UnknownScheme("a DES hash is not read: only 8 characters of the password count")
        if named in CRYPT_FORMS:
            raise UnknownScheme(f"what follows {{{named}}} is not {CRYPT_FORMS[named].shown}")
        raise UnknownScheme(f"what follows {{{named}}} is no hash of crypt(3) that is read: {_READ} are")
    form = CRYPT_FORMS[scheme]
    found = form.pattern.fullmatch(value)
    if found is None:
        raise UnknownScheme(f"what follows {{{named}}} is not {form.shown}")
    if scheme == YESCRYPT:
        if _yescrypt_octets(found[1], found[2]) > _YESCRYPT_OCTETS_MAX:
            raise UnknownScheme(f"the yescrypt hash asks for more than {_YESCRYPT_OCTETS_MAX} octets of memory")
    elif scheme != MD5_CRYPT and found[1] is not None:
        (least, most), what = (_BLF_COST, "a cost") if scheme == BLF_CRYPT else (_ROUNDS, "rounds")
        if not least <= int(found[1]) <= most:
            raise UnknownScheme(f"{{{scheme}}} has {what} of {least} to {most} here")
    return Secret(scheme, value)


def _yescrypt_octets(n: str, r: str) -> int:
    """Of memory: 128 r N. Each is stored as a digit, N as its logarithm, both less one."""
    return 128 * (_DIGITS.index(r) + 1) << min(_DIGITS.index(n) + 1, 64)


def crypt_cost(stored: Secret) -> str:
    """What stands before salt and hash: with the same, two take the same time."""
    return stored.value.rsplit("$", 1 if stored.scheme == BLF_CRYPT else 2)[0]


def crypt_matches(stored: Secret, password: bytes) -> bool:
    """Whether ``password`` is that of a secret of `CRYPT_FORMS`, or PLAIN-MD4. Raises ValueError for a faulty one."""
    if lacks_extra(stored.scheme) or b"\0" in password:  # crypt(3) reads up to a NUL, so what is behind would not count
        return False
    if is_native(stored.scheme):
        return _libcrypt_matches(password[:_BLF_OCTETS] if stored.scheme == BLF_CRYPT else password, stored.value)
    if stored.scheme == BLF_CRYPT:
        return bool(importlib.import_module("bcrypt").checkpw(password[:_BLF_OCTETS], stored.value.encode()))
    schemes = importlib.import_module("passlib.hash")
    scheme = {
        MD5_CRYPT: schemes.md5_crypt,
        SHA256_CRYPT: schemes.sha256_crypt,
        SHA512_CRYPT: schemes.sha512_crypt,
        PLAIN_MD4: schemes.hex_md4,
    }[stored.scheme]
    return bool(scheme.verify(password, stored.value))


# --- what they need ---


def is_native(scheme: str) -> bool:
    """Whether the system's libcrypt checks secrets of that scheme."""
    return scheme in CRYPT_FORMS and scheme in _native_schemes()


def lacks_extra(scheme: str) -> bool:
    """Whether secrets of that scheme cannot be checked here; `remedy` says what to do."""
    module = "passlib" if scheme == PLAIN_MD4 else CRYPT_FORMS[scheme].module if scheme in CRYPT_FORMS else None
    return module is not None and not is_native(scheme) and not _is_there(module)


def remedy(scheme: str) -> str:
    """What to do where `lacks_extra`."""
    return "install libcrypt of libxcrypt (Debian: libcrypt1)" if scheme == YESCRYPT else install_line("crypt")


@functools.cache
def _is_there(module: str) -> bool:
    try:
        # not only looked for: once `serve` has become another user, it may not be able to read it any more
        importlib.import_module(module)
    except ImportError:
        return False
    return True


# --- libcrypt ---

_SCRATCH_OCTETS: Final = 32768  # libxcrypt's struct crypt_data
_KNOWN: Final = (0, 3, 4)  # crypt_checksalt(3): good, of an old method, of one that is too cheap


@functools.cache
def _libcrypt() -> ctypes.CDLL | None:
    """libxcrypt's, whose crypt_rn(3) is safe in threads."""
    for name in ("libcrypt.so.2", "libcrypt.so.1"):
        try:
            library = ctypes.CDLL(name)
            library.crypt_rn.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
            library.crypt_rn.restype = ctypes.c_char_p
            library.crypt_checksalt.argtypes = (ctypes.c_char_p,)
        except (OSError, AttributeError):
            continue
        return library
    return None


@functools.cache
def _native_schemes() -> frozenset[str]:
    library = _libcrypt()
    if library is None:
        return frozenset()
    return frozenset(
        scheme
        for scheme, form in CRYPT_FORMS.items()
        if all(library.crypt_checksalt(sample.encode()) in _KNOWN for sample in form.samples)
    )


def _libcrypt_matches(password: bytes, stored: str) -> bool:
    """It takes up to 512 octets; a longer password matches nothing."""
    library = _libcrypt()
    assert library is not None
    scratch = ctypes.create_string_buffer(_SCRATCH_OCTETS)
    made = library.crypt_rn(password, stored.encode(), scratch, _SCRATCH_OCTETS)
    return made is not None and hmac.compare_digest(made, stored.encode())
