"""EXTERNAL (RFC 4422, appendix A): who the client is was proved outside, by its TLS certificate."""

from __future__ import annotations

from pop3core.sasl.base import (
    SURPLUS,
    Challenge,
    ClientSteps,
    ProofFailed,
    SaslError,
    ServerSteps,
    Tls,
    Verified,
    text_of,
)
from pop3core.sasl.prep import acting_as

__all__ = ["client", "server"]


def server(tls: Tls) -> ServerSteps:
    """The server's side: the identity to act as, empty for the certificate's own; to act as another is refused."""
    message = yield Challenge(b"")
    assert isinstance(message, bytes)
    assert tls.identity is not None
    authzid = acting_as(text_of(message))
    if authzid not in ("", tls.identity):
        return ProofFailed(tls.identity, "EXTERNAL")
    return Verified(tls.identity, authzid, "EXTERNAL")


def client(authzid: str = "") -> ClientSteps:
    """The client's side."""
    yield authzid.encode()
    raise SaslError(SURPLUS)
