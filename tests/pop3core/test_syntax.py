"""Lines to commands and back, argument by argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.commands import (
    Apop,
    Auth,
    Capa,
    Dele,
    Lang,
    List,
    Noop,
    Pass,
    Quit,
    Retr,
    Rset,
    Stat,
    Stls,
    Top,
    Uidl,
    User,
    Utf8,
)
from pop3core.syntax import BadCommand, encode, parse
from pop3core.table import RULE_OF, RULES

GOOD = [
    (b"USER alice", User("alice")),
    ("USER jürgen@example.org".encode(), User("jürgen@example.org")),
    (b"PASS secret", Pass(b"secret")),
    (b"PASS  two  blanks ", Pass(b" two  blanks ")),
    ("PASS pässword".encode(), Pass("pässword".encode())),
    (b"PASS \xff\xfe", Pass(b"\xff\xfe")),
    (b"STAT", Stat()),
    (b"LIST", List()),
    (b"LIST 1", List(1)),
    (b"UIDL", Uidl()),
    (b"UIDL 9999999999", Uidl(9_999_999_999)),
    (b"RETR 1", Retr(1)),
    (b"RETR 007", Retr(7)),
    (b"DELE 2", Dele(2)),
    (b"TOP 1 0", Top(1, 0)),
    (b"TOP 3 10", Top(3, 10)),
    (b"NOOP", Noop()),
    (b"RSET", Rset()),
    (b"CAPA", Capa()),
    (b"QUIT", Quit()),
    (b"STLS", Stls()),
    (b"UTF8", Utf8()),
    (b"LANG", Lang()),
    (b"LANG *", Lang("*")),
    (b"LANG pt-BR", Lang("pt-BR")),
    (b"LANG a", Lang("a")),
    (b"LANG abcdefgh-1-abcdefgh-c-d-e-f-g-h", Lang("abcdefgh-1-abcdefgh-c-d-e-f-g-h")),
    (b"AUTH X", Auth("X")),
    (b"AUTH ABCDEFGHIJ-123456_89", Auth("ABCDEFGHIJ-123456_89")),
    (b"PASS ~\x80", Pass(b"~\x80")),
    (b"AUTH PLAIN", Auth("PLAIN")),
    (b"AUTH PLAIN =", Auth("PLAIN", b"")),
    (b"AUTH scram-sha-256 AAEC/w==", Auth("SCRAM-SHA-256", b"\0\1\2\xff")),
    (b"APOP mrose c4c9334bac560ecc979e58001b3e22fb", Apop("mrose", "c4c9334bac560ecc979e58001b3e22fb")),
]


@pytest.mark.parametrize(("line", "command"), GOOD, ids=lambda value: str(value)[:30])
def test_good_lines(line: bytes, command: object) -> None:
    assert parse(line) == command
    keyword, blank, rest = line.partition(b" ")
    assert parse(keyword.lower() + blank + rest) == command
    assert parse(keyword.title() + blank + rest) == command


BAD = {
    "USER": [b"USER", b"USER ", b"USER a b", b"USER  a", b"USER a ", b"USER a\0b", b"USER \x1b[31m", b"USER \xff",
             "USER a\u2028b".encode(), "USER a\u202eb".encode(), b"USER a\x7f"],
    "PASS": [b"PASS", b"PASS ", b"PASS a\0b", b"PASS a\rb", b"PASS \x1b", b"PASS \x1f", b"PASS \x7f"],
    "STAT": [b"STAT ", b"STAT 1", b"STAT  "],
    "LIST": [b"LIST ", b"LIST 0", b"LIST -1", b"LIST +1", b"LIST 1 ", b"LIST  1", b"LIST 1 2", b"LIST x", b"LIST 1x",
             b"LIST 0x1", b"LIST 1_0", "LIST ١".encode(), b"LIST 1\0", b"LIST \x001", b"LIST 99999999999", b"LIST 1.0",
             "LIST ²".encode()],
    "UIDL": [b"UIDL ", b"UIDL 0", b"UIDL 1 2", b"UIDL \x001"],
    "RETR": [b"RETR", b"RETR ", b"RETR 0", b"RETR 1 1", b"RETR a"],
    "DELE": [b"DELE", b"DELE 0", b"DELE 1 2", b"DELE 1,2"],
    "TOP": [b"TOP", b"TOP 1", b"TOP 1 ", b"TOP 1 -1", b"TOP 0 1", b"TOP 1  0", b"TOP 1 1 1", b"TOP 1 x"],
    "NOOP": [b"NOOP x", b"NOOP "],
    "RSET": [b"RSET x"],
    "CAPA": [b"CAPA x"],
    "QUIT": [b"QUIT now", b"QUIT "],
    "STLS": [b"STLS x"],
    "UTF8": [b"UTF8 USER"],
    "LANG": [b"LANG ", b"LANG de fr", b"LANG de_AT", b"LANG 1", b"LANG -", b"LANG toolonglanguage", b"LANG d\xc3\xa9",
             b"LANG abcdefghi", b"LANG de-", b"LANG de-abcdefghi", b"LANG a-1-2-3-4-5-6-7-8-9"],
    "AUTH": [b"AUTH", b"AUTH ", b"AUTH PLAIN ", b"AUTH PLAIN *", b"AUTH PLAIN AA", b"AUTH PLAIN AAE=x",
             b"AUTH PLAIN ==", b"AUTH PLAIN AA==AA==", b"AUTH PLAIN AAAA AAAA", b"AUTH PLA!N",
             b"AUTH " + b"X" * 21, b"AUTH PL\xc3\x84IN"],
    "APOP": [b"APOP", b"APOP a", b"APOP a " + b"0" * 31, b"APOP a " + b"G" * 32, b"APOP a " + b"A" * 32,
             b"APOP a  " + b"0" * 32, b"APOP " + b"0" * 32, b"APOP a " + b"0" * 32 + b" x"],
}  # fmt: skip


@pytest.mark.parametrize("line", [line for lines in BAD.values() for line in lines], ids=repr)
def test_bad_lines_are_refused_with_the_usage(line: bytes) -> None:
    with pytest.raises(BadCommand) as caught:
        parse(line)
    keyword = line.split(b" ")[0].decode()
    assert f"usage: {keyword}" in str(caught.value)


@pytest.mark.parametrize(
    "line", [b"", b" ", b" NOOP", b"NOOPE", b"XTND", b"\0", b"NO\xc3\x98P", b"USER\talice", b"LIST\x001"]
)
def test_unknown_commands(line: bytes) -> None:
    with pytest.raises(BadCommand, match="unknown command"):
        parse(line)


@pytest.mark.parametrize("command", [command for _, command in GOOD], ids=repr)
def test_what_is_said_is_understood(command) -> None:
    line = encode(command)
    assert line.endswith(b"\r\n")
    assert parse(line[:-2]) == command


@pytest.mark.parametrize(
    "command",
    [User(""), User("a b"), User("a\r\nQUIT"), User("a\0"), User("\ud800"), Pass(b""), Pass(b"a\r\nDELE 1"),
     Pass(b"a\0"), Auth("two words"), Auth(""), Auth("\u00c4"), Apop("a", "x"), Lang("\r\n"),
     Retr(0), Retr(-1), Retr(10**10), List(0), Top(1, -1), Top(0, 1), User(5), Retr("1"), Retr(None)],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_said_never_leaves(command) -> None:
    with pytest.raises(BadCommand, match="usage"):
        encode(command)


def test_a_refusal_never_shows_a_password() -> None:
    for refuse in (lambda: encode(Pass(b"hush\r\n")), lambda: parse(b"PASS hush\0")):
        with pytest.raises(BadCommand) as caught:
            refuse()
        assert "hush" not in str(caught.value)


@given(st.binary(max_size=40))
def test_any_line_is_a_command_or_refused(line: bytes) -> None:
    try:
        command = parse(line)
    except BadCommand as fault:
        assert str(fault).isprintable()
    else:
        assert type(command) in RULE_OF


@given(st.sampled_from(RULES), st.binary(max_size=20))
def test_any_arguments_are_read_or_refused(rule, rest: bytes) -> None:
    try:
        command = parse(rule.keyword.encode() + b" " + rest)
    except BadCommand:
        return
    assert parse(encode(command)[:-2]) == command
