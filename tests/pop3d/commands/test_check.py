"""`pop3d check`: faults of a site, made for real: certificates, the state folder, and whom it becomes."""

import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pop3d.commands.check import CheckFinding, findings
from pop3d.config import load
from pop3d.exit_status import ExitStatus
from pop3d.net.certificates import create_self_signed
from tests.pki import Authority
from tests.pop3d.auth.test_hashing import customized
from tests.pop3d.auth.test_passwords import MADE_ELSEWHERE
from tests.pop3d.commands.findings import as_root, change, checked, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


def test_nothing_is_found_where_nothing_is(site: Site, run_pop3d) -> None:
    assert found(site) == []
    before = sorted(site.root.rglob("*"))
    done = run_pop3d("check", "--config", str(site.config))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] in ("no faults, no warnings", "no faults, 1 warning")
    assert sorted(site.root.rglob("*")) == before


def test_faults_are_lines_and_78_and_warnings_alone_0(site: Site, run_pop3d) -> None:
    change(site, "[store]", "[limits]\nidle_timeout = 30\n[store]")
    done = run_pop3d("check", "--config", str(site.config))
    assert done.returncode == 0
    line = "warning: `limits.idle_timeout`: 30 seconds is less than RFC 1939 asks for; clients may count on 600"
    assert line in done.stdout.splitlines()
    (site.root / "users").write_text("alice:{PLAIN}secret\nbob:{NOPE}hidden-secret\ncarol:{ARGON2ID}hidden-secret\n")
    (site.root / "users").chmod(0o644)
    done = run_pop3d("check", "--config", str(site.config))
    assert (done.returncode, done.stderr) == (ExitStatus.CONFIG, "")
    lines = done.stdout.splitlines()
    assert line in lines
    assert sum(text.startswith("fault: ") for text in lines) == 3
    assert lines[-1].startswith("3 faults, ")
    assert "hidden-secret" not in done.stdout
    assert "\x1b" not in done.stdout


def test_a_configuration_with_faults_is_listed_too(tmp_path: Path, run_pop3d) -> None:
    (tmp_path / "pop3d.toml").write_text("hostnam = 'x'\n[limits]\nconections = 1\n")
    done = run_pop3d("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (78, "")
    assert len(done.stdout.splitlines()) == 4
    assert "fault: pop3d.toml: unknown key `hostnam`; did you mean `hostname`?" in done.stdout
    done = run_pop3d("check", "--config", "nowhere.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (78, "1 fault, no warnings")


def test_a_terminal_has_colours(site: Site) -> None:
    change(site, "[store]", "[limits]\nidle_timeout = 30\n[store]")
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    done = subprocess.run(
        [sys.executable, "-m", "pop3d", "check", "--config", str(site.config)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert "\x1b[33mwarning\x1b[0m: `limits" in done.stdout
    assert done.returncode == 0


# --- certificates ---


def certify(
    site: Site,
    *,
    names: tuple[str, ...] = ("localhost",),
    days: tuple[int, int] = (-1, 90),
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> None:
    """Another certificate, and its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1,
        now + datetime.timedelta(days=days[0]), now + datetime.timedelta(days=days[1], hours=1),
    )  # fmt: skip
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    certificate = builder.sign(key, hashes.SHA256())
    site.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (site.root / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_dates_of_a_certificate(site: Site) -> None:
    certify(site)
    assert found(site) == []
    certify(site, days=(-90, 13))
    text = only(site, "warning", r"ends on \d{4}-\d\d-\d\d, in 13 days; renew it")
    assert text.startswith(f"certificate {site.certificate}: ")
    certify(site, days=(-90, -1))
    only(site, "fault", "expired on")
    certify(site, days=(1, 90))
    only(site, "fault", "not valid before")


def test_a_certificate_without_that_of_its_issuer(site: Site) -> None:
    root = Authority(site.root, "root")
    issuer = Authority(site.root, "issuer", root)
    own, key = issuer.issue("own", dns=["localhost"])
    (site.root / "key.pem").write_bytes(key.read_bytes())
    site.certificate.write_bytes(own.read_bytes() + issuer.certificate.read_bytes() + root.certificate.read_bytes())
    assert found(site) == []
    site.certificate.write_bytes(own.read_bytes())
    only(site, "warning", "the certificate of its issuer, CN=issuer, is not in the file, .*fullchain.pem")
    site.certificate.write_bytes(own.read_bytes() + root.certificate.read_bytes())
    only(site, "warning", "certificate 2 in the file has not signed certificate 1; put each one before that of its ")


@pytest.mark.parametrize(("bits", "warned"), [(2048, False), (3072, False), (4096, True)])
def test_a_long_rsa_key_is_warned_of(site: Site, bits: int, warned: bool) -> None:
    certify(site, key=rsa.generate_private_key(65537, bits))
    if warned:
        only(site, "warning", "its RSA key has 4096 bits, and each handshake .*; request one with an ECDSA key")
    else:
        assert found(site) == []


def test_names_of_a_certificate(site: Site) -> None:
    certify(site, names=("a.example", "*.b.example"))
    only(site, "fault", r"it is for \*\.b\.example, a\.example, not for 'localhost'")
    certify(site, names=())
    only(site, "fault", "it is for no name at all, not for 'localhost'")
    for name in ("a.example", "pop.b.example"):
        certify(site, names=("A.example", "*.b.example"))
        site.config.write_text(re.sub('hostname = ".*"', f'hostname = "{name}"', site.config.read_text()))
        assert found(site) == []
    certify(site, names=("a.example",))
    site.config.write_text(re.sub("hostname = .*\n", "", site.config.read_text()))
    only(site, "warning", "it is for a.example, not for")  # the machine's own name, which nobody may connect to


def test_names_that_clients_ask_for(site: Site) -> None:
    change(
        site,
        "[auth]",
        '[[tls.sni]]\nhosts = ["localhost", "b.example"]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n[auth]',
    )
    only(site, "fault", r"it is for 127\.0\.0\.1, localhost, not for 'b\.example'")


def test_check_finds_private_keys_that_others_can_read(site: Site) -> None:
    key = site.root / "key.pem"
    key.chmod(0o644)
    text = only(site, "fault", r"everybody on this machine gets at the private key \(mode 0644\)")
    assert text.endswith(f"; chmod o= {key}")
    key.chmod(0o640)
    assert found(site) == []
    (site.root / "other").mkdir()
    _, other = create_self_signed(["localhost"], site.root / "other")
    shutil.copy(other, key)
    only(site, "fault", "does not belong to certificate")
    key.write_text("not a key")
    only(site, "fault", "no private key in PEM form")
    key.unlink()
    only(site, "fault", "No such file")


def test_what_openssl_refuses(site: Site) -> None:
    certify(site, key=rsa.generate_private_key(65537, 1024))
    only(site, "fault", r"certificate .*/cert\.pem: OpenSSL refuses it or its key: EE_KEY_TOO_SMALL; ")


def test_check_finds_an_unusable_state_folder(site: Site) -> None:
    (site.root / "state").write_text("")
    only(site, "fault", "state folder .*: cannot be written to: Not a directory")
    change(site, "[[listen]]", 'state = "cert.pem/state"\n[[listen]]')
    only(site, "fault", r"is not there, and cannot be made in .*/cert\.pem; make it a folder")


@as_root
def test_a_log_file_that_cannot_be_written(site: Site) -> None:
    text = site.config.read_text()
    for file, faulty in (("logs/pop3d.log", True), ("mail", True), ("pop3d.log", False)):
        (site.root / "mail").mkdir(exist_ok=True)
        site.config.write_text(f'{text}\n[log]\nfile = "{file}"\n')
        assert any("`log.file`" in one.text and one.fault for one in findings(site.config)) is faulty, file
    assert not (site.root / "pop3d.log").exists()


def test_check_becomes_the_user_when_root_runs_it(open_site: Site) -> None:
    root = open_site.root
    assert checked(open_site) == ["no faults, no warnings"]
    os.chown(root / "users", 0, 0)
    os.chown(root / "key.pem", 0, 0)
    lines = checked(open_site)
    assert len(lines) == 3
    assert all("'#12345' cannot read it, so a new one is not taken without a restart; " in line for line in lines[:2])
    assert lines[-1] == "no faults, 2 warnings"


@as_root
def test_a_python_that_the_user_cannot_run(open_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customized(tmp_path, monkeypatch)
    (open_site.root / "users").write_text(f"alice:{MADE_ELSEWHERE[5]}\n")
    try:
        subprocess.run([sys.executable, "-c", "import pop3d"], user=12345, check=True, capture_output=True, cwd="/")
        can = True
    except (OSError, subprocess.CalledProcessError):
        can = False
    assert any("so no SHA-crypt password can be checked" in line for line in checked(open_site)) is not can
    change(open_site, "[tls]", '[auth]\nbackend = "pam"\n[tls]')
    assert any("so PAM cannot be asked" in line for line in checked(open_site)) is not can


@as_root
def test_root_without_a_user_to_become(open_site: Site) -> None:
    change(open_site, 'user = "#12345"\ngroup = "#12345"\n', "")
    only(open_site, "fault", "`user`: not set, and `serve`, started as root, refuses")
    change(open_site, 'hostname = "localhost"', 'hostname = "localhost"\nuser = "no-such-user"')
    only(open_site, "fault", "this system has no user 'no-such-user'")


@as_root
def test_check_by_another_user_than_the_daemons_says_so(open_site: Site) -> None:
    os.chown(open_site.root / "users", 54321, 12345)
    os.chown(open_site.root / "key.pem", 54321, 12345)
    (open_site.root / "state").mkdir()
    os.chown(open_site.root / "state", 54321, 0)
    script = (  # the interpreter may lie where only root reaches it, so all is imported first
        "import encodings.idna, os, sys; from pathlib import Path; from pop3d.commands.check import check; "
        "os.setgroups([]); os.setgid(54321); os.setuid(54321); sys.exit(check(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(open_site.config)], capture_output=True, text=True, cwd="/"
    )
    assert "warning: `user`: this was checked by another user than '#12345'" in done.stdout
    assert done.returncode == 0, done.stdout


def test_a_finding_is_made_of_where_what_and_remedy(site: Site) -> None:
    certify(site, names=(), days=(-90, 3))
    (site.root / "key.pem").chmod(0o644)
    (site.root / "users").write_text("alice:{NOPE}x\n")
    assert load(site.config)
    for one in findings(site.config):
        assert isinstance(one, CheckFinding)
        assert re.fullmatch(r"[^\n]+: [^\n]+; [^\n]+", one.text)


def test_mail_that_expires_for_good(site: Site) -> None:
    change(site, "[store]", "[store]\nexpire = 30")
    only(site, "warning", "`store.expire`: messages that expire are gone for good; deleted = ")
    change(site, "[store]", '[store]\ndeleted = "deleted/{user}"')
    assert found(site) == []


def test_columns_of_limits_that_have_no_effect(site: Site) -> None:
    query = "select password, login_delay, expire_days from pop3_users where name = %(user)s"
    change(
        site, 'users = "users"', f'backend = "postgres"\n[auth.postgres]\nconninfo = "host=/nowhere"\nquery = "{query}"'
    )
    told = [text for kind, text in found(site) if kind == "warning" and "has no effect" in text]
    assert [text.split(":")[0] for text in told] == ["`limits.login_delay`", "`store.expire`"]
    change(site, "[store]", "[limits]\nlogin_delay = 60\n[store]\nexpire = 30")
    assert not any("has no effect" in text for _, text in found(site))
