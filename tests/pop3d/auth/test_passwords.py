"""Secrets that other programs made, and what a check of them costs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pop3core.events import Password
from pop3d.auth import crypt_hashes
from pop3d.auth.crypt_hashes import lacks_extra
from pop3d.auth.passwords import (
    ARGON2ID,
    DUMMY,
    PASSWORD_OCTETS_MAX,
    Secret,
    UnknownScheme,
    cost_of,
    hashed,
    matches,
    parse_secret,
)
from pop3d.auth.users_file import UsersFile

# of "secret", with the program that made each
MADE_ELSEWHERE = [
    # doveadm pw, Dovecot 2.3.19
    "{SSHA512}gi8K2T0988twGgL/Dx9qCJB1q1WVUBVOWekiwnytYq7NcR1IWk5ZK78K+Oe4MZJlALN7eqjb27yM6rEw4fFaSVMD57Y=",
    "{SSHA256.HEX}d0d05fca5357b518ecc2e4571c55d0a01412ec1abf71c0fbbe73a0295b68b30e0c37a48a",
    "{SSHA256.b64}4L5MpnqwsFiEM0rldXnlMJDmTHZcTeahs+a24IbuutohFO9+",
    "{BLF-CRYPT}$2y$05$LvpXYbE7icwcx0I4wh3rQO3/zekjr.JyNQwgnyR9GZd6FbjstUQ82",
    "{SHA512-CRYPT}$6$Q/zyw4lgnOwg84jW$eMsd9Pv9AVmEziVen6EOvDnFVCIvNS2jjpy0ELJ07kS2DM1/V8o/lprxHVxJMkm7/rqqXD/EvUZycPhpFBJQm.",
    # openssl passwd, OpenSSL 3.0
    "{sha512-crypt}$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1",
    "{SHA256-CRYPT}$5$rounds=1000$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8",
]  # fmt: skip
SHA512 = MADE_ELSEWHERE[5]
# likewise, of old sites: of slappasswd, openssl, mkpasswd, doveadm
MADE_LONG_AGO = [
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA1}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "{SHA.HEX}E5E9FA1BA31ECD1AE84F75CAAA474F3A663F05F4",
    "{SSHA}48U8QdzPad3La7V4cS4mB5EDTlfiRtGn",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols",
    "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "5ebe2294ecd0e0f08eab7690d2a6ee69[34]",
    "{MD5}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{MD5-CRYPT}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "$1$saltsalt$9xy1btjgzLYfb7hivXtC//$ignored",
    "{CLEARTEXT}secret",
    "{PLAIN.b64}c2VjcmV0",
    "{CLEAR.hex}736563726574",
    "{PBKDF2}$1$saltsalt$1000$8b09c61e3ddee1285f60003548fcfb0963b1e8e2",
    "{SHA512-CRYPT.B64}JDYkYWJjJElkV0tOS1RKRWI4THhZN0NHZzhZQlhsdnRmWnpGdzdNcC9yNm5pSzlZQjJtZHZnWS4uVEtqdjFULi44UmFkUnQycXZVSFlSTHIvVHNWQXJ0cjkxaVIx",
]  # fmt: skip
YESCRYPT = "{CRYPT}$y$j9T$saltsaltsalt$AnbE4uovRUrp5W/7h65lVXbBxJijULPRqRjd39xI5w9"


def crypted(password: str) -> str:
    """Of `password`, by OpenSSL where it is there."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=f"{password}\n", capture_output=True, text=True, check=True
    )
    return "{SHA512-CRYPT}" + made.stdout.strip()


@pytest.mark.parametrize("text", MADE_LONG_AGO)
def test_secrets_of_long_ago(text: str) -> None:
    stored = parse_secret(text)
    assert matches(stored, b"secret")
    for wrong in (b"", b"Secret", b"secret ", b"secret\0", b"\xff", b"x" * 2000, text.encode(), text[-22:].encode()):
        assert not matches(stored, wrong), wrong


@pytest.mark.skipif(lacks_extra("YESCRYPT"), reason="needs libcrypt of libxcrypt (Debian: libcrypt1)")
def test_yescrypt_as_debian_has_it_in_its_shadow_file() -> None:
    for text in (YESCRYPT, YESCRYPT.removeprefix("{CRYPT}")):
        stored = parse_secret(text)
        assert matches(stored, b"secret")
        assert not matches(stored, b"Secret")
        assert not matches(stored, b"secret\0")
        assert cost_of(stored) == ("YESCRYPT", "$y$j9T")


@pytest.mark.parametrize("text", [*MADE_ELSEWHERE[3:], *MADE_LONG_AGO[10:14]])
def test_libcrypt_and_the_extra_agree(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypt_hashes, "_native_schemes", frozenset)
    stored = parse_secret(text)
    assert matches(stored, b"secret")
    assert not matches(stored, b"Secret")


@pytest.mark.parametrize("text", MADE_ELSEWHERE, ids=lambda text: text[: text.index("}") + 4])
def test_secrets_of_other_programs(text: str) -> None:
    stored = parse_secret(text)
    assert matches(stored, b"secret")
    for wrong in (b"", b"Secret", b"secret ", b"secret\0", b"\xff", b"x" * 2000, text.encode()):
        assert not matches(stored, wrong), wrong
    assert text[-10:] not in repr(stored)


@pytest.mark.parametrize("scheme", ["SSHA256", "SSHA512", "SSHA512.HEX", "SSHA256.B64", "SHA256-CRYPT", "SHA512-CRYPT",
                                    "BLF-CRYPT", "SCRAM-SHA-256", "ARGON2ID", "PLAIN"])  # fmt: skip
@pytest.mark.parametrize("password", ["secret", "pässwörd €", " s e c ", "x" * 72])
def test_secrets_that_dovecot_makes(scheme: str, password: str) -> None:
    doveadm = shutil.which("doveadm")
    if doveadm is None:
        pytest.skip("needs Debian's dovecot-core (doveadm)")
    made = subprocess.run(
        [doveadm, "-c", "/dev/null", "pw", "-s", scheme, "-p", password], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"doveadm does not: {made.stderr}")
    stored = parse_secret(made.stdout.removesuffix("\n"))
    assert matches(stored, password.encode())
    assert not matches(stored, b"y" + password.encode())
    assert matches(stored, password.encode() + b"x") == (scheme == "BLF-CRYPT" and len(password) == 72)


@pytest.mark.parametrize("option", ["-5", "-6"])
@pytest.mark.parametrize("password", ["secret", "pässwörd €", "x" * 200])
def test_secrets_that_openssl_makes(option: str, password: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = ["openssl", "passwd", option, "-salt", "ab./XY09", "-stdin"]
    made = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=True).stdout.strip()
    stored = parse_secret(("{SHA256-CRYPT}" if option == "-5" else "{SHA512-CRYPT}") + made)
    assert matches(stored, password.encode())
    assert not matches(stored, password.encode() + b"x")


def test_bcrypt_looks_at_72_octets_as_it_always_has() -> None:
    import bcrypt

    stored = parse_secret("{BLF-CRYPT}" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode())
    assert matches(stored, b"x" * 72)
    assert matches(stored, b"x" * 100)
    assert not matches(stored, b"x" * 71)


def test_a_hash_that_is_faulty_behind_its_parameters_matches_nothing() -> None:
    assert not matches(parse_secret("{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$c2FsdA$x"), b"x")
    assert not matches(parse_secret("{BLF-CRYPT}$2y$04$LvpXYbE7icwcx0I4wh3rQz" + "a" * 31), b"x")
    assert not matches(parse_secret(hashed("x", "SCRAM-SHA-256")), b"x\x07")
    with pytest.raises(UnknownScheme, match="cannot be used with SCRAM"):
        hashed("x\x07", "SCRAM-SHA-256")
    assert not matches(parse_secret("{PLAIN}" + "x" * 2000), b"x" * (PASSWORD_OCTETS_MAX + 1))


async def test_an_unknown_user_costs_what_most_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("pop3d.auth.hashing.matches", lambda stored, _: seen.append(cost_of(stored)) or True)
    fast, slow = hashed("x"), "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$c2VjcmV0LWluLWNsZWFy"
    path = tmp_path / "users"
    for secrets, cost in (
        ((fast, slow, slow), ("ARGON2ID", "$argon2id$v=19$m=65536,t=3,p=4")),
        ((fast, slow, fast), ("ARGON2ID", "$argon2id$v=19$m=19456,t=2,p=1")),
        ((MADE_ELSEWHERE[0], MADE_ELSEWHERE[3], MADE_ELSEWHERE[3]), ("BLF-CRYPT", "$2y$05")),
        (("{PLAIN}x", MADE_ELSEWHERE[0]), ("SSHA512", "")),
        (("*",), ("ARGON2ID", "$argon2id$v=19$m=19456,t=2,p=1")),
    ):
        path.write_text("".join(f"u{n}:{secret}\n" for n, secret in enumerate(secrets)))
        users = UsersFile(path)
        assert await users.authenticate(Password("nobody", "", b"x")) is None
        assert seen.pop() == cost
        assert not seen
        await users.close()
    assert cost_of(parse_secret(MADE_ELSEWHERE[6])) == ("SHA256-CRYPT", "$5$rounds=1000")
    assert cost_of(parse_secret(SHA512)) == ("SHA512-CRYPT", "$6")
    assert cost_of(parse_secret(hashed("x", "SCRAM-SHA-256"))) == ("SCRAM-SHA-256", "4096")


def test_an_unknown_user_costs_what_a_new_one_costs() -> None:
    """The one that is written down has the parameters of those that are made."""
    new = parse_secret(hashed("x"))
    assert cost_of(Secret(ARGON2ID, DUMMY)) == cost_of(new)
    assert len(DUMMY) == len(new.value)
    assert not matches(Secret(ARGON2ID, DUMMY), b"x")
