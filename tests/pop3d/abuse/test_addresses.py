"""What counts as one client."""

from ipaddress import ip_network

import pytest

from pop3d.abuse.addresses import Trusted, network_of, source_of


@pytest.mark.parametrize(
    ("address", "source", "network"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/56"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64", "2001:db8:1::/56"),
        ("2001:db8:1:1ff::9", "2001:db8:1:1ff::/64", "2001:db8:1:100::/56"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/56"),
        ("?", "?", "?"),
    ],
)
def test_what_counts_as_one_address_and_as_one_host(address: str, source: str, network: str) -> None:
    assert (source_of(address), network_of(address)) == (source, network)


def test_what_counts_as_one_address_knows_the_address_itself() -> None:
    addresses = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "fe80::1%eth0", "?")
    own = [source_of(one).address for one in addresses]
    assert own == ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "fe80::1", "?"]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("198.51.100.1", False),
        ("2001:db9::1", False),
        ("?", False),
    ],
)
def test_trusted_networks(address: str, trusted: bool) -> None:
    networks = Trusted([ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")])
    assert (address in networks) is trusted
    assert address not in Trusted()
