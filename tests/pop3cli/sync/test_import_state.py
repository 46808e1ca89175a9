"""The memory of other programs is taken over: as they wrote it themselves, where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pop3cli.accounts.url import parse_account
from pop3cli.errors import BadState, SettingFault, UsageFault
from pop3cli.sync.import_state import remembered
from tests.pop3cli.conftest import Sync, there
from tests.site import Site

ALICE = parse_account("pop3s://alice@localhost:8995")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def forget_one(box: Path) -> None:
    """What the other program has not fetched."""
    (box / "new" / "9.later").write_bytes(b"Subject: later\n\n")


@needs("mpop")
def test_mpop(site: Site, box: Path, sync: Sync, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for folder in ("tmp", "new", "cur"):
        (tmp_path / "theirs" / folder).mkdir()
    rc = tmp_path / "rc"
    rc.write_text(
        f"account x\nhost localhost\nport {site.port}\nuser alice\npassword secret\nauth user\n"
        "tls on\ntls_starttls off\n"
        f"tls_trust_file {site.certificate}\nkeep on\nuidls_file {tmp_path}/uidls\ndelivery maildir {tmp_path}/theirs\n"
        "account default : x\n"
    )
    rc.chmod(0o600)
    subprocess.run(["mpop", "-q", "-C", rc], check=True, timeout=60)
    forget_one(box)
    assert sync("--import-state", "mpop", tmp_path / "uidls", "--dry-run").out == (
        b"alice@localhost: 1 message to fetch, 0 to delete\n"
    )
    ran = sync("--import-state", "mpop", tmp_path / "uidls", "--delete-after", "1d")
    assert ran.out == b"alice@localhost: 1 message fetched, 18 B\n"
    ran = sync("--delete")
    assert (ran.status, ran.out) == (0, b"alice@localhost: nothing new; 1 deleted\n")
    assert "messages that another program has fetched stay on the server: 3; nobody knows" in ran.err
    assert there(box) == {"1.a", "2.b", "3.c"}


@needs("fetchmail")
def test_fetchmail(site: Site, box: Path, sync: Sync, tmp_path: Path) -> None:
    rc = tmp_path / "rc"
    rc.write_text(
        f"set no syslog\npoll localhost protocol pop3 port {site.port} uidl\n"
        '  user "alice" password "secret" is root here\n'
        f'  ssl sslcertck sslcertfile "{site.certificate}" keep\n'
    )
    rc.chmod(0o600)
    files = ["--pidfile", tmp_path / "pid", "-i", tmp_path / "ids", "--bsmtp", tmp_path / "bsmtp"]
    environment = {"FETCHMAILHOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["fetchmail", "-f", rc, "-s", *files], check=True, timeout=60, env=environment)
    forget_one(box)
    assert b": 1 message fetched, 18 B" in sync("--import-state", "fetchmail", tmp_path / "ids").out


def test_getmail(box: Path, sync: Sync, tmp_path: Path) -> None:
    old = tmp_path / "oldmail-localhost-8995-alice"
    old.write_bytes(b"1.a\x001600000000\n3.c\x001795456857\n")
    assert remembered("getmail", old, ALICE) == {"1.a": 1600000000, "3.c": 1795456857}
    ran = sync("--import-state", "getmail", old, "--delete-after", "365d")
    assert ran.out == b"alice@localhost: 1 message fetched, 24 B\n"
    assert "messages that another program has fetched stay on the server: 1; nobody knows" in ran.err
    assert there(box) == {"1.a", "2.b", "3.c"}


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(SettingFault, match="cannot be read"):
        remembered("mpop", path, ALICE)
    path.write_text("bob@localhost 1\nalice@other 2\n")
    with pytest.raises(SettingFault, match="nothing of alice@localhost in it, but of alice@other, bob@localhost"):
        remembered("fetchmail", path, ALICE)
    with pytest.raises(UsageFault, match="it is one of mpop, getmail, fetchmail"):
        remembered("procmail", path, ALICE)
    for program, text in (
        ("mpop", "stray\n"),
        ("mpop", " 3 localhost alice\n1\n2\n"),
        ("mpop", " 3 localhost alice\n1\n 1 localhost bob\n2\n"),
        ("getmail", "1.a 1600000000\n"),
        ("getmail", "1.a\0soon\n"),
        ("fetchmail", "nonsense\n"),
        ("fetchmail", "alice@localhost \x1b[31m\n"),
    ):
        path.write_text(text)
        with pytest.raises(BadState, match=f"not as {program} writes it"):
            remembered(program, path, ALICE)
    path.write_text("# comment\n#\n 2 localhost alice\n#1\n2\n 1 localhost bob b\n3\n")
    assert remembered("mpop", path, ALICE) == {"#1": 0, "2": 0}
