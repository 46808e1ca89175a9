"""Dovecot's formats of unique-ids; `tests/interop/test_moving_here.py` has the same beside the real Dovecot."""

import hashlib

import pytest

from pop3d.uidl_format import UidlFormat, UidSource

NAME = b"1700000001.M1P1.Host,S=2"
VALUES = {"uid": b"42", "uidvalidity": b"1600000000", "filename": NAME, "guid": b"0123abcd"}
MD5 = hashlib.md5(NAME).hexdigest().encode()


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("%08Xu%08Xv", b"0000002a5f5e1000"),
        ("%v.%u", b"1600000000.42"),
        ("UID%u-%v", b"UID42-1600000000"),
        ("%f", NAME),
        ("%g", b"0123abcd"),
        ("%Mf", MD5),
        ("%Lf", NAME.lower()),
        ("%Uf", NAME.upper()),
        ("%Rf", NAME[::-1]),
        ("%LRf", NAME.lower()[::-1]),
        ("%Xf%u", b"042"),
        ("%Df%u", NAME.replace(b".", b",dc=") + b"42"),
        ("%5f", NAME[:5]),
        ("%-5f", NAME[:5]),
        ("%2.5f", NAME[2:7]),
        ("%-5.3f", NAME[-5:-2]),
        ("%-99.3f", NAME[:3]),
        ("%0.-3f", NAME[:-3]),
        ("%2.-99f", NAME[2:]),
        ("%99.3f%u", b"42"),
        ("%06u", b"000042"),
        ("%2.06u", b"000000"),
        ("%01u", b"42"),
        ("%6u", b"42"),
        ("%%%u%%", b"%42%"),
        ("%12Mf", MD5[:12]),
        ("%Nf", b"%x" % (int(MD5[:16], 16) & 0xFFFFFFFF)),
        ("%100Nf", b"%x" % (int(MD5[:16], 16) % 100)),
        ("%12.100Nf", b"%012x" % (int(MD5[:16], 16) % 100)),
        ("%Hu", b"%x" % ((ord("4") << 4) + ord("2"))),
        ("%10Hu", b"%x" % (((ord("4") << 4) + ord("2")) % 10)),
        ("%u-%", None),
        ("%{uid | hex(8)}%{uidvalidity | hex(8)}", b"0000002a5f5e1000"),
        ("%{uid}-%{ uidvalidity }", b"42-1600000000"),
        ("%{uid|hex}", b"2a"),
        ("%{uid | hex(1)}", b"a"),
        ("%{uid | hex(-4)}", b"2a00"),
        ("%{filename | md5}", MD5),
        ("%{filename | upper | truncate(4)}", b"1700"),
        ("%{guid | reverse}", b"dcba3210"),
    ],
)
def test_what_a_format_makes(text: str, uid: bytes | None) -> None:
    if uid is None:
        with pytest.raises(ValueError, match="names no variable"):
            UidlFormat(text)
    else:
        assert UidlFormat(text).expand(VALUES) == uid


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "none of %u, %f and %g"),
        ("%v", "none of %u, %f and %g"),
        ("static", "none of %u, %f and %g"),
        ("%u%m", "'%m': %m is of mbox"),
        ("%u%{md5}", "%m is of mbox"),
        ("%u%08Xq", "'%08Xq': there is no variable 'q'"),
        ("%u%{pid}", "there is no variable 'pid'"),
        ("%{uid", "'%{uid' is not"),
        ("%{uid | rot13}", "no filter 'rot13'"),
        ("%{uid | lower(3)}", "no filter 'lower'"),
        ("%{uid | hex(999)}", "a number over 255"),
        ("%999u", "'%999u' has a number over 255"),
        ("%LLLLLLLLLLLu", "more than 10 modifiers"),
        ("%u" * 200, "at most 255 characters"),
    ],
)
def test_a_format_that_is_wrong_is_told_with_the_part(text: str, part: str) -> None:
    with pytest.raises(ValueError) as fault:
        UidlFormat(text)
    assert part in str(fault.value)


def test_which_formats_need_dovecots_list() -> None:
    assert {text for text in ("%u", "%f", "%g", "%v%f", "%Mf") if UidlFormat(text).needs_list} == {"%u", "%v%f"}


def test_the_setting() -> None:
    assert not UidSource.of("filename").is_foreign
    assert UidSource.of("dovecot").format.text == "%08Xu%08Xv"
    assert UidSource.of("dovecot:UID%u-%v").format.text == "UID%u-%v"
    assert UidSource.of("courier").server == "courier"
    for setting in ("", "cyrus", "courier:%u", "Dovecot", "%v.%u"):
        with pytest.raises(ValueError, match="is none of"):
            UidSource.of(setting)
    with pytest.raises(ValueError, match=r"'dovecot:%z': '%z': there is no variable 'z'"):
        UidSource.of("dovecot:%z")
