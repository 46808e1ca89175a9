"""A trace of a session: each line harmless, none with a secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pop3cli.net.trace import Trace
from tests.pop3cli.conftest import NASTY, Ran, Server


def test_trace(pop3cli: Callable[..., Ran], server: Server) -> None:
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--trace")
    octets = sum(map(len, NASTY))
    lines = ran.err.splitlines()
    assert lines[:3] == [
        f"-- connected to 127.0.0.1 port {server.port} over TLSv1.3",
        "S: +OK POP3 server ready",
        "C: CAPA",
    ]
    assert lines[lines.index("C: AUTH PLAIN ***") :] == [
        "C: AUTH PLAIN ***",
        f"S: +OK 5 messages ({octets} octets)",
        "C: STAT",
        f"S: +OK 5 {octets}",
        "C: QUIT",
        "S: +OK bye",
    ]
    assert ran.out.startswith(b"5 messages")


def traced(*pieces: tuple[str, bytes]) -> list[str]:
    shown: list[str] = []
    trace = Trace(lambda who, line: shown.append(f"{who}: {line}"))
    for who, data in pieces:
        trace.sent(data) if who == "C" else trace.received(data)
    return shown


def test_a_trace_has_no_secrets() -> None:
    assert traced(("C", b"PASS a b\r\n"), ("S", b"+OK you said a b\r\n")) == ["C: PASS ***", "S: +OK you said ***"]
    assert traced(("C", b"pa"), ("C", b"ss x\r\n")) == ["C: pass ***"]
    assert traced(("C", b"APOP bob c4c9334bac560ecc979e58001b3e22fb\r\n")) == ["C: APOP bob ***"]
    assert traced(("C", b"AUTH PLAIN c2VjcmV0\r\n"), ("S", b"+OK\r\n")) == ["C: AUTH PLAIN ***", "S: +OK"]
    assert traced(("C", b"AUTH\tPLAIN\tc2VjcmV0\r\n")) == ["C: ***"]
    assert traced(("C", b"\r\n"), ("C", b"STAT\r\n")) == ["C: ", "C: STAT"]
    exchange = ("C", b"AUTH LOGIN\r\n"), ("S", b"+ VXNlcg==\r\n"), ("C", b"Ym9i\r\n"), ("S", b"-ERR Ym9i\r\n")
    assert traced(*exchange, ("C", b"NOOP\r\n")) == [
        "C: AUTH LOGIN", "S: + VXNlcg==", "C: ***", "S: -ERR ***", "C: NOOP",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "heard", "shown"),
    [
        (b"USER alice hunter2", b"-ERR what is hunter2?", ["C: USER ***", "S: -ERR what is ***?"]),
        (b"PAS hunter2", b"-ERR unknown command: PAS hunter2", ["C: ***", "S: -ERR unknown command: ***"]),
        (b"PAS hunter2", b"-ERR unknown: hunter2", ["C: ***", "S: -ERR unknown: ***"]),
        (b"hunter2", b"-ERR", ["C: ***", "S: -ERR"]),
        (b" PASS hunter2", b"-ERR", ["C: ***", "S: -ERR"]),
        (b"AUTH hunter2", b"-ERR no mechanism hunter2", ["C: AUTH ***", "S: -ERR no mechanism ***"]),
        # a password that the server found in the base64
        (b"AUTH PLAIN AGFsaWNlAGh1bnRlcjI=", b"-ERR not hunter2", ["C: AUTH PLAIN ***", "S: -ERR not ***"]),
        # one that is longer than what is shown of a line, or that the server cuts
        (b"PASS " + b"abcd" * 500, b"-ERR " + b"abcd" * 400, None),
        (b"PASS " + b"abcd" * 500, b"-ERR " + b"abcd" * 9, ["C: PASS *** ... (982 octets more)", "S: -ERR ***"]),
    ],
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_in_no_trace(said: bytes, heard: bytes, shown: list[str] | None) -> None:
    lines = traced(("C", said + b"\r\n"), ("S", heard + b"\r\n"))
    assert shown is None or lines == shown
    assert not any("hunter" in line or "abcd" in line for line in lines)


def test_what_a_server_says_in_scram_is_not_shown() -> None:
    exchange = ("C", b"AUTH SCRAM-SHA-256 bixh\r\n"), ("S", b"+ cj14\r\n"), ("C", b"Yz1i\r\n"), ("S", b"+ dj1h\r\n")
    assert traced(*exchange, ("C", b"\r\n"), ("S", b"+OK\r\n"), ("S", b"+ x\r\n")) == [
        "C: AUTH SCRAM-SHA-256 ***", "S: + ***", "C: ***", "S: + ***", "C: ***", "S: +OK", "S: + x",
    ]  # fmt: skip


def test_a_trace_is_harmless_and_bounded() -> None:
    assert traced(("S", b"\x1b[2J\xff\r\n")) == ["S: ␛[2J\ufffd"]
    (line,) = traced(*[("S", b"x" * 1000)] * 5, ("S", b"\n"))
    assert line == "S: " + "x" * 1024 + " ... (3976 octets more)"
