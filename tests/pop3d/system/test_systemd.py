"""systemd's protocols with real sockets and the real process, and the units with systemd's own tools."""

import contextlib
import fcntl
import os
import poplib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pop3d.config import Listen
from pop3d.system.systemd import ActivationError, Notifier, activated, matched
from tests.lmtp import LmtpClient
from tests.site import Daemon, Site

UNITS = Path(__file__).parents[3] / "examples/systemd"


class Manager:
    """systemd's side of the notify protocol."""

    def __init__(self, name: str) -> None:
        self.environ = {"NOTIFY_SOCKET": name}
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self.sock.settimeout(20)

    def told(self) -> dict[str, str]:
        """The next datagram."""
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().split("\n"))

    def wait_for(self, name: str) -> dict[str, str]:
        while name not in (told := self.told()):
            pass
        return told


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"{tmp_path}/notify" if request.param == "a path" else f"@pop3d-test-{os.getpid()}-{time.monotonic_ns()}"
    made = Manager(name)
    with contextlib.closing(made.sock):
        yield made


def at_paths(*arguments: str) -> list[Listen]:
    return [Listen.model_validate({"protocol": "lmtp", "path": path}) for path in arguments]


def test_a_unix_socket_is_matched_by_its_path(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(tmp_path / "lmtp"))
        assert matched([handed], at_paths("/elsewhere", str(tmp_path / "lmtp"))) == {1: [handed]}
        with pytest.raises(ActivationError, match=r"belongs to no .*add one with this path"):
            matched([handed], at_paths("/elsewhere"))


def connect(site: Site) -> poplib.POP3_SSL:
    return poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)


def test_the_life_of_a_service(site: Site, manager: Manager) -> None:
    daemon = Daemon(site, env={**os.environ, **manager.environ, "WATCHDOG_USEC": "200000"})
    try:
        assert manager.told() == {"READY": "1"}
        assert manager.told() == {"WATCHDOG": "1", "STATUS": "0 sessions"}
        client = connect(site)
        while manager.wait_for("WATCHDOG")["STATUS"] != "1 sessions":
            pass
        client.quit()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.send(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING")
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.wait_for("READY") == {"READY": "1"}
    finally:
        status = daemon.end()
    assert manager.wait_for("STOPPING") == {"STOPPING": "1"}
    assert status == 0


def test_a_faulty_reload_is_ended_as_well(site: Site, manager: Manager) -> None:
    daemon = Daemon(site, env={**os.environ, **manager.environ})
    try:
        assert manager.told() == {"READY": "1"}
        assert manager.told() == {"STATUS": "0 sessions"}  # and nobody asked for a watchdog
        site.certificate.write_bytes(b"garbage")
        (site.root / "users").write_bytes(b"garbage")
        daemon.send(signal.SIGHUP)
        assert "RELOADING" in manager.told()
        assert manager.told() == {"READY": "1"}
    finally:
        assert daemon.end() == 0


def test_nobody_listens(site: Site) -> None:
    daemon = Daemon(site, env={**os.environ, "NOTIFY_SOCKET": f"{site.root}/nobody"})
    assert daemon.end() == 0
    assert "systemd was not told STOPPING=1" in daemon.log


@pytest.mark.parametrize(
    ("environ", "watchdog"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, 3),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
    ],
)
def test_variables_of_systemd_are_read_and_removed(environ: dict[str, str], watchdog: float | None) -> None:
    notifier = Notifier(environ)
    assert environ == {}  # no child is meant
    assert notifier.watchdog == watchdog
    notifier.ready()
    notifier.close()
    notifier.ready()


@contextlib.contextmanager
def listening(*hosts: str) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            )
            for host in hosts
        ]


# what systemd does between fork and exec: descriptors from 3 on, and the pid of the process itself
START = """
import os, sys
count, *descriptors = sys.argv[1].split()
for number, descriptor in enumerate(map(int, descriptors), 3):
    os.dup2(descriptor, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
os.execv(sys.executable, [sys.executable, "-m", "pop3d", "serve", "--config", sys.argv[2]])
"""


def handed_over(site: Site, *handed: socket.socket | IO[str], count: int | None = None) -> subprocess.Popen[str]:
    """pop3d, with these handed over as systemd does."""
    high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100) for one in handed]  # none of them is 3 or the like
    numbers = " ".join(map(str, [len(high) if count is None else count, *high]))
    command = [sys.executable, "-c", START, numbers, str(site.config)]
    process = subprocess.Popen(command, pass_fds=high, stderr=subprocess.PIPE, text=True)
    for descriptor in high:
        os.close(descriptor)
    return process


def configured(site: Site, *listen: str) -> None:
    """The site with these ``[[listen]]`` in place of its own."""
    first, _, rest = site.config.read_text().partition("[[listen]]")
    tables = "".join(f"[[listen]]\n{one}\n" for one in listen)
    site.config.write_text(f"{first}{tables}[tls]{rest.partition('[tls]')[2]}")


def test_sockets_handed_over_are_served_and_the_rest_is_bound(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"x\n"})
    own = site.port
    with listening("127.0.0.1", "::1") as sockets:
        ports = [sock.getsockname()[1] for sock in sockets]
        configured(site, *(f'host = "0.0.0.0"\nport = {port}' for port in ports), f'host = "127.0.0.1"\nport = {own}')
        process = handed_over(site, *sockets)
    assert process.stderr is not None
    try:
        told = [next(line for line in process.stderr if "listening" in line) for _ in range(3)]
        assert [line.partition("listening on ")[2].strip() for line in told] == [
            f"127.0.0.1 port {ports[0]}",
            f"::1 port {ports[1]}",
            f"127.0.0.1 port {own}",
        ]
        for host, port in (("127.0.0.1", ports[0]), ("::1", ports[1]), ("127.0.0.1", own)):
            context = site.context()
            context.check_hostname = False
            client = poplib.POP3_SSL(host, port, context=context, timeout=20)
            client.user("alice")
            client.pass_("secret")
            assert client.stat()[0] == 1
            client.quit()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def refused(site: Site, *handed: socket.socket | IO[str], count: int | None = None) -> str:
    process = handed_over(site, *handed, count=count)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 78
    return said


def test_a_socket_that_belongs_to_nothing_is_a_fault(site: Site) -> None:
    with listening("127.0.0.1") as (sock,):
        said = refused(site, sock)
        port = sock.getsockname()[1]
    assert said == (
        f"pop3d: systemd handed over a socket on 127.0.0.1 port {port}, which belongs to no [[listen]]: "
        "add one with this port, or remove it\n"
    )


def test_what_is_no_listening_socket_is_a_fault(site: Site) -> None:
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams, open(site.config) as file:
        for handed in (unbound, datagrams, file):
            assert refused(site, handed).startswith("pop3d: descriptor 3 from systemd is no listening stream socket; ")
    assert "LISTEN_FDS is no number up to 64" in refused(site, count=65)
    assert "LISTEN_FDS is no number up to 64" in refused(site, count=-1)


def test_a_unix_socket_of_systemd_takes_mail_and_stays(site: Site) -> None:
    path = site.root / "lmtp.sock"
    configured(site, f'protocol = "lmtp"\npath = "{path}"')
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        process = handed_over(site, handed)
        try:
            with LmtpClient(path) as client:
                assert client.handed_over(b"Subject: hello\r\n\r\n", "alice") == ["250 2.0.0"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 0
        assert path.is_socket()  # systemd's own, for the next start


def test_sockets_for_another_process_are_not_touched() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert activated(environ) == []
    assert environ == {}


def test_of_two_with_one_port_the_address_decides_and_clear_text_stays_at_home() -> None:
    with listening("127.0.0.1", "0.0.0.0") as (home, world):
        port, open_port = home.getsockname()[1], world.getsockname()[1]
        listen = [Listen(host=host, port=port) for host in ("0.0.0.0", "127.0.0.1")]
        assert matched([home], listen) == {1: [home]}
        with pytest.raises(ActivationError, match="belongs to no"):
            matched([home], [listen[0], listen[0].model_copy(update={"host": "192.0.2.1"})])
        anywhere = [Listen(port=open_port), Listen(host="127.0.0.1", port=open_port)]
        assert matched([world], anywhere) == {0: [world]}
        with pytest.raises(ActivationError, match="belongs to no"):
            matched([home], [Listen(port=port), Listen(host="127.0.0.2", port=port)])
        clear = Listen(host="127.0.0.1", port=open_port, tls="none")
        with pytest.raises(ActivationError, match="bind it to loopback"):
            matched([world], [clear])
        assert matched([world], [clear.model_copy(update={"insecure": True})]) == {0: [world]}
        assert matched([home], [Listen(host="127.0.0.1", port=port, tls="none")]) == {0: [home]}


def test_systemds_own_tool_starts_it_with_the_first_connection(site: Site) -> None:
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is missing: apt-get install systemd")
    site.maildir("alice", {"new/1.host": b"x\n"})
    before = [tool, "--listen", f"127.0.0.1:{site.port}"]
    daemon = Daemon(site, before, wait_for="Listening on")
    try:
        client = connect(site)
        client.user("alice")
        client.pass_("secret")
        assert client.stat()[0] == 1
        client.quit()
    finally:
        assert daemon.end() == 0
    assert f"listening on 127.0.0.1 port {site.port}" in daemon.log


def units(folder: Path) -> list[str]:
    """The units as shipped, but for the path of a program that is not here."""
    for unit in UNITS.iterdir():
        (folder / unit.name).write_text(unit.read_text().replace("/usr/local/bin/pop3d ", f"{sys.executable} "))
    return [str(folder / unit.name) for unit in sorted(UNITS.iterdir())]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60)


def test_the_units_are_valid(tmp_path: Path) -> None:
    result = analyze("verify", "--man=no", *units(tmp_path))
    ours = [line for line in result.stderr.splitlines() if "pop3d" in line]
    assert (result.returncode, ours) == (0, [])


def test_the_service_is_hardened(tmp_path: Path) -> None:
    service = next(unit for unit in units(tmp_path) if unit.endswith(".service"))
    # exposure in tenths: systemd calls up to 2.0 "OK"; most of what is left is that a server needs the network
    result = analyze("security", "--offline=true", "--threshold=20", "--no-pager", service)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze cannot judge a file: systemd 250 or later is needed")
    assert result.returncode == 0, result.stdout[-300:]


def test_the_ports_of_the_socket_are_those_of_the_default_listener() -> None:
    text = (UNITS / "pop3d.socket").read_text()
    ports = {line.rpartition(":")[2] for line in text.splitlines() if line.startswith("ListenStream=")}
    assert ports == {str(Listen().port)}
