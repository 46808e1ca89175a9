"""LOGIN, an old and widespread mechanism that no RFC defines: two questions, name and password."""

from __future__ import annotations

from pop3core.sasl.base import SURPLUS, Challenge, ClientSteps, Password, SaslError, ServerSteps, Tls, text_of

__all__ = ["client", "server"]


def server(_tls: Tls) -> ServerSteps:
    """The server's side. Some clients give the name as an initial response; it answers the first question then."""
    name = yield Challenge(b"Username:")
    password = yield Challenge(b"Password:")
    assert isinstance(name, bytes)
    assert isinstance(password, bytes)
    if not name or not password:
        raise SaslError("LOGIN is a name, then a password")
    return Password(text_of(name), "", password)


def client(username: str, password: bytes) -> ClientSteps:
    """The client's side: it is asked first."""
    yield None
    yield username.encode()
    yield password
    raise SaslError(SURPLUS)
