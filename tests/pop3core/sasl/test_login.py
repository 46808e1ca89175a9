"""LOGIN, as clients have it."""

import pytest

from pop3core.sasl import SaslError, login
from pop3core.sasl.base import (
    Password,
    Tls,
)
from tests.pop3core.mechanisms import converse


def test_login() -> None:
    outcome, said = converse(login.server(Tls()), login.client("alice", b"s e c"))
    assert outcome == Password("alice", "", b"s e c")
    assert said == [b"Username:", b"alice", b"Password:", b"s e c"]
    for name, secret in ((b"", b"x"), (b"x", b""), (b"a\0", b"x")):
        server = login.server(Tls())
        next(server)
        server.send(name)
        with pytest.raises(SaslError):
            server.send(secret)
