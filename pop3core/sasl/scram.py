"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): a password proved without being said.

The server keeps a verifier from which the password cannot be had, and proves to know it too. -PLUS binds the proof to
the TLS channel, so that nobody sits in between: by the server's certificate (tls-server-end-point, RFC 5929 §4), or by
what both ends derive from a handshake of TLS 1.3 (tls-exporter, RFC 9266).
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from typing import Final

from pop3core.sasl.base import (
    SURPLUS,
    Challenge,
    ClientSteps,
    NoSecret,
    ProofFailed,
    SaslError,
    ScramSecret,
    SecretWanted,
    ServerProved,
    ServerRefused,
    ServerSteps,
    Tls,
    VerdictWanted,
    Verified,
)
from pop3core.sasl.prep import acting_as, prepared, saslprep

__all__ = ["FINAL", "FIRST", "client", "plus_server", "server", "verifier"]

_ITERATIONS_MIN: Final = 4096  # RFC 7677 §4
_ITERATIONS_MAX: Final = 10_000_000
"""A server that asks a client for more is not serious: some seconds of work."""

FIRST: Final = re.compile(
    rb"(?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=([^,]*))?,"
    rb"(?P<bare>n=([^,]*),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,.*)?)",
    re.DOTALL,
)
"""A client's first message (RFC 5802 §7)."""

FINAL: Final = re.compile(rb"(c=([^,]*),r=(?P<nonce>[^,]*)(?:,.*)?),p=(?P<proof>[^,]*)", re.DOTALL)
"""A client's final message."""

_SERVER_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([^,]*),i=([0-9]{1,9})(?:,.*)?", re.DOTALL)
_SERVER_ERROR = re.compile(rb"e=([A-Za-z0-9-]{1,64})(?:,|$)")  # RFC 5802 §7


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def _unbase64(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except binascii.Error:
        raise SaslError("a SCRAM message has bad base64") from None


def _name(octets: bytes) -> str:
    # RFC 5802 §5.1: "=2C" is a comma, "=3D" an equals sign, and no other "=" may be
    if re.search(rb"=(?!2C|3D)", octets):
        raise SaslError("a SCRAM name has a bad escape")
    try:
        return octets.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("a name is UTF-8") from None


def _escaped(name: str) -> bytes:
    return saslprep(name).replace("=", "=3D").replace(",", "=2C").encode()


def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)


def verifier(password: bytes, salt: bytes, iterations: int = _ITERATIONS_MIN) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey for a password (RFC 5802 §3): what a server keeps. Takes milliseconds on purpose."""
    salted = _salted(password, salt, iterations)
    return hashlib.sha256(_hmac(salted, b"Client Key")).digest(), _hmac(salted, b"Server Key")


def server(tls: Tls) -> ServerSteps:
    """SCRAM-SHA-256, the server's side."""
    return _server(tls, "SCRAM-SHA-256")


def plus_server(tls: Tls) -> ServerSteps:
    """SCRAM-SHA-256-PLUS, the server's side."""
    return _server(tls, "SCRAM-SHA-256-PLUS")


def _server(tls: Tls, mechanism: str) -> ServerSteps:
    first = yield Challenge(b"")
    assert isinstance(first, bytes)
    match = FIRST.fullmatch(first)
    if match is None:
        raise SaslError("this is no first message of SCRAM")
    flag, binding, authzid, bare, name, nonce = match.groups()
    _check_binding(tls, mechanism, flag, binding)
    username, acts_as = _name(name), acting_as(_name(authzid or b""))
    stored = yield SecretWanted(username, "SCRAM-SHA-256")
    assert isinstance(stored, ScramSecret | NoSecret)
    both = nonce + stored.server_nonce.encode("ascii")
    server_first = b"r=%b,s=%b,i=%d" % (both, _base64(stored.salt), stored.iterations)
    final = yield Challenge(server_first)
    assert isinstance(final, bytes)
    match = FINAL.fullmatch(final)
    if match is None:
        raise SaslError("this is no final message of SCRAM")
    without_proof, nonces = match[1], match[3]
    bound, proof = _unbase64(match[2]), _unbase64(match[4])
    header = first[: len(first) - len(bare)]
    expected = header + (tls.bindings[binding.decode()] if binding else b"")
    message = b",".join((bare, server_first, without_proof))
    good = nonces == both and hmac.compare_digest(bound, expected)
    good = _proves(stored, message, proof) and good
    if not good or isinstance(stored, NoSecret):
        return ProofFailed(username, mechanism)
    signature = _hmac(stored.server_key, message)
    verified = Verified(username, acts_as, mechanism)
    yield VerdictWanted(verified)
    # RFC 5034 §4 has no room in +OK for it: it is one more challenge, whose answer is empty
    last = yield Challenge(b"v=" + _base64(signature))
    if last:
        raise SaslError("the last answer of SCRAM is empty")
    return verified


def _check_binding(tls: Tls, mechanism: str, flag: bytes | None, binding: bytes | None) -> None:
    if mechanism.endswith("-PLUS"):
        known = tls.bindings
        if binding is None or binding.decode() not in known:
            raise SaslError(f"SCRAM-SHA-256-PLUS binds to {' or '.join(known)} here")
    elif binding is not None:
        raise SaslError("channel binding is for SCRAM-SHA-256-PLUS")
    elif flag == b"y" and tls.binding_offered:
        # RFC 5802 §6: the client could, and thinks that we cannot: somebody has changed what we announced
        raise SaslError("channel binding was offered, and somebody hid it")


def _proves(stored: ScramSecret | NoSecret, message: bytes, proof: bytes) -> bool:
    """RFC 5802 §3. The same work is done for a user who is not there; no proof matches a key of zeros."""
    key = stored.stored_key if isinstance(stored, ScramSecret) else bytes(32)
    signature = _hmac(key, message)
    if len(proof) != len(signature):
        return False
    return hmac.compare_digest(hashlib.sha256(_xor(proof, signature)).digest(), key)


def client(
    username: str,
    password: bytes,
    nonce: str,
    *,
    channel_binding: bytes | None = None,
    binding_type: str = "tls-server-end-point",
    could_bind: bool = False,
    authzid: str = "",
) -> ClientSteps:
    """The client's side, of -PLUS when ``channel_binding`` is given, which is of ``binding_type`` (RFC 5056 §7).

    ``nonce``: fresh printable ASCII without commas. ``could_bind``: the client knows a binding of this channel, and the
    server did not announce -PLUS; the server is told so (``y``), and refuses if somebody removed -PLUS from what it
    announced (RFC 5802 §6). Raises `ServerRefused` for a reason that the server gives, and `SaslError` when the server
    does not prove that it knows the password: it may be an impostor, and nothing more must be said to it.
    """
    header = b"y," if could_bind else b"n,"
    if channel_binding is not None:
        header = b"p=%b," % binding_type.encode("ascii")
    header += b"a=%b," % _escaped(authzid) if authzid else b","
    bare = b"n=%b,r=%b" % (_escaped(username), nonce.encode("ascii"))
    server_first = yield header + bare
    match = _SERVER_FIRST.fullmatch(server_first)
    if match is None or not match[1].startswith(nonce.encode("ascii")) or len(match[1]) == len(nonce):
        raise SaslError("the server's first message is none of SCRAM, or has another nonce")
    salt, iterations = _unbase64(match[2]), int(match[3])
    if not _ITERATIONS_MIN <= iterations <= _ITERATIONS_MAX:
        raise SaslError(f"the server asks for {iterations} iterations; {_ITERATIONS_MIN} to {_ITERATIONS_MAX} are done")
    salted = _salted(password, salt, iterations)
    without_proof = b"c=%b,r=%b" % (_base64(header + (channel_binding or b"")), match[1])
    message = b",".join((bare, server_first, without_proof))
    client_key = _hmac(salted, b"Client Key")
    proof = _xor(client_key, _hmac(hashlib.sha256(client_key).digest(), message))
    server_final = yield without_proof + b",p=" + _base64(proof)
    signature = _hmac(_hmac(salted, b"Server Key"), message)
    if refused := _SERVER_ERROR.match(server_final):
        raise ServerRefused(f"the server refuses the proof: {refused[1].decode()}")
    if not hmac.compare_digest(server_final, b"v=" + _base64(signature)):
        raise SaslError("the server does not prove that it knows the password: it may be an impostor")
    yield ServerProved()
    raise SaslError(SURPLUS)
