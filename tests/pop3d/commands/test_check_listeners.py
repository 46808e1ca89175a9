"""`pop3d check`, with ports that others hold, real ones."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pop3d.commands.check_listeners import listeners
from pop3d.config import load
from tests.site import Daemon, Site, free_port

on_linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="who holds a port stands in Linux's /proc")


def found(site: Site) -> list[tuple[bool, str]]:
    return [(one.fault, one.text) for one in listeners(load(site.config))]


def metrics(listen: str) -> str:
    return f'\n[metrics]\nlisten = "{listen}"\n'


def another(host: str, port: int) -> str:
    return f'\n[[listen]]\nhost = "{host}"\nport = {port}\n'


def test_what_can_listen_is_no_finding(site: Site) -> None:
    site.config.write_text(site.config.read_text() + another("127.0.0.2", site.port) + another("127.0.0.1", 0) * 2)
    assert found(site) == []


def test_all_addresses_meet_those_of_their_families(site: Site) -> None:
    whole = site.config.read_text()  # it has one at 127.0.0.1
    for host, meets in (("*", True), ("0.0.0.0", True), ("::", False)):
        site.config.write_text(whole + another(host, site.port))
        assert any("only one of the two can listen" in text for _, text in found(site)) is meets, host


@on_linux
def test_a_port_that_is_taken_says_by_whom(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        ((fault, text),) = found(site)
    assert fault
    assert text.startswith(
        f"[[listen]] number 1: cannot listen on 127.0.0.1 port {site.port}: Address already in use; "
    )
    assert re.search(rf"; it is \S+ \(process {os.getpid()}\)$", text)
    # whoever listens at another address is in nobody's way; whoever listens at all of them is
    with socket.create_server(("127.0.0.3", site.port)):
        assert found(site) == []
    with socket.create_server(("0.0.0.0", site.port)):
        assert "process" in found(site)[0][1]


@on_linux
def test_a_site_that_serves_is_no_finding(site: Site) -> None:
    site.config.write_text(site.config.read_text() + metrics(f"127.0.0.1:{free_port()}"))
    daemon = Daemon(site)
    try:
        assert found(site) == []
    finally:
        assert daemon.end() == 0


def test_the_metrics_port(site: Site) -> None:
    whole = site.config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site.config.write_text(whole + metrics(f"127.0.0.1:{port}"))
        ((_, text),) = found(site)
    assert text.startswith(
        f"`metrics.listen`: cannot listen on 127.0.0.1 port {port}: Address already in use; end what"
    )
    site.config.write_text(whole + metrics("192.0.2.77:9195"))
    assert found(site) == [
        (
            True,
            "`metrics.listen`: cannot listen on 192.0.2.77 port 9195: Cannot assign requested address; "
            "choose an address of this machine",
        )
    ]
    site.config.write_text(whole + metrics("nowhere.invalid:9195"))
    ((fault, text),) = found(site)
    assert fault
    assert text.startswith("`metrics.listen`: cannot listen on nowhere.invalid port 9195: ")


def test_two_listeners_on_one_port_are_a_fault(site: Site) -> None:
    whole = site.config.read_text()
    for host in ("127.0.0.1", "0.0.0.0"):
        site.config.write_text(whole + metrics(f"{host}:{site.port}"))
        assert found(site) == [
            (
                True,
                f"`metrics.listen`: [[listen]] number 1 has port {site.port} too, so only one of the two can listen; "
                "give it another port, or another address",
            )
        ]
    site.config.write_text(whole + another("127.0.0.1", site.port))
    ((_, text),) = found(site)
    assert text.startswith("[[listen]] number 2: [[listen]] number 1 has port ")
    shared = whole.replace("[[listen]]", "[[listen]]\nreuse_port = true")
    site.config.write_text(shared + another("127.0.0.1", site.port) + "reuse_port = true\n")
    assert found(site) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_low_port_without_root_is_no_fault(site: Site) -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not first.exists() or int(first.read_text()) <= 995:
        pytest.skip("here everybody may bind low ports")
    site.config.write_text(site.config.read_text().replace(f"port = {site.port}", "port = 995"))
    site.root.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path; from pop3d.config import load; "
        "from pop3d.commands.check_listeners import listeners; config = load(Path(sys.argv[1])); "
        "list(listeners(config)); "  # while this Python can still be read
        "os.setresuid(65534, 65534, 65534); print(*((one.fault, one.text) for one in listeners(config)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(site.config)], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.startswith("(False, '[[listen]] number 1: cannot listen on 127.0.0.1 port 995: Permission"), done


def test_an_invalid_host_name_is_a_fault(site: Site) -> None:
    site.config.write_text(site.config.read_text() + another("x" * 70 + ".example", 1234))
    ((fault, text),) = found(site)
    assert fault
    assert text.endswith("; choose another host or port")


def test_a_unix_socket_and_what_is_in_its_place(site: Site) -> None:
    site.config.write_text(site.config.read_text() + "\n[[listen]]\nprotocol = 'lmtp'\npath = 'run/lmtp'\n")
    path = site.root / "run/lmtp"
    ((fault, text),) = found(site)
    assert fault
    assert f"cannot listen on {path}: No such file or directory; make the folder" in text
    path.parent.mkdir()
    assert found(site) == []
    path.write_text("")
    ((fault, text),) = found(site)
    assert fault
    assert "remove the file, or choose another path" in text
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert found(site) == []  # nobody listens: it is replaced
        sock.listen()
        ((fault, text),) = found(site)
    assert not fault
    assert "all is well if it is pop3d itself" in text
    site.config.write_text(site.config.read_text() + "group = 'nobody-has-it'\n")
    ((fault, text),) = found(site)
    assert fault
    assert "this system has no group 'nobody-has-it'" in text
