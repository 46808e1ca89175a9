"""`pop3d who`, `kick` and `status`, of one daemon with real connections."""

import json
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.control import crowd, crowded_site, logged_in
from tests.pop3d.commands.small_site import run
from tests.site import Daemon, Site, free_port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With 30 sessions, and a connection that has not logged in."""
    site = crowded_site(tmp_path_factory.mktemp("crowd"), 30)
    daemon = Daemon(site)
    try:
        with crowd(site.port, 30), socket.create_connection(("127.0.0.1", site.port)) as stranger:
            assert stranger.recv(100).startswith(b"+OK")
            yield site
    finally:
        assert daemon.end() == 0
    assert not list((site.root / "state").glob("*.sock"))


def test_who(site: Site) -> None:
    code, said, errors = run(site.root, "who")
    assert (code, errors) == (0, "")
    lines = [line.split("\t") for line in said.splitlines()]
    assert [line[0] for line in lines] == [f"user{number:05}@example.org" for number in range(30)]
    user, address, tls, mechanism, since, idle, state, commands, retrieved, octets, pid = lines[7]
    assert (user, address, tls, mechanism) == ("user00007@example.org", "127.0.0.1", "-", "USER")
    assert (state, commands, retrieved) == ("TRANSACTION", "2", "0")
    assert abs(time.time() - time.mktime(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S"))) < 120
    assert 0 <= int(idle) < 60
    assert int(octets) > 60
    assert int(pid) > 1
    assert len(run(site.root, "who", "--all")[1].splitlines()) == 31


def test_who_of_a_user_an_address_a_network(site: Site) -> None:
    for whom, most in {"User00003@EXAMPLE.org": 1, "127.0.0.1": 30, "127.0.0.0/8": 30, "::1": 0, "nobody": 0}.items():
        assert len(run(site.root, "who", whom)[1].splitlines()) == most, whom


def test_who_as_json(site: Site) -> None:
    code, said, _ = run(site.root, "who", "--json", "--all")
    found = [json.loads(line) for line in said.splitlines()]
    assert (code, len(found)) == (0, 31)
    assert found[0].keys() == {
        "user", "address", "tls", "mechanism", "connected", "since", "idle", "state", "commands", "retrieved",
        "retrieved_octets", "octets_in", "octets_out", "pid",
    }  # fmt: skip
    stranger = found[-1]
    assert (stranger["user"], stranger["since"], stranger["state"]) == (None, None, "AUTHORIZATION")
    assert abs(found[0]["since"] - time.time()) < 120


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_table_on_a_terminal(site: Site, columns: str) -> None:
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": columns, "NO_COLOR": "1"}
    arguments = [sys.executable, "-m", "pop3d", "who", "--config", str(site.config)]
    shown = b""
    with subprocess.Popen(arguments, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        while True:
            try:
                shown += os.read(main, 65536)
            except OSError:  # of Linux, at the end
                break
        assert process.wait(60) == 0
    os.close(main)
    lines = shown.decode().splitlines()
    assert "30 sessions logged in, 1 not logged in; --all shows them" in lines[-1]
    assert len(lines) == 32  # no line is folded, and each session has one
    assert all(len(line) <= int(columns) for line in lines[1:-1])


def test_status(site: Site) -> None:
    code, said, errors = run(site.root, "status", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(said)
    assert found["listeners"] == [{"host": "127.0.0.1", "port": site.port}]
    assert found["configuration"] == str(site.config)
    assert found["sessions"]["unauthenticated"] == 1
    assert found["logins"]["accepted"] >= 30
    assert found["memory"] > 1_000_000
    assert (found["reload"], found["log"]) == (None, {"works": True, "lost": 0})
    lines = dict(line.split("\t", 1) for line in run(site.root, "status")[1].splitlines())
    assert lines["listens on"] == f"127.0.0.1 port {site.port}"
    assert lines["not logged in"] == "1 of 1000000"
    assert "accepted" in lines["since the start"]
    assert lines["log"] == "is written"


def test_kick(site: Site) -> None:
    code, said, errors = run(site.root, "kick", "user00029@example.org")
    assert (code, said, errors) == (0, "ended 1 session of user00029@example.org\n", "")
    new = site.root / "mail" / "user00029@example.org" / "new"
    new.mkdir(parents=True)
    (new / "1.host").write_bytes(b"1\n")
    with logged_in(site.port, 29) as again:  # its lock is free at once
        again.sendall(b"DELE 1\r\n")
        assert again.recv(100).startswith(b"+OK")
        assert json.loads(run(site.root, "kick", "USER00029@example.org", "--json")[1]) == {"kicked": 1}
        assert again.recv(100) == b""
    assert list(new.iterdir())  # only QUIT deletes
    code, said, errors = run(site.root, "kick", "user00029@example.org")
    assert (code, said) == (67, "")
    assert errors == "pop3d: no session of 'user00029@example.org'; `pop3d who --all` shows all\n"
    assert run(site.root, "kick", "")[0] == 2


def test_a_second_daemon_with_the_same_state(site: Site, tmp_path: Path) -> None:
    """It is told, and asked as well."""
    text = site.config.read_text().replace(str(site.port), str(free_port()))
    (tmp_path / "pop3d.toml").write_text(f'state = "{site.root}/state"\n{text}')
    (tmp_path / "users").write_text("bob:{PLAIN}secret\n")
    other = Daemon(Site(tmp_path, 0), wait_for="another pop3d runs with the state folder")
    try:
        found = [json.loads(line) for line in run(site.root, "status", "--json")[1].splitlines()]
        assert [one["configuration"] for one in found] == [str(site.config), str(tmp_path / "pop3d.toml")]
        lines = run(site.root, "status")[1].splitlines()
        assert lines[len(lines) // 2] == ""
    finally:
        assert other.end() == 0
    assert [path.name for path in (site.root / "state").glob("*.sock")] == ["control.sock"]
