"""Certificates: making one that signs itself, and finding out what is wrong with one before clients do."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pop3d.system.ownership import open_as_root

__all__ = [
    "CertificateFacts",
    "ClientName",
    "covers",
    "create_self_signed",
    "identity_of",
    "shown_by",
]

ClientName: TypeAlias = Literal["email", "cn", "dns"]
"""The field of a client's certificate that says who it is."""

_IDENTITY_MAX = 255  # characters of a user's name
_COMMON_NAME_MAX = 64  # characters (RFC 5280, appendix A)


def create_self_signed(hosts: Sequence[str], out: Path, days: int = 365) -> tuple[Path, Path]:
    """Make ``out/cert.pem`` and ``out/key.pem`` (mode 0600): ECDSA P-256, valid for each of ``hosts``.

    ``hosts``: DNS names and IP addresses; all of them become subjectAltNames, which is what clients check (RFC 6125
    §6.4.4). The certificate signs itself, so a client that is given it as a trusted certificate can verify the server.
    Returns both paths. Raises ValueError for a name that is none, FileExistsError, OSError; overwrites no file.
    """
    names = [_general_name(host) for host in hosts]
    if not names:
        raise ValueError("a certificate is for at least one host")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, names, hosts[0], days)
    out.mkdir(parents=True, exist_ok=True)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path in (out / "cert.pem", out / "key.pem"):
        if path.exists():
            raise FileExistsError(f"{path} is there already; choose another folder with --out, or move it away")
    folder = open_as_root(out) if os.geteuid() == 0 else os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _write(folder, "key.pem", secret, 0o600)
        _write(folder, "cert.pem", pem, 0o644)
    finally:
        os.close(folder)
    return out / "cert.pem", out / "key.pem"


def _write(folder: int, name: str, octets: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, mode, dir_fd=folder), "wb") as file:
        file.write(octets)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not name or any(
        not label or not label.strip("-").replace("-", "").isalnum() for label in name.lstrip("*.").split(".")
    ):
        raise ValueError(f"{host!r} is neither a host name nor an IP address")
    return x509.DNSName(name)


def _certificate(
    key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName], host: str, days: int
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:_COMMON_NAME_MAX])])
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(
        issuer_name=subject,
        subject_name=subject,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(hours=1),  # clocks differ
        not_valid_after=now + datetime.timedelta(days=days),
    )
    # It is its own authority, so strict verification (RFC 5280) wants the extensions of one as well.
    for extension, critical in (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What clients look at.

    ``names``: subjectAltNames, lower case, addresses as text; ``ends``: in UTC; ``rsa_bits``: of the key; 0: not RSA.
    """

    names: frozenset[str]
    ends: datetime.datetime
    rsa_bits: int = 0


def shown_by(certificate: Path) -> CertificateFacts:
    """Of the first certificate in the file. Raises OSError, and ValueError when there is none."""
    first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    key = first.public_key()
    rsa_bits = key.key_size if isinstance(key, RSAPublicKey) else 0
    try:
        alternatives = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return CertificateFacts(frozenset(), first.not_valid_after_utc, rsa_bits)
    names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
    addresses = [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    return CertificateFacts(frozenset(names + addresses), first.not_valid_after_utc, rsa_bits)


def covers(names: Collection[str], host: str) -> bool:
    """Whether a certificate for ``names`` is one for ``host``, a DNS name or an IP address."""
    host = host.lower().removesuffix(".")
    # RFC 6125 §6.4.3: a "*" stands for the whole first label, and for no more
    return host in names or f"*.{host.partition('.')[2]}" in names


def identity_of(certificate: bytes, field: ClientName) -> str | None:
    """Whom a client's certificate (DER, verified already) proves it to be; None when the field does not say.

    ``field``: an address or a DNS name among the subjectAltNames (RFC 5280 §4.2.1.6), or the subject's common name. Of
    several nobody could tell which is meant, so there must be exactly one. A certificate that has ended since it was
    verified, for TLS sessions can be resumed, proves nothing.
    """
    try:
        own = x509.load_der_x509_certificate(certificate)
        if own.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
            return None
        if field == "cn":
            found = [attribute.value for attribute in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        else:
            names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found = list(names.get_values_for_type(x509.RFC822Name if field == "email" else x509.DNSName))
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        return None
    if len(found) != 1 or not isinstance(found[0], str):
        return None
    name = found[0]
    return name if name and name.isprintable() and len(name) <= _IDENTITY_MAX else None
