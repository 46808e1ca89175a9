"""Clients that are not ours read a Maildir of real-shaped mail, octet for octet."""

import poplib
import shutil
import subprocess

import pytest

from tests.interop.real_mail import MESSAGES, as_sent
from tests.site import Daemon, Site


def top(text: bytes, lines: int) -> bytes:
    """What TOP must give of a message: all of its header, the empty line, that many lines more."""
    kept = []
    in_body = False
    for line in text.splitlines(keepends=True):
        if in_body and not lines:
            break
        lines -= in_body
        in_body = in_body or line == b"\r\n"
        kept.append(line)
    return b"".join(kept)


@pytest.fixture
def filled(site: Site) -> list[bytes]:
    """What each message must be when it is retrieved, by number."""
    site.maildir("alice", MESSAGES)
    return [as_sent(MESSAGES[name]) for name in sorted(MESSAGES, key=lambda name: name[4:])]


def test_poplib_retrieves_every_octet(
    site: Site, filled: list[bytes], daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poplib, "_MAXLINE", 1_000_000)  # poplib refuses lines over 2,048 octets; ours has one
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=60)
    client.user("alice")
    client.pass_("secret")
    assert client.stat() == (len(filled), sum(map(len, filled)))
    assert client.list()[1] == [b"%d %d" % (number, len(text)) for number, text in enumerate(filled, 1)]
    for number, text in enumerate(filled, 1):
        _, lines, _ = client.retr(number)
        assert b"".join(line + b"\r\n" for line in lines) == text
        _, lines, _ = client.top(number, 1)
        assert b"".join(line + b"\r\n" for line in lines) == top(text, 1)
    client.quit()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing; install it")
def test_curl_retrieves_every_octet(site: Site, filled: list[bytes], daemon: Daemon, tmp_path) -> None:
    url = f"pop3s://127.0.0.1:{site.port}/[1-{len(filled)}]"
    arguments = ["curl", "-sS", "--cacert", str(site.certificate), "--user", "alice:secret", url]
    subprocess.run([*arguments, "-o", str(tmp_path / "message-#1")], check=True, timeout=120)
    for number, text in enumerate(filled, 1):
        # curl takes the CRLF before the final dot for a part of the message, also where a message is empty
        assert (tmp_path / f"message-{number}").read_bytes() == (text or b"\r\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing; install it")
def test_curl_deletes(site: Site, filled: list[bytes], daemon: Daemon) -> None:
    url = f"pop3s://127.0.0.1:{site.port}/1"
    arguments = ["curl", "-sS", "--cacert", str(site.certificate), "--user", "alice:secret", "-X", "DELE", "-I", url]
    subprocess.run(arguments, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert not (site.root / "mail/alice/new/01.lf").exists()
    assert len(list((site.root / "mail/alice").glob("*/*"))) == len(filled) - 1
