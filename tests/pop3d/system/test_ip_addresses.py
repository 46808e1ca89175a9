"""Addresses of IPv4 in IPv6's form."""

import ipaddress

import pytest

from pop3d.system.ip_addresses import as_text, unmapped_network


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:0:0:1", "::ffff:0:0:1"),
        ("::ffff:nonsense", "::ffff:nonsense"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_told_as_what_it_is(told: str, text: str) -> None:
    assert as_text(told) == text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
        ("::/0", "::/0"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_a_network_is_what_it_means(written: str, meant: str) -> None:
    assert unmapped_network(ipaddress.ip_network(written)) == ipaddress.ip_network(meant)
