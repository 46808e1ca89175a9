"""`python -m tests.bench.maildir [--messages 100000] [--million]`: pop3d beside Dovecot on the same Maildir, over TLS.

Both serve the same files, one after the other, to the same client. *First* is a login without a cache or an index, the
files in the page cache for both; *again* has the cache, in the same process; *restart* has it in a new one. CPU is user
and system time of all of a server's processes, living and ended; that is the figure to look at, wall time depends on
what else the machine does. Ratios are pop3d's figure by Dovecot's, of the same run. Dovecot is tuned for speed: it
syncs nothing and keeps no flags; pop3d syncs what it removes (nothing is removed here).

Root and Debian's dovecot-pop3d are needed for the other column.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pop3d.net.certificates import create_self_signed
from tests.interop import dovecot
from tests.site import free_port

LARGE, LARGE_OCTETS = 20, 25 * 1024 * 1024
SMALL = 5_000

CONFIGURATION = """
hostname = "localhost"
state = "{root}/state"
{user}
[[listen]]
host = "127.0.0.1"
port = {port}
[tls]
certificate = "{root}/cert.pem"
private_key = "{root}/key.pem"
[auth]
users = "{root}/users"
[store]
path = "{root}/mail/{{user}}"
[log]
level = "warning"
"""


@dataclass
class Figures:
    """Seconds of wall and CPU time, by workload; other things that were measured, by what and in which unit."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


class Client:
    """A client that costs little: it counts octets and looks for ends."""

    def __init__(self, port: int, context: ssl.SSLContext, user: str, *, refused_by: bytes = b"+OK") -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.sock = context.wrap_socket(sock, server_hostname="localhost")
        self.tail = b""
        self.line()
        self.ask(f"USER {user}")
        self.ask("PASS secret", refused_by=refused_by)

    def line(self) -> bytes:
        while b"\n" not in self.tail:
            data = self.sock.recv(65536)
            assert data, "the server went away"
            self.tail += data
        line, _, self.tail = self.tail.partition(b"\n")
        return line

    def ask(self, command: str, *, refused_by: bytes = b"+OK") -> bytes:
        self.sock.sendall(command.encode() + b"\r\n")
        answer = self.line()
        assert answer.startswith((b"+OK", refused_by)), answer
        return answer

    def ends(self, count: int) -> int:
        """Read to the end of ``count`` multi-line replies; octets. Content here has no line of "." alone."""
        octets = 0
        while count:
            found = self.tail.count(b"\r\n.\r\n")
            count -= found
            octets += len(self.tail)
            if count:
                keep = self.tail[-4:] if not found else self.tail[self.tail.rfind(b"\r\n.\r\n") + 5 :][-4:]
                data = self.sock.recv(1 << 18)
                assert data, "the server went away"
                octets -= len(keep)
                self.tail = keep + data
        self.tail = b""
        return octets

    def many(self, command: str) -> int:
        self.sock.sendall(command.encode() + b"\r\n")
        return self.ends(1)

    def quit(self) -> None:
        self.ask("QUIT")
        self.sock.close()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a family, those of it that have ended included."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Proportional set size of a family."""
    kib = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                kib += int(line.split()[1]) if line.startswith("Pss:") else 0
    return kib / 1024


@contextlib.contextmanager
def pop3d(root: Path) -> Iterator[tuple[int, int]]:
    """pop3d as an administrator starts it; its port and process."""
    port = free_port()
    user = 'user = "nobody"\ngroup = "nogroup"' if os.geteuid() == 0 else ""
    (root / "pop3d.toml").write_text(CONFIGURATION.format(root=root, port=port, user=user))
    command = [sys.executable, "-m", "pop3d", "serve", "--config", root / "pop3d.toml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def tuned_dovecot(root: Path) -> Iterator[tuple[int, int]]:
    mail, files = str(root / "mail" / "%u"), (root / "cert.pem", root / "key.pem")
    with dovecot.serving(root / "dovecot", mail, certificate=files[0], key=files[1], extra=dovecot.TUNED) as port:
        yield port, int((root / "dovecot" / "run" / "master.pid").read_text())


class Neighbour(threading.Thread):
    """A session that says NOOP every other millisecond; ``waits``: how long each answer took, in seconds."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self._client, self._ended = client, threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(0.002):
            begun = time.perf_counter()
            self._client.ask("NOOP")
            self.waits.append(time.perf_counter() - begun)

    def end(self) -> str:
        self._ended.set()
        self.join()
        waits = sorted(self.waits)
        return f"{waits[-1] * 1000:.1f} (p99 {waits[len(waits) * 99 // 100] * 1000:.1f})"


def seconds_until(login: Callable[[], object]) -> float:
    begun = time.perf_counter()
    while True:
        with contextlib.suppress(AssertionError):
            login()
            return time.perf_counter() - begun


Server = Callable[[Path], contextlib.AbstractContextManager[tuple[int, int]]]


def measure(start: Server, root: Path, users: list[str], messages: int, console: Console) -> Figures:
    """All workloads with one server."""
    figures = Figures()
    context = ssl.create_default_context(cafile=root / "cert.pem")

    def forget() -> None:
        for folder in ("state", "dovecot"):
            shutil.rmtree(root / folder, ignore_errors=True)
        for user in users:
            for left in ("dovecot-uidlist", "dovecot-uidlist.lock", "dovecot.index.cache"):
                (root / "mail" / user / left).unlink(missing_ok=True)

    forget()

    @contextlib.contextmanager
    def timed(name: str, pid: int) -> Iterator[None]:
        console.print(f"  {name}", style="dim")
        wall, cpu = time.perf_counter(), cpu_seconds(pid)
        yield
        figures.wall[name], figures.cpu[name] = time.perf_counter() - wall, cpu_seconds(pid) - cpu

    def look(port: int, count: int, user: str = "many") -> Client:
        client = Client(port, context, user)
        assert int(client.ask("STAT").split()[1]) == count
        client.many("UIDL")
        return client

    with start(root) as (port, pid):
        for name in ("first", "again"):
            with timed(f"{messages:,}: {name}", pid):
                look(port, messages).quit()
        if "small" in users:
            client = look(port, SMALL, "small")
            with timed(f"RETR {SMALL:,} small, one at a time", pid):
                for number in range(1, SMALL + 1):
                    client.many(f"RETR {number}")
            with timed(f"RETR {SMALL:,} small, 50 ahead", pid):
                for number in range(1, SMALL + 1, 50):
                    client.sock.sendall(b"".join(b"RETR %d\r\n" % n for n in range(number, number + 50)))
                    client.ends(50)
            client.quit()
            client = look(port, LARGE, "large")
            with timed(f"RETR {LARGE} x 25 MiB", pid):
                for number in range(1, LARGE + 1):
                    assert client.many(f"RETR {number}") > LARGE_OCTETS
            client.quit()
    with start(root) as (port, pid):
        idle = memory_mib(pid)
        with timed(f"{messages:,}: after a restart", pid):
            client = look(port, messages)
        figures.others[f"{messages:,}: session open (MiB in all)"] = f"{memory_mib(pid):.0f}"
        figures.others["nobody there (MiB)"] = f"{idle:.0f}"
        client.quit()
    if "small" not in users:
        return figures
    for what, begin in ((f"{messages:,}: first", forget), (f"{messages:,}: after a restart", lambda: None)):
        begin()
        with start(root) as (port, _):
            neighbour = Neighbour(Client(port, context, "small"))
            neighbour.start()
            client = look(port, messages)
            figures.others[f"longest NOOP of another session beside {what} (ms)"] = neighbour.end()
            if begin is not forget:
                begun = time.perf_counter()
                second = Client(port, context, "many", refused_by=b"-ERR [IN-USE]")
                refusal = second.ask("NOOP", refused_by=b"-ERR")
                what = "refused" if refusal.startswith(b"-ERR") else "let in as well"
                figures.others["second session of a mailbox (ms, handshake included)"] = (
                    f"{what} after {(time.perf_counter() - begun) * 1000:.0f}"
                )
                second.sock.close()
                client.sock.close()  # without QUIT
                waited = seconds_until(lambda port=port: Client(port, context, "many"))
                figures.others["in again behind a client that vanished (ms)"] = f"{waited * 1000:.0f}"
    return figures


def make(root: Path, user: str, count: int, content: Callable[[int], bytes], console: Console) -> None:
    """A Maildir of ``count`` messages."""
    console.print(f"making {count:,} messages for {user}", style="dim")
    for folder in ("tmp", "new", "cur"):
        (root / "mail" / user / folder).mkdir(parents=True)
    folder = str(root / "mail" / user / "cur")
    for number in range(count):
        with open(f"{folder}/{1_700_000_000 + number}.M{number % 1_000_000:06}P1.host.example.org:2,S", "wb") as file:
            file.write(content(number))
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "nobody:nogroup", root / "mail" / user], check=True)


def text(octets: int) -> bytes:
    line = b"Nobody reads this line, but it has the length of a line of text.\n"
    return b"From: a@example.org\nSubject: x\n\n" + line * (octets // len(line))


def show(ours: Figures, theirs: Figures | None, console: Console) -> None:
    table = Table(
        "workload", "CPU ratio", "pop3d CPU s", "Dovecot CPU s", "wall ratio", "pop3d wall s", "Dovecot wall s"
    )
    for name, cpu in ours.cpu.items():
        other = theirs.cpu[name] if theirs else 0.0
        wall, other_wall = ours.wall[name], theirs.wall[name] if theirs else 0.0
        table.add_row(
            name,
            f"{cpu / other:.2f}" if other else "",
            f"{cpu:.2f}",
            f"{other:.2f}" if theirs else "",
            f"{wall / other_wall:.2f}" if other_wall else "",
            f"{wall:.2f}",
            f"{other_wall:.2f}" if theirs else "",
        )
    console.print(table)
    for name, figure in ours.others.items():
        console.print(f"{name}: pop3d {figure}" + (f", Dovecot {theirs.others[name]}" if theirs else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--million", action="store_true", help="1,000,000 small messages, and nothing else")
    options = parser.parse_args()
    console = Console()
    messages = 1_000_000 if options.million else options.messages
    with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        for path in create_self_signed(["localhost"], root):
            path.chmod(0o644)
        (root / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in ("many", "small", "large")))
        users = ["many"]
        make(root, "many", messages, lambda n: text(100) if options.million else text(2000 + n % 6000), console)
        if not options.million:
            users += ["small", "large"]
            make(root, "small", SMALL, lambda _: text(4096), console)
            make(root, "large", LARGE, lambda _: text(LARGE_OCTETS), console)
        console.print("pop3d", style="bold")
        ours = measure(pop3d, root, users, messages, console)
        theirs = None
        if (why := dovecot.missing()) is None:
            console.print("Dovecot, tuned", style="bold")
            theirs = measure(tuned_dovecot, root, users, messages, console)
        else:
            console.print(why)
        show(ours, theirs, console)


if __name__ == "__main__":
    main()
