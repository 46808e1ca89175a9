"""A users file that a real Dovecot has served: the same users log in here, and the same ones do not."""

import contextlib
import poplib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pop3core.events import Password
from pop3d.abuse.addresses import is_within
from pop3d.auth.passwords import matches, parse_secret
from pop3d.auth.schemes import NOT_READ, UnknownScheme
from pop3d.auth.users_file import UsersFile
from tests.interop import dovecot

DOVEADM = shutil.which("doveadm")
needs_doveadm = pytest.mark.skipif(
    DOVEADM is None, reason="doveadm is not installed (Debian: apt install dovecot-core)"
)
ENCODINGS = ("", ".b64", ".BASE64", ".hex", ".HEX")
PASSWORDS = ("secret", "pässwörd €", " s e c ", "x" * 72)
NEVER = {"DES-CRYPT": "a DES hash is not read", **{name: f"{{{name}}} is not read" for name in NOT_READ}}


def doveadm(*words: str) -> str:
    """What `doveadm pw` prints; empty where it does not."""
    assert DOVEADM is not None
    done = subprocess.run([DOVEADM, "-c", "/dev/null", "pw", *words], capture_output=True, text=True, timeout=60)
    return done.stdout.removesuffix("\n") if done.returncode == 0 else ""


def schemes() -> list[str]:
    return doveadm("-l").split() if DOVEADM is not None else []


@needs_doveadm
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("scheme", schemes())
def test_every_scheme_that_doveadm_knows_is_read_or_named(scheme: str, encoding: str) -> None:
    for password in PASSWORDS[: 1 if encoding else None]:
        made = doveadm("-s", scheme + encoding, "-u", "alice@example.org", "-p", password)
        if not made and encoding:
            pytest.skip("doveadm makes no such secret")
        assert made, scheme
        if scheme in NEVER:
            with pytest.raises(UnknownScheme) as caught:
                parse_secret(made, "alice@example.org")
            if not encoding:
                assert NEVER[scheme] in str(caught.value)
            assert made.partition("}")[2] not in str(caught.value)
            continue
        stored = parse_secret(made, "alice@example.org")
        assert matches(stored, password.encode()), made
        assert not matches(stored, b"y" + password.encode())
        assert not matches(stored, password[:-1].encode())
        assert not matches(stored, b"")


@needs_doveadm
def test_with_other_rounds() -> None:
    for scheme, rounds in (
        ("BLF-CRYPT", "6"),
        ("SHA256-CRYPT", "1234"),
        ("SHA512-CRYPT", "1234"),
        ("PBKDF2", "1234"),
    ):
        stored = parse_secret(doveadm("-s", scheme, "-r", rounds, "-p", "secret"))
        assert matches(stored, b"secret"), scheme
        assert not matches(stored, b"Secret"), scheme


MD5 = "5ebe2294ecd0e0f08eab7690d2a6ee69"  # of "secret"
SIX = "$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1"
YES = "$y$j9T$saltsaltsalt$AnbE4uovRUrp5W/7h65lVXbBxJijULPRqRjd39xI5w9"
LINES = (
    "# a comment",
    "",
    "plain:{PLAIN}secret",
    "small:{plain}secret",
    "clear:{CLEARTEXT}secret:1000:1000::/home/clear",
    f"bare6:{SIX}",
    f"crypt6:{{CRYPT}}{SIX}",
    f"other:{{SHA256-CRYPT}}{SIX}",
    f"yes:{{CRYPT}}{YES}",
    "bare1:$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "more1:$1$saltsalt$9xy1btjgzLYfb7hivXtC//$ignored",
    f"pwdfile:{MD5}[34]",
    f"md5:{{MD5}}{MD5}",
    f"plainmd5:{{PLAIN-MD5}}{MD5}",
    "ldapmd5:{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "shahex:{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "encoded:{PLAIN.b64}c2VjcmV0",
    "star:*",
    "bang:!",
    "bangs:!!",
    f"locked:{{SHA512-CRYPT}}!{SIX}",
    f"shadow:!{SIX}",
    "x:x",
    "empty:",
    "name",
    "nope:{NOPE}secret",
    "twice:{PLAIN}secret",
    "twice:{PLAIN}other",
    "first:*",
    "first:{PLAIN}secret",
    "left:{PLAIN}secret::::::nologin",
    "no:{PLAIN}secret::::::nologin=no",
    "away:{PLAIN}secret::::::userdb_mail=maildir:~/x nologin=y reason=gone",
    "near:{PLAIN}secret::::::allow_nets=127.0.0.0/8",
    "mapped:{PLAIN}secret::::::allow_nets=::ffff:127.0.0.1",
    "far:{PLAIN}secret::::::allow_nets=192.0.2.0/24,2001:db8::/32",
    "some:{PLAIN}secret::::::allow_nets=nowhere,127.0.0.1",
    "none:{PLAIN}secret::::::allow_nets=nowhere",
    "local:{PLAIN}secret::::::allow_nets=local",
    "both:{PLAIN}secret::::::allow_nets=127.0.0.0/8 allow_nets=192.0.2.0/24",
    "fails:{PLAIN}secret::::::fail=y",
    "noauth:{PLAIN}secret::::::noauthenticate",
    "later:{PLAIN}secret::::::delay_until=99999999999",
    "once:{PLAIN}secret::::::delay_until=1000",
    "nodelay:{PLAIN}secret::::::nodelay=y",
    "protected:{PLAIN}secret::::::nologin:protected=y",
    "removed:{PLAIN}secret::::::nologin nologin:remove",
    "shell:{PLAIN}secret:1:1::/home/shell:/usr/sbin/nologin:",
    "colons:{PLAIN}secret:1:1:gecos:/home/colons:/bin/sh:userdb_mail=maildir:~/x:LAYOUT=fs nologin",
    f"many:{MD5}[99]",
)
NAMES = sorted({line.partition(":")[0] for line in LINES if line and not line.startswith("#")})


def made(scheme: str) -> str:
    return doveadm("-s", scheme, "-u", f"by-{scheme.lower()}", "-p", "secret")


def by_dovecot(port: int, name: str, password: str) -> bool:
    client = poplib.POP3("127.0.0.1", port, timeout=30)
    with contextlib.closing(client):
        try:
            client.user(name)
            client.pass_(password)
        except poplib.error_proto:
            return False
        with contextlib.suppress(poplib.error_proto):  # that its mailbox is faulty is not the question
            client.quit()
        return True


async def by_pop3d(users: UsersFile, name: str, password: str) -> bool:
    account = await users.authenticate(Password(name, "", password.encode()))
    if account is None or account.forbidden:
        return False
    return not account.networks or is_within("127.0.0.1", account.networks)


STATIC = "passdb {{\n  driver = static\n  args = password=secret\n}}\n"
AT_ONCE = """
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_passwd_file_lets_the_same_users_in(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    assert STATIC in dovecot.CONFIGURATION
    secrets = {f"by-{name.lower()}": f"by-{name.lower()}:{made(name)}" for name in (schemes() if end == "\n" else ())}
    never = {f"by-{name.lower()}" for name in NEVER}
    with tempfile.TemporaryDirectory() as folder:  # below pytest's own, nobody but root gets anywhere
        path = Path(folder) / "users"
        path.write_text(end.join((*LINES, *secrets.values())))
        path.chmod(0o644)
        users = UsersFile(path)
        passwd_file = STATIC.replace("static", "passwd-file").replace("password=secret", str(path))
        text = dovecot.CONFIGURATION.replace(STATIC, passwd_file) + AT_ONCE
        monkeypatch.setattr(dovecot, "CONFIGURATION", text)
        with dovecot.serving(Path(folder) / "dovecot", f"{folder}/mail/%u") as port:
            theirs = {name for name in (*NAMES, *secrets) if by_dovecot(port, name, "secret")}
        ours = {name for name in (*NAMES, *secrets) if await by_pop3d(users, name, "secret")}
        await users.close()
    assert sorted(ours - {"mapped"}) == sorted(theirs - {"mapped"} - never)
    assert secrets.keys() - never <= ours
    assert "mapped" in ours  # Dovecot knows no network of IPv4-mapped addresses
    assert {"plain", "bare6", "yes", "pwdfile", "twice", "near", "shell", "removed"} <= ours
    assert not {"star", "nope", "first", "left", "no", "far", "none", "local", "both", "fails", "noauth"} & ours
