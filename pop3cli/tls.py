"""Whom to trust, and why somebody is not trusted.

Certificates are verified, names as well as signatures, and nothing here can switch that off. A name counts only when it
stands in the certificate's subjectAltName (RFC 8314 §5.3, RFC 6125 §6.4.4): Python would still accept a common name, so
that is switched off. When a certificate is refused, OpenSSL's reason seldom tells a person what to do. So it is fetched
once more, over a connection on which nothing is sent, and read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pop3cli.errors import CertificateRefused, SettingFault

__all__ = ["client_context", "explain_refusal"]

_LOOK_SECONDS: Final = 10.0
"""Patience with the second handshake, which is for the error's text only."""

# X509_V_ERR_... of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER: Final = frozenset({18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})


def client_context(cacert: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 and up, certificate and name verified, against the system's roots or those in ``cacert`` alone.

    RFC 2595 §2.4, RFC 5034 §4, RFC 8314 §3.1, §5, §5.2: nothing is said to a server that is not verified.
    Raises `SettingFault` when the file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError:
        raise SettingFault(f"--cacert {cacert}", "no certificate in PEM form in it", "give the file with it") from None
    except OSError as fault:
        raise SettingFault(f"--cacert {cacert}", f"cannot be read: {fault.strerror or fault}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if cacert is not None:
        # a server's own certificate may be given, and not only that of who signed it
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What a person may want to know about a certificate. ``names``: DNS names and addresses in its subjectAltName."""

    names: tuple[str, ...]
    common_name: str
    not_before: datetime
    not_after: datetime


async def explain_refusal(host: str, port: int, fault: ssl.SSLCertVerificationError) -> CertificateRefused:
    """The error that says why the certificate of ``host`` was refused, and what to do."""
    what = f"certificate of {host} port {port} refused"
    seen = await _look(host, port)
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
            what, "not signed by anyone trusted", "if it is the right one, give its certificate with --cacert FILE"
        )
    return CertificateRefused(what, fault.verify_message or str(fault.reason))


def _san(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _dated(text: str, seen: _Certificate | None, date: Callable[[_Certificate], datetime]) -> str:
    return text if seen is None else f"{text} ({date(seen):%Y-%m-%d %H:%M} UTC)"


async def _look(host: str, port: int) -> _Certificate | None:
    """The certificate, fetched without trusting it; None when that fails. Nothing is sent on this connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            octets = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return _read(octets)
    except (OSError, ValueError):  # ssl.SSLError and TimeoutError are OSErrors; what cannot be read is a ValueError
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
