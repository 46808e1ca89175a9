"""A Postfix of the tests' own, in a folder. Needs root."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.site import free_port

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
            [found("postfix"), "-c", folder / "etc", "start-fg"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.until(lambda: "daemon started" in self.log)

    @property
    def log(self) -> str:
        path = self.folder / "maillog"
        return path.read_text() if path.exists() else ""

    def run(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [found(name), "-c", str(self.folder / "etc"), *arguments]
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


def tool(name: str) -> str | None:
    """Where a program of Postfix is; None where it is not installed."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def found(name: str) -> str:
    path = tool(name)
    assert path is not None
    return path
