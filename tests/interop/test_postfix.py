"""A real Postfix, with the files of examples/postfix, beside `pop3d serve`: sent with swaks, fetched with pop3cli."""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.site import Daemon, Site, free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/postfix"
USER = "nobody"  # who has the mail here

_MISSING = [tool for tool in ("postfix", "swaks") if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"missing: apt-get install {' '.join(_MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start Postfix"),
]

# all services that mail for virtual mailboxes passes through; none is chrooted
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
MAIN = """
compatibility_level = 3.6
myhostname = mail.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/maillog
maillog_file_prefixes = {root}
alias_maps =
recipient_delimiter = +
allow_min_user = yes
"""


class Postfix:
    """Started; ended by `end`."""

    def __init__(self, folder: Path, main: str, master: str, vmailbox: str) -> None:
        owner = pwd.getpwnam("postfix")
        self.folder, self.port = folder, free_port()
        for name in ("queue", "data", "etc"):
            (folder / name).mkdir()
        os.chown(folder / "data", owner.pw_uid, owner.pw_gid)
        (folder / "etc/main.cf").write_text(MAIN.format(root=folder) + main)
        (folder / "etc/master.cf").write_text(MASTER.format(port=self.port) + master)
        (folder / "vmailbox").write_text(vmailbox)
        checked = self.run("postfix", "check")
        assert checked.returncode == 0, checked.stderr
        self.process = subprocess.Popen(
            [tool("postfix"), "-c", folder / "etc", "start-fg"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.until(lambda: "daemon started" in self.log)

    @property
    def log(self) -> str:
        path = self.folder / "maillog"
        return path.read_text() if path.exists() else ""

    def run(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [tool(name), "-c", str(self.folder / "etc"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert self.process.poll() is None, f"Postfix has ended: {self.log}"
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def tried_again(self) -> bool:
        """Let Postfix try again what waits in its queue."""
        done = self.run("postqueue", "-f")
        assert done.returncode == 0, done.stderr
        return True

    def send(self, to: str, subject: str, *options: str) -> "subprocess.CompletedProcess[str]":
        server = f"127.0.0.1:{self.port}"
        command = ["swaks", "--server", server, "--from", "bob@example.net", "--to", to, "--timeout", "20", *options]
        return subprocess.run(
            [*command, "--header", f"Subject: {subject}", "--body", "one\n.two\n..\nthree"],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def end(self) -> None:
        self.run("postfix", "stop")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None
    return found


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
