"""`pop3d deliver`, `import` and `undelete` as processes."""

import fcntl
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3d.commands import deliver as commands
from pop3d.errors import CommandError
from tests.maildirs import files
from tests.packed import PACKERS


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "pop3d.toml").write_text(
        'state = "state"\n[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n'
        '[store]\npath = "mail/{user}"\nquota_messages = 4\ndeleted = "deleted/{user}"\n'
    )
    (tmp_path / "users").write_text("alice:{PLAIN}secret\n")
    return tmp_path


def run(site: Path, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pop3d", *arguments, "--config", site / "pop3d.toml"]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def test_deliver_reads_a_message_from_standard_input(site: Path) -> None:
    assert run(site, "deliver", "alice", stdin=b"From x\nSubject: y\n\nbody") == (0, "", "")
    (path,) = (site / "mail" / "alice" / "new").iterdir()
    assert path.read_bytes() == b"Subject: y\n\nbody"
    assert path.name.endswith(",S=16,W=20")
    code, _, said = run(site, "deliver", "nobody", stdin=b"x")
    assert (code, said) == (67, "pop3d: no such user: 'nobody'; `pop3d user add` makes one\n")
    for _ in range(3):
        assert run(site, "deliver", "alice", stdin=b"x\n")[0] == 0
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert (code, said) == (75, "pop3d: not delivered: the mailbox is full: 4 of 4 messages; try again later\n")


def test_a_recipient_in_another_spelling(site: Path) -> None:
    (site / "users").write_text("alice@Example.org:{PLAIN}x\na@x.org:{PLAIN}x\na@X.org:{PLAIN}x\n")
    for name in ("alice@example.org", "Alice@EXAMPLE.org", "alice@Example.org"):
        assert run(site, "deliver", name, stdin=b"x\n") == (0, "", "")
    assert len(files(site / "mail/alice@Example.org")) == 3  # as the users file spells it
    assert os.listdir(site / "mail") == ["alice@Example.org"]
    assert run(site, "import", "ALICE@example.org", site / "mail/alice@Example.org")[0] == 75  # beyond the quota
    assert "messages\t4 of 4" in run(site, "mailbox", "ALICE@example.org")[1]
    assert run(site, "undelete", "ALICE@example.org")[0] == 0
    code, _, said = run(site, "deliver", "a@x.org", stdin=b"x\n")
    assert code == 75  # nobody is told that there is no such user
    assert "'a@x.org' and 'a@X.org' are one name" in said


def test_a_quota_of_the_users_own(site: Path) -> None:
    rules = {"alice": "userdb_quota_rule=*:messages=1", "bob": "quota_messages=0 quota_octets=1K", "carol": "nologin"}
    (site / "users").write_text("".join(f"{user}:{{PLAIN}}x::::::{rule}\n" for user, rule in rules.items()))
    for user, messages in (("alice", 1), ("bob", 6), ("carol", 4)):
        codes = [run(site, "deliver", user, stdin=b"x\n")[0] for _ in range(6)]
        assert codes == [0] * messages + [75] * (6 - messages)
    code, _, said = run(site, "deliver", "bob", stdin=b"x" * 1024)
    assert code == 75
    assert "the mailbox is full: 12 of 1024 octets" in said
    assert "octets\t12 of 1024" in run(site, "mailbox", "bob")[1]
    assert "messages\t1 of 1 (100 %)" in run(site, "mailbox", "alice")[1]
    assert run(site, "import", "alice", site / "mail/bob")[0] == 75
    assert len(files(site / "mail/alice")) == 1


def test_deliver_says_why_a_message_cannot_be_delivered(site: Path) -> None:
    (site / "mail").write_bytes(b"in the way")
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert code == 75
    assert said.count("\n") == 1
    (site / "mail").unlink()
    (site / "mail" / "alice").mkdir(parents=True)
    (site / "mail" / "alice" / "tmp").symlink_to("/tmp")
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert code == 75
    assert said.startswith(
        f"pop3d: not delivered: {site / 'mail/alice'}: tmp/ is not a folder of its own, but a file or a"
    )
    assert said.endswith("; try again later\n")
    assert said.count("\n") == 1
    (site / "pop3d.toml").write_text("nonsense")
    assert run(site, "deliver", "alice")[0] == 78


def test_a_delivery_that_is_killed_leaves_nothing_in_new(site: Path) -> None:
    command = [sys.executable, "-m", "pop3d", "deliver", "alice", "--config", site / "pop3d.toml"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"Subject: x\n" + b"y" * 1_000_000)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not list(site.glob("mail/alice/tmp/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list(site.glob("mail/alice/tmp/*"))
    assert not list(site.glob("mail/alice/[nc]*/*"))


def test_import_an_mbox(site: Path) -> None:
    (site / "box").write_bytes(b"From a\nSubject: 1\n\n>From x\n\nFrom b\nSubject: 2\n\ny\n")
    code, said, _ = run(site, "import", "alice", site / "box")
    assert (code, said) == (0, "imported 2 messages for alice\n")
    texts = sorted(path.read_bytes() for path in site.glob("mail/alice/new/*"))
    assert texts == [b"Subject: 1\n\nFrom x\n", b"Subject: 2\n\ny\n"]
    run(site, "import", "alice", site / "box")
    code, _, said = run(site, "import", "alice", site / "box")
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
    assert (code, said) == (1, "imported 2 messages for alice, 1 were not\n")
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
    assert run(site, "import", "alice", source)[:2] == (0, "imported 1 messages for alice\n")


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


def test_undelete_brings_messages_back(site: Path) -> None:
    assert run(site, "undelete", "alice") == (0, "brought back 0 messages for alice\n", "")
    kept = site / "deleted" / "alice" / "cur"
    kept.mkdir(parents=True)
    (kept / "1.host").write_bytes(b"x\n")
    assert run(site, "undelete", "alice") == (0, "brought back 1 messages for alice\n", "")
    assert files(site / "mail" / "alice") == ["new/1.host"]


def test_undelete_tells_what_it_could_not_bring_back(site: Path) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice" / "new"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    too_long = "1," + "x" * 250  # no room for another unique part
    (kept / too_long).write_bytes(b"one\n")
    (home / "1").write_bytes(b"another\n")
    (kept / "2.host").write_bytes(b"two\n")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (1, "brought back 1 messages for alice, 1 were not\n")
    assert errors == f"pop3d: not brought back: '{too_long}': File name too long\n"
    assert files(site / "mail" / "alice") == ["new/1", "new/2.host"]
    assert [path.name for path in kept.iterdir()] == [too_long]
    shutil.rmtree(kept)
    kept.symlink_to("/tmp")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (74, "")
    assert errors.startswith(f"pop3d: not brought back: {kept.parent}: cur/ is not a folder of its own")


def test_undelete_beside_a_session(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    session = os.open(home, os.O_RDONLY)
    fcntl.flock(session, fcntl.LOCK_EX)
    monkeypatch.setattr(commands, "put_back", functools.partial(commands.put_back, patience=0))
    try:
        with pytest.raises(CommandError, match="a session has the mailbox open; try again later") as caught:
            commands.undelete("alice", site / "pop3d.toml")
    finally:
        os.close(session)
    assert caught.value.status == 75
