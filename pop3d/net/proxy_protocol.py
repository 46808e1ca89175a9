"""HAProxy's PROXY protocol, versions 1 and 2, without I/O: who the client of a proxied connection is.

The header is the first thing on a connection, before TLS. Version 1 is a line of text, version 2 a binary block with
extensions (TLVs). Octets come in at any cut; a header or a `ProxyError` comes out, and what stood behind the header is
left untouched. Whether the proxy may be believed is for the caller to know, before anything is read.

Source: the PROXY protocol, Willy Tarreau, HAProxy's doc/proxy-protocol.txt; its sections are cited as "PROXY §".
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pop3d.system.ip_addresses import unmapped

__all__ = ["ProxiedTls", "ProxyError", "ProxyHeader", "ProxyParser", "crc32c"]

V1_OCTETS_MAX: Final = 107
"""Octets of a version 1 header, CRLF included (PROXY §2.1)."""

V2_LENGTH_MAX: Final = 2048
"""Octets of a version 2 header behind its first 16. HAProxy's own have some hundred; the field could say 65,535."""

_V1_BEGIN: Final = b"PROXY "
_V2_BEGIN: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16  # octets of a version 2 header before its addresses
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_ADDRESSES: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # octets of addresses, by family and transport (§2.2)
_AUTHORITY, _CRC32C, _SSL = 0x02, 0x03, 0x20  # types of TLVs (§2.2.0)
_SSL_VERSION, _SSL_CIPHER = 0x21, 0x23  # within an SSL TLV (§2.2.6)
_CLIENT_SSL: Final = 0x01  # the client spoke TLS to the proxy
_CRC_OCTETS: Final = 4
_WORD = re.compile(rb"[\x21-\x7e]{1,64}")  # a version or a cipher: goes into a log line as one word
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyError(Exception):
    """There is no valid header; the text says why, and has nothing of what was received in it."""


@dataclass(frozen=True, slots=True)
class ProxiedTls:
    """The client spoke TLS to the proxy. ``version`` such as ``TLSv1.3``, ``cipher``: as OpenSSL names it; or empty."""

    version: str = ""
    cipher: str = ""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy tells of a connection.

    ``address``: the client's IP address as text, an IPv4 one always in its own form; None where the proxy does not
    know it, or speaks for itself (LOCAL: a health check): the connection's own address is meant then. ``port``: the
    client's, 0 without an address. ``tls``: None unless the client spoke TLS to the proxy, and the proxy says so.
    ``authority``: the server's name that the client asked for, or empty.
    """

    address: str | None = None
    port: int = 0
    tls: ProxiedTls | None = None
    authority: str = ""


class ProxyParser:
    """Takes octets until the header is whole. Raises `ProxyError` as soon as it cannot become one."""

    def __init__(self) -> None:
        self._octets = b""
        self.rest = b""
        """What followed the header: the client's own octets."""

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Take what came next; the header once it is there, None before. To be called no more behind either end."""
        self._octets += data  # a caller reads at most some KiB at a time, and few times
        octets = self._octets
        if octets.startswith(_V2_BEGIN[: len(octets)]):
            return self._version_2(octets)
        if octets.startswith(_V1_BEGIN[: len(octets)]):
            return self._version_1(octets)
        raise ProxyError("the connection does not begin with one")

    def _version_1(self, octets: bytes) -> ProxyHeader | None:
        line, end, rest = octets[:V1_OCTETS_MAX].partition(b"\r\n")
        if not end:
            if len(octets) >= V1_OCTETS_MAX:
                raise ProxyError(f"version 1 has at most {V1_OCTETS_MAX} octets")
            return None
        self.rest = rest + octets[V1_OCTETS_MAX:]
        return _text_header(line)

    def _version_2(self, octets: bytes) -> ProxyHeader | None:
        if len(octets) < _V2_FIXED:
            return None
        command, kind, length = struct.unpack_from("!BBH", octets, len(_V2_BEGIN))
        if length > V2_LENGTH_MAX:
            raise ProxyError(f"version 2 has at most {V2_LENGTH_MAX} octets of addresses and extensions here")
        if command not in (_LOCAL, _PROXY):
            raise ProxyError("an unknown version or command")
        if command == _PROXY and kind not in _ADDRESSES:
            raise ProxyError("an unknown address family, or not a stream")
        end = _V2_FIXED + length
        if len(octets) < end:
            return None
        self.rest = octets[end:]
        # PROXY §2.2: LOCAL, and addresses that are not specified: the block is discarded, all of it
        return _binary_header(octets[:end], kind) if command == _PROXY and kind else ProxyHeader()


def _text_header(line: bytes) -> ProxyHeader:
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader()  # PROXY §2.1: what stands behind it is ignored
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyError("version 1 is PROXY, TCP4 or TCP6 or UNKNOWN, two addresses, two ports")
    _, family, source, destination, port, other = words
    for number in (port, other):
        if not _PORT.fullmatch(number) or int(number) > 65_535:
            raise ProxyError("a port is a number up to 65535")
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    if "%" in source + destination:
        raise ProxyError("an address has no scope")
    try:
        kind(destination)
        return ProxyHeader(str(unmapped(kind(source))), int(port))
    except ValueError:
        raise ProxyError(f"{family} has addresses of another form") from None


def _binary_header(octets: bytes, kind: int) -> ProxyHeader:
    begin = _V2_FIXED + _ADDRESSES[kind]
    if len(octets) < begin:
        raise ProxyError("it is too short for its addresses")
    address, port = None, 0
    if kind == 0x11:
        source, port = struct.unpack_from("!4s4xH", octets, _V2_FIXED)
        address = str(ipaddress.IPv4Address(source))
    elif kind == 0x21:
        source, port = struct.unpack_from("!16s16xH", octets, _V2_FIXED)
        address = str(unmapped(ipaddress.IPv6Address(source)))
    tls: ProxiedTls | None = None
    authority = ""
    seen: set[int] = set()
    for type_, at, value in _tlvs(octets, begin):
        if type_ in (_AUTHORITY, _CRC32C, _SSL):
            if type_ in seen:
                raise ProxyError("an extension stands there twice")
            seen.add(type_)
        if type_ == _CRC32C:
            _verify(octets, at, value)
        elif type_ == _SSL:
            tls = _tls(value)
        elif type_ == _AUTHORITY:
            authority = _authority(value)
    return ProxyHeader(address, port, tls, authority)


def _tlvs(octets: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, where the value begins, value."""
    while at < len(octets):
        if len(octets) - at < 3:
            raise ProxyError("an extension is cut short")
        type_, length = struct.unpack_from("!BH", octets, at)
        at += 3
        if len(octets) - at < length:
            raise ProxyError("an extension is cut short")
        yield type_, at, octets[at : at + length]
        at += length


def _verify(octets: bytes, at: int, value: bytes) -> None:
    # PROXY §2.2.3: over the whole header, with the checksum's own octets zero
    if len(value) != _CRC_OCTETS:
        raise ProxyError("a checksum has four octets")
    whole = octets[:at] + bytes(_CRC_OCTETS) + octets[at + _CRC_OCTETS :]
    if crc32c(whole) != int.from_bytes(value, "big"):
        raise ProxyError("its checksum does not fit")


def _tls(value: bytes) -> ProxiedTls | None:
    if len(value) < 5:  # what the client did (1), whether its certificate was good (4)
        raise ProxyError("an extension is cut short")
    facts = {type_: inner for type_, _, inner in _tlvs(value, 5)}
    words = []
    for type_ in (_SSL_VERSION, _SSL_CIPHER):
        if type_ in facts and not _WORD.fullmatch(facts[type_]):
            raise ProxyError("a TLS version and cipher are words of ASCII")
        words.append(facts.get(type_, b"").decode("ascii"))
    return ProxiedTls(*words) if value[0] & _CLIENT_SSL else None


def _authority(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ProxyError("an authority is UTF-8") from None


def _crc_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(octets: bytes) -> int:
    """The checksum CRC-32C, with Castagnoli's polynomial."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = _CRC_TABLE[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
