"""PLAIN: RFC 4616."""

import pytest

from pop3core.sasl import SaslError, plain
from pop3core.sasl.base import (
    Password,
    Tls,
)
from tests.pop3core.mechanisms import converse


@pytest.mark.parametrize("authzid", ["", "boss"])
def test_plain(authzid: str) -> None:
    outcome, said = converse(plain.server(Tls()), plain.client("jürgen", b"\xff s", authzid))
    assert outcome == Password("jürgen", authzid, b"\xff s")
    assert said[1] == authzid.encode() + b"\0j\xc3\xbcrgen\0\xff s"


@pytest.mark.parametrize("message", [b"", b"a", b"\0a", b"\0\0b", b"\0a\0", b"a\0b\0c\0d", b"\0\xff\0x", b"\xff\0a\0x"])
def test_plain_messages_that_are_none(message: bytes) -> None:
    server = plain.server(Tls())
    next(server)
    with pytest.raises(SaslError):
        server.send(message)


def test_plain_never_says_a_nul() -> None:
    for client in (plain.client("a\0", b"x"), plain.client("a", b"x\0"), plain.client("a", b"x", "b\0")):
        with pytest.raises(SaslError):
            next(client)
