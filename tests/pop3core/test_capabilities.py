"""Capabilities by name, whatever its case."""

from pop3core.capabilities import Capabilities


def test_capabilities_are_a_mapping_without_case() -> None:
    found = Capabilities(["TOP", "sasl PLAIN  SCRAM-SHA-256", "", "  ", "EXPIRE 60"])
    assert "SASL" in found
    assert found["SASL"] == ("PLAIN", "SCRAM-SHA-256")
    assert found["TOP"] == ()
    assert dict(found) == {"TOP": (), "SASL": ("PLAIN", "SCRAM-SHA-256"), "EXPIRE": ("60",)}
    assert len(found) == 3
    assert "UIDL" not in found
    assert repr(found) == "Capabilities(['TOP', 'SASL PLAIN SCRAM-SHA-256', 'EXPIRE 60'])"
