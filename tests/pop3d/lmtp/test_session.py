"""LMTP over real sockets, into real Maildirs."""

import poplib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.lmtp import LmtpClient, delivered
from tests.site import Daemon, Site, free_port, site_configuration

MESSAGE = b"Subject: hello\r\nMessage-ID: <1@example.net>\r\n\r\none\r\n.two\r\n..\r\n"


class LmtpSite(Site):
    """A site that takes mail at a TCP port and at a Unix socket."""

    lmtp_port: int

    @property
    def socket(self) -> Path:
        return self.root / "lmtp.sock"

    def new(self, user: str) -> list[Path]:
        return sorted((self.root / "mail" / user / "new").glob("*"))  # names begin with the time


def made(root: Path, more: str = "") -> LmtpSite:
    site = LmtpSite(root, free_port())
    site.lmtp_port = free_port()
    create_self_signed(["localhost"], root)
    add_user(root / "users", "alice", "secret", scheme="PLAIN")
    add_user(root / "users", "Bob@example.org", "secret", scheme="PLAIN")
    with (root / "users").open("a") as users:
        users.write("locked@example.org:{PLAIN}x:::::: nologin\n")
        users.write("small@example.org:{PLAIN}x:::::: userdb_quota_rule=*:storage=2K\n")
        users.write("plus+sign@example.org:{PLAIN}x\nmüller@example.org:{PLAIN}x\n")
    site.config.write_text(
        site_configuration(site.port)
        + f"""
[[listen]]
protocol = "lmtp"
port = {site.lmtp_port}
[[listen]]
protocol = "lmtp"
path = "lmtp.sock"
mode = "0600"
[lmtp]
local_domains = ["Example.ORG"]
{more}
"""
    )
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmtpSite]:
    """Served."""
    site = made(tmp_path_factory.mktemp("lmtp"), "message_octets = 1_000_000")
    daemon = Daemon(site, wait_for="lmtp.sock")
    try:
        yield site
        assert daemon.end() == 0
        assert "Traceback" not in daemon.log
    finally:
        daemon.process.kill()


@pytest.fixture
def client(site: LmtpSite) -> Iterator[LmtpClient]:
    with LmtpClient(site.lmtp_port) as client:
        yield client


def test_a_message_as_it_is_delivered(site: LmtpSite, client: LmtpClient) -> None:
    assert delivered(client.handed_over(MESSAGE, "alice@example.org", sender="bob+1@example.net"))
    (path,) = site.new("alice")
    head, _, body = path.read_bytes().partition(b"Subject: ")
    assert body == MESSAGE.replace(b"\r\n", b"\n").removeprefix(b"Subject: ")
    assert re.fullmatch(
        r"Return-Path: <bob\+1@example\.net>\n"
        r"Delivered-To: alice@example\.org\n"
        r"Received: from mta\.example\.org\n\tby localhost \(pop3d\) with LMTP id [0-9a-f]{12}\n"
        r"\tfor <alice@example\.org>; \w{3}, \d+ \w{3} \d{4} [\d:]+ [+-]\d{4}\n",
        head.decode(),
    )
    sent = path.read_bytes().replace(b"\n", b"\r\n")
    assert f",S={path.stat().st_size},W={len(sent)}" in path.name
    pop3 = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
    pop3.user("alice")
    pop3.pass_("secret")
    (size,) = [int(line.split()[1]) for line in pop3.list()[1]]
    lines, octets = pop3.retr(1)[1:]
    assert size == octets == sum(len(line) + 2 for line in lines)
    assert lines[-3:] == [b"one", b".two", b".."]
    pop3.quit()


@pytest.mark.parametrize(
    ("recipient", "reply", "user"),
    [
        ("BOB@Example.org", "250 2.0.0", "Bob@example.org"),
        ("bob+lists@example.org", "250 2.0.0", "Bob@example.org"),
        ('"bob"@example.org', "250 2.0.0", "Bob@example.org"),
        ("@relay.example,@other.example:bob@example.org", "250 2.0.0", "Bob@example.org"),
        ("alice+a+b@example.org", "250 2.0.0", "alice"),
        ("alice", "250 2.0.0", "alice"),
        ("plus+sign@example.org", "250 2.0.0", "plus+sign@example.org"),
        ("locked@example.org", "250 2.0.0", "locked@example.org"),
        ("alice@example.net", "550 5.1.1", ""),
        ("plus@example.org", "550 5.1.1", ""),
        ("+lists@example.org", "550 5.1.1", ""),
        ('"../alice"@example.org', "550 5.1.1", ""),
        ('"a b"@example.org', "550 5.1.1", ""),
        ('"alice@example.org"@example.org', "550 5.1.1", ""),
        ("müller@example.org", "553 5.6.7", ""),
    ],
)
def test_whose_an_address_is(site: LmtpSite, client: LmtpClient, recipient: str, reply: str, user: str) -> None:
    before = site.new(user) if user else []
    assert client.handed_over(MESSAGE, recipient) == [reply]
    if user:
        assert len(site.new(user)) == len(before) + 1


def test_an_address_in_utf8(site: LmtpSite, client: LmtpClient) -> None:
    assert client.said("MAIL FROM:<büro@example.net> SMTPUTF8", "RCPT TO:<müller@example.org>") == [
        "250 2.1.0",
        "250 2.1.5",
    ]
    client.send("DATA\r\nSubject: ü\r\n\r\n.\r\n".encode())
    assert client.replied(2) == ["354 go", "250 2.0.0"]
    text = site.new("müller@example.org")[0].read_text()
    assert text.startswith("Return-Path: <büro@example.net>\nDelivered-To: müller@example.org\n")
    assert "with UTF8LMTP id" in text


def test_each_recipient_has_an_answer_and_the_mailboxes_say_the_same(site: LmtpSite, client: LmtpClient) -> None:
    before = {user: len(site.new(user)) for user in ("alice", "Bob@example.org")}
    (site.root / "mail/locked@example.org/tmp").mkdir(parents=True, exist_ok=True)
    answers = client.handed_over(
        MESSAGE + b"x" * 3000 + b"\r\n",
        "alice@example.org",
        "small@example.org",
        "nobody@example.org",
        "alice@example.org",  # said twice: one copy
        "alice+lists@example.org",  # another address: one of its own
        "bob@example.org",
    )
    assert answers == ["250 2.0.0", "452 4.2.2", "550 5.1.1", "250 2.0.0", "250 2.0.0", "250 2.0.0"]
    assert len(site.new("alice")) == before["alice"] + 2
    assert len(site.new("Bob@example.org")) == before["Bob@example.org"] + 1
    assert site.new("small@example.org") == []


def test_a_mailbox_that_cannot_be_written_to_is_told_later(site: LmtpSite, client: LmtpClient) -> None:
    """By its own fault of the disk; the connection goes on."""
    folder = site.root / "mail/small@example.org"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("in its place")
    assert client.handed_over(MESSAGE, "small@example.org", "bob@example.org") == ["451 4.3.0", "250 2.0.0"]
    folder.unlink()
    assert delivered(client.handed_over(MESSAGE, "small@example.org"))


def test_large_messages_are_kept_in_a_file_and_too_large_ones_nowhere(site: LmtpSite) -> None:
    with LmtpClient(site.socket) as client:
        message = MESSAGE + (b"y" * 78 + b"\r\n") * 10_000  # behind what is kept in memory
        assert delivered(client.handed_over(message, "bob@example.org", "alice@example.org"))
        for user in ("Bob@example.org", "alice"):
            assert site.new(user)[-1].read_bytes().endswith(message.replace(b"\r\n", b"\n"))
        assert client.handed_over(message * 2, "bob@example.org") == ["552 5.3.4"]
        assert client.said("MAIL FROM:<> SIZE=1000001", "MAIL FROM:<> SIZE=1000000") == ["552 5.3.4", "250 2.1.0"]
    assert [path for path in (site.root / "state").iterdir() if path.is_file()] == []


def test_lines_of_any_length_and_bare_ends_of_lines_are_kept(site: LmtpSite, client: LmtpClient) -> None:
    message = b"X: " + b"z" * 100_000 + b"\r\n\r\nbare\nLF, bare\rCR, CR\r\r\nCRLF, \xff\0\r\n.\n.\r\n"
    client.said("MAIL FROM:<a@example.net> BODY=8BITMIME", "RCPT TO:<bob@example.org>", "DATA")
    client.send(message.replace(b"\r\n.\n", b"\r\n..\n") + b".\r\n")
    assert client.replied(1) == ["250 2.0.0"]
    stored = site.new("Bob@example.org")[-1].read_bytes()
    assert stored.endswith(b"z\n\nbare\nLF, bare\rCR, CR\r\r\nCRLF, \xff\0\n.\n.\n")


def test_a_sender_that_vanishes_delivers_nothing(site: LmtpSite) -> None:
    before = len(site.new("alice"))
    client = LmtpClient(site.socket)
    client.said("MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA")
    client.send(b"Subject: half\r\n\r\nhalf\r\n.\r")
    client.close()
    with LmtpClient(site.socket) as other:
        assert delivered(other.handed_over(MESSAGE, "alice@example.org"))
    assert len(site.new("alice")) == before + 1


def test_who_may_connect_to_the_socket(site: LmtpSite) -> None:
    assert site.socket.stat().st_mode & 0o777 == 0o600


def test_a_second_server_leaves_a_living_socket_alone(site: LmtpSite, tmp_path: Path) -> None:
    config = site.config.read_text().replace(f"port = {site.port}", f"port = {free_port()}")
    config = config.replace(f"port = {site.lmtp_port}", f"port = {free_port()}")
    other = site.root / "other.toml"
    other.write_text(config)
    command = [sys.executable, "-m", "pop3d", "serve", "--config", str(other)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 69
    assert f"cannot listen on {site.socket}: Address already in use; end what listens there" in done.stderr
    with LmtpClient(site.socket) as client:
        assert client.noop()[0] == 250


def test_drain_delivers_what_is_under_way_and_tells_the_idle(tmp_path: Path) -> None:
    site = made(tmp_path, 'over_quota = "refuse"')
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(site.socket))  # of a server that was killed
    daemon = Daemon(site, wait_for="lmtp.sock")
    try:
        idle, busy = LmtpClient(site.socket), LmtpClient(site.lmtp_port)
        assert idle.handed_over(MESSAGE + b"x" * 3000 + b"\r\n", "small@example.org") == ["552 5.2.2"]
        busy.said("MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA")
        busy.send(b"Subject: late\r\n")
        time.sleep(0.2)  # the octets are there before the signal
        daemon.send(signal.SIGTERM)
        assert idle.replied(1) == ["421 4.3.2"]
        busy.send(b"\r\n.\r\n")
        assert busy.replied(2) == ["250 2.0.0", "421 4.3.2"]
        assert daemon.end() == 0
        assert len(site.new("alice")) == 1
        assert not site.socket.exists()
        idle.close()
        busy.close()
        assert "delivered user=alice to=alice@example.org sender=a@example.net octets=" in daemon.log
        assert "not delivered user=small@example.org" in daemon.log
    finally:
        daemon.process.kill()


def test_an_administrator_sees_it(site: LmtpSite, client: LmtpClient) -> None:
    client.handed_over(MESSAGE, "alice@example.org")
    command = [sys.executable, "-m", "pop3d", "status", "--config", str(site.config)]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert f"listens on\t{site.socket}" in lines
    (told,) = [line for line in lines if line.startswith("by LMTP\t")]
    assert re.fullmatch(r"by LMTP\t.*\d+ delivered.*; \d+ of 100 connections", told)
