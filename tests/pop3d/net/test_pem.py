"""What is wrong with files of certificates and keys, found before clients see it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from pop3d.net.pem import PemError, as_file, chain_fault, closed_to_us, date_fault, read_pair
from tests.pki import Authority


def faults(certificate: Path, private_key: Path) -> list[str]:
    try:
        read_pair(certificate, private_key)
    except PemError as fault:
        return fault.faults
    return []


def test_faults_of_a_certificate_and_its_key_are_found(tmp_path: Path) -> None:
    certificate, key = create_self_signed(["localhost"], tmp_path)
    assert faults(certificate, key) == []
    _, other_key = create_self_signed(["localhost"], tmp_path / "other")
    (fault,) = faults(certificate, other_key)
    assert "does not belong" in fault
    nowhere = tmp_path / "nowhere.pem"
    both = faults(nowhere, nowhere)
    assert len(both) == 2
    assert all("pop3d cert create" in fault for fault in both)
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"garbage")
    assert ["PEM form" in fault for fault in faults(garbage, garbage)] == [True, True]
    endless = tmp_path / "endless.pem"
    endless.write_bytes(b"\n" * (1024 * 1024 + 1))
    assert ["larger than 1 MiB" in fault for fault in faults(endless, endless)] == [True, True]


def test_dates_are_told_and_are_no_fault_of_the_pair(tmp_path: Path) -> None:
    certificate, key = create_self_signed(["localhost"], tmp_path, days=-1)
    fault = date_fault(certificate, read_pair(certificate, key))
    assert fault is not None
    assert "expired on" in fault
    valid, key = create_self_signed(["localhost"], tmp_path / "valid")
    assert date_fault(valid, read_pair(valid, key)) is None


def test_no_secret_shows(tmp_path: Path) -> None:
    pair = read_pair(*create_self_signed(["localhost"], tmp_path))
    assert "PRIVATE" not in repr(pair)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing; install it")
def test_openssls_own_and_an_encrypted_key(tmp_path: Path) -> None:
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
               "-subj", "/CN=server", "-addext", "subjectAltName=IP:10.0.0.1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    assert faults(certificate, key) == []
    locked = tmp_path / "locked.pem"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", key, "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    (fault,) = faults(certificate, locked)
    assert "encrypted" in fault


@pytest.mark.parametrize("forbidden", [False, True])
def test_octets_are_found_as_a_file_and_then_no_more(forbidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if forbidden:  # as the kernel does with vm.memfd_noexec = 2

        def refused(_: str) -> int:
            raise PermissionError

        monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    with as_file(b"some octets") as path:
        assert [path.read_bytes(), path.read_bytes()] == [b"some octets"] * 2
    assert not path.exists()


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A server's certificate, its issuer's, and that of the root above, which this system trusts."""
    root = Authority(tmp_path, "root")
    issuer = Authority(tmp_path, "issuer", root)
    own, _ = issuer.issue("own", dns=["localhost"])
    monkeypatch.setenv("SSL_CERT_FILE", str(root.certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return [own, issuer.certificate, root.certificate]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 1), None),
        ((0, 1, 2), None),
        ((2,), None),
        ((1,), None),
        ((0,), "the certificate of its issuer, CN=issuer, is not in the file, and this system does not know it"),
        ((0, 2), "certificate 2 in the file has not signed certificate 1"),
        ((0, 2, 1), "certificate 2 in the file has not signed certificate 1"),
        ((1, 0), "certificate 2 in the file has not signed certificate 1"),
    ],
)
def test_a_chain_leads_to_a_root(chain: list[Path], tmp_path: Path, order: tuple[int, ...], words: str | None) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(b"".join(chain[one].read_bytes() for one in order))
    found = chain_fault(file)
    assert (found is None) is (words is None)
    assert words is None or (found is not None and found[0].startswith(words))


def test_an_expired_certificate_of_an_issuer(tmp_path: Path) -> None:
    issuer = Authority(tmp_path, "issuer")
    old, _ = issuer.issue("old", days=-1)
    file = tmp_path / "chain.pem"
    file.write_bytes(issuer.certificate.read_bytes() + issuer.certificate.read_bytes())
    assert chain_fault(file) is None
    file.write_bytes(old.read_bytes() + issuer.certificate.read_bytes())
    assert chain_fault(file) is None  # the first one's dates are told elsewhere
    above = Authority(tmp_path, "root", days=-1)
    file.write_bytes(above.issue("own")[0].read_bytes() + above.certificate.read_bytes())
    found = chain_fault(file)
    assert found is not None
    assert found[0].startswith("certificate 2 in the file, of an issuer, expired on ")


def test_roots_of_a_folder_count(chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(chain[0].read_bytes() + chain[1].read_bytes())
    (tmp_path / "roots").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "roots"))
    assert chain_fault(file) is not None
    (tmp_path / "roots/README").write_text("not PEM")
    chain[2].rename(tmp_path / "roots/some.pem")
    assert chain_fault(file) is None


def test_the_key_of_a_certificate_that_is_not_the_first(chain: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(chain[1].read_bytes() + chain[0].read_bytes())
    (fault,) = faults(file, tmp_path / "own.key")
    assert "belongs to certificate 2 in" in fault
    assert "put that one first" in fault


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_remedy_fits_what_is_closed() -> None:
    script = (
        "import os, sys; from pathlib import Path; from pop3d.net.pem import closed_to_us, read_pair, PemError\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_pair(Path(path), Path(path))\n"
        "    except PemError as fault: print(fault.faults[0])\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "archive").mkdir(mode=0o700)
        (root / "archive/key.pem").write_bytes(b"x")
        (root / "live").mkdir()
        (root / "live/key.pem").symlink_to("../archive/key.pem")
        (root / "key.pem").write_bytes(b"x")
        (root / "key.pem").chmod(0o600)
        paths = [str(root / name) for name in ("archive/key.pem", "live/key.pem", "key.pem")]
        done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
        closed, linked, own = done.stdout.splitlines()
    for line in (closed, linked):
        assert f"Permission denied; user 12345 cannot enter {root}/archive: let certbot's deploy hook copy" in line
        assert "LoadCredential=" in line
    assert own.endswith("Permission denied; give it a group of user 12345 (chgrp) and mode 0640")
    assert closed_to_us(root).startswith("give it a group of 'root'")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing; install it")
def test_a_key_of_a_kind_that_is_not_known_is_a_fault_of_its_pair(tmp_path: Path) -> None:
    key, certificate = tmp_path / "odd.key", tmp_path / "odd.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP160r1", "-out", key],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "req", "-x509", "-new", "-key", key, "-out", certificate, "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    good, good_key = create_self_signed(["localhost"], tmp_path)
    assert ["of a kind that cannot be served" in fault for fault in faults(certificate, key)] == [True, True]
    assert ["of a kind that cannot be served" in fault for fault in faults(certificate, good_key)] == [True]
    assert ["of a kind that cannot be served" in fault for fault in faults(good, key)] == [True]
    chain = tmp_path / "chain.pem"
    chain.write_bytes(good.read_bytes() + certificate.read_bytes())
    assert chain_fault(chain) is not None
