"""Addresses of IPv4 that are written as ones of IPv6 (``::ffff:192.0.2.1``), as what they are.

So is told who comes to a socket of both families. Limits, networks, proxies and the log know one client by one name.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

__all__ = ["IpAddress", "IpNetwork", "as_text", "unmapped", "unmapped_network"]

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_BITS: Final = 96  # of ::ffff:0:0/96


def unmapped(address: IpAddress) -> IpAddress:
    """One of IPv4 where it is one; else the same."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def unmapped_network(network: IpNetwork) -> IpNetwork:
    """One of IPv4 where it is a part of ``::ffff:0:0/96``; else the same."""
    mapped = unmapped(network.network_address)
    if network.version == mapped.version or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((int(mapped), network.prefixlen - _MAPPED_BITS))


def as_text(address: str) -> str:
    """An address as the system tells it, unmapped; what is none comes back as it is."""
    if not address.lower().startswith("::ffff:"):  # as the system writes it; nearly all end here
        return address
    try:
        return str(unmapped(ipaddress.ip_address(address)))
    except ValueError:
        return address
