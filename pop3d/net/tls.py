"""TLS as one more layer without I/O: ciphertext in, plaintext out, and the other way.

asyncio's own ``ssl=`` is not used: it keeps a buffer of 256 KiB per connection, failed handshakes leave megabytes
behind there, and its ``start_tls`` runs what came before the handshake inside TLS. This layer stacks like the engine
does, and is tested without a socket.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = [
    "CIPHERS",
    "RECORD",
    "Bindings",
    "Contexts",
    "Layer",
    "Pair",
    "ServerTls",
    "TlsLayer",
    "server_context",
    "server_tls",
]

Pair: TypeAlias = tuple[Path, Path]
"""PEM files: a certificate with its chain, and its private key."""

C = TypeVar("C")

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and AEAD only. TLS 1.3 has nothing else."""

RECORD: Final = 16 * 1024
"""Octets of plaintext in a full TLS record."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(
    certificate: Path,
    private_key: Path,
    minimum_version: str = "1.2",
    *,
    more: Sequence[Pair] = (),
    client_ca: Path | None = None,
) -> ssl.SSLContext:
    """What all connections of a server share. Raises OSError (ssl.SSLError is one) when the files are not usable.

    ``more``: certificates with keys of other kinds, such as RSA beside ECDSA; the client gets what it understands.
    ``client_ca``: PEM file of authorities; a client is asked for a certificate, and one that it shows must be theirs.
    RFC 2595 §9, RFC 8314 §4, §4.1: no weak version and no weak cipher. RFC 8314 §4.2: without ``client_ca`` no client
    certificate is wanted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[minimum_version]
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1  # a client that polls can resume; each ticket costs the server about 25 us a handshake
    # never asks for a passphrase on the terminal: an encrypted key is a fault
    for files in ((certificate, private_key), *more):
        context.load_cert_chain(*files, password=lambda: b"")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(client_ca)
    return context


class Bindings(NamedTuple):
    """What SCRAM-PLUS may bind to on one connection; None where it is not known.

    ``end_point``: tls-server-end-point (RFC 5929 §4), the certificate's hash. ``exporter``: tls-exporter (RFC 9266).
    """

    end_point: bytes | None = None
    exporter: bytes | None = None


class Layer(Protocol):
    """One connection's TLS, seen from the server. Any method may raise ssl.SSLError, after which it is of no use.

    After each call `take_output` has what must be written to the peer, an alert included.
    """

    established: bool
    """The handshake is complete."""

    ended: bool
    """The peer has said that it sends nothing more."""

    @property
    def version(self) -> str:
        """Such as ``TLSv1.3``; empty before the handshake is complete."""
        ...

    @property
    def cipher(self) -> str:
        """OpenSSL's name of what is spoken; empty before the handshake is complete."""
        ...

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate that the client has shown, verified, as DER; None without one."""
        ...

    @property
    def bindings(self) -> Bindings:
        """What a client may bind to; none before the handshake is complete."""
        ...

    @property
    def has_input(self) -> bool:
        """Whether there may be something to `read`."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether there is something to be written to the peer."""
        ...

    def receive(self, data: bytes) -> None:
        """Take ciphertext; ``b""`` when the peer's stream has ended."""
        ...

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete."""
        ...

    def read(self) -> bytes:
        """All plaintext there is; ``b""`` when more ciphertext is needed, or at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Encrypt plaintext, into full records."""
        ...

    def shut_down(self) -> None:
        """Say that nothing more will be sent (RFC 8314 §3.4), without waiting for the peer to say the same."""
        ...

    def take_output(self) -> bytes:
        """Ciphertext to be written."""
        ...


class ServerTls(Protocol):
    """TLS as a server has it, for all its connections."""

    def layer(self) -> Layer:
        """For one connection, before its first octet."""
        ...


class Contexts(Generic[C]):
    """The contexts of a TLS library, each with its certificates, by the name that a client asks for.

    ``make``: a context that shows these pairs. ``names``: what is shown to clients that ask for such a server name, in
    small letters; ``*.example.org`` is any name with one label more. To all others, and to who asks for none,
    ``pairs`` are shown.
    """

    def __init__(
        self, make: Callable[[Sequence[Pair]], C], pairs: Sequence[Pair], names: Mapping[str, Sequence[Pair]]
    ) -> None:
        made: dict[tuple[Pair, ...], C] = {}
        self.end_points: dict[C, bytes | None] = {}
        """tls-server-end-point of each context's certificate; None where it has several, for nobody can tell which of
        them OpenSSL has shown."""

        def context_of(pairs: Sequence[Pair]) -> C:
            if (context := made.get(tuple(pairs))) is None:
                context = made[tuple(pairs)] = make(pairs)
                self.end_points[context] = None if len(pairs) > 1 else _end_point(pairs[0][0])
            return context

        self.default = context_of(pairs)
        self.named = {name: context_of(pairs) for name, pairs in names.items()}

    def for_name(self, name: str) -> C | None:
        """That for a server name; None for the default one."""
        name = name.lower()
        return self.named.get(name) or self.named.get(f"*.{name.partition('.')[2]}")


@dataclass(frozen=True, slots=True)
class _StandardTls:
    """By the ssl module."""

    contexts: Contexts[ssl.SSLContext]

    def layer(self) -> TlsLayer:
        return TlsLayer(self.contexts.default, self.contexts.end_points)


def server_tls(
    certificate: Path,
    private_key: Path,
    minimum_version: str = "1.2",
    *,
    more: Sequence[Pair] = (),
    names: Mapping[str, Sequence[Pair]] = MappingProxyType({}),
    client_ca: Path | None = None,
) -> ServerTls:
    """As `server_context`, by `Contexts`. Raises OSError, and ValueError for a file without a certificate.

    RFC 9266 §3: the binding of TLS 1.3 is tls-exporter. The ssl module cannot tell it, and clients that know no other
    one would fail; so behind TLS 1.3 there is none here. See `pop3d.net.tls_exporter`.
    """

    def make(pairs: Sequence[Pair]) -> ssl.SSLContext:
        first, *others = pairs
        # all ask for the same certificates of clients: OpenSSL settles that before it knows the name
        return server_context(*first, minimum_version, more=others, client_ca=client_ca)

    contexts = Contexts(make, ((certificate, private_key), *more), names)

    def choose(tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if (chosen := contexts.for_name(name or "")) is not None:
            tls.context = chosen

    if names:
        contexts.default.sni_callback = choose
    return _StandardTls(contexts)


def _end_point(certificate: Path) -> bytes:
    own = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    # RFC 5929 §4.1: the hash of the certificate's own signature, but SHA-256 in place of MD5 and SHA-1, or of none
    algorithm = own.signature_hash_algorithm
    name = algorithm.name if algorithm is not None and algorithm.name not in ("md5", "sha1") else "sha256"
    return hashlib.new(name, own.public_bytes(Encoding.DER)).digest()


class TlsLayer:
    """A `Layer` by the ssl module. ``end_points``: see `Contexts`."""

    __slots__ = ("_context", "_end_points", "_incoming", "_object", "_outgoing", "_shut", "ended", "established")

    def __init__(
        self, context: ssl.SSLContext, end_points: Mapping[ssl.SSLContext, bytes | None] = MappingProxyType({})
    ) -> None:
        self._context = context
        self._end_points = end_points
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object: ssl.SSLObject | None = None
        self._shut = False  # we have said that we send nothing more
        self.established = False
        """The handshake is complete."""
        self.ended = False
        """The peer has said that it sends nothing more."""

    @property
    def version(self) -> str:
        """Such as ``TLSv1.3``; empty before the handshake is complete."""
        return (self._object.version() or "") if self._object is not None and self.established else ""

    @property
    def bindings(self) -> Bindings:
        """See `Layer` and `server_tls`."""
        if self._object is None or not self.established or self._object.version() == "TLSv1.3":
            return Bindings()
        # the context is the one given, or what the server name turned to
        return Bindings(self._end_points.get(self._object.context))

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate that the client has shown, verified, as DER; None without one."""
        return self._object.getpeercert(binary_form=True) if self._object is not None and self.established else None

    @property
    def cipher(self) -> str:
        """OpenSSL's name of what is spoken; empty before the handshake is complete."""
        cipher = self._object.cipher() if self._object is not None and self.established else None
        return cipher[0] if cipher is not None else ""

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

    @property
    def has_input(self) -> bool:
        """Whether there may be something to `read`: to find out by trying costs 4 us, for the error that says no."""
        return self._incoming.pending > 0 or (self._object is not None and self._object.pending() > 0)

    @property
    def has_output(self) -> bool:
        """Whether there is something to be written to the peer."""
        return self._outgoing.pending > 0

    def read(self) -> bytes:
        """All plaintext there is; ``b""`` when more ciphertext is needed, or at the end."""
        assert self._object is not None
        pieces = []
        try:
            while data := self._object.read(RECORD):
                pieces.append(data)
                if not self.has_input:
                    break
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
        if self._object is not None and self.established and not self._shut:
            self._shut = True
            # wants the peer's answer, or the peer went already: what could be said is in the output
            with contextlib.suppress(ssl.SSLError):
                self._object.unwrap()

    def take_output(self) -> bytes:
        """Ciphertext to be written."""
        return self._outgoing.read()
