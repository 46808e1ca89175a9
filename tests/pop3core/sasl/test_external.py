"""EXTERNAL: RFC 4422, appendix A."""

import pytest

from pop3core.sasl import SaslError, external
from pop3core.sasl.base import (
    ProofFailed,
    Tls,
    Verified,
)
from tests.pop3core.mechanisms import converse


def test_external() -> None:
    tls = Tls(identity="alice")
    assert converse(external.server(tls), external.client())[0] == Verified("alice", "", "EXTERNAL")
    assert converse(external.server(tls), external.client("alice"))[0] == Verified("alice", "alice", "EXTERNAL")
    assert converse(external.server(tls), external.client("bob"))[0] == ProofFailed("alice", "EXTERNAL")
    with pytest.raises(SaslError, match="not empty"):
        converse(external.server(tls), external.client("\u00ad"))
