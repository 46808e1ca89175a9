"""Whom to trust, and why somebody is not trusted.

Certificates are verified, names as well as signatures. A name counts only when it stands in the certificate's
subjectAltName (RFC 8314 §5.3, RFC 6125 §6.4.4): Python would still accept a common name, so that is switched off. When
a certificate is refused, OpenSSL's reason seldom tells a person what to do. So it is fetched once more, over a
connection on which nothing is sent, and read.

A *pin* names the server's key (or its very certificate) by SHA-256, and takes the place of authorities, names and
dates: who has that private key is the server. Where ``cacert`` is given as well, both must hold. Pins are compared
inside the handshake, so that whoever uses the context cannot say anything before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from pop3cli.errors import CertificateRefused, MailError, SettingFault

__all__ = ["Dial", "client_context", "end_point", "explain_refusal", "parse_pin", "pin_of"]

Dial: TypeAlias = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to a host and port in another way than directly; raises `MailError`, OSError."""

_LOOK_SECONDS: Final = 10.0
"""Patience with the second handshake, which is for the error's text only."""

# X509_V_ERR_... of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER: Final = frozenset({18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})


def client_context(
    cacert: Path | None = None,
    *,
    pins: Sequence[str] = (),
    insecure: bool = False,
    client_cert: Path | None = None,
    client_key: Path | None = None,
    passphrase: Callable[[], bytes] | None = None,
) -> ssl.SSLContext:
    """TLS 1.2 and up, certificate and name verified, against the system's roots or those in ``cacert`` alone.

    RFC 2595 §2.4, RFC 5034 §4, RFC 8314 §3.1, §5, §5.2: nothing is said to a server that is not verified.
    ``pins``: the server's key or certificate is one of these (`parse_pin`); without ``cacert`` nothing else counts.
    ``insecure``: anybody is the server. ``client_cert``, ``client_key``: who we are, in PEM form; the key may stand in
    the certificate's file; ``passphrase`` is asked when it is encrypted. Raises `SettingFault` when one cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError:
        raise SettingFault(f"`cacert` {cacert}", "no certificate in PEM form in it", "give the file with it") from None
    except OSError as fault:
        raise SettingFault(f"`cacert` {cacert}", f"cannot be read: {fault.strerror or fault}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if cacert is not None:
        # a server's own certificate may be given, and not only that of who signed it
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if insecure or (pins and cacert is None):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pins:
        context.sslobject_class = _pinned([parse_pin(pin) for pin in pins])
    if client_cert is not None:
        _load_own(context, client_cert, client_key, passphrase)
    elif client_key is not None:
        raise SettingFault(f"`client_key` {client_key}", "there is no `client_cert`", "give the certificate as well")
    return context


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path | None, ask: Callable[[], bytes] | None) -> None:
    what = f"`client_cert` {certificate}" if key is None else f"`client_cert` {certificate}, `client_key` {key}"
    for path in filter(None, (certificate, key)):
        try:
            with path.open("rb"):
                pass
        except OSError as fault:
            raise SettingFault(f"client certificate {path}", f"cannot be read: {fault.strerror or fault}") from None
    try:
        # without a function to ask, OpenSSL would ask at the terminal itself
        context.load_cert_chain(certificate, key, ask or (lambda: b""))
    except (ssl.SSLError, ValueError, OSError) as fault:
        reason = getattr(fault, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise SettingFault(what, "the key is another certificate's") from None
        raise SettingFault(
            what, "no certificate with its key in PEM form, or a wrong passphrase", "is the key in `client_key`?"
        ) from None


# --- pins ---

_PIN_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}")


def parse_pin(text: str) -> bytes:
    """The 32 octets of a pin: SHA-256 of the server's public key (SubjectPublicKeyInfo, as curl's pins), or of its
    whole certificate (as ``openssl x509 -fingerprint -sha256`` shows it).

    In hexadecimal, with or without colons, or in base64; ``sha256:``, ``sha256//`` may stand before it. Raises
    `SettingFault`.
    """
    bare = re.sub(r"(?i)^sha-?256(?::|//|=|/)", "", text.strip())
    if _PIN_HEX.fullmatch(bare):
        return bytes.fromhex(bare.replace(":", ""))
    try:
        octets = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        octets = b""
    if len(octets) != 32:
        raise SettingFault(
            f"`pins` {text[:80]}", "not a SHA-256 in hexadecimal or base64", "pop3cli check shows the server's pin"
        )
    return octets


def pin_of(certificate: bytes) -> bytes:
    """SHA-256 of the public key of a certificate in DER form. Raises ValueError when it cannot be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class PinMismatch(ssl.SSLCertVerificationError):
    """The server is another than the pinned one. ``seen``: the pin it would have."""

    def __init__(self, seen: str) -> None:
        super().__init__("the pin does not match")
        self.seen = seen


def _pinned(pins: Sequence[bytes]) -> type[ssl.SSLObject]:
    """Connections whose handshake fails unless the server's key or certificate is among ``pins``."""

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            certificate = self.getpeercert(binary_form=True) or b""
            if _among(hashlib.sha256(certificate).digest(), pins):
                return
            try:
                seen = pin_of(certificate)
            except ValueError:
                raise PinMismatch("unreadable") from None
            if not _among(seen, pins):
                raise PinMismatch(f"sha256:{seen.hex()}")

    return Pinned


def _among(digest: bytes, pins: Sequence[bytes]) -> bool:
    return any(hmac.compare_digest(digest, pin) for pin in pins)


def end_point(certificate: bytes) -> bytes | None:
    """tls-server-end-point of a server's certificate in DER form (RFC 5929 §4.1); None when it has none."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    # SHA-256 in place of MD5 and SHA-1; a signature without a hash of its own has no binding that all agree on
    if algorithm is None:
        return None
    return hashlib.new("sha256" if algorithm.name in ("md5", "sha1") else algorithm.name, certificate).digest()


# --- why somebody is not trusted ---


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What a person may want to know about a certificate. ``names``: DNS names and addresses in its subjectAltName."""

    names: tuple[str, ...]
    common_name: str
    not_before: datetime
    not_after: datetime


async def explain_refusal(
    host: str, port: int, fault: ssl.SSLCertVerificationError, dial: Dial | None = None
) -> CertificateRefused:
    """The error that says why the certificate of ``host`` was refused, and what to do. ``dial``: as for `Session`."""
    what = f"certificate of {host} port {port} refused"
    if isinstance(fault, PinMismatch):
        # RFC 8314 §5.4: the other key is not offered as the next pin
        remedy = "unless the server is known to have a new key, somebody else answers in its place: do not go on"
        return CertificateRefused(what, f"its key is {fault.seen}, which is not pinned", remedy)
    seen = await _look(host, port, dial)
    if seen is not None and not seen.names:
        return CertificateRefused(
            what,
            f"it has only a common name ({seen.common_name or 'empty'}) and no subjectAltName, so it names no host",
            f"make a good one on the server: pop3d cert create --host {host}"
            f" (or openssl req ... -addext subjectAltName={_san(host)})",
        )
    if fault.verify_code in _WRONG_NAME:
        whose = f"it is for {', '.join(seen.names[:8])}" if seen is not None else "it is for another name"
        return CertificateRefused(
            what, f"{whose}, not for {host}", "connect by a name it has, or get one for this name"
        )
    if fault.verify_code == _EXPIRED:
        return CertificateRefused(what, _dated("it expired", seen, lambda c: c.not_after), "the server needs a new one")
    if fault.verify_code == _NOT_YET_VALID:
        why = _dated("it is not valid yet", seen, lambda c: c.not_before)
        return CertificateRefused(what, why, "check this machine's clock")
    if fault.verify_code in _UNKNOWN_ISSUER:
        return CertificateRefused(
            what, "not signed by anyone trusted", "if it is the right one, give its certificate with `cacert=FILE`"
        )
    return CertificateRefused(what, fault.verify_message or str(fault.reason))


def _san(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _dated(text: str, seen: _Certificate | None, date: Callable[[_Certificate], datetime]) -> str:
    return text if seen is None else f"{text} ({date(seen):%Y-%m-%d %H:%M} UTC)"


async def _look(host: str, port: int, dial: Dial | None) -> _Certificate | None:
    """The certificate, fetched without trusting it; None when that fails. Nothing is sent on this connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            if dial is None:
                _, writer = await asyncio.open_connection(host, port, ssl=context)
            else:
                sock = await dial(host, port)
                _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host)
        try:
            octets = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return _read(octets)
    except (
        OSError,
        ValueError,
        MailError,
    ):  # ssl.SSLError and TimeoutError are OSErrors; what cannot be read is a ValueError
        return None


def _read(octets: bytes) -> _Certificate:
    from cryptography import x509  # needed only when something is wrong, and slow to import

    certificate = x509.load_der_x509_certificate(octets)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found: list[str] = []
    else:
        found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return _Certificate(
        tuple(found),
        str(common[0].value) if common else "",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
