"""A server at 10.0.0.1 and a client at 10.0.0.2: two network namespaces, joined by a veth pair.

`docs/two-hosts.md` tells a person how to do the same by hand.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 8000


@dataclass
class Hosts:
    """Two namespaces."""

    server: str
    client: str

    def run(self, host: str, *command: str, **options) -> subprocess.CompletedProcess[str]:
        arguments = ["ip", "netns", "exec", host, *command]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, **options)


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("ip is missing; install iproute2")
    names = Hosts(f"pop-s-{os.getpid()}", f"pop-c-{os.getpid()}")
    made = ip("netns", "add", names.server)
    if made.returncode != 0:
        pytest.skip(f"network namespaces are refused here: {made.stderr.strip()}")
    try:
        for arguments in (
            ("netns", "add", names.client),
            (
                "link",
                "add",
                "veth0",
                "netns",
                names.server,
                "type",
                "veth",
                "peer",
                "name",
                "veth0",
                "netns",
                names.client,
            ),
            ("-n", names.server, "addr", "add", f"{SERVER}/24", "dev", "veth0"),
            ("-n", names.client, "addr", "add", f"{CLIENT}/24", "dev", "veth0"),
            ("-n", names.server, "link", "set", "veth0", "up"),
            ("-n", names.client, "link", "set", "veth0", "up"),
        ):
            done = ip(*arguments)
            if done.returncode != 0:
                pytest.skip(f"`ip {' '.join(arguments)}` is refused here: {done.stderr.strip()}")
        yield names
    finally:
        ip("netns", "del", names.server)
        ip("netns", "del", names.client)


def own_certificate(folder: Path) -> None:
    arguments = ["cert", "create", "--host", SERVER, "--host", "localhost", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "pop3d", *arguments], check=True, stdout=subprocess.DEVNULL)


def openssl_certificate(folder: Path) -> None:
    make(folder, "-subj", "/CN=server", "-addext", f"subjectAltName=IP:{SERVER}")


def common_name_only(folder: Path) -> None:
    make(folder, "-subj", f"/CN={SERVER}")


def make(folder: Path, *arguments: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing; install it")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-keyout", str(folder / "key.pem"),
               "-out", str(folder / "cert.pem"), "-days", "30", *arguments]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def serve(hosts: Hosts, tmp_path: Path):
    """Starts pop3d on the server's host, with a certificate of the given making; its folder."""
    started: list[subprocess.Popen[str]] = []

    def start(certificate) -> Path:
        certificate(tmp_path)
        add_user(tmp_path / "users", "alice", "secret", scheme="PLAIN")
        box = tmp_path / "mail/alice/new"
        box.mkdir(parents=True)
        (box / "1.host").write_bytes(b"From: bob@example.org\nSubject: Across\n\n.the wire\n")
        (box / "2.host").write_bytes(b"From: bob@example.org\nSubject: Second\n\nstays\n")
        (tmp_path / "pop3d.toml").write_text(f"""
user = "root"
listen = [{{host = "{SERVER}", port = {PORT}}}]
tls = {{certificate = "cert.pem", private_key = "key.pem"}}
auth = {{users = "users"}}
store = {{path = "mail/{{user}}"}}
""")
        arguments = [sys.executable, "-m", "pop3d", "serve", "--config", str(tmp_path / "pop3d.toml")]
        command = ["ip", "netns", "exec", hosts.server, *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        assert any("listening" in line for line in process.stderr)
        return tmp_path

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


def pop3cli(hosts: Hosts, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pop3cli", *arguments, "--cacert", str(folder / "cert.pem")]
    return hosts.run(hosts.client, *command, env={**os.environ, "POP3CLI_PASSWORD": "secret"})


ACCOUNT = f"pop3s://alice@{SERVER}:{PORT}"


@pytest.mark.parametrize("certificate", [own_certificate, openssl_certificate])
def test_lists_retrieves_deletes_and_quits_across_the_wire(hosts: Hosts, serve, certificate) -> None:
    folder = serve(certificate)
    listed = pop3cli(hosts, folder, "list", ACCOUNT)
    assert listed.returncode == 0, listed.stderr
    assert "Across" in listed.stdout
    assert "Second" in listed.stdout
    got = pop3cli(hosts, folder, "get", ACCOUNT, "1")
    assert got.returncode == 0
    assert got.stdout == "From: bob@example.org\nSubject: Across\n\n.the wire\n"  # text mode: CRLF read as LF
    deleted = pop3cli(hosts, folder, "delete", ACCOUNT, "1", "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert sorted(path.name for path in (folder / "mail/alice").glob("*/*")) == ["2.host"]
    shell = hosts.run(
        hosts.client, sys.executable, "-m", "pop3cli", "shell", ACCOUNT, "--cacert", str(folder / "cert.pem"),
        input="stat\ndele 1\nrset\nquit\n", env={**os.environ, "POP3CLI_PASSWORD": "secret"},
    )  # fmt: skip
    assert shell.returncode == 0, shell.stderr
    assert sorted(path.name for path in (folder / "mail/alice").glob("*/*")) == ["2.host"]


def test_a_certificate_with_only_a_common_name_is_refused_with_a_way_out(hosts: Hosts, serve) -> None:
    folder = serve(common_name_only)
    refused = pop3cli(hosts, folder, "stat", ACCOUNT)
    assert refused.returncode == 77
    assert refused.stderr.count("\n") == 1
    assert "subjectAltName" in refused.stderr
    assert f"pop3d cert create --host {SERVER}" in refused.stderr


def test_a_host_that_does_not_answer_is_one_clear_line(hosts: Hosts, serve) -> None:
    folder = serve(own_certificate)
    refused = pop3cli(hosts, folder, "stat", f"pop3s://alice@{SERVER}:9999")
    assert refused.returncode == 69
    assert refused.stderr.count("\n") == 1
