"""``pop3cli check``: what is seen of good servers and bad ones, and what is never said to a stranger."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pop3cli.net.tls import pin_of
from pop3core.answers import LoginRejected
from tests.pki import Authority
from tests.pop3cli.conftest import NASTY, Certificate, Cli, Liar, Mailbox, Ran, Serve, Server
from tests.site import Daemon, Site

pytestmark = pytest.mark.usefixtures("home")


def checked(ran: Ran) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(ran.out)
    assert report["status"] == ran.status
    return report


def test_a_good_server(pop3cli: Cli, server: Server) -> None:
    common = ("check", server.account(), "--cacert", server.certificate)
    report = checked(pop3cli(*common, "--json"))
    own = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    [certificate] = report["certificates"]
    assert certificate["names"] == ["localhost", "127.0.0.1", "::1"]
    assert certificate["pin"] == pin_of(own.public_bytes(Encoding.DER)).hex()
    assert certificate["not_after"] == own.not_valid_after_utc.isoformat()
    assert certificate["days_left"] == 29
    assert certificate["key"] == "EC 256"
    assert (report["trusted"], report["status"], report["findings"]) == (True, 0, [])
    assert report["tls"]["version"] == "TLSv1.3"
    assert report["greeting"] == "POP3 server ready"
    assert "SASL PLAIN" in report["capabilities"]["before_login"]
    assert report["login"]["mechanism"] == "PLAIN"
    assert report["mailbox"] == {"messages": 5, "octets": sum(map(len, NASTY))}
    shown = pop3cli(*common)
    assert (shown.status, shown.err) == (0, "")
    for text in (
        "Login          by PLAIN",
        "29 days left",
        "trusted      yes",
        f"sha256:{certificate['pin']}",
        "5 messages",
    ):
        assert text in shown.out.decode()


def test_the_pin_it_shows_works(pop3cli: Cli, server: Server) -> None:
    pin = checked(pop3cli("check", server.account(), "--json"))["certificates"][0]["pin"]
    ran = pop3cli("check", server.account(), "--pin", pin)
    assert (ran.status, "trusted      by its pin" in ran.out.decode()) == (0, True)
    more = ("--pin", pin, "--cacert", server.certificate, "--json")
    assert [checked(pop3cli("check", server.account(), *more[:2], "--json"))["pinned"]] == [True]
    assert checked(pop3cli("check", server.account(), *more))["pinned"] is False


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        ("good", "not signed by anyone trusted"),
        ("other", "for other.example"),
        ("expired", "it expired"),
        ("cn", "no subjectAltName"),
    ],
)
def test_a_stranger_is_shown_and_told_nothing(
    pop3cli: Cli,
    serve: Serve,
    certificates: Mapping[str, Certificate],
    certificate: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("POP3CLI_PASSWORD")
    liar = Liar({"CAPA": b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"}, greeting=b"+OK I am \x1b[31mall yours\r\n")
    server = serve(liar, certificate)
    more = () if certificate == "good" else ("--cacert", server.certificate)
    report = checked(pop3cli("check", server.account(), *more, "--json", "--password-command", "touch /never"))
    assert (report["status"], report["trusted"], report["login"]) == (77, False, None)
    bad, *_, last = report["findings"]
    assert (bad["level"], bad["about"]) == ("bad", "certificate")
    assert text in bad["text"]
    assert "a server that is not trusted is told no password" in last["text"]
    assert report["certificates"][0]["fingerprint"]
    assert report["capabilities"]["before_login"] == ["USER", "SASL PLAIN"]
    assert liar.seen == [b"CAPA\r\n", b"QUIT\r\n"]
    assert not Path("/never").exists()
    shown = pop3cli("check", server.account(), *more)
    assert "Greeting       I am ␛[31mall yours" in shown.out.decode()


def test_a_chain_and_a_certificate_that_ends_soon(pop3cli: Cli, serve: Serve, site: Site) -> None:
    authority = Authority(site.root / "ca", "our authority")
    own, key = authority.issue("server", dns=["localhost"], days=5.5)
    (site.root / "cert.pem").write_bytes(own.read_bytes() + authority.certificate.read_bytes())
    (site.root / "key.pem").write_bytes(key.read_bytes())
    site.maildir("alice", {})
    daemon = Daemon(site)
    try:
        command = ("--password-command", "echo secret")
        url = f"pop3s://alice@localhost:{site.port}"
        report = checked(pop3cli("check", url, "--cacert", authority.certificate, "--json", *command))
    finally:
        daemon.end()
    assert report["status"] == 0
    assert [one["subject"] for one in report["certificates"]] == ["CN=somebody", "CN=our authority"]
    assert report["findings"] == [
        {"level": "warning", "about": "certificate", "text": "it expires in 5 days; it should be renewed now"}
    ]
    assert report["capabilities"]["after_login"]


def test_stls(pop3cli: Cli, site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("[tls]", 'tls = "starttls"\n[tls]', 1))
    site.maildir("alice", {})
    url = f"pop3://alice@localhost:{site.port}"
    daemon = Daemon(site)
    try:
        command = ("--json", "--password-command", "echo secret")
        good = checked(pop3cli("check", url, "--cacert", site.certificate, *command))
        stranger = checked(pop3cli("check", url, *command))
    finally:
        daemon.end()
    assert (good["status"], good["login"]["mechanism"]) == (0, "PLAIN")
    assert (stranger["status"], stranger["trusted"]) == (77, False)
    assert stranger["certificates"] == good["certificates"]


@pytest.mark.parametrize(
    ("mailbox", "status", "text"),
    [
        (Mailbox(login=LoginRejected("AUTH", "no")), 77, "refused the login: [AUTH] no; check user name and password"),
        (Mailbox(login=LoginRejected("IN-USE", "locked")), 75, "try again when that has ended"),
    ],
)
def test_a_login_that_fails(pop3cli: Cli, serve: Serve, mailbox: Mailbox, status: int, text: str) -> None:
    server = serve(mailbox)
    report = checked(pop3cli("check", server.account(), "--cacert", server.certificate, "--json"))
    assert (report["status"], report["trusted"], report["mailbox"]) == (status, True, None)
    [finding] = report["findings"]
    assert finding["about"] == "login"
    assert text in finding["text"]


def test_nobody_there(pop3cli: Cli) -> None:
    ran = pop3cli("check", "pop3s://alice@127.0.0.1:1")
    assert ran.status == 69
    assert "Connection refused; is the server running" in ran.out.decode()


def test_without_a_user_or_a_password(pop3cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("--cacert", server.certificate, "--json")
    report = checked(pop3cli("check", f"pop3s://127.0.0.1:{server.port}", *more))
    assert (report["status"], report["user"]) == (0, None)
    assert "nobody is named" in report["findings"][0]["text"]
    monkeypatch.delenv("POP3CLI_PASSWORD")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    report = checked(pop3cli("check", server.account(), *more))
    assert report["status"] == 2
    assert "no password for alice@127.0.0.1" in report["findings"][0]["text"]
    assert report["tls"]["cipher"]


def test_insecure_is_not_called_trust(pop3cli: Cli, server: Server) -> None:
    report = checked(pop3cli("check", server.account(), "--insecure", "--json"))
    assert (report["status"], report["trusted"]) == (0, False)
    assert report["login"]["mechanism"] == "PLAIN"
    assert "not verified, because of --insecure" in report["findings"][0]["text"]


@pytest.mark.parametrize(
    ("replies", "cut", "status", "about"),
    [
        ({"CAPA": b"-ERR\r\n"}, None, 76, "mailbox"),  # +OK to STAT without numbers
        ({"CAPA": b"+OK\r\nUSER\r\n.\r\n"}, "CAPA", 69, "login"),
        ({"CAPA": b"frob\r\n"}, None, 76, "capabilities"),
    ],
)
def test_liars(pop3cli: Cli, serve: Serve, replies: dict[str, bytes], cut: str | None, status: int, about: str) -> None:
    server = serve(Liar(replies, cut=cut))
    report = checked(pop3cli("check", server.account(), "--cacert", server.certificate, "--json"))
    assert report["status"] == status
    assert about in [finding["about"] for finding in report["findings"] if finding["level"] == "bad"]
