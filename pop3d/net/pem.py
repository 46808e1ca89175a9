"""PEM files of certificates and keys: read whole, octet for octet, and judged before clients see them.

What is served is what was judged: OpenSSL gets these octets, and does not read the files again.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import ssl
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from pop3d.net.tls import server_context
from pop3d.system.access import our_name, which_folder_is_closed

__all__ = [
    "KeyPair",
    "PemError",
    "as_file",
    "authority_date_faults",
    "chain_fault",
    "closed_to_us",
    "date_fault",
    "read_authorities",
    "read_pair",
]

_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_ODD_KIND = "of a kind that cannot be served; make or request one of RSA or P-256"
_MAKE = "name the file that is there, or make one with `pop3d cert create --host NAME`"
_OCTETS_MAX = 1024 * 1024  # of a file: a chain has some 10 KiB; a slip must not fill the memory


class PemError(Exception):
    """Files cannot be used. ``faults``: one line each, saying which file, what is wrong and what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its key: PEM, as in the files. ``begins``, ``ends``: in UTC."""

    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    begins: datetime.datetime
    ends: datetime.datetime


def read_pair(certificate: Path, private_key: Path, *, rsa: bool | None = None) -> KeyPair:
    """Both files, which belong together. Raises `PemError`; dates are no fault here, see `date_fault`.

    ``rsa``: whether the key must be an RSA one, or must not be one; None: as it is.
    """
    faults: list[str] = []
    octets = _read(f"certificate {certificate}", certificate, faults, _MAKE)
    chain = _chain(certificate, octets, faults) if octets is not None else []
    secret = _read(f"private key {private_key}", private_key, faults, _MAKE)
    public = _public_half(private_key, secret, faults) if secret is not None else None
    own = _key_of(chain[0]) if chain else None
    if chain and own is None:
        faults.append(f"certificate {certificate}: its key is {_ODD_KIND}")
    if own is not None and public is not None and own.public_bytes(*_PUBLIC) != public:
        faults.append(_mismatch(certificate, private_key, chain, public))
    if own is not None and rsa is not None and isinstance(own, RSAPublicKey) is not rsa:
        faults.append(
            f"certificate {certificate}: its key is {'not ' if rsa else ''}RSA; "
            "`certificate_rsa` is the RSA one, `certificate` beside it another"
        )
    if faults or octets is None or secret is None:
        raise PemError(faults)
    pair = KeyPair(octets, secret, chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)
    try:
        with as_file(octets) as first, as_file(secret) as second:
            server_context(first, second)
    except OSError as fault:
        what = getattr(fault, "reason", None) or fault.strerror or type(fault).__name__
        raise PemError(
            [f"certificate {certificate}: OpenSSL refuses it or its key: {what}; make or request new ones"]
        ) from None
    return pair


def read_authorities(path: Path) -> bytes:
    """A file of certificate authorities. Raises `PemError`."""
    faults: list[str] = []
    remedy = "give the certificate of whoever signs those of clients"
    octets = _read(f"certificate {path}", path, faults, remedy)
    if octets is None or not _chain(path, octets, faults):
        raise PemError(faults)
    return octets


def date_fault(certificate: Path, pair: KeyPair) -> str | None:
    """One line for a certificate that is not valid today, which clients refuse; None for one that is."""
    now = datetime.datetime.now(datetime.UTC)
    if pair.ends < now:
        return f"certificate {certificate}: expired on {pair.ends:%Y-%m-%d}, and clients refuse it; renew it"
    if pair.begins > now:
        begins = f"{pair.begins:%Y-%m-%d %H:%M} UTC"
        return (
            f"certificate {certificate}: not valid before {begins}, and clients refuse it; check this machine's clock"
        )
    return None


def authority_date_faults(path: Path, octets: bytes) -> Iterator[str]:
    """A line for each authority in a file that has expired: clients with a certificate of it are refused."""
    now = datetime.datetime.now(datetime.UTC)
    for one in x509.load_pem_x509_certificates(octets):
        if one.not_valid_after_utc < now:
            who = one.subject.rfc4514_string()
            what = f"{who} in it expired on {one.not_valid_after_utc:%Y-%m-%d}, and certificates of clients by it fail"
            yield f"certificate {path}: {what}; get that of the authority anew"


def chain_fault(certificate: Path) -> tuple[str, str] | None:
    """What is wrong with the chain behind the first certificate, and what to do; None when nothing is.

    It should lead, each certificate signed by the next one, to an authority that this system trusts, or to one that
    signs itself. Raises OSError and ValueError.
    """
    chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    for number, (one, above) in enumerate(pairwise(chain), 1):
        if not _signed(one, above):
            what = f"certificate {number + 1} in the file has not signed certificate {number}"
            return what, "put each one before that of its issuer, beginning with the server's own"
    now = datetime.datetime.now(datetime.UTC)
    for number, one in enumerate(chain[1:], 2):
        if one.not_valid_after_utc < now:
            what = f"certificate {number} in the file, of an issuer, expired on {one.not_valid_after_utc:%Y-%m-%d}"
            return what, "get the chain anew from the authority"
    last = chain[-1]
    if last.issuer == last.subject or any(_signed(last, root) for root in _system_roots(last.issuer)):
        return None
    issuer = last.issuer.rfc4514_string()
    what = f"the certificate of its issuer, {issuer}, is not in the file, and this system does not know it either"
    return what, (
        "clients without that certificate refuse the server: give the file with the whole chain (certbot's "
        "fullchain.pem), unless your clients have it"
    )


def closed_to_us(path: Path) -> str:
    """What to do about a file that this process may not read."""
    if (folder := which_folder_is_closed(path)) is not None:
        return (
            f"{our_name()} cannot enter {folder}: let certbot's deploy hook copy certificate and key, or systemd hand "
            "them over by LoadCredential= (docs/running.md, «With certbot»)"
        )
    return f"give it a group of {our_name()} (chgrp) and mode 0640"


@contextlib.contextmanager
def as_file(octets: bytes) -> Iterator[Path]:
    """A path under which OpenSSL finds these octets, for a while: it loads files only. On Linux it is on no disk."""
    with _nameless() or tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(octets)
        file.flush()
        yield Path(file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.name}")


def _nameless() -> BinaryIO | None:
    """A file in memory, whose name is its number; None where there is no such, or systemd or the kernel forbids it."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return open(os.memfd_create("pem"), "wb")
    except OSError:
        return None


def _read(what: str, path: Path, faults: list[str], remedy: str) -> bytes | None:
    try:
        with path.open("rb") as file:
            octets = file.read(_OCTETS_MAX + 1)
    except OSError as fault:
        if fault.errno in (errno.EACCES, errno.EPERM):
            remedy = closed_to_us(path)
        elif fault.errno == errno.EISDIR:
            remedy = "name the file in it"
        faults.append(f"{what}: {fault.strerror}; {remedy}")
        return None
    if len(octets) > _OCTETS_MAX:
        faults.append(f"{what}: larger than 1 MiB; {remedy}")
        return None
    return octets


def _chain(path: Path, octets: bytes, faults: list[str]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError:
        if (what := _something_else(octets, b"PRIVATE KEY", "a private key")) is None:
            what = "no certificate in PEM form"
            what += "; name a file that has BEGIN CERTIFICATE; `openssl x509 -inform der` makes one of DER"
        faults.append(f"certificate {path}: {what}")
    return []


def _something_else(octets: bytes, label: bytes, what: str) -> str | None:
    """What stands in a file in place of what should."""
    if not octets.strip():
        return "it is empty; put the right file there"
    if b"-----BEGIN " in octets and label + b"-----" in octets:
        return f"it holds {what}; certificate and key are named the wrong way round: exchange the two"
    return None


def _public_half(path: Path, octets: bytes, faults: list[str]) -> bytes | None:
    try:
        key = serialization.load_pem_private_key(octets, password=None)
    except TypeError:
        faults.append(f"private key {path}: it is encrypted; a server cannot ask for its passphrase, so decrypt it")
    except ValueError:
        if (what := _something_else(octets, b"CERTIFICATE", "a certificate")) is None:
            what = "no private key in PEM form"
            what += "; name a file that has BEGIN PRIVATE KEY; `openssl pkey -inform der` makes one of DER"
        faults.append(f"private key {path}: {what}")
    except UnsupportedAlgorithm:
        faults.append(f"private key {path}: it is {_ODD_KIND}")
    else:
        return key.public_key().public_bytes(*_PUBLIC)
    return None


def _mismatch(certificate: Path, private_key: Path, chain: list[x509.Certificate], public: bytes) -> str:
    for number, one in enumerate(chain[1:], 2):
        key = _key_of(one)
        if key is not None and key.public_bytes(*_PUBLIC) == public:
            return (
                f"private key {private_key}: belongs to certificate {number} in {certificate}; "
                "put that one first, and each before that of its issuer"
            )
    return f"private key {private_key}: does not belong to certificate {certificate}; give the right pair"


def _key_of(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    """Its public key; None for one of a kind that is not known here."""
    try:
        return certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _system_roots(name: x509.Name) -> Iterator[x509.Certificate]:
    """Authorities of that name which this system trusts."""
    places = ssl.get_default_verify_paths()
    files = {Path(places.cafile or places.openssl_cafile)}
    with contextlib.suppress(OSError):
        files.update(Path(places.capath or places.openssl_capath).iterdir())
    for file in sorted(files):
        try:
            with warnings.catch_warnings(action="ignore"):  # about old authorities that are not by today's rules
                found = x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError):
            continue
        for root in found:
            with contextlib.suppress(ValueError):  # an authority of old whose name is in no form of today
                if root.subject == name:
                    yield root
