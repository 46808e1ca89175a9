"""An administrator's first day: the commands of docs/installing.md and docs/running.md, as printed, on a bare machine.

That machine is a copy of this one, in namespaces, whose changes are forgotten at the end; /tmp is empty in it, and the
project is a checkout in /srv. Each block of commands has a row: how long it took, and whether all of it ended with 0.
Needs root, Linux, and what pip and apt-get need.

    python -m tests.interop.first_day
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
PASSWORD = "a trial's password"
STEP_SECONDS = 200.0  # what takes longer hangs
COPY = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
for folder in dev sys; do mount --rbind /$folder /mnt/root/$folder; done
mount -t proc proc /mnt/root/proc
mount -t tmpfs tmpfs /mnt/root/tmp && chmod 1777 /mnt/root/tmp
mkdir -p /mnt/root/srv/pop3core
hostname mail.example.org
echo "127.0.0.1 localhost mail.example.org" > /mnt/root/etc/hosts
exec chroot /mnt/root sh -ec 'tar -C /srv/pop3core -x; echo ready; exec sleep infinity'
"""


def blocks(page: str, language: str, section: str) -> list[str]:
    """The blocks of code below a heading."""
    text = (ROOT / page).read_text().partition(f"{section}\n")[2]
    text = re.split(r"\n## ", text, maxsplit=1)[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@dataclass
class Machine:
    """``process``: what holds the namespaces. ``path``: PATH of a login there."""

    process: int
    path: str

    def command(self, script: str) -> list[str]:
        inside = ["nsenter", f"--target={self.process}", "--mount", "--pid", "--uts", "--root", "--wd"]
        environment = ["env", "-i", f"PATH={self.path}", "HOME=/root", "TERM=xterm", "LANG=C.UTF-8"]
        return [*inside, *environment, "bash", "-ec", f"cd /srv/pop3core\n{script}"]

    def typed(self, script: str) -> tuple[int, str, float]:
        """Run it on a terminal, where whoever asks for a password gets it: status, what was shown, seconds."""
        began = time.monotonic()
        process, terminal = pty.fork()
        if not process:
            command = self.command(script)
            os.execvp(command[0], command)
        shown, since = "", 0
        try:
            while select.select([terminal], [], [], max(0.0, began + STEP_SECONDS - time.monotonic()))[0]:
                try:
                    data = os.read(terminal, 65536)
                except OSError:  # the other side is closed
                    break
                if not data:
                    break
                shown += data.decode(errors="replace")
                if re.search(r"(assword|nce more)[^\n]*: ?$", shown[since:]):
                    since = len(shown)
                    os.write(terminal, f"{PASSWORD}\n".encode())
            else:
                os.kill(process, signal.SIGKILL)
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown, time.monotonic() - began

    @contextlib.contextmanager
    def beside(self, script: str, until: str) -> Iterator[None]:
        """Run it beside what follows, from when it has said ``until``."""
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                self.command(script), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                for _ in range(300):
                    log.seek(0)
                    if until in log.read():
                        break
                    time.sleep(0.1)
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


@contextlib.contextmanager
def machine(path: str) -> Iterator[Machine]:
    """A copy of this machine with the project, as committed, in /srv/pop3core."""
    archive = subprocess.Popen(["git", "-C", ROOT, "archive", "HEAD"], stdout=subprocess.PIPE)
    alone = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "--"]
    holder = subprocess.Popen([*alone, "sh", "-ec", COPY], stdin=archive.stdout, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            sys.exit("no copy of this machine can be made: it takes root, and a kernel with overlayfs")
        (inside,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield Machine(int(inside), path)
    finally:
        holder.kill()
        holder.wait()
        archive.wait()


def steps() -> list[tuple[str, str]]:
    """What is typed, as printed, but for what no page can know: where the configuration is put."""
    server, check = blocks("docs/running.md", "sh", "## A first server")[:2]
    (configuration,) = blocks("docs/running.md", "toml", "## A first server")[:1]
    (install,) = blocks("docs/installing.md", "sh", "## Install")[:1]
    assert check.splitlines() == ["pop3d check", "pop3d serve"]
    return [
        ("apt install python3-venv", "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv"),
        ("installing: Install", install),
        ("running: A first server", server),
        ("its pop3d.toml", f"cat > /etc/pop3d/pop3d.toml <<'END'\n{configuration}END"),
        ("pop3d check", "pop3d check"),
    ]


def beside_the_server() -> list[tuple[str, str]]:
    return [
        ("deliver", "echo hello | pop3d deliver alice"),
        ("pop3cli list", "pop3cli list pop3s://alice@mail.example.org --cacert /etc/pop3d/cert.pem"),
        ("pop3cli show", "pop3cli show pop3s://alice@mail.example.org 1 --cacert /etc/pop3d/cert.pem"),
        ("pop3d who", "pop3d who"),
        ("pop3d status", "pop3d status"),
        ("pop3d mailbox", "pop3d mailbox alice"),
        ("pop3d user test", "pop3d user test alice"),
        ("upgrade", blocks("docs/installing.md", "sh", "## Upgrade")[0].replace("systemctl restart pop3d", "")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.first_day", description=__doc__)
    parser.add_argument("--path", default="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", help="PATH")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("namespaces and mounts take root")
    console, table = Console(), Table("step", "seconds", "status", title="An administrator's first day")
    failed = False

    def take(name: str, script: str) -> bool:
        status, shown, seconds = there.typed(script)
        table.add_row(name, f"{seconds:.1f}", str(status), style="" if status == 0 else "red")
        console.rule(name)
        console.print(shown.replace("\r\n", "\n"), markup=False, highlight=False)
        return status == 0

    with machine(arguments.path) as there:
        failed = not all(take(name, script) for name, script in steps())
        if not failed:
            with there.beside("exec pop3d serve", "listening on"):
                failed = not all(take(name, script) for name, script in beside_the_server())
    console.print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
