import asyncio
import base64
import hashlib
import json
import logging
import poplib
import re
import time
from array import array
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.errors import LoginRefused
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3core.maildrop import Listing, PackedOctets
from pop3core.sasl import login, plain, scram
from pop3d.observe.log import Event, _Refusals, _Text, configure, failed_login, sanitized, session_line
from pop3d.observe.report import SessionReport
from tests.interop.test_mechanisms import end_point
from tests.site import Daemon, Site

ROOT = Path(__file__).parents[3]


class Lines:
    """What is logged inside a ``with``. (Not a fixture: pytest hangs its own handlers on loggers between phases.)"""

    def __init__(self, capsys: pytest.CaptureFixture[str], level: str = "info", form: str = "text") -> None:
        self._capsys, self._level, self._form = capsys, level, form
        self.lines: list[str] = []

    def __enter__(self) -> "Lines":
        logger = logging.getLogger("pop3d")
        self._before = (logger.handlers[:], logger.level, logger.propagate)
        configure(self._level, self._form)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("pop3d")
        logger.handlers[:], level, logger.propagate = self._before
        logger.setLevel(level)
        self.lines = self._capsys.readouterr().err.splitlines()


def formatted(event: Event, form: str) -> str:
    """The line that an event becomes."""
    logger = logging.getLogger("pop3d")
    before = (logger.handlers[:], logger.level, logger.propagate)
    configure("info", form)
    try:
        record = logger.makeRecord("pop3d", logging.WARNING, "", 0, event, (), None)
        return logger.handlers[0].format(record)
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\x1b[31mb", "a\x9bb", "a\u2028b", "a\u202eb", "a\0b", "\udcff"])
def test_nothing_from_outside_forges_a_line(capsys: pytest.CaptureFixture[str], evil: str, form: str) -> None:
    with Lines(capsys, form=form) as told:
        failed_login("192.0.2.1", evil)
        logging.getLogger("pop3d.x").info("told %s", evil)
    assert len(told.lines) == 2
    for line in told.lines:
        assert line.isprintable()
        line.encode()


# any character, lone surrogates too: so look octets that are no UTF-8
NAMES = st.text(st.characters() | st.sampled_from('\n\r\0\x1b"\\ =\u2028\u202e\udc80-'), max_size=700)


@pytest.mark.parametrize(
    ("zone", "time_told"),
    [
        ("UTC", "2026-11-23 07:10:12.101+00:00"),
        ("Asia/Kolkata", "2026-11-23 12:40:12.101+05:30"),
        ("XYZ3:30", "2026-11-23 03:40:12.101-03:30"),
    ],
)
def test_the_time_has_its_zone(zone: str, time_told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "created": 1795417812.1012, "msecs": 101.2})
        formatter = _Text("%(asctime)s")
        assert formatter.format(record) == f"{time_told} INFO x"
        record.msecs = 7.9
        assert formatter.format(record) == f"{time_told.replace('.101', '.007')} INFO x"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(NAMES)
def test_whatever_the_name_a_text_line_has_these_fields_and_no_others(name: str) -> None:
    line = formatted(Event("authentication failed", ip="192.0.2.1", user=name, n=3), "text")
    assert line.isprintable()
    assert line.splitlines() == [line]
    value = r'"(?:[^"\\]|\\.)*"|[^\s"\\=]+'
    found = re.fullmatch(rf".{{29}} WARNING authentication failed ip=192\.0\.2\.1 user=({value}) n=3", line)
    assert found
    assert len(found[1].encode()) <= 514
    if not name:
        assert found[1] == "-"
    elif len(name) < 50:
        # nothing is lost: what is between quotes, or plain, is the name
        inner = found[1][1:-1] if found[1].startswith('"') else found[1]
        assert unescaped(inner) == name


@given(NAMES)
def test_whatever_the_name_a_json_line_is_one_object(name: str) -> None:
    line = formatted(Event("authentication failed", ip="192.0.2.1", user=name, n=3), "json")
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert list(told) == ["time", "level", "event", "ip", "user", "n"]
    assert (told["level"], told["event"], told["ip"], told["n"]) == ("warning", "authentication failed", "192.0.2.1", 3)
    assert told["user"] is None if not name else told["user"].isprintable()
    if 0 < len(name) < 50:
        assert unescaped(told["user"]) == name


def unescaped(text: str) -> str:
    """What stands behind the escapes."""
    pattern = r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([nrt\\"]))'
    short = {"n": "\n", "r": "\r", "t": "\t"}

    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else short.get(match[4], match[4])

    return re.sub(pattern, one, text)


def test_json_says_when_in_utc_and_keeps_sentences_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys, form="json") as told:
        logging.getLogger("pop3d.x").info("listening on %s", "::1")
        try:
            raise RuntimeError("first\nforged")
        except RuntimeError:
            logging.getLogger("pop3d.x").exception("broken")
    first, second = map(json.loads, told.lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    now = datetime.now().astimezone()
    assert abs((now - datetime.fromisoformat(first["time"])).total_seconds()) < 600
    assert (first["level"], first["event"], first["message"]) == ("info", "message", "listening on ::1")
    assert second["traceback"][0].startswith("Traceback")
    assert second["traceback"][-1] == "forged"


def test_a_failed_login_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys) as told:
        failed_login("2001:db8::1", "x" * 10_000)
        failed_login("192.168.100.200", "\U000e0001" * 10_000)
        failed_login("2001:0db8:1111:2222:3333:4444:5555:6666", "somebody.with.a.long.name@mail.example.org")
    assert len(told.lines) == 3
    for line in told.lines:
        assert len(line.encode()) <= 150
    assert "authentication failed ip=2001:db8::1 user=xxx" in told.lines[0]


def report(listing: Listing | None, reason: str = "the client is gone", octets_in: int = 6) -> SessionReport:
    return SessionReport(
        address="192.0.2.1",
        user="alice" if listing is not None else None,
        tls="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        mechanism="PLAIN" if listing is not None else "",
        listing=listing,
        commands={"QUIT": 1},
        retrieved=0,
        retrieved_octets=0,
        octets_in=octets_in,
        octets_out=80,
        deleted=0,
        seconds=0.25,
        reason=reason,
    )


def test_unique_ids_are_hashed_where_that_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    uids = [b"%d.host" % number for number in range(1001)]
    with Lines(capsys, form="json") as told:
        for count in (0, 1, 1000, 1001):
            session_line(report(Listing(array("Q", [1] * count), PackedOctets(uids[:count]))))
        session_line(report(None))
    lines = [json.loads(line) for line in told.lines]
    assert [line["messages"] for line in lines] == [0, 1, 1000, 1001, None]
    for line, count in zip(lines, (0, 1, 1000), strict=False):
        assert line["uids"] == hashlib.sha256(b"\n".join(uids[:count])).hexdigest()[:16]
    assert [line["uids"] for line in lines[3:]] == [None, None]
    assert lines[4]["user"] is None


def test_a_session_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys) as told:
        session_line(report(None))
    (line,) = told.lines
    assert line.endswith(
        "INFO session ip=192.0.2.1 user=- tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 mechanism=- messages=- retrieved=0 "
        'octets=0 octets_in=6 octets_out=80 deleted=0 seconds=0.250 uids=- reason="the client is gone"'
    )


def test_who_came_and_went_without_a_word_is_told_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    left = ("the client is gone", "the client went away without QUIT")
    with Lines(capsys, "debug") as told:
        for reason in (*left, "no TLS handshake in time", "TLS handshake failed: HTTP_REQUEST"):
            session_line(report(None, reason, 0))
            session_line(report(None, reason, 1))
    levels = [line.split()[2] for line in told.lines]
    assert levels == ["DEBUG", "INFO", "DEBUG", "INFO", "INFO", "INFO", "INFO", "INFO"]
    source = "".join((ROOT / name).read_text() for name in ("pop3d/session.py", "pop3core/server.py"))
    assert all(f'"{reason}"' in source for reason in left)


def test_a_traceback_keeps_to_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys) as told:
        try:
            raise RuntimeError("first\nforged INFO line")
        except RuntimeError:
            logging.getLogger("pop3d.x").exception("broken")
    first, *rest = told.lines
    assert first.endswith("ERROR broken")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_the_level_of_the_log_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys, "error") as told:
        logging.getLogger("pop3d.x").warning("not told")
        session_line(report(None))
    assert told.lines == []


def test_a_flood_of_refused_connections_is_told_in_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    refusals = _Refusals(2)
    with Lines(capsys, "info") as told:
        for now in (1.0, 1.2, 1.4, 1.9, 2.0, 3.0):
            refusals.tell("192.0.2.7", "too many", now)
    refused = 'connection refused ip=192.0.2.7 reason="too many"'
    assert [line.partition(" WARNING ")[2] for line in told.lines] == [
        refused, refused, "more connections refused number=2", refused, refused,
    ]  # fmt: skip


def test_harmless_text_stays() -> None:
    assert sanitized("alice@exämple.org ✓") == "alice@exämple.org ✓"


PASSWORD = "pässword with blanks, =:+/ and more"


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_mechanism_leaves_a_secret_in_the_log(site: Site, form: str) -> None:
    (site.root / "users").write_text(f"alice:{{PLAIN}}{PASSWORD.replace(':', ';')}\n")
    password = PASSWORD.replace(":", ";").encode()
    names = ["plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus"]
    text = site.config.read_text().replace("[auth]", f"[auth]\nmechanisms = {json.dumps(names)}")
    site.config.write_text(f'{text}\n[log]\nformat = "{form}"\nlevel = "debug"\n[limits]\nauth_penalty = 0\n')
    site.maildir("alice", {"new/1.host": b"Subject: x\n\nhello\n"})
    daemon = await asyncio.to_thread(Daemon, site)
    try:
        for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"):
            binding = end_point(site.certificate) if mechanism.endswith("PLUS") else None
            for secret in (password, password + b" wrong"):
                steps = {"PLAIN": plain.client, "LOGIN": login.client}.get(mechanism)
                generator = (
                    steps("alice", secret) if steps else scram.client("alice", secret, "nonce", channel_binding=binding)
                )
                async with Session() as session, asyncio.timeout(30):
                    context = client_context(site.certificate)
                    await session.connect("127.0.0.1", site.port, tls=context, implicit=True, timeout=10)
                    if secret != password:
                        with pytest.raises(LoginRefused):
                            await session.authenticate(mechanism, generator)
                        continue
                    await session.authenticate(mechanism, generator)
                    await session.quit()
        await asyncio.to_thread(visit_by_poplib, site, password)
    finally:
        status = await asyncio.to_thread(daemon.end)
    assert status == 0
    mechanisms = re.findall(r'mechanism(?:=|": ")([-A-Z0-9]+)', daemon.log)
    assert {"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "USER", "APOP"} <= set(mechanisms)
    for secret in (password, password + b" wrong", password[:-1], password[3:-3]):
        for before in (b"", b"x", b"xx", b"\0alice\0"):
            for word in (secret, before + secret):
                encoded = base64.b64encode(word).decode()[4:-4]
                assert encoded not in daemon.log
        assert secret not in daemon.log.encode()


def visit_by_poplib(site: Site, password: bytes) -> None:
    for attempt in ("user", "apop", "wrong"):
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        client.encoding = "utf-8"
        if attempt == "apop":
            client.apop("alice", password.decode())
        else:
            client.user("alice")
            if attempt == "wrong":
                with pytest.raises(poplib.error_proto, match="AUTH"):
                    client.pass_(password.decode() + " wrong")
            else:
                client.pass_(password.decode())
        client.quit()


def test_the_line_of_a_session_says_what_it_was(site: Site) -> None:
    site.config.write_text(f'{site.config.read_text()}\n[log]\nformat = "json"\n')
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n", "new/2.host": b"two\n"})
    daemon = Daemon(site)
    try:
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        said = sum(map(len, (client.getwelcome(), client.user("alice"), client.pass_("secret"))))
        said += client.retr(1)[2] + len(b"+OK 19 octets\r\n") + len(b".\r\n") + len(client.dele(2)) + len(client.quit())
    finally:
        assert daemon.end() == 0
    (line,) = [told for told in map(json.loads, daemon.log.splitlines()) if told["event"] == "session"]
    commands = b"USER alice\r\nPASS secret\r\nRETR 1\r\nDELE 2\r\nQUIT\r\n"
    seconds = line.pop("seconds")
    assert 0 < seconds < 60
    del line["time"]
    assert line.pop("cipher").startswith("TLS_")
    assert (
        line
        == {
            "level": "info",
            "event": "session",
            "ip": "127.0.0.1",
            "user": "alice",
            "tls": "TLSv1.3",
            "mechanism": "USER",
            "messages": 2,
            "retrieved": 1,
            "octets": 19,
            "octets_in": len(commands),
            "octets_out": said + 2 * 5,  # poplib strips the line ends of five replies
            "deleted": 1,
            "uids": hashlib.sha256(b"1.host\n2.host").hexdigest()[:16],
            "reason": "QUIT",
        }
    )
