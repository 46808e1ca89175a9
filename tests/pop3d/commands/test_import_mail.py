"""`pop3d import` as a process."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3d.auth import Account
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir
from tests.packed import PACKERS
from tests.pop3d.commands.small_site import run, small_site


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return small_site(tmp_path)


def test_import_an_mbox(site: Path) -> None:
    (site / "box").write_bytes(b"From a\nSubject: 1\n\n>From x\n\nFrom b\nSubject: 2\n\ny\n")
    code, said, _ = run(site, "import", "alice", site / "box")
    assert (code, said) == (0, "imported 2 messages for alice\n")
    texts = sorted(path.read_bytes() for path in site.glob("mail/alice/new/*"))
    assert texts == [b"Subject: 1\n\nFrom x\n", b"Subject: 2\n\ny\n"]
    again = "imported 0 messages for alice, 2 were imported before (--again brings them once more)\n"
    assert run(site, "import", "alice", site / "box")[:2] == (0, again)
    assert run(site, "import", "alice", site / "box", "--again")[:2] == (0, "imported 2 messages for alice\n")
    code, _, said = run(site, "import", "alice", site / "box", "--again")
    assert code == 75
    assert "mailbox is full" in said


def test_import_a_maildir(site: Path) -> None:
    source = site / "old"
    for folder in ("cur", "new"):
        (source / folder).mkdir(parents=True)
    (source / "cur" / "1.host:2,RS").write_bytes(b"one\n")
    (source / "new" / "2.host").write_bytes(b"two\n")
    (source / "new" / "3.link").symlink_to("/etc/passwd")
    code, said, errors = run(site, "import", "alice", source)
    assert (code, said) == (1, "imported 2 messages for alice, 1 was not\n")
    assert "3.link: not a regular file" in errors
    assert [path.read_bytes() for path in site.glob("mail/alice/cur/*:2,RS")] == [b"one\n"]
    assert [path.read_bytes() for path in site.glob("mail/alice/new/*")] == [b"two\n"]


def test_import_unpacks_what_another_server_compressed(site: Path) -> None:
    texts = [b"Subject: %d\n\n" % number + b"body\n" * 50_000 for number in range(len(PACKERS))]
    whole = PACKERS["gzip"](texts[0])
    box = {
        f"cur/{at}.host:2,SZ": pack(text) for at, (pack, text) in enumerate(zip(PACKERS.values(), texts, strict=True))
    }
    box |= {"cur/7.host:2,Z": whole[:-50], "new/8.host": b"CRYPTED\x03\x07" + bytes(50)}
    for name, octets in box.items():
        (site / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "old" / name).write_bytes(octets)
    change = (site / "pop3d.toml").read_text().replace("quota_messages = 4", "quota_messages = 9")
    (site / "pop3d.toml").write_text(change)
    code, said, errors = run(site, "import", "alice", site / "old")
    assert (code, said) == (1, "imported 5 messages for alice, 2 were not\n")
    assert "7.host:2,Z: its compressed octets (gzip) are truncated; restore" in errors
    assert "8.host: it is encrypted by Dovecot (mail_crypt); " in errors
    assert sorted(path.read_bytes() for path in site.glob("mail/alice/cur/*:2,S")) == texts
    assert not list(site.glob("mail/alice/new/*")) + list(site.glob("mail/alice/tmp/*"))


def test_import_follows_no_link_in_a_maildir(site: Path) -> None:
    """Whoever runs it may read more than the Maildir's owner."""
    source, others = site / "old", site / "others"
    (source / "new").mkdir(parents=True)
    (source / "new" / "1.host").write_bytes(b"one\n")
    others.mkdir()
    (others / "2.host").write_bytes(b"somebody else's\n")
    (source / "cur").symlink_to(others)
    code, _, said = run(site, "import", "alice", source)
    assert code == 65
    assert said.startswith(f"pop3d: {source}: cur/ is not a folder of its own, but a file or a symbolic link; name an")
    assert said.count("\n") == 1
    assert not (site / "mail").exists()
    (source / "cur").unlink()
    assert run(site, "import", "alice", source)[:2] == (0, "imported 1 message for alice\n")


@pytest.mark.parametrize(("make", "words"), [(None, "name an mbox file or a Maildir"), ("dir", "no Maildir"),
                                             ("file", 'it does not begin with "From "')])  # fmt: skip
def test_import_of_an_invalid_source_is_refused(site: Path, make: str | None, words: str) -> None:
    if make == "dir":
        (site / "source").mkdir()
    elif make == "file":
        (site / "source").write_bytes(b"Subject: x\n")
    code, _, said = run(site, "import", "alice", site / "source")
    assert code == 65
    assert words in said


def test_import_of_a_mailbox_into_itself_is_refused(site: Path) -> None:
    assert run(site, "deliver", "alice", stdin=b"x\n")[0] == 0
    (site / "link").symlink_to(site / "mail")
    for source in ("mail/alice", "link/alice/"):
        code, _, said = run(site, "import", "alice", site / source)
        assert (code, said.count("\n")) == (65, 1)
        assert "source and mailbox are the same Maildir; name another source" in said


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts a folder: needs root, unshare")
def test_import_of_a_mailbox_into_itself_by_another_mount_is_refused(site: Path) -> None:
    assert run(site, "deliver", "alice", stdin=b"x\n")[0] == 0
    (site / "mounted").mkdir()
    mount = ["unshare", "-m", "sh", "-ec", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
    importing = [sys.executable, "-m", "pop3d", "import", "alice", site / "mounted" / "alice"]
    command = [*mount, site / "mail", site / "mounted", *importing, "--config", site / "pop3d.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no folder can be mounted here: {done.stderr}")
    assert (done.returncode, len(list(site.glob("mail/alice/new/*")))) == (65, 1)
    assert "source and mailbox are the same Maildir; name another source" in done.stderr


def told(site: Path) -> list[bytes]:
    """Unique-ids as a client sees them."""
    store = MaildirStore(str(site / "mail" / "{user}"), site / "state")

    async def listed() -> list[bytes]:
        drop = await store.open(Account("alice"), utf8=False)
        try:
            return list(drop.messages.uids)
        finally:
            await drop.close()

    return asyncio.run(listed())


@pytest.mark.parametrize(
    ("words", "uids"),
    [
        ([], [b"UID7-9", b"UID8-9", b"3.c"]),
        (["--uidl", "courier"], [b"UID7-9", b"UID8-9", b"3.c"]),
        (["--uidl", "filename"], [b"1.a", b"2.b", b"3.c"]),
        (["--uidl", "dovecot:%f"], [b"1.a,S=2", b"2.b", b"3.c"]),
        (["--uidl", "dovecot:UID%u-%v"], [b"1.a", b"2.b", b"3.c"]),
    ],
)
def test_import_keeps_unique_ids_of_a_list(site: Path, words: list[str], uids: list[bytes]) -> None:
    box = {"new/1.a,S=2": b"a\n", "cur/2.b:2,S": b"b\n", "new/3.c": b"c\n"}
    source = make_maildir(site / "old", box)
    (source / "courierpop3dsizelist").write_text("/3 9 9\n2.b 3 8:9:0\n1.a,S=2 3 7:9:0\n")
    code, said, errors = run(site, "import", "alice", source, *words)
    assert (code, said) == (0, "imported 3 messages for alice\n")
    if not words:
        assert errors == f"pop3d: {source}: unique-ids are those of its courierpop3dsizelist\n"
    elif words[1] == "dovecot:UID%u-%v":
        assert "there is no dovecot-uidlist, so" in errors
    else:
        assert errors == ""
    if words in ([], ["--uidl", "courier"]):
        uids = [uids[1], uids[0], uids[2]]  # the order is the list's
    assert told(site) == uids


def test_import_that_is_interrupted_says_how_to_go_on(site: Path) -> None:
    text = (site / "pop3d.toml").read_text().replace("quota_messages = 4", "")
    (site / "pop3d.toml").write_text(text)
    (site / "box").write_bytes(b"".join(b"From a\nSubject: %d\n\n" % number for number in range(20_000)))
    command = [sys.executable, "-m", "pop3d", "import", "alice", site / "box", "--config", site / "pop3d.toml"]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            before = len(list(site.glob("mail/alice/new/*")))
            until = time.monotonic() + 30
            while len(list(site.glob("mail/alice/new/*"))) == before and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(number)
            said, errors = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, "")
        assert errors.splitlines()[-1] == "pop3d: interrupted; run the same command again to go on"
        assert errors.count("\n") <= 2
    code, said, _ = run(site, "import", "alice", site / "box")
    assert code == 0
    numbers = re.fullmatch(r"imported (\d+) messages for alice, (\d+) were imported before .*\n", said)
    assert numbers is not None
    assert int(numbers[1]) + int(numbers[2]) == 20_000 == len(list(site.glob("mail/alice/new/*")))
    assert not list(site.glob("mail/alice/tmp/*"))


@pytest.mark.parametrize(
    ("words", "lists"),
    [
        ([], "dovecot-uidlist, and no courierpop3dsizelist"),
        (["--uidl", "dovecot"], "dovecot-uidlist"),
        (["--uidl", "courier"], "courierpop3dsizelist"),
        (["--control", "elsewhere"], "dovecot-uidlist, and no courierpop3dsizelist"),
        (["--uidl", "filename"], None),
        (["--uidl", "dovecot:%f"], None),
    ],
)
def test_import_without_a_list(site: Path, words: list[str], lists: str | None) -> None:
    """It may lie elsewhere, and then clients download all their mail again: nobody shall learn that from them."""
    source = make_maildir(site / "old", {"new/1.a": b"a\n"})
    code, _, errors = run(site, "import", "alice", source, *words)
    told = f"there is no {lists}, so unique-ids are those of file names"
    if "courier" not in words:
        told += "; if Dovecot kept it elsewhere (CONTROL=), name that folder by --control"
    assert code == 0
    assert errors == (f"pop3d: {source}: {told}\n" if lists else "")


def test_import_of_an_empty_maildir_says_nothing_of_lists(site: Path) -> None:
    assert run(site, "import", "alice", make_maildir(site / "old", {}))[2] == ""


def as_nobody(site: Path) -> None:
    """That user may enter the site, and write nowhere in it."""
    text = (site / "pop3d.toml").read_text()
    (site / "pop3d.toml").write_text(f'user = "nobody"\n{text}')
    site.chmod(0o755)
    for above in site.parents:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o111)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("all_users", [False, True])
def test_import_before_the_first_start(site: Path, all_users: bool) -> None:
    """The state folder, which the configured user may not make, is made for him."""
    as_nobody(site)
    (site / "mail").mkdir()
    shutil.chown(site / "mail", "nobody")
    (site / "alice").write_bytes(b"From a\n\n1\n")
    what = ("--all", site / "users", f"{site}/{{user}}") if all_users else ("alice", site / "alice")
    code, said, errors = run(site, "import", *what)
    assert (code, errors) == (0, "")
    assert "imported 1 message" in said
    for part in ("cache", "keep"):
        assert (site / "state" / part).owner() == "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_state_folder_that_root_cannot_make(site: Path) -> None:
    as_nobody(site)
    (site / "box").write_bytes(b"From a\n\n1\n")
    (site / "state").write_bytes(b"")
    code, _, said = run(site, "import", "alice", site / "box")
    wrong = f"pop3d: state folder {site}/state: Not a directory; root must be able to make it\n"
    assert (code, said) == (74, wrong)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_import_reads_as_the_configured_user(site: Path) -> None:
    """What root alone may read is none of that user's."""
    as_nobody(site)
    (site / "box").write_bytes(b"From a\n\n")
    (site / "box").chmod(0o600)
    code, _, said = run(site, "import", "alice", site / "box")
    denied = "Permission denied; user nobody must be able to read it, as by setfacl\n"
    assert (code, said) == (65, f"pop3d: {site / 'box'}: {denied}")
    make_maildir(site / "old", {}).chmod(0o700)
    code, _, said = run(site, "import", "alice", site / "old")
    assert (code, said) == (65, f"pop3d: {site / 'old'}: {denied}")
