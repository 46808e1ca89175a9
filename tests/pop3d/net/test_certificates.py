"""Certificates as they are made, against strict verification; and what is found wrong with others."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from pop3d.net.certificates import covers, create_self_signed, shown_by


def handshake(certificate: Path, private_key: Path, name: str) -> None:
    """A real handshake, verified as strictly as OpenSSL can."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, private_key)
    client = ssl.create_default_context(cafile=certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.hostname_checks_common_name = False
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True):
                pass
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name):
            pass
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_verifies_for_each_of_its_hosts_and_for_no_other(tmp_path: Path) -> None:
    made = create_self_signed(["10.0.0.1", "localhost", "::1", "münchen.example"], tmp_path)
    for name in ("10.0.0.1", "localhost", "::1", "xn--mnchen-3ya.example"):
        handshake(*made, name)
    for name in ("10.0.0.2", "example.org"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(*made, name)


def test_a_new_certificate_has_an_elliptic_key_that_is_private(tmp_path: Path) -> None:
    certificate, key = create_self_signed(["mail.example.org"], tmp_path / "new", days=30)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert loaded.public_key().curve.name == "secp256r1"  # type: ignore[union-attr]
    assert (loaded.not_valid_after_utc - loaded.not_valid_before_utc).days == 30


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create_self_signed(["localhost"], tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("cert.pem", "key.pem")]
    with pytest.raises(FileExistsError, match="--out"):
        create_self_signed(["localhost"], tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("cert.pem", "key.pem")] == before


@pytest.mark.parametrize("host", ["", "two words", "a..b", "-", "über\0", "a/b", "*"])
def test_no_certificate_is_made_for_an_invalid_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        create_self_signed([host], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("example.org", True),
        ("EXAMPLE.org.", True),
        ("pop.example.net", True),
        ("a.pop.example.net", False),
        ("example.net", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("localhost", False),
    ],
)
def test_a_certificate_covers_hosts_and_wildcards(tmp_path: Path, host: str, covered: bool) -> None:
    certificate, _ = create_self_signed(["example.org", "*.example.net", "192.0.2.1"], tmp_path)
    assert covers(shown_by(certificate).names, host) is covered
