"""Several certificates: by the name a client asks for, by the kind of key it understands; exchanged together."""

import base64
import hashlib
import re
import shutil
import signal
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from pop3core.sasl.scram import client as scram
from pop3d.config import ConfigError, load
from pop3d.key_pairs import KeyPairs
from tests.pki import Authority
from tests.site import Daemon, Site


@pytest.fixture
def authority(site: Site) -> Authority:
    """Has issued cert.pem, rsa.pem, a.pem and wild.pem of the site."""
    made = Authority(site.root)
    made.issue("cert", dns=["localhost", "127.0.0.1"])
    (site.root / "cert.key").replace(site.root / "key.pem")
    made.issue("rsa", dns=["localhost"], key="rsa")
    made.issue("a", dns=["a.example.org", "a.example.net"])
    made.issue("wild", dns=["*.example.org"])
    return made


SNI = """
[[tls.sni]]
hosts = ["a.example.org", "A.Example.NET"]
certificate = "a.pem"
private_key = "a.key"
[[tls.sni]]
hosts = ["*.example.org"]
certificate = "wild.pem"
private_key = "wild.key"
"""
RSA = 'certificate_rsa = "rsa.pem"\nprivate_key_rsa = "rsa.key"\n'


def configure(site: Site, sni: str = "", keys: str = "", auth: str = "") -> None:
    text = site.config.read_text().replace("[auth]\n", f"{keys}{sni}[auth]\n{auth}")
    site.config.write_text(text)


def shown(site: Site, authority: Authority, name: str | None, ciphers: str = "") -> Path:
    """The file whose certificate a client that asks for ``name`` is shown."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.check_hostname = False
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    plain = socket.create_connection(("127.0.0.1", site.port), timeout=20)
    with closing(plain), context.wrap_socket(plain, server_hostname=name) as sock:
        assert sock.recv(3) == b"+OK"
        own = sock.getpeercert(binary_form=True)
    assert own is not None
    pem = ssl.DER_cert_to_PEM_cert(own)
    (found,) = [path for path in site.root.glob("*.pem") if ssl.PEM_cert_to_DER_cert(pem) in certificates_in(path)]
    return found


def certificates_in(path: Path) -> list[bytes]:
    text = path.read_text()
    return [] if "CERTIFICATE" not in text else [ssl.PEM_cert_to_DER_cert(text)]


def test_a_certificate_by_the_name_asked_for(site: Site, authority: Authority) -> None:
    configure(site, SNI)
    daemon = Daemon(site)
    try:
        for name, file in {
            "a.example.org": "a",
            "A.EXAMPLE.net": "a",
            "b.example.org": "wild",
            "x.b.example.org": "cert",
            "example.org": "cert",
            "localhost": "cert",
            None: "cert",
        }.items():
            assert shown(site, authority, name).stem == file, name
    finally:
        assert daemon.end() == 0


def test_ecdsa_and_rsa_for_one_name(site: Site, authority: Authority) -> None:
    configure(site, keys=RSA)
    daemon = Daemon(site)
    try:
        assert shown(site, authority, "localhost").stem == "cert"
        assert shown(site, authority, "localhost", "ECDHE+aECDSA").stem == "cert"
        assert shown(site, authority, "localhost", "ECDHE+aRSA").stem == "rsa"
    finally:
        assert daemon.end() == 0


@pytest.mark.parametrize("name", ["a.example.org", "localhost"])
def test_scram_plus_binds_to_the_certificate_that_was_shown(site: Site, authority: Authority, name: str) -> None:
    configure(site, SNI, auth='mechanisms = ["plain", "scram-sha-256-plus"]\n')
    daemon = Daemon(site)
    try:
        context = ssl.create_default_context(cafile=authority.certificate)
        plain = socket.create_connection(("127.0.0.1", site.port), timeout=20)
        with closing(plain), context.wrap_socket(plain, server_hostname=name) as sock, sock.makefile("rb") as file:
            own = sock.getpeercert(binary_form=True)
            assert own is not None
            steps = scram("alice", b"secret", "nonce", channel_binding=hashlib.sha256(own).digest())
            file.readline()
            said = next(steps)
            sock.sendall(b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(said or b"") + b"\r\n")
            while (line := file.readline()).startswith(b"+ "):
                said = steps.send(base64.b64decode(line[2:]))
                sock.sendall(base64.b64encode(said or b"") + b"\r\n")
            assert line.startswith(b"+OK")
    finally:
        assert daemon.end() == 0


def test_a_server_name_of_strange_octets_is_no_fault_of_ours(site: Site, authority: Authority) -> None:
    configure(site, SNI)
    daemon = Daemon(site)
    try:
        for name in (b"a.ex\xffmple.org", b"a\r\nforged", b"a" * 63):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="x" * len(name))
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            assert hello.count(b"x" * len(name)) == 1
            with closing(socket.create_connection(("127.0.0.1", site.port), timeout=20)) as sock:
                sock.sendall(hello.replace(b"x" * len(name), name))
                assert sock.recv(1)  # an alert, or the default certificate
        assert shown(site, authority, "a.example.org").stem == "a"
    finally:
        assert daemon.end() == 0
    assert "Traceback" not in daemon.log
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in daemon.log.splitlines()), daemon.log


def test_a_faulty_pair_stays_and_the_others_are_taken(site: Site, authority: Authority) -> None:
    configure(site, SNI, RSA)
    daemon = Daemon(site)
    try:
        before = {path: path.read_bytes() for path in site.root.glob("*.pem")}
        other = Authority(site.root / "other", "other")
        other.issue("a", dns=["a.example.org"])
        other.issue("cert", dns=["localhost"])
        shutil.copy(site.root / "other/cert.pem", site.root / "cert.pem")
        shutil.copy(site.root / "other/cert.key", site.root / "key.pem")
        shutil.copy(site.root / "other/a.pem", site.root / "a.pem")  # its key is still the old one
        (site.root / "rsa.key").rename(site.root / "gone")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("all other certificates reloaded")
        assert daemon.log.count("certificate not reloaded, the old one stays: ") == 2
        for path, text in before.items():
            if path.name in ("a.pem", "rsa.pem"):
                (site.root / f"old-{path.name}").write_bytes(text)
        (site.root / "rsa.pem").rename(site.root / "rsa")
        assert shown(site, other, "localhost").name == "cert.pem"
        assert shown(site, authority, "localhost", "ECDHE+aRSA").name == "old-rsa.pem"
        assert shown(site, authority, "a.example.org").name == "old-a.pem"
        (site.root / "gone").rename(site.root / "rsa.key")
        (site.root / "rsa").rename(site.root / "rsa.pem")
        shutil.copy(site.root / "other/a.key", site.root / "a.key")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("certificate reloaded")
        assert shown(site, other, "localhost").name == "cert.pem"
        assert shown(site, other, "a.example.org").name == "a.pem"
    finally:
        assert daemon.end() == 0
    assert re.search(r"stays: private key .*a\.key: does not belong to certificate", daemon.log)
    assert re.search(r"stays: private key .*rsa\.key: No such file or directory", daemon.log)


def test_one_expired_among_several_is_served_with_a_warning(site: Site, authority: Authority) -> None:
    configure(site, SNI)
    authority.issue("a", dns=["a.example.org"], days=-1)
    daemon = Daemon(site)
    try:
        assert re.search(r"WARNING certificate .*/a\.pem: expired on \S+, and clients refuse it; renew it", daemon.log)
        assert shown(site, authority, "localhost").name == "cert.pem"
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            shown(site, authority, "a.example.org")
        with closing(socket.create_connection(("127.0.0.1", site.port), timeout=20)) as plain:
            context = ssl._create_unverified_context()  # who does not look gets in
            with context.wrap_socket(plain, server_hostname="a.example.org") as sock:
                der = sock.getpeercert(binary_form=True)
        assert der in certificates_in(site.root / "a.pem")
        daemon.log = ""
        authority.issue("wild", dns=["*.example.org"])
        daemon.send(signal.SIGHUP)  # the expired one does not hold up the other
        daemon.wait_for("certificate reloaded")
        assert "a.pem: expired on" in daemon.log
        assert shown(site, authority, "b.example.org").name == "wild.pem"
        authority.issue("a", dns=["a.example.org"])
        daemon.send(signal.SIGHUP)
        daemon.wait_for("certificate reloaded")
        assert shown(site, authority, "a.example.org").name == "a.pem"
    finally:
        assert daemon.end() == 0


def test_a_faulty_pair_of_a_name_does_not_stop_the_start(site: Site, authority: Authority) -> None:
    configure(site, SNI)
    key = (site.root / "wild.key").read_bytes()
    (site.root / "wild.key").write_bytes(b"garbage")
    daemon = Daemon(site)
    try:
        assert "certificate not loaded: private key " in daemon.log
        assert "clients that ask for *.example.org are shown the certificate of [tls], and refuse it" in daemon.log
        assert shown(site, authority, "a.example.org").name == "a.pem"
        assert shown(site, authority, "b.example.org").name == "cert.pem"
        (site.root / "wild.key").write_bytes(key)
        daemon.send(signal.SIGHUP)
        daemon.wait_for("certificate reloaded")
        assert shown(site, authority, "b.example.org").name == "wild.pem"
    finally:
        assert daemon.end() == 0


def test_without_any_pair_of_its_own_there_is_nothing_to_serve(site: Site, authority: Authority, run_pop3d) -> None:
    configure(site, SNI)
    (site.root / "key.pem").write_bytes(b"garbage")
    (site.root / "a.pem").unlink()
    done = run_pop3d("serve", "--config", str(site.config))
    assert done.returncode == 78
    assert [re.search(r"(key|a)\.pem: (.{11})", line)[2] for line in done.stderr.splitlines()[-2:]] == [  # type: ignore[index]
        "no private ",
        "No such fil",
    ]


def test_faults_of_all_files_are_found_at_once(site: Site, authority: Authority) -> None:
    configure(site, SNI, RSA)
    assert KeyPairs.read(load(site.config)).faults == ()
    shutil.copy(site.root / "a.pem", site.root / "rsa.pem")
    shutil.copy(site.root / "a.key", site.root / "rsa.key")
    (site.root / "wild.key").write_bytes(b"garbage")
    first, second = KeyPairs.read(load(site.config)).faults
    assert "rsa.pem: its key is not RSA" in first
    assert "wild.key: no private key" in second


@pytest.mark.parametrize(
    ("sni", "keys", "auth", "words"),
    [
        ("", 'certificate_rsa = "x"\n', "", "go together"),
        (SNI + SNI, "", "", "the name a.example.org stands there twice"),
        (SNI.replace("*.e", "*.*.e"), "", "", "a name is like"),
        (SNI.replace("a.example", "ä.example"), "", "", "xn--"),
        (SNI.replace('["*.example.org"]', "[]"), "", "", "`tls.sni.hosts`"),
        (SNI.replace("hosts", "host"), "", "", "did you mean `hosts`?"),
        ("", RSA, 'mechanisms = ["scram-sha-256-plus"]\n', "binds a login to the certificate"),
    ],
)
def test_faults_of_the_configuration(
    site: Site, authority: Authority, sni: str, keys: str, auth: str, words: str
) -> None:
    configure(site, sni, keys, auth)
    with pytest.raises(ConfigError) as caught:
        load(site.config)
    assert words in str(caught.value)
