"""What is measured beside each other: pop3d as it is shipped, and Dovecot tuned for speed, on the same Maildirs.

Both get one core of their own, the client has the others. CPU is user and system time of all processes of a server,
those that have ended included: of a control group in nanoseconds where one can be made, of /proc in hundredths of a
second elsewhere.
"""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pop3d.net.certificates import create_self_signed
from tests.bench.maildir import cpu_seconds, family, memory_mib
from tests.interop import dovecot
from tests.site import free_port

GROUPS = (
    ("/sys/fs/cgroup/cpuacct", "cpuacct.usage", r"(\d+)", 1e9),
    ("/sys/fs/cgroup/unified", "cpu.stat", r"usage_usec (\d+)", 1e6),
    ("/sys/fs/cgroup", "cpu.stat", r"usage_usec (\d+)", 1e6),
)
"""Where control groups may be: folder, file, what to look for in it, units in a second."""

SESSIONS_MAX = 12_000
STARTED = 120.0  # seconds that a server may take to start

CONFIGURATION = f"""
hostname = "localhost"
state = "{{root}}/state"
{{top}}
[[listen]]
host = "127.0.0.1"
port = {{port}}
[tls]
certificate = "{{root}}/cert.pem"
private_key = "{{root}}/key.pem"
[auth]
users = "{{root}}/users"
[store]
path = "{{root}}/mail/{{{{user}}}}"
[limits]
connections = {SESSIONS_MAX}
connections_per_ip = {SESSIONS_MAX}
unauthenticated = {SESSIONS_MAX}
unauthenticated_per_ip = {SESSIONS_MAX}
{{tables}}
"""
"""All defaults, but for limits that one address with thousands of sessions would meet."""

SHARED = f"""
log_path = /dev/null
auth_cache_size = 16M
service pop3-login {{
  process_min_avail = 2
  process_limit = 2
  client_limit = {SESSIONS_MAX}
  vsz_limit = 2G
}}
service pop3 {{
  process_min_avail = 2
  process_limit = 2
  client_limit = {SESSIONS_MAX}
}}
service anvil {{
  client_limit = {2 * SESSIONS_MAX}
}}
service auth {{
  client_limit = {2 * SESSIONS_MAX}
}}
service stats {{
  client_limit = {2 * SESSIONS_MAX}
}}
"""
"""Two processes for all sessions, two for all logins, no log: beyond `dovecot.TUNED`, which syncs and flags nothing."""


class NotStarted(SystemExit):
    """A server ended before it listened."""


class Meter:
    """CPU time of a process and all that descend from it, from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._folder: Path | None = None
        for top, file, self._pattern, self._unit in GROUPS:
            folder = Path(top) / f"pop3d-bench-{os.getpid()}-{pid}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                if (folder / file).exists():
                    self._folder, self._file = folder, folder / file
                    break
                folder.rmdir()
        if self._folder is not None:
            # the eldest first: what it starts from then on is counted from its birth
            inside: set[int] = set()
            while left := [one for one in family(pid) if one not in inside]:
                for one in left:
                    with contextlib.suppress(OSError):
                        (self._folder / "cgroup.procs").write_text(str(one))
                inside.update(left)

    def seconds(self) -> float:
        if self._folder is None:
            return cpu_seconds(self._pid)
        found = re.search(self._pattern, self._file.read_text())
        assert found is not None
        return int(found[1]) / self._unit

    def settled(self) -> float:
        """The same, once the server does nothing more: a session's end is work behind the client's."""
        until, before = time.monotonic() + 5, self.seconds()
        while time.monotonic() < until:
            time.sleep(0.06)
            if (now := self.seconds()) - before < 0.0015:
                return now
            before = now
        return before

    def close(self) -> None:
        """When all of them have ended."""
        for _ in range(50):
            if self._folder is None or not self._folder.exists():
                return
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            time.sleep(0.02)


@dataclass
class Running:
    """A server that runs."""

    port: int
    pid: int
    meter: Meter

    def kib(self) -> float:
        """Memory of all its processes, what they share counted once."""
        return memory_mib(self.pid) * 1024

    def first(self) -> None:
        """Before other jobs of this machine, where that may be asked: for figures that are times."""
        for one in family(self.pid):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, one, -10)


def cores() -> tuple[set[int], set[int]]:
    """The server's and the client's; the same when there is one only."""
    there = os.sched_getaffinity(0)
    return ({min(there)}, there - {min(there)}) if len(there) > 1 else (there, there)


@contextlib.contextmanager
def on(core: set[int]) -> Iterator[None]:
    """What is started here runs on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Site:
    """A folder with a certificate and the Maildirs ``mail/USER``, and the servers of it. The password is "secret"."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server_core, self.client_core = cores()
        root.chmod(0o755)
        for path in create_self_signed(["localhost"], root):
            path.chmod(0o644)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with contextlib.suppress(OSError, ValueError):  # a session of pop3d may need three
            resource.setrlimit(resource.RLIMIT_NOFILE, (4 * SESSIONS_MAX, max(hard, 4 * SESSIONS_MAX)))

    @contextlib.contextmanager
    def pop3d(
        self,
        *,
        top: str = "",
        tables: str = "",
        before: str = "",
        secret: str = "{PLAIN}secret",
        user: str = "nobody",
        prefix: Sequence[str] = (),
    ) -> Iterator[Running]:
        """``top``, ``tables``: more of its configuration. ``before``: Python that runs before it starts.

        ``secret``: as it stands in the file of users. ``user``: who it becomes. ``prefix``: a command that runs it.
        """
        users = sorted(os.listdir(self.root / "mail"))
        (self.root / "users").write_text("".join(f"{name}:{secret}\n" for name in users))
        if os.geteuid() == 0:
            top += f'\nuser = "{user}"'
        port = free_port()
        (self.root / "pop3d.toml").write_text(CONFIGURATION.format(root=self.root, port=port, top=top, tables=tables))
        program = f"{before}\nfrom pop3d.cli import main\nmain()"
        command = [*prefix, sys.executable, "-c", program, "serve", "--config", str(self.root / "pop3d.toml")]
        with on(self.server_core), (self.root / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        with contextlib.ExitStack() as ended:
            ended.callback(process.wait, 30)
            ended.callback(process.send_signal, signal.SIGTERM)
            until = time.monotonic() + STARTED
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise NotStarted(f"pop3d did not start: {(self.root / 'log').read_text()}")
                time.sleep(0.02)
            yield self._running(port, process.pid, ended)

    @contextlib.contextmanager
    def dovecot(self, extra: str = "") -> Iterator[Running]:
        """``extra``: more of its configuration, which takes precedence."""
        files = self.root / "cert.pem", self.root / "key.pem"
        with contextlib.ExitStack() as ended:
            with on(self.server_core):
                port = ended.enter_context(
                    dovecot.serving(
                        self.root / "dovecot",
                        str(self.root / "mail" / "%u"),
                        certificate=files[0],
                        key=files[1],
                        extra=dovecot.TUNED + SHARED + extra,
                    )
                )
            told, until = self.root / "dovecot" / "run" / "master.pid", time.monotonic() + STARTED
            while not told.exists() or not told.read_text():  # it listens before it tells
                if time.monotonic() > until:
                    raise NotStarted("Dovecot does not tell its process")
                time.sleep(0.01)
            yield self._running(port, int(told.read_text()), ended)

    def _running(self, port: int, pid: int, ended: contextlib.ExitStack) -> Running:
        meter = Meter(pid)
        rest = ended.pop_all()
        ended.callback(meter.close)  # after all else: a group goes when nobody is in it
        ended.push(rest)
        return Running(port, pid, meter)

    # --- mail ---

    def forget(self) -> None:
        """Remove what servers have kept of the mailboxes."""
        for folder in ("state", "dovecot"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        for path in self.root.glob("mail/*/dovecot*"):
            path.unlink()

    def maildir(self, user: str, messages: list[Path]) -> None:
        """A new mailbox of these files, hard-linked; the oldest first."""
        path = self.root / "mail" / user
        shutil.rmtree(path, ignore_errors=True)
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True)
        for number, message in enumerate(messages):
            os.link(message, path / "cur" / f"{1_700_000_000 + number}.M{number:06}P1.host.example.org:2,S")
        self._give(path, *path.iterdir())

    def messages(self, count: int, content: Callable[[int], bytes]) -> list[Path]:
        """New files to be linked from; ``content``: of message 1 and so on, line ends LF."""
        folder = self.root / f"messages-{time.monotonic_ns()}"
        folder.mkdir()
        files = [folder / str(number) for number in range(1, count + 1)]
        for number, file in enumerate(files, 1):
            file.write_bytes(content(number))
        self._give(folder, *files)
        return files

    def _give(self, *paths: Path) -> None:
        for path in paths if os.geteuid() == 0 else ():
            shutil.chown(path, "nobody", "nogroup")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# --- what messages look like ---

WORDS = b"mail letter post stamp box road town house river bread table and the of to in that with for on".split()


def _lines(seed: int, count: int) -> list[bytes]:
    """Text as people write it: of a hundred lines one begins with a dot, some are empty."""
    chance = random.Random(seed)
    lines = []
    for _ in range(count):
        words = b" ".join(chance.choices(WORDS, k=chance.randrange(8, 15)))
        kind = chance.randrange(100)
        lines.append(b"" if 0 < kind < 7 else (b"." if kind == 0 else b"") + words)
    return lines


TEXT = b"\n".join(_lines(1, 4000)) + b"\n"
ENCODED = b"".join(random.Random(2).randbytes(38).hex().encode() + b"\n" for _ in range(4000))


def message(number: int, octets: int, body: bytes = TEXT) -> bytes:
    """A message of so many octets, line ends LF, that is like no other; ``body``: lines to take from."""
    head = b"From: sender%d@example.org\nTo: user@example.net\nSubject: message %d\n\n" % (number % 97, number)
    start = body.find(b"\n", number * 997 % (len(body) // 2)) + 1
    body = body[start:] + body * (max(0, octets - len(body) + start) // len(body) + 1)
    return (head + body)[: octets - 1] + b"\n"


def on_the_wire(stored: bytes) -> bytes:
    """What RETR sends of it, without the last line of ".": CRLF, dots stuffed (RFC 1939 §3)."""
    return re.sub(rb"(?m)^\.", b"..", stored).replace(b"\n", b"\r\n")
