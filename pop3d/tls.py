"""TLS as one more layer without I/O: ciphertext in, plaintext out, and the other way.

asyncio's own ``ssl=`` is not used: it keeps a buffer of 256 KiB per connection, failed handshakes leave megabytes
behind there, and its ``start_tls`` runs what came before the handshake inside TLS. This layer stacks like the engine
does, and is tested without a socket.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = ["ServerTls", "TlsLayer", "server_context", "server_tls"]

# TLS 1.2: forward secrecy and AEAD only. TLS 1.3 has nothing else.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_RECORD: Final = 16 * 1024  # octets of plaintext in a full TLS record
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(certificate: Path, private_key: Path, minimum_version: str = "1.2") -> ssl.SSLContext:
    """What all connections of a server share. Raises OSError (ssl.SSLError is one) when the files are not usable.

    RFC 2595 §9, RFC 8314 §4, §4.1: no weak version and no weak cipher. RFC 8314 §4.2: no client certificate is wanted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[minimum_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1  # a client that polls can resume; each ticket costs the server about 25 us a handshake
    # never asks for a passphrase on the terminal: an encrypted key is a fault
    context.load_cert_chain(certificate, private_key, password=lambda: b"")
    return context


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS as a server has it. ``end_point``: tls-server-end-point of its certificate (RFC 5929 §4), for SCRAM-PLUS."""

    context: ssl.SSLContext
    end_point: bytes


def server_tls(certificate: Path, private_key: Path, minimum_version: str = "1.2") -> ServerTls:
    """As `server_context`. Raises OSError, and ValueError for a file without a certificate."""
    context = server_context(certificate, private_key, minimum_version)
    own = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    # RFC 5929 §4.1: the hash of the certificate's own signature, but SHA-256 in place of MD5 and SHA-1, or of none
    algorithm = own.signature_hash_algorithm
    name = algorithm.name if algorithm is not None and algorithm.name not in ("md5", "sha1") else "sha256"
    return ServerTls(context, hashlib.new(name, own.public_bytes(Encoding.DER)).digest())


class TlsLayer:
    """One connection's TLS, seen from the server. Any method may raise ssl.SSLError, after which it is of no use.

    After each call `take_output` has what must be written to the peer, an alert included.
    """

    __slots__ = ("_context", "_incoming", "_object", "_outgoing", "ended", "established")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object: ssl.SSLObject | None = None
        self.established = False
        """The handshake is complete."""
        self.ended = False
        """The peer has said that it sends nothing more."""

    @property
    def version(self) -> str:
        """Such as ``TLSv1.3``; empty before the handshake is complete."""
        return (self._object.version() or "") if self._object is not None and self.established else ""

    def receive(self, data: bytes) -> None:
        """Take ciphertext; ``b""`` when the peer's stream has ended."""
        if self._object is None:
            # made with the first octet only: a connection that says nothing costs nothing
            self._object = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete."""
        if self._object is None:
            return False
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        return True

    def read(self) -> bytes:
        """All plaintext there is; ``b""`` when more ciphertext is needed, or at the end."""
        assert self._object is not None
        pieces = []
        try:
            while data := self._object.read(_RECORD):
                pieces.append(data)
                if not self._incoming.pending and not self._object.pending():
                    break  # saves the call that would only raise
            else:
                self.ended = True
        except ssl.SSLWantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: bytes) -> None:
        """Encrypt plaintext, into full records."""
        assert self._object is not None
        self._object.write(data)

    def shut_down(self) -> None:
        """Say that nothing more will be sent (RFC 8314 §3.4), without waiting for the peer to say the same."""
        if self._object is not None and self.established:
            # wants the peer's answer, or the peer went already: what could be said is in the output
            with contextlib.suppress(ssl.SSLError):
                self._object.unwrap()

    def take_output(self) -> bytes:
        """Ciphertext to be written."""
        return self._outgoing.read()
