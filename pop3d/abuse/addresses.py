"""What counts as one client: its address, of IPv6 its /64; and which addresses are trusted.

A host is given a /64 at least, and a home or a small office mostly a /56: whoever has one has all its addresses.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import Final

from pop3d.system.ip_addresses import IpNetwork, unmapped

__all__ = ["Source", "Trusted", "is_within", "network_of", "source_of"]

_KEPT: Final = 4096  # addresses whose networks are remembered; an address has 45 characters at most


class Source(str):
    """What counts as one address; and the ``address`` that it was made of, for those who are told it."""

    __slots__ = ("address",)
    address: str


@functools.lru_cache(maxsize=_KEPT)
def source_of(address: str) -> Source:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one."""
    source = Source(_network(address, 64))
    source.address = str(_parsed(address) or address)
    return source


@functools.lru_cache(maxsize=_KEPT)
def network_of(address: str) -> str:
    """What may be one host with many addresses: an IPv4 address, or the /56 of an IPv6 one."""
    return _network(address, 56)


def _network(address: str, prefix: int) -> str:
    ip = _parsed(address)
    if ip is None:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    rest = 128 - prefix
    return str(ipaddress.ip_network((int(ip) >> rest << rest, prefix)))


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address without its zone; one of IPv4 that is written as one of IPv6, as one of IPv4."""
    try:
        return unmapped(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return None


class Trusted:
    """Addresses behind which there are many users: a webmail, a fetcher, a proxy. ``address in Trusted(networks)``."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[IpNetwork] = ()) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: str) -> bool:
        return bool(self._networks) and is_within(address, self._networks)


def is_within(address: str, networks: Iterable[IpNetwork]) -> bool:
    """Whether an address is in one of ``networks``; what is no IP address is in none."""
    ip = _parsed(address)
    return ip is not None and any(ip in network for network in networks)
