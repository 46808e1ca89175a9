"""`pop3d mailbox` as a process: what it shows, and what it forgets."""

import fcntl
import json
import os
import poplib
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3d.auth import Account
from pop3d.auth.users_file import add_user
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.store import MaildirStore
from tests.site import Site, served


@pytest.fixture
def command(run_pop3d, site: Site):
    return lambda user, *words: run_pop3d("mailbox", user, "--config", str(site.config), *words)


async def seen(site: Site, *users: str) -> None:
    """As `serve` sees mailboxes at a login."""
    store = MaildirStore(str(site.root / "mail" / "{user}"), site.root / "state")
    for user in users:
        await (await store.open(Account(user), utf8=False)).close()


def change(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


async def test_lines_with_a_tab_where_it_is_no_terminal(command, site: Site) -> None:
    box = site.maildir("alice", {"new/1.host": b"12345", "cur/2.host:2,S": b"1234567890", "cur/.hidden": b"x"})
    (box / "cur" / "folder").mkdir()
    (box / "cur" / "link").symlink_to("2.host:2,S")
    done = command("alice")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "user\talice", f"path\t{box}", "state\tthere", "seen before\tno", "messages\t2", "octets\t15", "as sent\t19",
    ]  # fmt: skip
    await seen(site, "alice")
    change(site, "[store]", '[store]\ndeleted = "deleted/{user}"\nquota_octets = 100\nquota_messages = 2')
    shutil.copytree(box, site.root / "deleted" / "alice", symlinks=True)
    (site.root / "deleted" / "alice" / "new" / "3").write_bytes(b"123")
    root = os.open(box, os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)
    try:
        done = command("alice")
    finally:
        os.close(root)
    assert done.stdout.splitlines()[2:] == [
        "state\tin use by a session", "seen before\tyes", "messages\t2 of 2 (100 %)", "octets\t15 of 100 (15 %)",
        "as sent\t19", f"held by\tprocess {os.getpid()}", "deleted\t3 messages, 18 octets",
    ]  # fmt: skip


async def test_json(command, site: Site) -> None:
    box = site.maildir("alice", {"new/1.host": b"12345"})
    await seen(site, "alice")
    done = command("alice", "--json")
    assert json.loads(done.stdout) == {
        "user": "alice", "path": str(box), "there": True, "seen": True, "gone": None, "messages": 1, "octets": 5,
        "octets_sent": 7, "quota": None, "locked": False, "holder": None, "kept_ids": 0, "deleted": None,
    }  # fmt: skip
    shutil.rmtree(box)
    (site.root / "mail" / "bob").mkdir()
    change(site, "[store]", '[store]\ndeleted = "deleted/{user}"\nquota_octets = 100')
    found = json.loads(command("alice", "--json").stdout)
    assert found["gone"].startswith(f"{box}: it was there before and is missing; ")
    assert (found["there"], found["locked"], found["messages"]) == (False, None, None)
    assert found["quota"] == {"messages": 0, "octets": 100}
    assert found["deleted"] == {"messages": 0, "octets": 0}


def test_the_session_that_has_it(command, site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"x\n"})
    change(site, "[auth]", "[limits]\nauth_penalty = 0\n[auth]")
    with served(site) as daemon:
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        client.user("alice")
        client.pass_("secret")
        before = sorted(path for path in (site.root / "state").rglob("*") if path.is_file())
        found = json.loads(command("alice", "--json").stdout)
        assert (found["locked"], found["octets_sent"]) == (True, 3)
        assert found["holder"]["pid"] in (daemon.process.pid, None)
        assert found["holder"]["address"] == "127.0.0.1"
        assert abs(found["holder"]["since"] - time.time()) < 120
        assert sorted(path for path in (site.root / "state").rglob("*") if path.is_file()) == before
        client.quit()
    assert json.loads(command("alice", "--json").stdout)["holder"] is None


def test_a_table_on_a_terminal(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"12345"})
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    arguments = [sys.executable, "-m", "pop3d", "mailbox", "alice", "--config", str(site.config)]
    done = subprocess.run(arguments, stdout=terminal, stderr=terminal, env=environment, timeout=60)
    os.close(terminal)
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert done.returncode == 0
    assert "\x1b[1mmessages" in shown
    assert "\x1b[32mthere" in shown


def test_a_mailbox_that_never_was(command, site: Site) -> None:
    assert command("alice").stdout.splitlines()[2:4] == ["state\tnot there: an empty mailbox", "seen before\tno"]
    done = command("alice", "--forget")
    assert (done.returncode, done.stdout) == (0, f"{site.root / 'mail' / 'alice'} was never seen: nothing to forget\n")


def test_unknown_users_and_other_stores(command, site: Site) -> None:
    for words in ((), ("--forget",)):
        done = command("a/b", *words)
        assert (done.returncode, done.stdout) == (67, "")
        assert done.stderr.startswith("pop3d: no such user: 'a/b'")
    assert command("nobody").returncode == 67
    change(site, 'path = "mail/{user}"', 'backend = "memory"')
    done = command("alice")
    assert (done.returncode, done.stderr) == (78, 'pop3d: the store is "memory": there is no Maildir to look at\n')


async def test_forget_one_mailbox(command, site: Site) -> None:
    box = site.maildir("alice", {"new/1.host": b"x"})
    site.maildir("bob", {})
    await seen(site, "alice", "bob")
    done = command("alice", "--forget")
    assert (done.returncode, done.stderr) == (
        65, f"pop3d: {box} is there; only a mailbox that is missing can be forgotten\n",
    )  # fmt: skip
    ids = KeptIds(site.root / "state" / "keep")
    ids.add(str(box), {b"1.host": b"imported"})
    shutil.rmtree(box)
    shown = command("alice").stdout
    assert "state\tgone: " in shown
    assert "messages\tunknown" in shown
    done = command("alice", "--forget")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{box} is forgotten\n", "")
    assert ids.load(str(box)) == {}
    assert "state\tnot there: an empty mailbox" in command("alice").stdout


async def test_a_user_who_was_removed_can_be_forgotten(command, site: Site) -> None:
    shutil.rmtree(site.maildir("bob", {}))
    box = site.maildir("bob", {})
    await seen(site, "bob")
    shutil.rmtree(box)
    assert command("bob").returncode == 67
    assert command("bob", "--forget").stdout.splitlines()[0] == f"{box} is forgotten"
    change(site, 'path = "mail/{user}"', 'path = "{home}/Maildir"')
    assert command("bob", "--forget").returncode == 67  # nobody knows where it was


async def test_the_folder_of_all_mailboxes_is_forgotten_with_the_last_of_them(command, site: Site) -> None:
    """A new volume, on purpose: a user who was never seen gets in once no mailbox is missed any more."""
    add_user(site.root / "users", "bob", "secret", scheme="PLAIN")
    for user in ("alice", "bob"):
        site.maildir(user, {"new/1.host": b"x"})
    await seen(site, "alice", "bob")
    shutil.rmtree(site.root / "mail")
    (site.root / "mail").mkdir()
    first = command("alice", "--forget")
    assert first.stdout.splitlines() == [
        f"{site.root / 'mail' / 'alice'} is forgotten",
        f"{site.root / 'mail'} is missing or empty, and 1 more mailboxes were seen in it, such as "
        f"{site.root / 'mail' / 'bob'}: no login works until it is back, or they are forgotten too",
    ]
    assert "state\tgone: " in command("alice").stdout
    second = command("bob", "--forget")
    assert second.stdout.splitlines()[1] == f"{site.root / 'mail'} is forgotten too: no other mailbox was seen in it"
    assert "state\tnot there: an empty mailbox" in command("alice").stdout


def test_mailbox_forget_says_what_it_cannot_forget(command, site: Site) -> None:
    keep = site.root / "state" / "keep"
    keep.mkdir(parents=True)
    (keep / "mailboxes").symlink_to("mailboxes")
    done = command("alice", "--forget")
    assert (done.returncode, done.stdout) == (74, "")
    assert done.stderr.startswith(f"pop3d: not forgotten: {keep}/mailboxes/")
    assert Path(keep / "mailboxes").is_symlink()
