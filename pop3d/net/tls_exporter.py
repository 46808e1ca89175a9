"""TLS by pyOpenSSL, which can tell tls-exporter (RFC 9266), the channel binding of TLS 1.3; the ssl module cannot.

For servers that offer SCRAM-SHA-256-PLUS; the extra ``channel-binding`` brings pyOpenSSL. It takes more of the
processor than the ssl module, and is used for nothing else.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL

from pop3d.net.tls import CIPHERS, RECORD, Bindings, Contexts, Pair

__all__ = ["ExporterLayer", "exporter_tls"]

_LABEL: Final = b"EXPORTER-Channel-Binding"  # RFC 9266 §2
_LABEL_OCTETS: Final = 32
_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_PIECE: Final = 64 * 1024  # octets of ciphertext taken at a time
_SESSIONS: Final = b"pop3d"  # without a name of its own no session can be resumed where certificates are asked for


def _fault(error: SSL.Error) -> ssl.SSLError:
    """The same as the ssl module raises; ``reason`` is OpenSSL's, in words."""
    reasons = [entry[-1] for entry in error.args[0] if entry[-1]] if error.args and type(error) is SSL.Error else []
    text = str(reasons[-1]) if reasons else "the connection was closed"
    fault = ssl.SSLError(ssl.SSL_ERROR_SSL, text)
    fault.reason = text
    return fault


@dataclass(frozen=True, slots=True)
class _ExporterTls:
    contexts: Contexts[SSL.Context]

    def layer(self) -> ExporterLayer:
        return ExporterLayer(self.contexts.default, self.contexts.end_points)


def _context(pairs: Sequence[Pair], minimum_version: str, client_ca: Path | None) -> SSL.Context:
    """As `pop3d.net.tls.server_context` makes it. Raises ssl.SSLError, and OSError for a file that cannot be read."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[minimum_version])
    context.set_cipher_list(CIPHERS.encode())
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_id(_SESSIONS)
    try:
        for certificate, private_key in pairs:
            certificate.open("rb").close()  # for an OSError that says why
            context.use_certificate_chain_file(certificate)
            context.use_privatekey(_key(private_key))
            context.check_privatekey()
        if client_ca is not None:
            client_ca.open("rb").close()
            context.load_verify_locations(client_ca)
            context.load_client_ca(os.fsencode(client_ca))  # whose certificates the client is asked for
            context.set_verify(SSL.VERIFY_PEER)
    except SSL.Error as error:
        raise _fault(error) from None
    return context


def _key(private_key: Path) -> EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey | Ed448PrivateKey:
    try:
        # no passphrase: an encrypted key is a fault
        key = load_pem_private_key(private_key.read_bytes(), password=None)
    except (TypeError, ValueError) as fault:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"{private_key}: {fault}") from None
    if not isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey | Ed448PrivateKey):
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"{private_key}: a key of this kind is not for TLS")
    return key


def exporter_tls(
    certificate: Path,
    private_key: Path,
    minimum_version: str = "1.2",
    *,
    more: Sequence[Pair] = (),
    names: Mapping[str, Sequence[Pair]] = MappingProxyType({}),
    client_ca: Path | None = None,
) -> _ExporterTls:
    """As `pop3d.net.tls.server_tls`, but with tls-exporter behind TLS 1.3. Raises OSError and ValueError like that."""

    def make(pairs: Sequence[Pair]) -> SSL.Context:
        return _context(pairs, minimum_version, client_ca)

    contexts = Contexts(make, ((certificate, private_key), *more), names)

    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace")
        if (chosen := contexts.for_name(name)) is not None:
            connection.set_context(chosen)

    if names:
        contexts.default.set_tlsext_servername_callback(choose)
    return _ExporterTls(contexts)


class ExporterLayer:
    """A `pop3d.net.tls.Layer` by pyOpenSSL. ``end_points``: see `pop3d.net.tls.Contexts`."""

    __slots__ = ("_connection", "_context", "_end_points", "_fed", "_output", "_shut", "ended", "established")

    def __init__(
        self, context: SSL.Context, end_points: Mapping[SSL.Context, bytes | None] = MappingProxyType({})
    ) -> None:
        self._context = context
        self._end_points = end_points
        self._connection: SSL.Connection | None = None
        self._fed = False  # there may be octets that OpenSSL has not looked at
        self._output = b""
        self._shut = False  # we have said that we send nothing more
        self.established = False
        self.ended = False

    @property
    def version(self) -> str:
        """See `pop3d.net.tls.Layer`."""
        return self._made.get_protocol_version_name() if self.established else ""

    @property
    def cipher(self) -> str:
        """See `pop3d.net.tls.Layer`."""
        return (self._made.get_cipher_name() or "") if self.established else ""

    @property
    def peer_certificate(self) -> bytes | None:
        """See `pop3d.net.tls.Layer`."""
        certificate = self._made.get_peer_certificate(as_cryptography=True) if self.established else None
        return certificate.public_bytes(Encoding.DER) if certificate is not None else None

    @property
    def bindings(self) -> Bindings:
        """See `pop3d.net.tls.Layer`."""
        if not self.established:
            return Bindings()
        exporter = None
        # RFC 9266 §4.2: before TLS 1.3 it needs an extension, of which OpenSSL does not tell whether the client has it
        if self._made.get_protocol_version() >= SSL.TLS1_3_VERSION:
            exporter = self._made.export_keying_material(_LABEL, _LABEL_OCTETS)
        return Bindings(self._end_points.get(self._made.get_context()), exporter)

    @property
    def has_input(self) -> bool:
        """See `pop3d.net.tls.Layer`."""
        return self._fed

    @property
    def has_output(self) -> bool:
        """See `pop3d.net.tls.Layer`."""
        self._collect()
        return bool(self._output)

    @property
    def _made(self) -> SSL.Connection:
        assert self._connection is not None
        return self._connection

    def receive(self, data: bytes) -> None:
        """See `pop3d.net.tls.Layer`."""
        if self._connection is None:
            # made with the first octet only: a connection that says nothing costs nothing
            self._connection = SSL.Connection(self._context)
            self._connection.set_accept_state()
        self._fed = True
        if data:
            self._connection.bio_write(data)
        else:
            self._connection.bio_shutdown()

    def handshake(self) -> bool:
        """See `pop3d.net.tls.Layer`."""
        if self._connection is None:
            return False
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._fed = False
            return False
        except SSL.Error as error:
            raise _fault(error) from None
        self.established = True
        return True

    def read(self) -> bytes:
        """See `pop3d.net.tls.Layer`."""
        pieces = []
        try:
            while True:
                pieces.append(self._made.recv(RECORD))
        except SSL.WantReadError:
            self._fed = False
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            raise _fault(error) from None
        return b"".join(pieces)

    def write(self, data: bytes) -> None:
        """See `pop3d.net.tls.Layer`."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._made.send(view) :]  # a record at a time
        except SSL.Error as error:
            raise _fault(error) from None

    def shut_down(self) -> None:
        """See `pop3d.net.tls.Layer`."""
        if self.established and not self._shut:
            self._shut = True
            # the peer went already: what could be said is in the output
            with contextlib.suppress(SSL.Error):
                self._made.shutdown()

    def take_output(self) -> bytes:
        """See `pop3d.net.tls.Layer`."""
        self._collect()
        output, self._output = self._output, b""
        return output

    def _collect(self) -> None:
        pieces = [self._output]
        if self._connection is not None:
            with contextlib.suppress(SSL.WantReadError):  # there is no more
                while True:
                    pieces.append(self._connection.bio_read(_PIECE))
        self._output = b"".join(pieces)
