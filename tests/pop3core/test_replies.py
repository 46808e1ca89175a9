import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.replies import CODES, Status, decode, encode_err, encode_ok


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"+OK", Status(True, None, "")),
        (b"+OK ", Status(True, None, "")),
        (b"+ok lower", Status(True, None, "lower")),
        (b"+OK dewey POP3 server ready", Status(True, None, "dewey POP3 server ready")),
        (b"-ERR [IN-USE] Do you have another session?", Status(False, "IN-USE", "Do you have another session?")),
        (b"-ERR [sys/temp] later", Status(False, "SYS/TEMP", "later")),
        (b"-ERR [AUTH]", Status(False, "AUTH", "")),
        (b"-ERR [not a code] text", Status(False, None, "[not a code] text")),
        (b"-ERR [] text", Status(False, None, "[] text")),
        (b"-ERR [a/] text", Status(False, None, "[a/] text")),
        (b"-ERR [A]text", Status(False, None, "[A]text")),
        (b"-ERR caf\xe9", Status(False, None, "caf\ufffd")),
        (b"OK", None),
        (b"+OKAY", None),
        (b"", None),
        (b" +OK", None),
        (b"+", None),
        (b"* BYE", None),
    ],
)
def test_decode(line: bytes, status: Status | None) -> None:
    assert decode(line) == status


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)), st.sampled_from([None, *CODES]))
def test_what_is_encoded_is_decoded(text: str, code: str | None) -> None:
    line = encode_err(text, code)
    assert line.endswith(b"\r\n")
    status = decode(line[:-2])
    assert status is not None
    assert not status.ok
    if code:
        assert (status.code, status.text) == (code, text)


def test_a_text_is_never_taken_for_a_code() -> None:
    # RFC 2449 §6.4: what begins with "[" is a response code
    for line in (encode_ok("[192.0.2.1] POP3 server ready"), encode_err("[what] is this")):
        status = decode(line[:-2])
        assert status is not None
        assert status.code is None
    assert encode_ok("[192.0.2.1] ready") == b"+OK (192.0.2.1) ready\r\n"


def test_ok_without_text() -> None:
    assert encode_ok("") == b"+OK\r\n"
    assert encode_ok("x") == b"+OK x\r\n"
    assert encode_err("x", "AUTH") == b"-ERR [AUTH] x\r\n"


def test_every_code_we_send_is_defined_by_an_rfc() -> None:
    # RFC 2449 §9
    assert all(re.fullmatch(r"RFC \d+ §[\d.]+", origin) for origin in CODES.values())
    for path in [*Path("pop3core").rglob("*.py"), *Path("pop3d").rglob("*.py")]:
        said = re.findall(r"(?:StoreError|CommitFailed|ContentFailed|LoginRejected|encode_err)\(.*", path.read_text())
        for code in re.findall(r'"([A-Z0-9-]{3,}(?:/[A-Z]+)*)"', " ".join(said)):
            assert code in CODES, path
