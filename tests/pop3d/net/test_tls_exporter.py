"""SCRAM-SHA-256-PLUS behind TLS 1.3: by tls-exporter if pyOpenSSL is installed, else not announced."""

import base64
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pop3core.sasl import scram
from pop3core.sasl.base import ClientSteps
from pop3d.config import load
from pop3d.key_pairs import tls_of
from pop3d.net.tls import ServerTls, TlsLayer, server_tls
from tests.pki import Authority
from tests.pop3d.net.test_tls import Client as Peer
from tests.pop3d.net.test_tls import client_context, connect
from tests.pop3d.test_external import Client, authority, configure
from tests.site import Daemon, Site, served, without_pyopenssl

tls_exporter = pytest.importorskip("pop3d.net.tls_exporter", reason="pyOpenSSL is missing: the extra channel-binding")

__all__ = ["authority"]

MECHANISMS = 'mechanisms = ["plain", "scram-sha-256", "scram-sha-256-plus"]\n'


@pytest.fixture
def plus(site: Site) -> Site:
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n"})
    site.config.write_text(site.config.read_text().replace("[auth]\n", f"[auth]\n{MECHANISMS}"))
    return site


class OpenSsl:
    """The real ``openssl s_client``, which tells the keys that it exports."""

    def __init__(self, site: Site, version: str) -> None:
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", f"-tls{version}", "-CAfile",
             str(site.certificate), "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32",
             "-nocommands", "-ign_eof", "-crlf"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.exported = b""
        while not (line := self.line()).startswith(b"+OK"):
            if found := re.fullmatch(rb"\s*Keying material: ([0-9A-F]{64})\n", line):
                self.exported = bytes.fromhex(found[1].decode())

    def line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "openssl has ended"
        return line

    def say(self, text: bytes) -> bytes:
        """The status line, or the challenge, that answers it; openssl's own remarks are passed over."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + b"\n")
        self.process.stdin.flush()
        while not (line := self.line()).startswith((b"+OK", b"+ ", b"-ERR")):
            continue
        return line

    def login(self, steps: ClientSteps, mechanism: str) -> bytes:
        said = self.say(b"AUTH %b %b" % (mechanism.encode(), base64.b64encode(next(steps) or b"")))
        while said.startswith(b"+ "):
            said = self.say(base64.b64encode(steps.send(base64.b64decode(said[2:])) or b""))
        return said

    def announced(self) -> list[bytes]:
        """The mechanisms that CAPA tells."""
        said = self.say(b"CAPA")
        found = b""
        while said != b".\r\n":
            found, said = (said if said.startswith(b"SASL ") else found), self.line()
        return found.split()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def openssl(plus: Site, request: pytest.FixtureRequest) -> Iterator[OpenSsl]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing; install it")
    with served(plus):
        client = OpenSsl(plus, request.param)
        yield client
        client.close()


@pytest.mark.parametrize("openssl", ["1_3"], indirect=True)
@pytest.mark.parametrize("right", [True, False])
def test_openssl_exports_the_same_octets(openssl: OpenSsl, right: bool) -> None:
    assert b"SCRAM-SHA-256-PLUS" in openssl.announced()
    binding = openssl.exported if right else bytes(32)
    steps = scram.client("alice", b"secret", "nonce", channel_binding=binding, binding_type="tls-exporter")
    assert openssl.login(steps, "SCRAM-SHA-256-PLUS").startswith(b"+OK" if right else b"-ERR")


@pytest.mark.parametrize("openssl", ["1_2"], indirect=True)
def test_before_tls_1_3_there_is_no_exporter(openssl: OpenSsl) -> None:
    # RFC 9266 §4.2: it would need the extended master secret, of which OpenSSL does not tell
    assert b"SCRAM-SHA-256-PLUS" in openssl.announced()
    steps = scram.client("alice", b"secret", "nonce", channel_binding=openssl.exported, binding_type="tls-exporter")
    said = openssl.login(steps, "SCRAM-SHA-256-PLUS")
    assert said == b"-ERR SCRAM-SHA-256-PLUS binds to tls-server-end-point here\r\n"


def test_check_says_what_is_missing(plus: Site) -> None:
    said = []
    for environment in (None, without_pyopenssl(plus.root)):
        command = [sys.executable, "-m", "pop3d", "check", "--config", str(plus.config)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        said.append(
            "scram-sha-256-plus is not offered behind TLS 1.3 without pyOpenSSL" in " ".join(done.stdout.split())
        )
    assert said == [False, True]


@pytest.mark.parametrize(("version", "announced"), [("1_2", True), ("1_3", False)])
def test_plus_behind_tls_1_3_needs_pyopenssl(plus: Site, version: str, announced: bool) -> None:
    """What is not announced was not hidden: a client that could bind says so, and gets in (RFC 5802 §6)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing; install it")
    daemon = Daemon(plus, env=without_pyopenssl(plus.root))
    client = OpenSsl(plus, version)
    try:
        assert (b"SCRAM-SHA-256-PLUS" in client.announced()) is announced
        said = client.login(scram.client("alice", b"secret", "nonce", could_bind=True), "SCRAM-SHA-256")
        assert said.startswith(b"-ERR" if announced else b"+OK")
    finally:
        client.close()
        assert daemon.end() == 0


def test_pyopenssl_serves_only_where_it_is_wanted(plus: Site) -> None:
    assert isinstance(cast(ServerTls, tls_of(load(plus.config))).layer(), tls_exporter.ExporterLayer)
    plus.config.write_text(plus.config.read_text().replace(MECHANISMS, ""))
    assert isinstance(cast(ServerTls, tls_of(load(plus.config))).layer(), TlsLayer)


@pytest.mark.parametrize("stls", [False, True], ids=["implicit", "stls"])
def test_client_certificates(site: Site, authority: Authority, stls: bool) -> None:
    """Asked for, verified, and worth a login, as by the ssl module."""
    configure(site, authority, tls="starttls" if stls else "implicit")
    site.config.write_text(site.config.read_text().replace('"external"]', '"external", "scram-sha-256-plus"]'))
    good = authority.issue("alice", cn=["alice"], client=True)
    bad = Authority(site.root / "others", "another authority").issue("alice", cn=["alice"], client=True)
    with served(site):
        with Client(site, good, stls=stls) as client:
            assert client.ask("AUTH EXTERNAL =").startswith("+OK")
        # TLS 1.3: seen at the first reading
        with pytest.raises((ssl.SSLError, ConnectionError)), Client(site, bad, stls=stls) as client:
            client.ask("CAPA")


def test_faults_of_files_are_told_alike(tmp_path: Path) -> None:
    made = Authority(tmp_path)
    good, other = made.issue("good", dns=["localhost"]), made.issue("other", dns=["localhost"])
    (tmp_path / "empty").write_bytes(b"")
    encrypted = tmp_path / "encrypted"
    subprocess.run(
        ["openssl", "pkey", "-in", good[1], "-aes256", "-passout", "pass:x", "-out", encrypted], check=True, timeout=30
    )
    for files in (
        (good[0], other[1]),
        (good[0], encrypted),
        (tmp_path / "empty", good[1]),
        (good[0], tmp_path / "empty"),
        (tmp_path / "none", good[1]),
        (good[0], tmp_path / "none"),
    ):
        kinds = []
        for make in (server_tls, tls_exporter.exporter_tls):
            with pytest.raises((OSError, ValueError)) as caught:
                make(*files)
            kinds.append(caught.type if caught.type is FileNotFoundError else ssl.SSLError)
        assert kinds[0] is kinds[1], files
    for make in (server_tls, tls_exporter.exporter_tls):
        with pytest.raises(OSError):
            make(*good, client_ca=tmp_path / "empty")


@pytest.mark.parametrize("name", ["a.example.org", "A.example.org", "b.wild.example.org", "localhost", "other.org"])
def test_the_certificate_by_the_name_asked_for(tmp_path: Path, name: str) -> None:
    made = Authority(tmp_path)
    first = made.issue("first", dns=["localhost"])
    names = {
        "a.example.org": (made.issue("a", dns=["a.example.org"]),),
        "*.wild.example.org": (made.issue("wild", dns=["*.wild.example.org"]),),
    }
    shown = []
    for make in (server_tls, tls_exporter.exporter_tls):
        context = client_context(made.certificate)
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        layer, peer = make(*first, names=names).layer(), Peer(context, name)
        connect(layer, peer)
        shown.append((peer.tls.getpeercert(), layer.bindings))
    assert shown[0] == shown[1]
    assert shown[0][1].end_point is not None


def test_sessions_are_resumed(tmp_path: Path) -> None:
    made = Authority(tmp_path)
    tls = tls_exporter.exporter_tls(*made.issue("first", dns=["localhost"]), client_ca=made.certificate)
    context, session = client_context(made.certificate), None
    for resumed in (False, True):
        layer, peer = tls.layer(), Peer(context, session=session)
        connect(layer, peer)
        layer.write(b"+OK\r\n")
        peer.incoming.write(layer.take_output())
        assert peer.read_all() == b"+OK\r\n"
        assert peer.tls.session_reused is resumed
        session = peer.tls.session
