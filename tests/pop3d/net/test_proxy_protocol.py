"""The parser of PROXY headers: what the specification shows, every cut, every fault, any octets."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.net.proxy_protocol import (
    V1_OCTETS_MAX,
    V2_LENGTH_MAX,
    ProxiedTls,
    ProxyError,
    ProxyHeader,
    ProxyParser,
    crc32c,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
HELLO = b"\x16\x03\x01 the client's own octets \r\n"
IPV4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4711, 995)
IPV6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("2001:db8::1").packed
IPV6 += struct.pack("!HH", 4711, 995)


def v2(block: bytes, kind: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block


def tlv(type_: int, value: bytes) -> bytes:
    return struct.pack("!BH", type_, len(value)) + value


def ssl(client: int = 0x01, *inner: bytes) -> bytes:
    return tlv(0x20, struct.pack("!BI", client, 0) + b"".join(inner))


def with_checksum(block: bytes) -> bytes:
    whole = v2(block + tlv(0x03, bytes(4)))
    return whole[:-4] + struct.pack("!I", crc32c(whole))


def parse(octets: bytes) -> tuple[ProxyHeader | None, bytes]:
    parser = ProxyParser()
    return parser.receive(octets), parser.rest


CLIENT4, CLIENT6 = ProxyHeader("192.0.2.7", 4711), ProxyHeader("2001:db8::7", 4711)
TLS13 = ssl(0x01, tlv(0x21, b"TLSv1.3"), tlv(0x22, b"a CN, ignored"), tlv(0x23, b"TLS_AES_256_GCM_SHA384"))
GOOD = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 995\r\n", CLIENT4),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::7 2001:DB8::1 4711 995\r\n", CLIENT6),
    "v1 TCP6, IPv4 in it": (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4711 995\r\n", CLIENT4),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    "v1 UNKNOWN, the longest": (b"PROXY UNKNOWN " + b"f" * (V1_OCTETS_MAX - 16) + b"\r\n", ProxyHeader()),
    "v2 TCP4": (v2(IPV4), CLIENT4),
    "v2 TCP6": (v2(IPV6, 0x21), CLIENT6),
    "v2 UNIX": (v2(b"/run/x".ljust(216, b"\0"), 0x31), ProxyHeader()),
    "v2 unspecified": (v2(b"\x99 discarded", 0x00), ProxyHeader()),
    "v2 LOCAL": (v2(b"", 0x00, 0x20), ProxyHeader()),
    "v2 LOCAL, with a block": (v2(IPV4 + b"\x99", 0x11, 0x20), ProxyHeader()),
    "v2 SSL": (
        v2(IPV4 + TLS13),
        ProxyHeader("192.0.2.7", 4711, ProxiedTls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    ),
    "v2 SSL, but the client spoke none": (v2(IPV4 + ssl(0x00)), CLIENT4),
    "v2 SSL, bare": (v2(IPV4 + ssl(0x07)), ProxyHeader("192.0.2.7", 4711, ProxiedTls())),
    "v2 UNIX with SSL": (v2(bytes(216) + ssl(), 0x31), ProxyHeader(tls=ProxiedTls())),
    "v2 authority": (v2(IPV4 + tlv(0x02, "bücher".encode())), ProxyHeader("192.0.2.7", 4711, None, "bücher")),
    "v2 checksum": (with_checksum(IPV4 + tlv(0x04, b"padding")), CLIENT4),
    "v2 unknown extensions": (v2(IPV4 + tlv(0xE0, b"x") + tlv(0xE0, b"")), CLIENT4),
    "v2, the longest": (v2(IPV4 + tlv(0x04, bytes(V2_LENGTH_MAX - 15))), CLIENT4),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_and_what_follows_it(name: str) -> None:
    octets, header = GOOD[name]
    assert parse(octets + HELLO) == (header, HELLO)


@pytest.mark.parametrize("name", GOOD)
def test_octet_by_octet(name: str) -> None:
    octets, header = GOOD[name]
    parser = ProxyParser()
    for octet in octets[:-1]:
        assert parser.receive(bytes([octet])) is None
    assert parser.receive(octets[-1:]) == header
    assert parser.rest == b""


BAD = {
    "no header": b"USER alice\r\n",
    "a ClientHello": b"\x16\x03\x01\x02\x00\x01",
    "another case": b"proxy TCP4",
    "v1 too long": b"PROXY UNKNOWN " + b"f" * (V1_OCTETS_MAX - 15) + b"\r\n",
    "v1 without end": b"PROXY UNKNOWN" + b" " * 200,
    "v1 with LF alone": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 995\n" + b" " * 100,
    "v1 nothing": b"PROXY \r\n",
    "v1 another protocol": b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 995\r\n",
    "v1 two blanks": b"PROXY TCP4  192.0.2.7 198.51.100.1 4711 995\r\n",
    "v1 a blank at the end": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 995 \r\n",
    "v1 too few": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    "v1 a port too great": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 995\r\n",
    "v1 a port with zeros": b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 995\r\n",
    "v1 a port that is none": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 \xb2\r\n",
    "v1 an address with zeros": b"PROXY TCP4 192.0.02.7 198.51.100.1 4711 995\r\n",
    "v1 an address that is none": b"PROXY TCP4 192.0.2.7 mail 4711 995\r\n",
    "v1 the other family": b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 995\r\n",
    "v1 a scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::1 4711 995\r\n",
    "v2 too long": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, V2_LENGTH_MAX + 1),
    "v2 another version": v2(IPV4, command=0x31),
    "v2 another command": v2(IPV4, command=0x22),
    "v2 datagrams": v2(IPV4, 0x12),
    "v2 another family": v2(IPV4, 0x41),
    "v2 too short": v2(IPV4[:-1]),
    "v2 IPv6 too short": v2(IPV4, 0x21),
    "v2 an extension's head cut short": v2(IPV4 + b"\x04\x00"),
    "v2 an extension cut short": v2(IPV4 + tlv(0x04, b"xxx")[:-1]),
    "v2 SSL too short": v2(IPV4 + tlv(0x20, b"\x01\0\0\0")),
    "v2 SSL, an extension cut short": v2(IPV4 + ssl(1, b"\x21\x00\x08TLSv1.3")),
    "v2 SSL twice": v2(IPV4 + ssl(0) + ssl(1)),
    "v2 SSL, a version that forges": v2(IPV4 + ssl(1, tlv(0x21, b"TLSv1.3 user=root"))),
    "v2 authority of other octets": v2(IPV4 + tlv(0x02, b"\xff")),
    "v2 a wrong checksum": with_checksum(IPV4)[:-1] + b"\0",
    "v2 an address changed": with_checksum(IPV4).replace(b"\x07", b"\x08", 1),
    "v2 a checksum of three": v2(IPV4 + tlv(0x03, bytes(3))),
    "v2 two checksums": v2(IPV4 + tlv(0x03, bytes(4)) * 2),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header(name: str) -> None:
    with pytest.raises(ProxyError) as caught:
        parse(BAD[name])
    assert str(caught.value).isprintable()
    assert "forges" not in str(caught.value)


def test_refused_with_the_first_octet_that_cannot_be() -> None:
    for good in (b"PROXY TCP4", SIGNATURE):
        for at in range(6):
            parser = ProxyParser()
            for octet in good[:at]:
                assert parser.receive(bytes([octet])) is None
            with pytest.raises(ProxyError):
                parser.receive(b"\x16")


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


nearly = st.builds(
    lambda name, at, other: GOOD[name][0][:at] + other + GOOD[name][0][at + len(other) :],
    st.sampled_from(sorted(GOOD)),
    st.integers(0, 60),
    st.binary(max_size=4),
)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(v2), nearly), st.data())
def test_any_octets_at_any_cut(octets: bytes, data: st.DataObject) -> None:
    """Never another exception; the same end whatever the cut; and no octet of the client's is lost."""

    def outcome(cuts: list[int]) -> object:
        parser = ProxyParser()
        for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            try:
                header = parser.receive(octets[begin:end])
            except ProxyError:
                return ProxyError
            if header is not None:
                assert octets[:end].endswith(parser.rest)
                return header, parser.rest + octets[end:]
        return None

    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=5)))
    assert outcome(cuts) == outcome([])
