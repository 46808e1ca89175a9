"""OAUTHBEARER (RFC 7628) and XOAUTH2."""

import pytest

from pop3core.sasl import SaslError, oauth
from pop3core.sasl.base import (
    Tls,
    Token,
)
from tests.pop3core.mechanisms import converse


def test_oauth() -> None:
    # RFC 7628 §4.1
    client = oauth.bearer_client(
        "user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "server.example.com", 143
    )
    assert next(client) == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )
    assert client.send(b'{"status":"invalid_token"}') == b"\x01"
    outcome, _ = converse(oauth.bearer_server(Tls()), oauth.bearer_client("a,b=c", "tok"))
    assert outcome == Token("a,b=c", "OAUTHBEARER", b"tok")
    outcome, said = converse(oauth.xoauth2_server(Tls()), oauth.xoauth2_client("a@b", "tok"))
    assert outcome == Token("a@b", "XOAUTH2", b"tok")
    assert said[1] == b"user=a@b\x01auth=Bearer tok\x01\x01"
    client = oauth.xoauth2_client("a", "t")
    next(client)
    assert client.send(b"{}") == b""


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (oauth.bearer_server, b""),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t"),
        (oauth.bearer_server, b"p=x,,\x01auth=Bearer t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Basic t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01"),
        (oauth.bearer_server, b"n,a=\xff,\x01auth=Bearer t\x01\x01"),
        (oauth.xoauth2_server, b"usr=a\x01auth=Bearer t\x01\x01"),
        (oauth.xoauth2_server, b"user=a\x01auth=Bearer t"),
        (oauth.xoauth2_server, b"user=a\x01\x01"),
    ],
)
def test_bearer_messages_that_are_none(server, message: bytes) -> None:
    steps = server(Tls())
    next(steps)
    with pytest.raises(SaslError):
        steps.send(message)
