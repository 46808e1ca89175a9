"""OAuth 2 bearer tokens: OAUTHBEARER (RFC 7628) and XOAUTH2, which large providers had before it."""

from __future__ import annotations

import re
from typing import Final

from pop3core.sasl.base import SURPLUS, Challenge, ClientSteps, SaslError, ServerSteps, Tls, Token, text_of

__all__ = ["FAILURE", "XFAILURE", "bearer_client", "bearer_server", "xoauth2_client", "xoauth2_server"]

FAILURE: Final = b'{"status":"invalid_token"}'
"""What OAUTHBEARER's server says before its -ERR (RFC 7628 §3.2.2)."""

XFAILURE: Final = b'{"status":"401","schemes":"bearer"}'
"""The same of XOAUTH2."""

_TOKEN = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/-]+=*)")  # RFC 6750 §2.1
_GS2 = re.compile(rb"[ny],(?:a=([^,]*))?,")  # RFC 7628 §3.1; channel binding is not for bearer tokens


def _token(fields: list[bytes]) -> bytes:
    found = [value[5:] for value in fields if value.startswith(b"auth=")]
    match = _TOKEN.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        raise SaslError("a bearer token is missing")
    return match[1]


def bearer_server(_tls: Tls) -> ServerSteps:
    """OAUTHBEARER, the server's side."""
    message = yield Challenge(b"")
    assert isinstance(message, bytes)
    header, *fields = message.split(b"\x01")
    match = _GS2.fullmatch(header)
    if match is None or fields[-2:] != [b"", b""]:
        raise SaslError("OAUTHBEARER is a GS2 header and fields, each ended by ^A")
    name = text_of(match[1] or b"").replace("=2C", ",").replace("=3D", "=")
    return Token(name, "OAUTHBEARER", _token(fields))


def xoauth2_server(_tls: Tls) -> ServerSteps:
    """XOAUTH2, the server's side."""
    message = yield Challenge(b"")
    assert isinstance(message, bytes)
    user, *fields = message.split(b"\x01")
    if not user.startswith(b"user=") or fields[-2:] != [b"", b""]:
        raise SaslError("XOAUTH2 is user= and auth=, each ended by ^A")
    return Token(text_of(user[5:]), "XOAUTH2", _token(fields))


def bearer_client(username: str, token: str, host: str = "", port: int = 0) -> ClientSteps:
    """OAUTHBEARER, the client's side. A challenge behind the first message tells of failure: ^A ends it."""
    name = username.replace("=", "=3D").replace(",", "=2C")
    fields = [f"n,a={name},"] + ([f"host={host}", f"port={port}"] if host else []) + [f"auth=Bearer {token}", "", ""]
    yield "\x01".join(fields).encode()
    yield b"\x01"  # RFC 7628 §3.2.3
    raise SaslError(SURPLUS)


def xoauth2_client(username: str, token: str) -> ClientSteps:
    """XOAUTH2, the client's side."""
    yield f"user={username}\x01auth=Bearer {token}\x01\x01".encode()
    yield b""
    raise SaslError(SURPLUS)
