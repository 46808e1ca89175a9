"""`python -m tests.bench.clients`: `pop3cli sync` beside other programs that fetch mail, from one mailbox over TLS.

2,000 messages of 2 to 60 KiB stay on the server, a real Dovecot or pop3d; every client begins with an empty memory and
an empty folder, and must have all of it at the end. Over loopback, and over a line of `tests.line` with a round trip
of 40 ms. CPU is user and system time of the client and what it starts; memory is the largest of its processes. A round
goes over all clients; ratios are to mpop in the same round, and the medians are shown.

mpop, getmail6 and pop3cli sync each message to the disk; curl, fetchmail --bsmtp and the poplib script do not. Clients
that wait for each message take minutes over the slow line, so they go there only with ``--all``, and all at once.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pop3d.net.certificates import create_self_signed
from tests.interop import dovecot
from tests.site import Daemon, Site, free_port, site_configuration

SCRIPT = """
import os, poplib, ssl, sys
user, port, cert, out = sys.argv[1:]
client = poplib.POP3_SSL("localhost", int(port), context=ssl.create_default_context(cafile=cert), timeout=60)
client.user(user)
client.pass_("secret")
for number in range(1, client.stat()[0] + 1):
    with open(os.path.join(out, str(number)), "wb") as file:
        file.write(b"\\n".join(client.retr(number)[1]) + b"\\n")
client.quit()
"""
SECONDS_MAX = 300.0
GETMAIL_WAITS = 15
"""Seconds. getmail6 misses the end of a delivery that is over before it begins to wait for it, then waits so long."""
TRIES = 3


@dataclass(frozen=True)
class Place:
    """A client's own folder, and the server."""

    folder: Path
    port: int
    certificate: Path
    messages: int

    @property
    def user(self) -> str:
        """Each client has a mailbox of its own: one that is locked would keep the others out."""
        return self.folder.parent.name

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def maildir(self) -> Path:
        for inside in ("tmp", "new", "cur"):
            (self.out / inside).mkdir()
        return self.out

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


Command = list[object]


def pop3cli(place: Place) -> Command:
    account = f"pop3s://{place.user}@localhost:{place.port}"
    options = ["--cacert", place.certificate, "--state", place.folder / "state"]
    return [sys.executable, "-m", "pop3cli", "sync", account, place.out, *options]


def mpop(place: Place) -> Command:
    text = f"""account x
host localhost
port {place.port}
user {place.user}
password secret
auth user
tls on
tls_starttls off
tls_trust_file {place.certificate}
keep on
uidls_file {place.folder}/uidls
received_header off
delivery maildir {place.maildir()}
account default : x
"""
    return ["mpop", "-q", "-C", place.file("rc", text)]


def getmail(place: Place) -> Command:
    text = f"""[retriever]
type = SimplePOP3SSLRetriever
server = localhost
port = {place.port}
username = {place.user}
password = secret
timeout = {GETMAIL_WAITS}
[destination]
type = Maildir
path = {place.maildir()}/
[options]
delete = false
verbose = 0
received = false
delivered_to = false
"""
    place.file("rc", text)
    command: Command = ["getmail", "--getmaildir", place.folder, "--rcfile", "rc"]
    if os.geteuid():
        return command
    subprocess.run(["chown", "-R", "nobody", place.folder], check=True)  # it delivers nothing as root
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]


def fetchmail(place: Place) -> Command:
    server = (
        f"set no syslog\npoll localhost protocol pop3 port {place.port} uidl"
        f' user "{place.user}" password "secret" is root'
    )
    rc = place.file("rc", f'{server} here ssl sslcertck sslcertfile "{place.certificate}" keep fetchall no rewrite\n')
    files = ["--pidfile", place.folder / "pid", "-i", place.folder / "ids", "--bsmtp", place.out / "bsmtp"]
    return ["fetchmail", "-f", rc, "-s", *files]


def curl(place: Place) -> Command:
    url = f"pop3s://localhost:{place.port}/[1-{place.messages}]"
    return ["curl", "-s", "--cacert", place.certificate, "--user", f"{place.user}:secret", url, "-o", f"{place.out}/#1"]


def poplib(place: Place) -> Command:
    return [sys.executable, place.file("script.py", SCRIPT), place.user, place.port, place.certificate, place.out]


CLIENTS: dict[str, Callable[[Place], Command]] = {
    "mpop": mpop,
    "pop3cli sync": pop3cli,
    "curl": curl,
    "fetchmail --bsmtp": fetchmail,
    "poplib script": poplib,
    "getmail6": getmail,
}
SHOWN = {
    "pop3cli sync": "**pop3cli sync**",
    "curl": "curl, which syncs nothing",
    "fetchmail --bsmtp": "fetchmail --bsmtp, which syncs once",
    "poplib script": "a poplib script, which syncs nothing",
}
"""How the documentation's table calls them."""
PROGRAMS = {"mpop": "mpop", "curl": "curl", "fetchmail --bsmtp": "fetchmail", "getmail6": "getmail"}
AHEAD = ("mpop", "pop3cli sync")
"""Those that do not wait for each message."""


@dataclass
class Figures:
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


class Watched(threading.Thread):
    """The largest memory of a process and of those it starts. (rusage has that of whoever forked it.)"""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.kib = pid, 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.look(self.pid)

    def look(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return
        self.kib = max([self.kib, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        for child in children.split():
            self.look(int(child))


def measure(name: str, place: Place, octets: int, figures: Figures, console: Console) -> None:
    """One client, once; why there are no figures of it, if so. What fails (getmail6 does, at times) is run again."""
    for _ in range(TRIES):
        try:
            run(name, place, octets, figures)
        except AssertionError as fault:
            console.print(str(fault), style="red", markup=False)
        else:
            return


def run(name: str, place: Place, octets: int, figures: Figures) -> None:
    """One client, once. Raises AssertionError when not all arrived."""
    shutil.rmtree(place.folder, ignore_errors=True)
    place.out.mkdir(parents=True)
    command = [str(word) for word in CLIENTS[name](place)]
    environment = {
        **os.environ,
        "POP3CLI_PASSWORD": "secret",
        "HOME": str(place.folder),
        "FETCHMAILHOME": str(place.folder),
        "SSL_CERT_FILE": str(place.certificate),
    }
    with (place.folder.parent / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        watched = Watched(process.pid)
        watched.start()
        timer = threading.Timer(SECONDS_MAX, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        watched.ended.set()
    files = [path for path in place.out.rglob("*") if path.is_file()]
    arrived = sum(path.stat().st_size for path in files)
    said = (place.folder.parent / "log").read_text(errors="replace")[-300:]
    assert process.returncode == 0, f"{name}: {process.returncode} {said}"
    assert len(files) in (1, place.messages), f"{name}: {len(files)} messages {said}"
    assert 0.97 < arrived / octets < 1.05, f"{name}: {arrived} octets of {octets}"
    figures.wall.append(wall)
    figures.cpu.append(usage.ru_utime + usage.ru_stime)
    figures.memory.append(watched.kib / 1024)


@contextmanager
def slow(port: int, rtt: float) -> Iterator[int]:
    """A line to a server, in a process of its own."""
    command = [sys.executable, "-m", "tests.line", "--to", str(port), "--rtt", str(rtt)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def make(folder: Path, count: int) -> int:
    """A Maildir; its octets."""
    chance = random.Random(1)
    for inside in ("tmp", "new", "cur"):
        (folder / inside).mkdir(parents=True)
    octets = 0
    for number in range(count):
        line = b"%06d Nobody reads this line, but it has the length of a line of text.\n" % number
        text = b"From: a@example.org\nSubject: %d\n\n" % number + line * (chance.randrange(2048, 61440) // len(line))
        (folder / "cur" / f"{1_700_000_000 + number}.M{number}P1.host:2,S").write_bytes(text)
        octets += len(text)
    return octets


@contextmanager
def pop3d(root: Path) -> Iterator[int]:
    port = free_port()
    (root / "pop3d.toml").write_text(site_configuration(port))
    daemon = Daemon(Site(root, port))
    said = daemon.process.stderr
    assert said is not None
    reader = threading.Thread(target=said.read, daemon=True)
    reader.start()
    try:
        yield port
    finally:
        daemon.process.terminate()
        daemon.process.wait()
        reader.join()
        said.close()


Results = dict[tuple[str, str, str], Figures]
"""By server, line and client."""


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Of rounds that belong together, else of their medians; nothing where one of them has no figures."""
    if not ours or not theirs:
        return ""
    if len(ours) == len(theirs):
        value = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    else:
        value = statistics.median(ours) / statistics.median(theirs)
    return f"{value:.{2 if value < 2 else 1 if value < 10 else 0}f}"


def rows(results: Results) -> Iterator[list[str]]:
    """Server, line, client, seconds, seconds of CPU, MiB, and the first two as ratios to mpop's."""
    for (server, line, client), figures in results.items():
        if figures.wall:
            base = results.get((server, line, "mpop"), Figures())
            wall, cpu, memory = map(statistics.median, (figures.wall, figures.cpu, figures.memory))
            ratios = [ratio(figures.wall, base.wall), ratio(figures.cpu, base.cpu)]
            yield [server, line, client, f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}", *ratios]


def show(results: Results, console: Console) -> None:
    table = Table("server", "line", "client", "wall s", "CPU s", "MiB", "wall / mpop", "CPU / mpop")
    for row in rows(results):
        table.add_row(*row)
    console.print(table)


def markdown(results: Results) -> str:
    """The table of `docs/client.md`, a row for each client: parts of what mpop takes, for seconds are those of a
    machine that does other things as well."""
    columns: list[tuple[str, tuple[str, str], str]] = []  # title, server and line, what of the figures
    for server, line in dict.fromkeys((server, line) for server, line, _ in results):
        if line == "loopback":
            columns += [(f"{server}: time", (server, line), "wall"), ("CPU", (server, line), "cpu")]
        else:
            columns.append((f"{line} away: time", (server, line), "wall"))
    lines = [
        f"| {' | '.join(['client', *(title for title, _, _ in columns), 'MiB'])} |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for client in dict.fromkeys(client for _, _, client in results):
        cells = [SHOWN.get(client, client)]
        for _, place, what in columns:
            ours, base = results.get((*place, client), Figures()), results.get((*place, "mpop"), Figures())
            cells.append(ratio(getattr(ours, what), getattr(base, what)) or "-")
        memory = [octets for (_, _, name), figures in results.items() if name == client for octets in figures.memory]
        cells.append(f"{statistics.median(memory):.0f}" if memory else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def site(root: Path, names: str, count: int, console: Console) -> Iterator[tuple[dict[str, int], int]]:
    """The servers' ports, by name, and the octets of each mailbox."""
    for path in create_self_signed(["localhost"], root):
        path.chmod(0o644)
    users = [name.split()[0] for name in CLIENTS]
    (root / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in users))
    octets = make(root / "mail" / users[0], count)
    for user in users[1:]:
        shutil.copytree(root / "mail" / users[0], root / "mail" / user, copy_function=os.link)
    with ExitStack() as stack:
        servers = {}
        if "pop3d" in names:
            servers["pop3d"] = stack.enter_context(pop3d(root))
        if "dovecot" in names:
            if why := dovecot.missing():
                console.print(why, style="dim")
            else:
                subprocess.run(["chown", "-R", "nobody:nogroup", root / "mail"], check=True)
                certificate = {"certificate": root / "cert.pem", "key": root / "key.pem"}
                servers["Dovecot"] = stack.enter_context(
                    dovecot.serving(root / "dovecot", f"{root}/mail/%u", **certificate)
                )
        yield servers, octets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtt", type=float, default=40, metavar="MILLISECONDS")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="of: %(default)s")
    parser.add_argument("--servers", default="dovecot,pop3d")
    parser.add_argument("--all", action="store_true", help="over the slow line too")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/client.md, on standard output")
    options = parser.parse_args()
    console = Console(stderr=options.markdown)
    wanted = options.clients.split(",")
    names = [name for name in CLIENTS if name in wanted and shutil.which(PROGRAMS.get(name, "sh"))]
    for name in set(wanted) - set(names):
        console.print(f"{name} is not installed", style="dim")
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="clients-bench-") as text, ExitStack() as stack:
        root = Path(text)
        root.chmod(0o755)
        servers, octets = stack.enter_context(site(root, options.servers, options.messages, console))

        def once(server: str, line: str, at: int, name: str) -> None:
            place = Place(root / "clients" / name.split()[0] / "it", at, root / "cert.pem", options.messages)
            measure(name, place, octets, results.setdefault((server, line, name), Figures()), console)

        for server, port in servers.items():
            for line in ("loopback", f"{options.rtt:g} ms"):
                far = line != "loopback"
                at = stack.enter_context(slow(port, options.rtt)) if far else port
                for round_ in range(options.rounds):
                    for name in names:
                        if far and name not in AHEAD:
                            continue
                        console.print(f"{server}, {line}, {name}, round {round_ + 1}", style="dim")
                        once(server, line, at, name)
                if far and options.all:
                    waiting = [name for name in names if name not in AHEAD]
                    console.print(f"{server}, {line}, {', '.join(waiting)}, at once", style="dim")
                    threads = [threading.Thread(target=once, args=(server, line, at, name)) for name in waiting]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
        show(results, console)
    if options.markdown:
        print(markdown(results))


if __name__ == "__main__":
    main()
