"""Login by client certificate (SASL EXTERNAL): announced exactly where a verified certificate names somebody."""

import re
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from pop3d.config import load
from pop3d.key_pairs import KeyPairs
from pop3d.net.certificates import identity_of
from tests.pki import Authority
from tests.pop3d.net.test_proxy_protocol import IPV4, TLS13, v2
from tests.site import Site, served

Pair = tuple[Path, Path]
USERS = ("alice", "alice@example.org", "host.example.org")


@pytest.fixture
def authority(site: Site) -> Authority:
    """Of the clients; the server's certificate is another's."""
    return Authority(site.root / "clients", "client authority")


def configure(site: Site, authority: Authority, name: str = "cn", tls: str = "implicit", more: str = "") -> None:
    (site.root / "users").write_text("".join(f"{user}:{{PLAIN}}secret\n" for user in USERS))
    for user in USERS:
        site.maildir(user, {"new/1.host": b"Subject: one\n\n1\n"})
    text = site.config.read_text().replace("[tls]", f'tls = "{tls}"\n{more}[tls]')
    text = text.replace("[auth]", f'client_ca = "{authority.certificate}"\nclient_name = "{name}"\n[auth]')
    text = text.replace("[store]", 'mechanisms = ["plain", "external"]\n[store]')
    site.config.write_text(f"{text}\n[limits]\nauth_penalty = 0.1\n")


class Client:
    """Speaks with a certificate, or without."""

    def __init__(self, site: Site, pair: Pair | None, *, name: str = "localhost", stls: bool = False) -> None:
        self.context = site.context()
        if pair is not None:
            self.context.load_cert_chain(*pair)
        self.site, self.name, self.stls = site, name, stls
        self.connect()

    def connect(self, session: ssl.SSLSession | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.site.port), timeout=20)
        self.file = self.sock.makefile("rb")
        try:
            if self.stls:
                self.file.readline()
                self.before = self.capabilities()
                assert self.ask("STLS").startswith("+OK")
            self.sock = self.context.wrap_socket(self.sock, server_hostname=self.name, session=session)
            self.file.close()
            self.file = self.sock.makefile("rb")
            if not self.stls:
                assert self.file.readline().startswith(b"+OK")
        except BaseException:
            self.close()
            raise

    def ask(self, line: str) -> str:
        self.sock.sendall(f"{line}\r\n".encode())
        return self.file.readline().decode()

    def capabilities(self) -> set[str]:
        assert self.ask("CAPA").startswith("+OK")
        return set(iter(lambda: self.file.readline().decode().strip(), "."))

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize(
    ("name", "user"), [("cn", "alice"), ("email", "alice@example.org"), ("dns", "host.example.org")]
)
def test_who_has_a_certificate_needs_no_password(
    site: Site, authority: Authority, tls: str, name: str, user: str
) -> None:
    configure(site, authority, name, tls)
    pair = authority.issue(
        "a", cn=["alice"], emails=["alice@example.org"], dns=["host.example.org"], client=True, key="rsa"
    )
    with served(site) as daemon:
        for line in ("AUTH EXTERNAL =", "AUTH EXTERNAL", "PASS"):
            with Client(site, pair, stls=tls == "starttls") as client:
                assert "SASL EXTERNAL PLAIN" in client.capabilities() or "SASL PLAIN EXTERNAL" in client.capabilities()
                if line == "PASS":  # a password does as before
                    client.ask(f"USER {user}")
                    line = "PASS secret"
                reply = client.ask(line)
                if line == "AUTH EXTERNAL":
                    assert reply == "+ \r\n"
                    reply = client.ask("")
                assert reply.startswith("+OK 1 messages")
                assert client.ask("QUIT").startswith("+OK")
                if client.stls:
                    assert not any("EXTERNAL" in line for line in client.before)
    assert daemon.log.count(f"user={user} tls=TLSv1.3") == 3


def test_without_a_certificate_it_is_neither_announced_nor_taken(site: Site, authority: Authority) -> None:
    configure(site, authority)
    with served(site), Client(site, None) as client:
        assert "SASL PLAIN" in client.capabilities()
        assert client.ask("AUTH EXTERNAL =").startswith("-ERR")
        assert client.ask("USER alice").startswith("+OK")
        assert client.ask("PASS secret").startswith("+OK")


def test_a_certificate_of_nobody_known_or_of_somebody_else(site: Site, authority: Authority) -> None:
    configure(site, authority)
    with served(site) as daemon:
        with Client(site, authority.issue("m", cn=["mallory"], client=True)) as client:
            assert client.ask("AUTH EXTERNAL =").startswith("-ERR [AUTH]")
            assert client.ask("AUTH EXTERNAL YWxpY2U=").startswith("-ERR [AUTH]")  # alice
            assert client.ask("AUTH EXTERNAL YWxpY2U=").startswith("-ERR [AUTH]")
            assert client.file.readline() == b""
        with Client(site, authority.issue("a", cn=["alice"], client=True)) as client:
            assert client.ask("AUTH EXTERNAL aG9zdC5leGFtcGxlLm9yZw==").startswith("-ERR [AUTH]")  # host.example.org
            assert client.ask("AUTH EXTERNAL YWxpY2U=").startswith("+OK")
    assert daemon.log.count("authentication failed ip=127.0.0.1 user=mallory") == 3


@pytest.mark.parametrize("fault", ["another authority", "its own", "expired", "a server's"])
def test_a_certificate_that_does_not_verify_ends_the_handshake(site: Site, authority: Authority, fault: str) -> None:
    configure(site, authority)
    other = Authority(site.root / "other", "client authority")
    pair = {
        "another authority": lambda: other.issue("a", cn=["alice"], client=True),
        "its own": lambda: (site.certificate, site.root / "key.pem"),
        "expired": lambda: authority.issue("a", cn=["alice"], client=True, days=-1),
        "a server's": lambda: authority.issue("a", cn=["alice"]),
    }[fault]()
    refused = pytest.raises((ssl.SSLError, ConnectionError, AssertionError))  # TLS 1.3: seen at the first reading
    with served(site) as daemon, refused:
        Client(site, pair)
    assert "TLS handshake failed: " in daemon.log
    assert "user=alice" not in daemon.log


def test_names_that_are_missing_or_several_name_nobody(site: Site, authority: Authority) -> None:
    configure(site, authority, "email")
    emails = [[], ["alice@example.org", "bob@example.org"]]
    pairs = [authority.issue(f"c{len(some)}", cn=["alice"], emails=some, client=True) for some in emails]
    with served(site):
        for pair in pairs:
            with Client(site, pair) as client:
                assert "SASL PLAIN" in client.capabilities()
                assert client.ask("AUTH EXTERNAL =").startswith("-ERR this mechanism")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session(site: Site, authority: Authority, version: ssl.TLSVersion) -> None:
    configure(site, authority)
    Authority(site.root / "sni").issue("b", dns=["b.example.org"])
    sni = '[[tls.sni]]\nhosts = ["b.example.org"]\ncertificate = "sni/b.pem"\nprivate_key = "sni/b.key"\n[auth]'
    site.config.write_text(site.config.read_text().replace("[auth]", sni))
    pair = authority.issue("a", cn=["alice"], client=True)
    with served(site):
        client = Client(site, pair)
        client.close()
        client.context.maximum_version = version
        client.context.check_hostname = False
        client.context.verify_mode = ssl.CERT_NONE
        for name in ("localhost", "b.example.org"):
            client.name = name
            client.connect()
            assert client.ask("AUTH EXTERNAL =").startswith("+OK")
            assert isinstance(client.sock, ssl.SSLSocket)
            session = client.sock.session
            assert session is not None
            client.ask("QUIT")
            client.close()
            client.connect(session)
            assert isinstance(client.sock, ssl.SSLSocket)
            assert client.sock.session_reused
            assert client.ask("AUTH EXTERNAL =").startswith("+OK")
            client.ask("QUIT")
            client.close()


def test_behind_a_proxy_that_ended_tls_nobody_has_a_certificate(site: Site, authority: Authority) -> None:
    configure(site, authority, tls="none", more='proxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]\n')
    with served(site), socket.create_connection(("127.0.0.1", site.port), timeout=20) as sock:
        sock.sendall(v2(IPV4 + TLS13) + b"CAPA\r\nAUTH EXTERNAL =\r\nQUIT\r\n")
        said = b"".join(iter(lambda: sock.recv(65536), b""))
    assert b"SASL PLAIN\r\n" in said
    assert b"-ERR this mechanism is not offered" in said


def test_sighup_takes_another_authority(site: Site, authority: Authority) -> None:
    configure(site, authority)
    pair = authority.issue("a", cn=["alice"], client=True)
    with served(site) as daemon:
        with Client(site, pair) as client:
            assert client.ask("AUTH EXTERNAL =").startswith("+OK")
            client.ask("QUIT")
        kept = authority.certificate.read_bytes()
        authority.certificate.write_bytes(b"garbage")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("certificate not reloaded, the old one stays")
        with Client(site, pair) as client:
            assert client.ask("AUTH EXTERNAL =").startswith("+OK")
            client.ask("QUIT")
        other = Authority(site.root / "other", "other")
        authority.certificate.write_bytes(other.certificate.read_bytes())
        daemon.send(signal.SIGHUP)
        daemon.wait_for("certificate reloaded")
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            Client(site, pair)
        authority.certificate.write_bytes(kept)


def test_faults_of_client_ca(site: Site, authority: Authority, run_pop3d) -> None:
    configure(site, authority)
    authority.certificate.write_bytes(b"garbage")
    (fault,) = KeyPairs.read(load(site.config)).faults
    assert re.search(r"authority\.pem: no certificate in PEM form; name a file that has BEGIN CERTIFICATE", fault)
    authority.certificate.unlink()
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 78
    assert result.stderr.splitlines()[-1].endswith(
        "No such file or directory; give the certificate of whoever signs those of clients"
    )


def test_an_authority_that_has_expired(site: Site, authority: Authority) -> None:
    configure(site, authority)
    assert list(KeyPairs.read(load(site.config)).dates()) == []
    Authority(authority.folder, authority.name, days=-1)
    (fault,) = KeyPairs.read(load(site.config)).dates()
    assert f"{authority.certificate}: CN={authority.name} in it expired on " in fault
    with served(site) as daemon:
        pass
    assert f"WARNING {fault}" in daemon.log


def test_whom_a_certificate_names(authority: Authority) -> None:
    def named(field, **parts) -> str | None:
        pem = authority.issue("x", client=True, **parts)[0].read_text()
        return identity_of(ssl.PEM_cert_to_DER_cert(pem), field)

    assert named("cn", cn=["alice"]) == "alice"
    assert named("cn", cn=["alice", "bob"]) is None
    assert named("cn", cn=[]) is None
    assert named("cn", cn=["ali\x00ce"]) is None
    assert named("cn", cn=["alice"], days=-1) is None
    assert named("dns", dns=["a.example.org"]) == "a.example.org"
    assert named("dns", dns=["a.example.org", "b.example.org"]) is None
    assert named("dns", cn=["alice"]) is None
    assert named("email", emails=["a@example.org"], dns=["x"]) == "a@example.org"
    assert named("email", dns=["x"]) is None
    assert identity_of(b"", "cn") is None
    assert identity_of(b"\x30\x03\x02\x01\x01", "email") is None


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing; install it")
def test_curl_logs_in_by_certificate(site: Site, authority: Authority) -> None:
    configure(site, authority)
    certificate, key = authority.issue("a", cn=["alice"], client=True)
    with served(site) as daemon:
        curl = ["curl", "-sS", "--cacert", str(site.certificate), "--cert", str(certificate), "--key", str(key)]
        curl += ["--user", "alice:", "--login-options", "AUTH=EXTERNAL", f"pop3s://127.0.0.1:{site.port}/1"]
        result = subprocess.run(curl, capture_output=True, timeout=60)
        assert result.stdout == b"Subject: one\r\n\r\n1\r\n", result.stderr
    assert "user=alice" in daemon.log
