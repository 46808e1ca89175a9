"""A certificate authority for tests: certificates of servers and of clients, with keys of either kind."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Issues certificates; its own is ``folder/NAME.pem``."""

    def __init__(
        self, folder: Path, name: str = "authority", above: "Authority | None" = None, *, days: float = 365
    ) -> None:
        """``above``: who signs its certificate; None: itself."""
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._above = above or self
        folder.mkdir(exist_ok=True)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        own = (
            self._above._builder(name, self._key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        self.certificate = self._above._write(folder / f"{name}.pem", own)

    def issue(
        self,
        file: str,
        *,
        dns: Sequence[str] = (),
        emails: Sequence[str] = (),
        cn: Sequence[str] = ("somebody",),
        key: str = "ec",
        client: bool = False,
        days: float = 30,
    ) -> tuple[Path, Path]:
        """``folder/FILE.pem`` and ``folder/FILE.key``."""
        private = rsa.generate_private_key(65537, 2048) if key == "rsa" else ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(cn, private.public_key(), days)
        names: list[x509.GeneralName] = [x509.RFC822Name(email) for email in emails]
        for name in dns:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                names.append(x509.DNSName(name))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        secret = self.folder / f"{file}.key"
        secret.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(self.folder / f"{file}.pem", builder), secret

    def _builder(self, cn: str | Sequence[str], public, days: float) -> x509.CertificateBuilder:
        names = [cn] if isinstance(cn, str) else cn
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=NOW - datetime.timedelta(days=2),
            not_valid_after=NOW + datetime.timedelta(days=days),
        )
        # verification that is strict (RFC 5280), as Python 3.13 has it, wants both
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(public)
        return builder.add_extension(by, critical=False).add_extension(own, critical=False)

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> Path:
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path
