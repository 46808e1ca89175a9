"""`pop3d deliver` as a process."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.maildirs import files
from tests.pop3d.commands.small_site import run, small_site

LARGE = 80 * 2**20


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return small_site(tmp_path)


def test_deliver_reads_a_message_from_standard_input(site: Path) -> None:
    assert run(site, "deliver", "alice", stdin=b"From x\nSubject: y\n\nbody") == (0, "", "")
    (path,) = (site / "mail" / "alice" / "new").iterdir()
    assert path.read_bytes() == b"Subject: y\n\nbody"
    assert path.name.endswith(",S=16,W=20")
    code, _, said = run(site, "deliver", "nobody", stdin=b"x")
    assert (code, said) == (67, "pop3d: no such user: 'nobody'; `pop3d user add nobody` makes one\n")
    for _ in range(3):
        assert run(site, "deliver", "alice", stdin=b"x\n")[0] == 0
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert (code, said) == (75, "pop3d: not delivered: the mailbox is full: 4 of 4 messages; try again later\n")


def test_mail_reaches_those_who_may_not_log_in(site: Path) -> None:
    (site / "users").write_text(
        "left:{PLAIN}x::::::nologin\nfar:{PLAIN}x::::::allow_nets=192.0.2.0/24\nlocked:!$6$x\nodd:{NOPE}x\n"
        "away:{PLAIN}x::::::proxy=y\n"
    )
    for name in ("left", "far", "locked", "odd", "away"):
        assert run(site, "deliver", name, stdin=b"x\n") == (0, "", "")
        assert len(files(site / "mail" / name)) == 1


@pytest.mark.parametrize("text", [None, "", "\xff:{PLAIN}x\n"])
def test_mail_waits_while_the_users_file_is_of_no_use(site: Path, text: str | None) -> None:
    (site / "users").unlink()
    if text is not None:
        (site / "users").write_text(text, "latin-1")
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert code == 75, said
    assert said.startswith("pop3d: users file ")
    assert said.endswith("; try again later\n")


def test_a_recipient_in_another_spelling(site: Path) -> None:
    (site / "users").write_text("alice@Example.org:{PLAIN}x\na@x.org:{PLAIN}x\na@X.org:{PLAIN}x\n")
    for name in ("alice@example.org", "Alice@EXAMPLE.org", "alice@Example.org"):
        assert run(site, "deliver", name, stdin=b"x\n") == (0, "", "")
    assert len(files(site / "mail/alice@Example.org")) == 3  # as the users file spells it
    assert os.listdir(site / "mail") == ["alice@Example.org"]
    shutil.copytree(site / "mail/alice@Example.org", site / "old")
    # beyond the quota
    assert run(site, "import", "ALICE@example.org", site / "old")[0] == 75
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


def test_a_quota_of_a_user_in_a_database(tmp_path: Path, database: str) -> None:
    from tests.postgres import execute  # needs an extra, as the fixture does

    execute(database, "alter table pop3_users add quota_messages int")
    execute(database, "insert into pop3_users values ('alice', 'x', null, 2), ('bob', 'x', null, null)")
    query = "select password, quota_messages from pop3_users where name = %(user)s"
    (tmp_path / "pop3d.toml").write_text(
        '[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n[auth]\nbackend = "postgres"\n'
        f'[auth.postgres]\nconninfo = "{database}"\nquery = "{query}"\n'
        f'[store]\nbackend = "postgres"\nquota_messages = 3\n[store.postgres]\nconninfo = "{database}"\n'
    )
    execute(database, "update pop3_users set password = '{PLAIN}x'")
    for user, messages in (("Alice", 2), ("bob", 3)):
        codes = [run(tmp_path, "deliver", user, stdin=b"x\n")[0] for _ in range(4)]
        assert codes == [0] * messages + [75] * (4 - messages)
    stored = execute(database, "select mailbox, count(*) from pop3_messages group by 1 order by 1")
    assert stored == [("alice", 2), ("bob", 3)]
    shown = run(tmp_path, "mailbox", "ALICE")[1]
    assert shown.splitlines() == ["user\talice", "messages\t2 of 2 (100 %)", "octets\t6", "as sent\t6"]
    view = json.loads(run(tmp_path, "mailbox", "bob", "--json")[1])
    assert (view["path"], view["messages"], view["octets"]) == (None, 3, 9)
    assert view["quota"] == {"messages": 3, "octets": 0}


def delivered_large(site: Path, octets: int) -> "subprocess.CompletedProcess[bytes]":
    """A message of so many octets, by a process that may not have 64 MiB of memory of its own."""
    command = 'head -c "$0" /dev/zero | tr "\\0" "x" | (ulimit -d 65536; exec "$@")'
    deliver = [sys.executable, "-m", "pop3d", "deliver", "alice", "--config", str(site / "pop3d.toml")]
    return subprocess.run(["sh", "-c", command, str(octets), *deliver], capture_output=True, timeout=60)


def test_a_large_message_takes_no_more_memory_than_a_small_one(site: Path) -> None:
    done = delivered_large(site, LARGE)
    assert (done.returncode, done.stderr) == (0, b"")
    (path,) = (site / "mail/alice/new").iterdir()
    assert path.stat().st_size == LARGE


def test_a_large_message_into_a_database_neither(tmp_path: Path, database: str) -> None:
    from tests.postgres import execute  # needs an extra, as the fixture does

    (tmp_path / "users").write_text("alice:{PLAIN}x\n")
    (tmp_path / "pop3d.toml").write_text(
        f'[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n[store]\nbackend = "postgres"\n'
        f'quota_octets = {LARGE + 2}\n[store.postgres]\nconninfo = "{database}"\n'
    )
    done = delivered_large(tmp_path, LARGE)
    assert (done.returncode, done.stderr) == (0, b"")
    digest = hashlib.sha256(b"x" * LARGE + b"\r\n").hexdigest()
    stored = execute(database, "select mailbox, octets, encode(sha256(content), 'hex') from pop3_messages")
    assert stored == [("alice", LARGE + 2, digest)]
    done = delivered_large(tmp_path, LARGE)
    assert done.returncode == 75
    assert b"the mailbox is full" in done.stderr


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
