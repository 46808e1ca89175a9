"""The doctor: nothing wrong with a good server, and each examination fails for the server it is there for."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import ssl
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest

from pop3cli.accounts.url import parse_account
from pop3cli.doctor import command
from pop3cli.doctor.command import examine
from pop3cli.doctor.findings import Verdict
from pop3cli.doctor.report import Result
from pop3cli.doctor.server_under_test import ServerUnderTest
from pop3cli.doctor.table import EXAMINATIONS
from pop3cli.net.tls import client_context
from pop3d.testing import serving
from tests.pop3cli.bent import ERR, MAIL, OK, PASSWORD, Bent, Talk
from tests.pop3cli.conftest import Certificate, Cli, Liar, Ran, Screen, Serve, Server, spawn

ROOT = Path(__file__).parents[3]


def by_id(ran: Ran) -> dict[str, dict[str, str]]:
    return {one["id"]: one for one in json.loads(ran.out)["examinations"]}


def not_passed(ran: Ran) -> dict[str, str]:
    return {
        name: f"{one['verdict']}: {one['seen']}"
        for name, one in by_id(ran).items()
        if one["verdict"] not in ("pass", "skipped")
    }


def clear_text(serve: Serve, certificates: Mapping[str, Certificate], talk: type[Talk] = Talk) -> tuple[Bent, str]:
    """A server with STLS, and its account's URL."""
    files = certificates["good"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.path, files.key)
    bent = Bent(talk, context)
    server = serve(bent, tls=False)
    return bent, f"pop3://alice@127.0.0.1:{server.port}"


# --- good servers ---


async def test_pop3d_has_no_fault() -> None:
    mail = [b"Subject: a\n\n.\n..\nend\n", b"Subject: b\n\nno end", b"", b"no headers\n\n"]
    async with serving({"alice": mail}) as server:
        account = parse_account(f"pop3s://alice@127.0.0.1:{server.port}")
        patient = ServerUnderTest(account, client_context(server.certificate), b"secret", 10)
        results = [result async for result in examine(patient, destructive=True)]
        assert len(server.store.messages("alice")) == len(mail) - 1
    assert {result.examination.id for result in results} == {one.id for one in EXAMINATIONS}
    wrong = [(r.examination.id, r.finding.seen) for r in results if r.finding.verdict in (Verdict.FAIL, Verdict.WARN)]
    assert wrong == []
    skipped = [result.examination.id for result in results if result.finding.verdict is Verdict.SKIPPED]
    assert skipped == ["stls-injection"]


def test_the_server_of_these_tests_is_honest(pop3cli: Cli, serve: Serve) -> None:
    bent = Bent()
    server = serve(bent)
    ran = pop3cli("doctor", server.account(), "--json", "--cacert", server.certificate)
    assert not_passed(ran) == {}
    assert (ran.status, ran.err) == (0, "")
    assert len(bent.mail) == len(MAIL)


def test_stls(pop3cli: Cli, serve: Serve, certificates: Mapping[str, Certificate]) -> None:
    _, account = clear_text(serve, certificates)
    ran = pop3cli("doctor", account, "--json", "--cacert", certificates["good"].path)
    assert not_passed(ran) == {}
    assert by_id(ran)["stls-injection"]["verdict"] == "pass"


class BySaslAlone(Talk):
    outside = ("SASL PLAIN",)

    def do_user(self, _name: bytes) -> bytes:
        return ERR

    def do_utf8(self) -> bytes:
        return ERR

    def do_lang(self, tag: bytes | None = None) -> bytes:
        return ERR

    async def auth(self, words: list[bytes]) -> bytes | None:
        if [word.upper() for word in words] != [b"PLAIN"]:
            return b"-ERR no such mechanism\r\n"
        self.writer.write(b"+ \r\n")
        answer = await self.line()
        return self.enter() if answer == b64encode(b"\0alice\0" + PASSWORD) else b"-ERR [AUTH] no\r\n"


def test_a_server_with_sasl_alone(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Bent(BySaslAlone))
    ran = pop3cli("doctor", server.account(), "--json", "--cacert", server.certificate)
    assert (not_passed(ran), ran.status, ran.err) == ({}, 0, "")


class Bare(Talk):
    """RFC 1939 without any of its options, and no CAPA."""

    outside = everywhere = ()

    def commands(self) -> set[str]:
        return super().commands() - {"CAPA", "TOP", "UIDL", "UTF8", "LANG"}


def test_a_server_without_options(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Bent(Bare))
    ran = pop3cli("doctor", server.account(), "--json", "--cacert", server.certificate)
    assert set(not_passed(ran)) == {"capa-form"}
    assert {one["verdict"] for one in by_id(ran).values()} == {"pass", "warn", "skipped"}


def test_an_empty_mailbox(pop3cli: Cli, serve: Serve) -> None:
    bent = Bent()
    bent.mail.clear()
    server = serve(bent)
    ran = pop3cli("doctor", server.account(), "--json", "--cacert", server.certificate, "--destructive", "--yes")
    assert (not_passed(ran), ran.status, ran.err) == ({}, 0, "")
    skipped = {name for name, one in by_id(ran).items() if one["verdict"] == "skipped"}
    assert {"size", "top-head", "dele-quit"} <= skipped


# --- one fault each ---


class SpeaksTwice(Talk):
    greeting = b"+OK hello\r\n+OK are you there?\r\n"


class BadCapability(Talk):
    everywhere = (*Talk.everywhere, "TWO  BLANKS")


class ForgetsTop(Talk):
    outside = (*Talk.outside, "PIPELINING")
    everywhere = tuple(one for one in Talk.everywhere if one != "PIPELINING")


class NoUser(Talk):
    def do_user(self, _name: bytes) -> bytes:
        return OK if self.number <= 3 else ERR  # the first login only


class SilentlyPlain(Talk):
    outside = ("USER", "SASL CRAM-MD5", "UTF8", "LANG")


class CancelIsFine(Talk):
    async def auth(self, words: list[bytes]) -> bytes | None:
        return OK if await super().auth(words) == b"-ERR [AUTH] no\r\n" else ERR


class StlsBehindTls(Talk):
    outside = (*Talk.outside, "STLS")


class NoUtf8(Talk):
    def do_utf8(self) -> bytes:
        return ERR


class AnyLanguage(Talk):
    def do_lang(self, tag: bytes | None = None) -> bytes:
        return super().do_lang() if tag is None else OK


class NoTop(Talk):
    def do_top(self, word: bytes, count: bytes) -> bytes:
        return ERR


class NoUidl(Talk):
    def do_uidl(self, word: bytes | None = None) -> bytes:
        return ERR


class ExpiresSoon(Talk):
    everywhere = (*Talk.everywhere[:4], "EXPIRE soon", "LOGIN-DELAY 0")


class DelayOfUser(Talk):
    everywhere = (*Talk.everywhere[:4], "EXPIRE 30", "LOGIN-DELAY 60 USER")


class WrongStat(Talk):
    def do_stat(self) -> bytes:
        return b"+OK 3 1\r\n"


class ListsWhatIsNot(Talk):
    def do_list(self, word: bytes | None = None) -> bytes:
        return super().do_list(word) if word != b"4" else b"+OK 4 100\r\n"


class CountsLf(Talk):
    def size(self, name: int) -> int:
        return len(self.names[name].replace(b"\r\n", b"\n"))


class Unstuffed(Talk):
    def do_retr(self, word: bytes) -> bytes:
        return super().do_retr(word).replace(b"\r\n..dot", b"\r\n.dot")


class EndsAtADot(Talk):
    def do_retr(self, word: bytes) -> bytes:
        return super().do_retr(word).replace(b"\r\n...\r\n", b"\r\n.\r\n")


class TopSendsAll(Talk):
    def do_top(self, word: bytes, count: bytes) -> bytes:
        return super().do_top(word, b"1000000" if count == b"0" else count)


class TopCountsFromOne(Talk):
    def do_top(self, word: bytes, count: bytes) -> bytes:
        return super().do_top(word, b"1" if count == b"2" else count)


class TopHasAMost(Talk):
    def do_top(self, word: bytes, count: bytes) -> bytes:
        return super().do_top(word, count if len(count) < 5 else b"3")


class UidWithBlank(Talk):
    def uid(self, name: int) -> bytes:
        return b"uid %d" % name


class OneUid(Talk):
    def uid(self, name: int) -> bytes:
        return b"same"


class LongUid(Talk):
    def uid(self, name: int) -> bytes:
        return b"%071d" % name


class NewUids(Talk):
    def uid(self, name: int) -> bytes:
        return b"%d-%d" % (self.number, name)


class CapitalsOnly(Talk):
    async def answer(self, line: bytes) -> bytes | None:
        return ERR if line[:4] in (b"noop", b"NoOp") else await super().answer(line)


class AnythingGoes(Talk):
    async def answer(self, line: bytes) -> bytes | None:
        return OK if line.startswith(b"XNOSUCH") and len(line) < 20 else await super().answer(line)


class StatForAll(Talk):
    def commands(self) -> set[str]:
        return {*super().commands(), "STAT"}


class ListZero(Talk):
    def do_list(self, word: bytes | None = None) -> bytes:
        return b"+OK 0 0\r\n" if word == b"0" else super().do_list(word)


class TooMany(Talk):
    def fits(self, name: str, words: list[bytes]) -> bool:
        return super().fits(name, words[:0] if name == "NOOP" else words)

    def do_noop(self, *_words: bytes) -> bytes:
        return OK


class OneAtATime(Talk):
    async def line(self) -> bytes | None:
        line = await super().line()
        if self.inside:
            self.buffer = b""  # what was said ahead is forgotten
        return line


class Backwards(Talk):
    async def line(self) -> bytes | None:
        first = b"\n" not in self.buffer
        line = await super().line()
        if first and self.inside and self.buffer.count(b"\n") > 2:
            self.buffer = b"".join(
                reversed((line or b"").join((b"", b"\n")).splitlines(True) + self.buffer.splitlines(True))
            )
            return await super().line()
        return line


class NoLock(Talk):
    def enter(self) -> bytes:
        self.site.open, self.inside = 1, True
        return OK


class LockWithoutCode(Talk):
    def enter(self) -> bytes:
        return b"-ERR in use\r\n" if self.site.open else super().enter()


class HangsWhenLocked(Talk):
    def enter(self) -> bytes:
        return b"" if self.site.open else super().enter()


class Short(Talk):
    line_max = 100

    async def answer(self, line: bytes) -> bytes | None:
        return None if len(line) > 100 else await super().answer(line)


class InPieces(Talk):
    async def line(self) -> bytes | None:
        line = await super().line()
        if line is not None and len(line) > 1000:
            line, self.buffer = line[:1000], line[1000:] + b"\r\n" + self.buffer
        return line


class Stares(Talk):
    async def answer(self, line: bytes) -> bytes | None:
        return b"" if len(line) > 60_000 else await super().answer(line)


class StaysOn(Talk):
    async def run(self) -> None:
        await super().run()
        await self.reader.read()


class DeletesWhatWasRead(Talk):
    def do_retr(self, word: bytes) -> bytes:
        self.read = {*getattr(self, "read", ()), self.name(word)}
        return super().do_retr(word)

    def commit(self) -> None:
        for name in getattr(self, "read", ()):
            self.site.mail.pop(name, None)


class CodesInSecret(Talk):
    everywhere = tuple(one for one in Talk.everywhere if one != "RESP-CODES")


class NoReset(Talk):
    def do_rset(self) -> bytes:
        return OK


class StillListed(Talk):
    def listing(self) -> list[tuple[int, int]]:
        return list(enumerate(self.there(), 1))


class DropDeletes(Talk):
    async def run(self) -> None:
        await super().run()
        if self.inside:
            self.commit()


class DeletesNothing(Talk):
    def commit(self) -> None:
        pass


class DeletesAll(Talk):
    def commit(self) -> None:
        if self.marked:
            self.site.mail.clear()


class BareLf(Talk):
    def do_noop(self) -> bytes:
        return b"+OK\n"


class Verbose(Talk):
    def do_noop(self) -> bytes:
        return b"+OK " + b"x" * 600 + b"\r\n"


FAULTS = [
    ("greeting", "fail", SpeaksTwice, "behind the greeting: +OK are you there?"),
    ("capa-form", "fail", BadCapability, "TWO  BLANKS"),
    ("capa-states", "warn", ForgetsTop, "PIPELINING"),
    ("capa-user", "fail", NoUser, "USER is announced, and answered -ERR no"),
    ("capa-sasl", "fail", SilentlyPlain, "AUTH CRAM-MD5: -ERR"),
    ("capa-sasl", "fail", CancelIsFine, "* is answered +OK"),
    ("capa-stls", "fail", StlsBehindTls, "announced behind TLS"),
    ("capa-utf8", "fail", NoUtf8, "UTF8 is announced"),
    ("capa-lang", "fail", AnyLanguage, "an unknown language: +OK"),
    ("capa-top", "fail", NoTop, "TOP is announced"),
    ("capa-uidl", "fail", NoUidl, "UIDL is announced"),
    ("expire", "fail", ExpiresSoon, "EXPIRE soon"),
    ("login-delay", "fail", DelayOfUser, "LOGIN-DELAY 60 USER"),
    ("stat", "fail", WrongStat, "LIST adds up to 3"),
    ("list", "fail", ListsWhatIsNot, "LIST 4: +OK 4 100"),
    ("size", "fail", CountsLf, "RETR sent"),
    ("dot-stuffing", "fail", Unstuffed, "has a line .dot"),
    ("dot-stuffing", "fail", EndsAtADot, "behind RETR 1 and its dot came last"),
    ("top-head", "fail", TopSendsAll, "TOP 1 0 has 6 lines, of RETR's these are 2"),
    ("top-lines", "fail", TopCountsFromOne, "TOP 1 2 has 3 lines, of RETR's these are 4"),
    ("top-all", "fail", TopHasAMost, "1000000 has"),
    ("uidl-form", "fail", UidWithBlank, "uid 1"),
    ("uidl-form", "fail", OneUid, "one unique-id"),
    ("uidl-form", "fail", LongUid, "message 1: 000"),
    ("uidl-stable", "fail", NewUids, "message 1: "),
    ("case", "fail", CapitalsOnly, "noop: -ERR"),
    ("unknown", "fail", AnythingGoes, "XNOSUCH: +OK"),
    ("state", "fail", StatForAll, "STAT before the login: +OK"),
    ("arguments", "fail", ListZero, "LIST 0: +OK 0 0"),
    ("arguments", "warn", TooMany, "NOOP 1: +OK"),
    ("pipelining", "fail", OneAtATime, "no answer within"),
    ("pipelining", "fail", Backwards, "not those of one command after the other"),
    ("lock", "warn", NoLock, "two sessions"),
    ("lock", "warn", LockWithoutCode, "-ERR in use"),
    ("lock", "fail", HangsWhenLocked, "no answer within"),
    ("line-full", "fail", Short, "closed"),
    ("line-long", "fail", InPieces, "answers to three lines"),
    ("line-endless", "fail", Stares, "no answer within"),
    ("quit", "fail", StaysOn, "no answer within"),
    ("quit-keeps", "fail", DeletesWhatWasRead, "is gone or another"),
    ("resp-codes", "fail", CodesInSecret, "without RESP-CODES"),
    ("dele-rset", "fail", NoReset, "RSET: +OK"),
    ("dele-rset", "fail", StillListed, "LIST behind DELE"),
    ("dele-drop", "fail", DropDeletes, "is gone"),
    ("dele-quit", "fail", DeletesNothing, "is still there"),
    ("dele-quit", "fail", DeletesAll, "3 messages are gone"),
    ("reply-form", "fail", BareLf, "LF alone"),
    ("reply-form", "fail", Verbose, "a line of 606 octets"),
]


@pytest.mark.parametrize(("name", "verdict", "talk", "seen"), FAULTS, ids=lambda one: getattr(one, "__name__", None))
def test_every_examination_can_fail(
    pop3cli: Cli, serve: Serve, name: str, verdict: str, talk: type[Talk], seen: str
) -> None:
    server = serve(Bent(talk))
    common = ("--json", "--cacert", server.certificate, "--timeout", 0.5)
    ran = pop3cli("doctor", server.account(), "--destructive", "--yes", *common)
    found = by_id(ran)
    assert (found[name]["verdict"], seen in found[name]["seen"]) == (verdict, True), (found[name], ran.err)
    assert found[name]["remedy"]
    assert ran.status == (1 if any(one["verdict"] == "fail" for one in found.values()) else 0)


class KeepsTheRest(Talk):
    """The fault of 2011: what stood behind STLS is read once more, as if it had come through TLS."""

    def before_handshake(self) -> None:
        pass


class AnswersEarly(Talk):
    async def stls(self, words: list[bytes]) -> bytes | None:
        self.writer.write(OK)
        return self.do_capa() if self.buffer else await self.real(words)

    async def real(self, words: list[bytes]) -> bytes | None:
        await self.writer.drain()
        assert self.site.tls is not None
        await self.writer.start_tls(self.site.tls)
        self.secure = True
        return b""


@pytest.mark.parametrize(("talk", "seen"), [(KeepsTheRest, "executed behind"), (AnswersEarly, "before the handshake")])
def test_injection_before_tls_is_found(
    pop3cli: Cli, serve: Serve, certificates: Mapping[str, Certificate], talk: type[Talk], seen: str
) -> None:
    _, account = clear_text(serve, certificates, talk)
    ran = pop3cli("doctor", account, "--json", "--cacert", certificates["good"].path, "--timeout", 2)
    found = by_id(ran)["stls-injection"]
    assert (found["verdict"], seen in found["seen"]) == ("fail", True), found


def test_every_examination_has_a_server_that_fails_it() -> None:
    assert {name for name, *_ in FAULTS} | {"stls-injection"} == {one.id for one in EXAMINATIONS}


# --- hostile servers ---


class Endless(Talk):
    def do_list(self, word: bytes | None = None) -> bytes:
        return b"+OK\r\n" + b"1 1\r\n" * 2_000_000

    def do_uidl(self, word: bytes | None = None) -> bytes:
        return b"+OK\r\n" + b"1 1\r\n" * 2_000_000


class LongLine(Talk):
    def do_stat(self) -> bytes:
        return b"+OK " + b"9" * 300_000

    def do_capa(self) -> bytes:
        return b"+OK\r\n" + b"\x1b]0;x\x07" * 40_000


class Nonsense(Talk):
    async def answer(self, line: bytes) -> bytes | None:
        reply = await super().answer(line)
        return reply if line[:4] in (b"USER", b"PASS") else bytes(range(256)) + b"\r\n"


class HangsUp(Talk):
    async def answer(self, line: bytes) -> bytes | None:
        return await super().answer(line) if line[:4] in (b"USER", b"PASS", b"CAPA") else None


class Repeats(Talk):
    """Says back what it heard, the password too."""

    def enter(self) -> bytes:
        return super().enter().replace(b"\r\n", b" " + PASSWORD + b"\r\n")

    def do_noop(self) -> bytes:
        return b"-ERR \x1b[2J" + PASSWORD + b"\r\n"


@pytest.mark.parametrize("talk", [Endless, LongLine, Nonsense, HangsUp, Repeats])
def test_hostile_servers(pop3cli: Cli, serve: Serve, talk: type[Talk], tmp_path: Path) -> None:
    server = serve(Bent(talk))
    common = ("--cacert", server.certificate, "--timeout", 1, "--debug")
    ran = pop3cli("doctor", server.account(), *common, "--junit", tmp_path / "out.xml")
    assert (ran.status, ran.err) == (1, "")
    assert b"\x1b" not in ran.out
    assert PASSWORD not in ran.out
    assert PASSWORD not in (tmp_path / "out.xml").read_bytes()


def test_the_wire_is_shown_without_the_password(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Bent(Repeats))
    ran = pop3cli("doctor", server.account(), "--cacert", server.certificate, "--timeout", 1, "--trace")
    assert "C: PASS ***" in ran.err
    assert "C: NOOP" in ran.err
    assert PASSWORD.decode() not in ran.err
    assert "\x1b" not in ran.err


def test_a_slow_server_does_not_take_all_day(pop3cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TOTAL_SECONDS", 0.0)
    server = serve(Bent())
    ran = pop3cli("doctor", server.account(), "--json", "--cacert", server.certificate)
    assert {one["verdict"] for one in by_id(ran).values()} == {"skipped"}


def test_what_makes_an_examination_impossible(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Bent())
    common = ("--cacert", server.certificate)
    wrong = pop3cli("doctor", server.account(), *common, "--password-command", "echo wrong")
    assert (wrong.status, "refused the login: [AUTH] no; check user name and password" in wrong.err) == (77, True)
    assert pop3cli("doctor", server.account()).status == 77  # the certificate
    assert pop3cli("doctor", "pop3s://alice@127.0.0.1:1").status == 69
    asked = pop3cli("doctor", server.account(), *common, "--destructive")
    assert (asked.status, "give --yes" in asked.err) == (2, True)


def test_a_login_without_an_answer_is_tried_once(pop3cli: Cli, serve: Serve) -> None:
    """As of a server that holds its answer back after wrong passwords: each further login would be one more."""
    liar = Liar({"PASS": b"", "AUTH": b""})
    server = serve(liar)
    ran = pop3cli("doctor", server.account(), "--cacert", server.certificate, "--timeout", 0.3)
    assert (ran.status, ran.out) == (69, b"")
    assert ran.err.startswith(f"pop3cli: login to 127.0.0.1 port {server.port}: no answer within 0.3 s to PASS; ")
    assert "check the password, and try later" in ran.err
    assert ran.err.count("\n") == 1
    assert sum(line.startswith((b"PASS", b"AUTH")) for line in liar.seen) == 1


# --- reports ---


def test_reports(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(Bent(WrongStat))
    common = ("--cacert", server.certificate, "--timeout", 2)
    ran = pop3cli("doctor", server.account(), *common, "--junit", tmp_path / "out.xml")
    text = ran.out.decode()
    assert ran.status == 1
    assert text.splitlines()[0].split() == ["Verdict", "Examination", "Seen", "Asked", "by"]
    assert "\nfail stat  RFC 1939 §5\n  asked STAT says how many" in text
    assert text.endswith(f"{len(EXAMINATIONS)} examinations: 33 pass, 0 warn, 1 fail, 4 skipped\n")
    suite = ET.parse(tmp_path / "out.xml").getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (
        "testsuite", str(len(EXAMINATIONS)), "1", "4",
    )  # fmt: skip
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["stat"]


def test_a_person_is_asked_before_a_message_is_deleted(serve: Serve) -> None:
    bent = Bent()
    server: Server = serve(bent)
    master, slave = pty.openpty()
    arguments = ("doctor", server.account(), "--destructive", "--cacert", server.certificate)
    process = spawn(*arguments, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen(master)
    screen.until(b"This deletes message 3 (18 B, the smallest) of alice@127.0.0.1 for good. Go on? [y/N] ")
    screen.type("n\r")
    assert process.wait(10) == 1
    assert len(bent.mail) == len(MAIL)


def test_ids_are_unique_and_every_examination_says_what_is_asked() -> None:
    assert len({one.id for one in EXAMINATIONS}) == len(EXAMINATIONS)
    assert all(len(one.asks) > 20 for one in EXAMINATIONS)


def test_the_page_has_every_examination() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{one.id}` | {one.rfc} | {one.asks} |" for one in EXAMINATIONS]


def test_results_are_plain_data() -> None:
    assert asyncio.iscoroutinefunction(EXAMINATIONS[0].run)
    assert Result.__slots__ == ("examination", "finding", "seconds")
