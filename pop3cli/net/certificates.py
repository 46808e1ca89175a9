"""What a server's certificates say, read from a connection, trusted or not."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pop3cli.net.tls import pin_of

__all__ = ["Certificate", "chain_of", "read_certificate"]

_CHAIN_MAX = 10
"""Certificates of a chain that are read; real ones have two to four."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. ``names``: DNS names and addresses of its subjectAltName; ``key``: such as ``RSA 2048``;
    ``fingerprint``, ``pin``: SHA-256 of all of it and of its public key, in hexadecimal.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str
    signature: str
    serial: str
    fingerprint: str
    pin: str

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.not_after - now).days

    def as_json(self) -> dict[str, Any]:
        """The same for programs; dates in ISO 8601."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "names": list(self.names),
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "days_left": self.days_left(datetime.now(UTC)),
            "key": self.key,
            "signature": self.signature,
            "serial": self.serial,
            "fingerprint": self.fingerprint,
            "pin": self.pin,
        }


def chain_of(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates a server sent, in DER form, its own first; that one alone where Python does not show more."""
    own = tls.getpeercert(binary_form=True)
    sent: list[bytes] = []
    newer = getattr(tls, "get_unverified_chain", None)  # Python 3.13
    older = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)
    if newer is not None:
        sent = list(newer())
    elif older is not None:
        sent = [one.public_bytes(2) for one in older() or ()]  # 2: _ssl.ENCODING_DER
    return (sent or ([own] if own else []))[:_CHAIN_MAX]


def read_certificate(octets: bytes) -> Certificate:
    """A certificate in DER form. Raises ValueError when it cannot be read."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    certificate = x509.load_der_x509_certificate(octets)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    except x509.ExtensionNotFound:
        found = ()
    try:
        key = certificate.public_key()
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm as fault:
        raise ValueError(str(fault)) from None
    kind, size = type(key).__name__.removesuffix("PublicKey"), getattr(key, "key_size", "")
    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        found,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        f"{kind} {size}".strip(),
        "none" if algorithm is None else algorithm.name,
        f"{certificate.serial_number:x}",
        certificate.fingerprint(hashes.SHA256()).hex(),
        pin_of(octets).hex(),
    )
