"""`pop3d check`: every fault that a site can have, made for real."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pop3d.auth.passwords import hashed
from pop3d.commands import check_compressed
from pop3d.commands.check import CheckFinding, findings
from pop3d.config import load
from pop3d.exit_status import ExitStatus
from pop3d.net.certificates import covers, create_self_signed, shown_by
from tests.daemon.test_schemes import MADE_ELSEWHERE
from tests.issuer import NAME, Issuer, key_set
from tests.packed import PACKERS
from tests.site import Site

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def found(site: Site) -> list[tuple[str, str]]:
    """What is found, but for what is so on a test's site: it runs as root."""
    return [
        ("fault" if one.fault else "warning", one.text)
        for one in findings(site.config)
        if not one.text.startswith("`user`: root")
    ]


def only(site: Site, kind: str, words: str) -> str:
    """The text of the one thing that is found."""
    seen = found(site)
    assert [one[0] for one in seen] == [kind], seen
    assert re.search(words, seen[0][1]), seen
    return seen[0][1]


def change(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


@pytest.fixture
def site(site: Site) -> Site:
    site.maildir("alice", {"new/1.host": b"Subject: 1\n\n1\n"})
    return site


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
def test_covers(tmp_path: Path, host: str, covered: bool) -> None:
    certificate, _ = create_self_signed(["example.org", "*.example.net", "192.0.2.1"], tmp_path)
    assert covers(shown_by(certificate).names, host) is covered


def test_keys(site: Site) -> None:
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
    only(site, "fault", r"\[tls\]: OpenSSL refuses certificate or key: EE_KEY_TOO_SMALL; ")


# --- users ---


def test_a_users_file_that_cannot_be_read(site: Site) -> None:
    users = site.root / "users"
    users.chmod(0o604)
    only(site, "fault", r"everybody on this machine gets at the secrets of users \(mode 0604\); chmod o= ")
    users.write_bytes(b"alice:{PLAIN}\xff\n")
    users.chmod(0o600)
    only(site, "fault", "not UTF-8")
    users.write_text("# nobody\n")
    only(site, "warning", "nobody can log in; `pop3d user add NAME`")
    users.unlink()
    only(site, "fault", "No such file or directory; make it with `pop3d user add`")


def test_faulty_lines_of_users_are_all_listed(site: Site) -> None:
    (site.root / "users").write_text(
        "alice:{PLAIN}secret\nbob:{NOPE}hidden\nalice:{PLAIN}hidden\nhidden\na b:{PLAIN}hidden\n"
        "carol's:{SHA512-CRYPT}$6$rounds=99999999$hidden$x\n"
    )
    seen = found(site)
    assert {kind for kind, _ in seen} == {"fault"}
    where = f"{site.root / 'users'} line "
    for (_, text), start, words in zip(
        seen,
        ("2: an unknown scheme", "3: the user 'alice' stands there twice", "4: a line is", "5: a user name", "6: what"),
        (
            "`pop3d user passwd bob`",
            "remove one",
            "or remove it",
            "or remove it",
            "`pop3d user passwd 'carol'\"'\"'s'`",
        ),
        strict=True,
    ):
        assert text.startswith(where + start), text
        assert words in text
        assert "hidden" not in text


def test_who_cannot_use_what_is_offered(site: Site) -> None:
    users = site.root / "users"
    users.write_text(f"alice:{{PLAIN}}x\nbob:{hashed('x')}\ncarol:{hashed('x', 'SCRAM-SHA-256')}\n")
    assert found(site) == []
    change(site, "[auth]", '[auth]\nmechanisms = ["plain", "scram-sha-256"]')
    text = only(site, "warning", r"line 2: the user 'bob' has \{ARGON2ID\}, which does not serve scram-sha-256;")
    assert text.endswith("`pop3d user passwd bob` stores what does")
    change(site, '"plain", "scram-sha-256"', '"scram-sha-256", "apop"')
    seen = found(site)
    assert [kind for kind, _ in seen] == ["fault", "warning"]
    assert "scram-sha-256, apop: no login is possible; `pop3d user passwd bob --scheme plain`" in seen[0][1]
    assert "the user 'carol' has {SCRAM-SHA-256}, which does not serve apop;" in seen[1][1]


def test_who_has_a_plain_secret_that_no_proof_can_be_made_of(site: Site) -> None:
    (site.root / "users").write_text("alice:{PLAIN}se\acret\n")
    assert found(site) == []
    change(site, "[auth]", '[auth]\nmechanisms = ["plain", "apop", "scram-sha-256"]')
    text = only(site, "warning", "line 1: the user 'alice' has a {PLAIN} secret that SASLprep")
    assert "does not serve apop, scram-sha-256; `pop3d user passwd alice --scheme plain` stores another" in text
    assert "cret" not in text.replace("secret", "")
    change(site, '"plain", "apop", "scram-sha-256"', '"scram-sha-256"')
    text = only(site, "fault", "line 1: the user 'alice'")
    assert "does not serve scram-sha-256: no login is possible; `pop3d user passwd alice` stores another" in text


def test_schemes_without_their_extra(site: Site, tmp_path: Path, run_pop3d, monkeypatch) -> None:
    (site.root / "users").write_text(f"alice:{MADE_ELSEWHERE[3]}\nbob:{MADE_ELSEWHERE[5]}\n")
    assert found(site) == []
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text("import sys\nsys.modules['passlib'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"), prepend=os.pathsep)
    done = run_pop3d("check", "--config", str(site.config))
    assert done.returncode == 78
    assert "1 user of {SHA512-CRYPT} cannot log in; pip install 'pop3core[crypt]'" in done.stdout


def test_users_without_a_mailbox(site: Site) -> None:
    change(site, 'path = "mail/{user}"', 'path = "{home}/mail"')
    (site.root / "users").write_text("alice:{PLAIN}x\nbob:{PLAIN}x::::home/bob\ncarol:{PLAIN}x::::/nowhere/carol\n")
    seen = found(site)
    assert [kind for kind, _ in seen] == ["fault", "fault"]
    assert "line 1: the user 'alice' has no mailbox by `path`: the user has no home" in seen[0][1]
    assert "line 2: the home of 'bob' is no absolute path" in seen[1][1]


def test_a_user_whose_deleted_messages_are_kept_in_the_mailbox(site: Site) -> None:
    change(site, 'path = "mail/{user}"', f'path = "{{home}}/mail"\ndeleted = "{site.root}/homes/{{user}}/mail"')
    homes = [f"{name}:{{PLAIN}}x::::{site.root}/homes/{name}" for name in ("alice", "bob")]
    (site.root / "users").write_text(f"{homes[0]}\n{homes[1]}/inner\n")
    only(site, "fault", "line 1: `deleted` of the user 'alice' is the mailbox itself, so nothing can be deleted")


# --- mail and state ---


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users, which takes root")
def test_mailboxes_that_are_links(site: Site) -> None:
    with (site.root / "users").open("a") as users:
        users.write("bob:{PLAIN}x\ncarol:{PLAIN}x\n")
    (site.root / "mail/bob").symlink_to("alice")
    assert found(site) == []
    os.chown(site.root / "mail/bob", 60_001, 60_001, follow_symlinks=False)
    only(site, "fault", r"mail/bob: cannot be opened: the symbolic link 'bob' of user number 60001 leads to somebody")
    (site.root / "mail/bob").unlink()
    (site.root / "mail/carol").symlink_to("nowhere")
    only(site, "fault", "mail/carol: cannot be opened: No such file")


def test_no_mail_yet(site: Site) -> None:
    shutil.rmtree(site.root / "mail")
    only(site, "warning", "is not there, so all mailboxes are empty")
    (site.root / "mail").write_text("")
    only(site, "fault", "cannot be read: Not a directory")


def test_a_mailbox_that_cannot_be_opened(site: Site) -> None:
    shutil.rmtree(site.root / "mail/alice/new")
    (site.root / "mail/alice/new").write_text("")
    only(site, "fault", r"mail/alice: cannot be opened: .*new/ is not a folder of its own")


def test_a_mailbox_in_use_is_none_of_our_business(site: Site, daemon) -> None:
    import poplib

    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
    client.user("alice")
    client.pass_("secret")
    assert found(site) == []
    client.quit()


def test_a_state_folder_that_is_none(site: Site) -> None:
    (site.root / "state").write_text("")
    only(site, "fault", "state folder .*: cannot be written to: Not a directory")
    change(site, "[[listen]]", 'state = "cert.pem/state"\n[[listen]]')
    only(site, "fault", r"is not there, and cannot be made in .*/cert\.pem; make it a folder")


@as_root
def test_deleted_on_another_file_system(site: Site) -> None:
    change(site, "[store]", '[store]\ndeleted = "/proc/nowhere/{user}"')
    only(site, "fault", "`deleted` is on another file system than")
    change(site, "/proc/nowhere", "deleted")
    assert found(site) == []


@pytest.fixture
def open_site() -> Iterator[Site]:
    """A site in folders that everybody can reach, of the user number 12345."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        create_self_signed(["localhost"], root)
        (root / "users").write_text("alice:{PLAIN}x\nbob:{PLAIN}x\n")
        (root / "users").chmod(0o640)
        (root / "pop3d.toml").write_text(
            'hostname = "localhost"\nuser = "#12345"\ngroup = "#12345"\n[[listen]]\nport = 0\n'
            '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
        )
        site = Site(root, 0)
        for user in ("alice", "bob"):
            site.maildir(user, {"new/1.host": b"1\n", "cur/2.host:2,": b"2\n"})
        for path in (root / "mail", *(root / "mail").rglob("*")):
            os.chown(path, 12345, 12345)
        for name in ("users", "key.pem"):
            os.chown(root / name, 0, 12345)
        (root / "key.pem").chmod(0o640)
        yield site


def checked(site: Site) -> list[str]:
    """By a process of its own, which becomes somebody else."""
    done = subprocess.run(
        [sys.executable, "-m", "pop3d", "check", "--config", str(site.config)], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@as_root
def test_as_root_it_becomes_the_user(open_site: Site) -> None:
    root = open_site.root
    assert checked(open_site) == ["no faults, no warnings"]
    os.chown(root / "users", 0, 0)
    os.chown(root / "key.pem", 0, 0)
    lines = checked(open_site)
    assert len(lines) == 3
    assert all("'#12345' cannot read it, so a new one is not taken without a restart; " in line for line in lines[:2])
    assert lines[-1] == "no faults, 2 warnings"


@as_root
def test_a_python_that_the_user_cannot_run(open_site: Site) -> None:
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
def test_mail_of_others_is_a_fault(open_site: Site) -> None:
    mail = open_site.root / "mail"
    os.chown(mail / "bob/new/1.host", 0, 0)
    os.chown(mail / "bob/cur", 54321, 0)
    assert checked(open_site) == [
        f"fault: {mail / 'bob'}: 2 files in it belong to another user, such as number 0; chown -R 12345 {mail / 'bob'}",
        "1 fault, no warnings",
    ]
    (mail / "alice").chmod(0)
    lines = checked(open_site)
    assert any(line.startswith(f"fault: {mail / 'alice'}: cannot be opened: ") for line in lines)
    mail.chmod(0o700)
    os.chown(mail, 0, 0)
    assert checked(open_site)[0].startswith(f"fault: {mail}: cannot be read: Permission denied; ")


@as_root
def test_what_is_kept_of_mailboxes_must_be_the_users(open_site: Site) -> None:
    keep = open_site.root / "state" / "keep"
    keep.mkdir(parents=True, mode=0o700)
    words = (
        f"fault: {keep}: `user` cannot read and write it, so a mailbox that is missing is not told from an empty one; "
    )
    assert [line for line in checked(open_site) if line.startswith(words)]
    shutil.rmtree(open_site.root / "mail" / "bob")
    assert [
        line for line in checked(open_site) if line.startswith(f"fault: {open_site.root / 'mail' / 'bob'}: whether")
    ]
    os.chown(keep, 12345, 12345)
    assert checked(open_site) == ["no faults, no warnings"]
    (open_site.root / "state").chmod(0o700)
    assert [line for line in checked(open_site) if line.startswith(words)]


@as_root
def test_root_without_a_user_to_become(open_site: Site) -> None:
    change(open_site, 'user = "#12345"\ngroup = "#12345"\n', "")
    only(open_site, "fault", "`user`: not set, and `serve`, started as root, refuses")
    change(open_site, 'hostname = "localhost"', 'hostname = "localhost"\nuser = "no-such-user"')
    only(open_site, "fault", "this system has no user 'no-such-user'")


@as_root
def test_somebody_else_is_told_so(open_site: Site) -> None:
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


# --- users that are in no file ---


def tokens(site: Site, how: str, mechanisms: str = "") -> None:
    change(site, "[store]", f'[auth.oauth]\nissuer = "{NAME}"\naudience = "pop3"\n{how}\n[store]')
    change(site, 'users = "users"', mechanisms or 'users = "users"\nmechanisms = ["plain", "xoauth2"]')


def test_keys_of_an_issuer(site: Site) -> None:
    tokens(site, 'jwks = "keys.json"')
    only(site, "fault", "keys.json: No such file or directory; name a readable file")
    (site.root / "keys.json").write_text('{"keys": []}')
    only(site, "fault", "keys.json: no key for RS256")
    (site.root / "keys.json").write_text(json.dumps(key_set()))
    assert found(site) == []
    (site.root / "users").write_text("alice:{NOPE}x\n")
    only(site, "fault", "users line 1: ")
    # without a users file
    change(site, 'users = "users"\nmechanisms = ["plain", "xoauth2"]', 'backend = "oauth"\nmechanisms = ["xoauth2"]')
    (site.root / "users").unlink()
    assert found(site) == []


def test_keys_of_an_issuer_that_is_asked(site: Site) -> None:
    issuer = Issuer()
    try:
        tokens(site, f'jwks = "{issuer.url}/keys"')
        assert found(site) == []
        assert issuer.asked == {"/keys": 1}
        issuer.status = 404
        only(site, "fault", "/keys answers with status 404")
    finally:
        issuer.close()


def test_our_secret_for_introspection(site: Site) -> None:
    secret = site.root / "secret"
    tokens(site, 'introspection = "https://127.0.0.1:9/"\nclient_id = "pop3d"\nclient_secret_file = "secret"')
    only(site, "fault", "secret: No such file or directory")
    secret.write_text(" \n")
    secret.chmod(0o600)
    only(site, "fault", "secret: empty, or not UTF-8")
    secret.write_text("hidden-secret\n")
    assert found(site) == []
    secret.chmod(0o644)
    assert "hidden-secret" not in only(site, "fault", "secret: .*our secret for introspection")


# --- messages that another server compressed ---


def test_compressed_messages_are_told_of(site: Site) -> None:
    site.maildir("alice", {f"cur/{name}.host:2,SZ": pack(b"Subject: x\n\n") for name, pack in PACKERS.items()})
    text = only(
        site, "warning", "compressed: 1 by LZ4, 1 by bzip2, 1 by gzip, 1 by xz, 1 by zstd; they are sent unpacked"
    )
    assert text.startswith(f"{site.root}/mail: ")
    change(site, "[store]", '[store]\ncompressed = "refuse"')
    seen = found(site)
    assert [kind for kind, _ in seen] == ["warning"] * len(PACKERS)
    assert all('`compressed` in [store] is "refuse"' in text for _, text in seen)
    site.maildir("alice", {"new/9.host": b"CRYPTED\x03\x07" + bytes(50)})
    assert [kind for kind, _ in sorted(found(site))] == ["fault"] + ["warning"] * len(PACKERS)


def test_messages_that_cannot_be_unpacked_are_named(site: Site) -> None:
    whole = PACKERS["gzip"](b"Subject: x\n\n" + bytes(range(256)) * 1000)
    box = {f"cur/1{number}.host:2,S": whole[:-number] for number in range(1, 6)}
    site.maildir("alice", {**box, "new/9.host": b"CRYPTED\x03\x07" + bytes(50), ".hidden": whole[:-1]})
    (site.root / "mail/alice/cur/link").symlink_to(site.root / "mail/alice/new/9.host")
    seen = sorted(found(site))
    assert [kind for kind, _ in seen] == ["fault", "fault"]
    names = "'cur/11.host:2,S', 'cur/12.host:2,S', 'cur/13.host:2,S' and 2 more cannot be sent: "
    assert names + "its compressed octets (gzip) are truncated; restore the file from a backup" in seen[0][1]
    assert "'new/9.host' cannot be sent: it is encrypted by Dovecot (mail_crypt); `doveadm" in seen[1][1]


def test_not_all_is_unpacked_where_it_would_take_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    box = {f"cur/1{number}.host:2,S": PACKERS["xz"](b"Subject: x\n\n" + bytes(500_000)) for number in range(5)}
    site.maildir("alice", box)
    monkeypatch.setattr(check_compressed, "_CONTENT_MAX", 1_000_000)
    (compressed, rest) = (text for _, text in found(site))
    assert "compressed: 5 by xz" in compressed
    assert "more than 20000 files, or 1000000 octets" in rest
    monkeypatch.setattr(check_compressed, "_CONTENT_MAX", 10_000_000)
    only(site, "warning", "compressed: 5 by xz")
    monkeypatch.setattr(check_compressed, "_FILES_MAX", 3)
    assert len(found(site)) == 2


@pytest.fixture
def service() -> Iterator[Path]:
    if os.geteuid() != 0 or not Path("/etc/pam.d").is_dir():
        pytest.skip("writes a service for PAM: run as root, with libpam0g there")
    path = Path("/etc/pam.d") / f"pop3d-check-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def test_services_of_pam(open_site: Site, service: Path) -> None:
    def seen() -> list[str]:
        return [line for line in checked(open_site) if "pam" in line.lower() and sys.executable not in line]

    (open_site.root / "users").unlink()
    change(open_site, "[tls]", f'[auth]\nbackend = "pam"\n[auth.pam]\nservice = "{service.name}"\n[tls]')
    (none,) = seen()
    assert none.startswith(f"fault: {service}: there is no such service of PAM")
    service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
    assert seen() == []
    service.chmod(0o600)
    (unreadable,) = seen()
    assert unreadable.startswith(f"fault: {service}: `user` cannot read it: Permission denied; chmod a+r")
    service.chmod(0o644)
    service.write_text("auth required pam_unix.so nullok\n")
    (unix,) = seen()
    assert unix.startswith(f"warning: {service}: pam_unix lets an ordinary user check no password but his own")
    service.write_text("# auth pam_unix.so\naccount required pam_unix.so\nauth required pam_permit.so\n")
    assert seen() == []


def test_pam_without_its_extra(site: Site, service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
    change(site, 'users = "users"', f'backend = "pam"\n[auth.pam]\nservice = "{service.name}"')
    assert found(site) == []
    monkeypatch.setitem(sys.modules, "pam", None)
    monkeypatch.delitem(sys.modules, "pop3d.auth.pam")
    only(site, "fault", r"pip install 'pop3core\[pam\]'")
