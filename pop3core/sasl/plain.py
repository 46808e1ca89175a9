"""PLAIN (RFC 4616, RFC 5034 §5): authzid NUL authcid NUL password, in one message."""

from __future__ import annotations

from pop3core.sasl.base import SURPLUS, Challenge, ClientSteps, Password, SaslError, ServerSteps, Tls, text_of
from pop3core.sasl.prep import acting_as

__all__ = ["client", "server"]


def server(_tls: Tls) -> ServerSteps:
    """The server's side."""
    message = yield Challenge(b"")
    assert isinstance(message, bytes)
    parts = message.split(b"\0")
    # RFC 4616 §2: exactly two NULs; neither the name nor the password is empty. RFC 2595 §6: at least 255 octets each;
    # all that a line may hold is taken.
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslError("PLAIN is authzid, NUL, name, NUL, password")
    return Password(text_of(parts[1]), acting_as(text_of(parts[0])), parts[2])


def client(username: str, password: bytes, authzid: str = "") -> ClientSteps:
    """The client's side."""
    if "\0" in username or "\0" in authzid or b"\0" in password:
        raise SaslError("a name and a password have no NUL")
    yield b"\0".join((authzid.encode(), username.encode(), password))
    raise SaslError(SURPLUS)
