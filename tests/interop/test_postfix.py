"""A real Postfix, with the files of examples/postfix, beside `pop3d serve`: sent with swaks, fetched with pop3cli."""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.interop.postfix import Postfix, tool
from tests.site import Daemon, Site, free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/postfix"
USER = "nobody"  # who has the mail here

_MISSING = [name for name in ("postfix", "swaks") if tool(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"missing: apt-get install {' '.join(_MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start Postfix"),
]


@contextmanager
def running(transport: str = "lmtp:unix:private/pop3d-lmtp", keys: str = "") -> Iterator[tuple[Postfix, Site, Daemon]]:
    """Postfix and pop3d by the example, with other paths, ports and another user. ``keys``: more of [store].

    ``transport``: one that the example names.
    """
    # not below pytest's folder, which only root can enter
    folder = Path(tempfile.mkdtemp(prefix="pop3d-postfix-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        owner = pwd.getpwnam(USER)
        create_self_signed(["localhost"], folder)
        add_user(folder / "users", "alice@example.org", "secret", scheme="PLAIN")
        add_user(folder / "users", "-h@example.org", "secret", scheme="PLAIN")
        (folder / "mail").mkdir()
        (folder / "state").mkdir()
        for name in ("mail", "state", "users", "key.pem"):
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        site = Site(folder, free_port())
        program = folder / "pop3d"
        program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m pop3d \"$@\"\n")
        program.chmod(0o755)

        def taken(name: str, *pairs: tuple[str, str]) -> str:
            text = (EXAMPLE / name).read_text()
            for old, new in pairs:
                assert old in text, old
                text = text.replace(old, new)
            return text

        config = taken(
            "pop3d.toml",
            ('"vmail"', f'"{USER}"'),
            ("/var/lib/pop3d", str(folder / "state")),
            ("port = 995", f'host = "127.0.0.1"\nport = {site.port}'),
            ("/var/mail/vhosts", str(folder / "mail")),
            ("/var/spool/postfix", str(folder / "queue")),
        )
        site.config.write_text(config + keys)
        main = taken(
            "main.cf",
            ("/etc/postfix/vmailbox", str(folder / "vmailbox")),
            ("/var/mail/vhosts", str(folder / "mail")),
            ("virtual_uid_maps = static:5000", f"virtual_uid_maps = static:{owner.pw_uid}"),
            ("virtual_gid_maps = static:5000", f"virtual_gid_maps = static:{owner.pw_gid}"),
            ("\nvirtual_transport = lmtp:unix:private/pop3d-lmtp", ""),
            *((f"\n{mark}virtual_transport = {one}", "") for mark, one in (("#", "virtual"), ("#", "pop3d"))),
            ("\npop3d_dest", f"\nvirtual_transport = {transport}\npop3d_dest"),
        )
        master = taken(
            "master.cf",
            ("user=vmail", f"user={USER}"),
            ("/usr/local/bin/pop3d", str(program)),
            ("/etc/pop3d/pop3d.toml", str(site.config)),
        )
        listed = subprocess.run([program, "user", "list", "--config", site.config], capture_output=True, text=True)
        names = [line.split("\t")[0] for line in listed.stdout.splitlines()]
        assert len(names) == 2
        postfix = Postfix(folder, main, master, "".join(f"{name} {name}/\n" for name in names))
        try:
            daemon = Daemon(site)
            try:
                yield postfix, site, daemon
            finally:
                assert daemon.end() == 0, daemon.log
        finally:
            postfix.end()
    finally:
        shutil.rmtree(folder)


def fetched(site: Site, command: str, *arguments: str, user: str = "alice") -> str:
    """What pop3cli shows, over POP3S."""
    account = f"pop3s://{user}%40example.org@localhost:{site.port}"
    done = subprocess.run(
        [sys.executable, "-m", "pop3cli", command, account, *arguments, "--cacert", str(site.certificate)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "POP3CLI_PASSWORD": "secret"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def new(site: Site, user: str = "alice") -> list[Path]:
    folder = site.root / f"mail/{user}@example.org/new"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def needs_to_run_pop3d_as_user() -> None:
    owner = pwd.getpwnam(USER)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import pop3d.cli, pop3core"],
            user=owner.pw_uid, group=owner.pw_gid, extra_groups=[], capture_output=True, cwd="/",
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}, timeout=60,
        )  # fmt: skip
        works = done.returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip(f"{USER} cannot read {sys.executable} or {ROOT}; put both where everybody can")


def waits_for_room(postfix: Postfix, site: Site, words: str) -> None:
    """A fourth message, where there is room for three, waits in the queue, and Postfix's log has these words."""
    assert postfix.send("alice@example.org", "fourth").returncode == 0
    postfix.until(lambda: words in postfix.log)
    assert len(new(site)) == 3
    fetched(site, "delete", "1", "--yes")
    postfix.until(lambda: postfix.tried_again() and len(new(site)) == 3)


def test_postfix_delivers_and_pop3d_serves() -> None:
    with running("virtual") as (postfix, site, daemon):
        sent = postfix.send("Alice@example.org", "first")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        refused = postfix.send("carol@example.org", "never")
        assert refused.returncode != 0
        assert "User unknown in virtual mailbox table" in refused.stdout
        postfix.until(lambda: len(new(site)) == 1)
        message = fetched(site, "get", "1")
        assert "Subject: first\n" in message.replace("\r\n", "\n")
        assert message.replace("\r\n", "\n").rstrip("\n").endswith("\n\none\n.two\n..\nthree")
        assert "for <Alice@example.org>" in message
        (row,) = json.loads(fetched(site, "list", "--json"))
        assert row["subject"] == "first"
        assert row["octets"] == len(new(site)[0].read_bytes().replace(b"\n", b"\r\n"))
        fetched(site, "delete", "1", "--yes")
        assert new(site) == []
    assert "user=alice@example.org tls=TLSv1.3" in daemon.log


def test_pop3d_deliver_by_pipe_and_a_fault_keeps_mail_in_the_queue() -> None:
    needs_to_run_pop3d_as_user()
    with running("pop3d", "quota_messages = 3\n") as (postfix, site, _):
        for to in ("alice@example.org,-h@example.org", "alice+lists@example.org"):
            sent = postfix.send(to, f"to {to[:8]}", "--header", "X-From: swaks")
            assert sent.returncode == 0, sent.stdout + sent.stderr
        postfix.until(lambda: len(new(site)) == 2 and len(new(site, "-h")) == 1)
        message = fetched(site, "get", "1").replace("\r\n", "\n")
        assert message.startswith("Return-Path: <bob@example.net>\n")
        assert "\nDelivered-To: alice" in message
        assert all(f",S={path.stat().st_size}," in path.name for path in new(site))

        good = site.config.read_text()
        site.config.write_text(good + "slip = 1\n")
        assert postfix.send("alice@example.org", "third").returncode == 0
        # dsn=4: tried again, and not told to the sender
        postfix.until(lambda: bool(re.search(r"dsn=4\.3\.5.*unknown key `store\.slip`", postfix.log)))
        site.config.write_text(good)
        postfix.until(lambda: postfix.tried_again() and len(new(site)) == 3)

        waits_for_room(postfix, site, "try again later")
        left = {row["subject"] for row in json.loads(fetched(site, "list", "--json"))}
        assert {"third", "fourth"} < left
        assert "status=bounced" not in postfix.log


def test_lmtp_and_whatever_goes_wrong_keeps_mail_in_the_queue() -> None:
    with running(keys="quota_messages = 3\n") as (postfix, site, daemon):
        for to in ("Alice@example.org,-h@example.org", "alice+lists@example.org"):
            sent = postfix.send(to, f"to {to[:8]}", "--header", "X-From: swaks")
            assert sent.returncode == 0, sent.stdout + sent.stderr
        postfix.until(lambda: len(new(site)) == 2 and len(new(site, "-h")) == 1)
        message = fetched(site, "get", "1").replace("\r\n", "\n")
        assert message.startswith("Return-Path: <bob@example.net>\nDelivered-To: Alice@example.org\nReceived: from")
        assert message.rstrip("\n").endswith("\n\none\n.two\n..\nthree")
        assert all(f",S={path.stat().st_size}," in path.name for path in new(site))
        assert all(pwd.getpwuid(path.stat().st_uid).pw_name == USER for path in new(site))

        assert daemon.end() == 0  # stopped: its socket is of a folder that it cannot write to any more, and stays
        assert postfix.send("alice@example.org", "third").returncode == 0
        postfix.until(lambda: bool(re.search(r"status=deferred .*private/pop3d-lmtp", postfix.log)))
        again = Daemon(site, wait_for="private/pop3d-lmtp")
        try:
            postfix.until(lambda: postfix.tried_again() and len(new(site)) == 3)

            waits_for_room(postfix, site, "452 4.2.2 the mailbox is full")
        finally:
            assert again.end() == 0, again.log
        assert "status=bounced" not in postfix.log
        assert "delivered user=alice@example.org to=alice+lists@example.org sender=bob@example.net" in daemon.log
