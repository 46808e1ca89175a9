"""The lines of a passwd-file: what is read, what is a fault, and whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.auth.passwd_file import lines_of
from pop3d.auth.stored_user import StoredUser


def users_of(text: str) -> dict[str, StoredUser]:
    return {line.name: line.user for line in lines_of(text) if line.user is not None}


def test_fields_of_a_dovecot_passwd_file() -> None:
    text = (
        "# a comment\n\n"
        "alice:{PLAIN}se cret,=%+/#:1000:1000::/home/alice::userdb_quota=1\n"
        "bob@example.org:{plain}x\r\n"
        "carol:{PLAIN}y::::::\n"
    )
    users = users_of(text)
    assert all(user.secret is not None for user in users.values())
    assert list(users) == ["alice", "bob@example.org", "carol"]
    assert users["alice"].secret is not None
    assert users["alice"].secret.value == "se cret,=%+/#"
    assert users["alice"].home == "/home/alice"
    assert users["bob@example.org"].home is None
    assert users["carol"].home is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice", "a line is name:"),
        ("alice:secret-in-clear", "no scheme"),
        ("alice:{NOPE}secret-in-clear", "unknown scheme"),
        ("alice:{SSHA256}secret-in-clear", "{SSHA256} is not a digest and its salt in base64"),
        ("alice:{SSHA512.HEX}secret-in-clear", "{SSHA512} is not a digest and its salt in hexadecimal digits"),
        ("alice:{SSHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=", "is not a digest and its salt"),
        ("alice:{SSHA256.ROT13}secret-in-clear", "unknown scheme"),
        ("alice:{PLAIN.HEX}secret-in-clear", "{PLAIN} is not in the encoding"),
        ("alice:{PLAIN.B64}/w==", "{PLAIN} is not in the encoding"),
        ("alice:{SHA256-CRYPT}secret-in-clear", "is not $5$salt$hash"),
        ("alice:{SHA512-CRYPT}secret-in-clear", "is not $6$salt$hash"),
        ("alice:{SHA512-CRYPT}$5$abc$secret-in-clear", "{SHA512-CRYPT} is not $5$salt$hash"),
        ("alice:{CRYPT}secret-in-clear", "{CRYPT} is no hash of crypt(3) that is read"),
        ("alice:$7$secret-in-clear", "{CRYPT} is no hash of crypt(3) that is read"),
        ("alice:JBOZ0DgmtucwE", "a DES hash is not read"),
        ("alice:{DES-CRYPT}JBOZ0DgmtucwE", "a DES hash is not read"),
        ("alice:{CRYPT}_J9..K0AyUubDrfOgO4s", "a DES hash is not read"),
        (f"alice:{{CRYPT}}$y$jFj$abc${'a' * 43}", "yescrypt hash asks for more"),
        (f"alice:{{CRYPT}}$y$j9Tz$abc${'a' * 43}", "is not $y$jNr$salt$hash"),
        ("alice:{CRAM-MD5}secret-in-clear", "{CRAM-MD5} is not read: it keeps a state of MD5"),
        ("alice:{otp}secret-in-clear", "{OTP} is not read: one-time passwords"),
        ("alice:{SHA}secret-in-clear", "{SHA1} is not a digest in base64"),
        ("alice:{PLAIN-MD5}secret-in-clear", "{PLAIN-MD5} is not a digest in hexadecimal"),
        ("alice:{PLAIN-MD4}secret-in-clear", "{PLAIN-MD4} is not a digest in hexadecimal"),
        ("alice:{PBKDF2}secret-in-clear", "{PBKDF2} is not $1$salt$rounds$hash"),
        (f"alice:{{PBKDF2}}$1$salt$9999999${'a' * 40}", "{PBKDF2} has 1 to 1000000 rounds"),
        ("alice:x", "in another file"),
        ("alice:", "empty"),
        ("alice:*", "locked"),
        ("alice:!$6$secret-in-clear", "locked"),
        ("alice:{SSHA}!secret-in-clear", "locked"),
        ("alice:{PLAIN}!!", "locked"),
        ("alice:{PLAIN}secret-in-clear\udcff", "the secret is not UTF-8"),
        ("al\udcffice:{PLAIN}secret-in-clear", "a user name"),
        ("alice:{PLAIN}secret-in-clear::::/home/\udcff", "the home is not UTF-8"),
        (f"alice:{{SHA512-CRYPT}}$6$rounds=999999999$abc${'a' * 86}", "{SHA512-CRYPT} has rounds of 1000 to 1000000"),
        (f"alice:{{SHA256-CRYPT}}$5$rounds=10$abc${'a' * 43}", "{SHA256-CRYPT} has rounds of 1000 to 1000000"),
        ("alice:{BLF-CRYPT}$2y$05$secret-in-clear", "is not $2y$NN$"),
        (f"alice:{{BLF-CRYPT}}$2y$31${'a' * 53}", "{BLF-CRYPT} has a cost of 4 to 16"),
        ("alice:{ARGON2ID}$argon2id$v=19$m=65536,t=200,p=1$c2FsdHNhbHQ$c2VjcmV0LWluLWNsZWFy", "times passes"),
        ("alice:{ARGON2ID}$argon2id$v=19$m=65536,t=1,p=999$c2FsdHNhbHQ$c2VjcmV0LWluLWNsZWFy", "lanes"),
        ("alice:{SCRAM-SHA-256}secret-in-clear", "is not iterations,salt,StoredKey,ServerKey"),
        ("alice:{SCRAM-SHA-256}4096,c2E=,c2E=,c2E", "is not iterations,salt,StoredKey,ServerKey"),
        ("alice:{SCRAM-SHA-256}100,c2E=,c2E=,c2E=", "4096 to 1000000 iterations"),
        ("alice:{PLAIN}", "empty"),
        ("alice:{PLAIN.b64}=", "empty"),
        ("alice:{ARGON2ID}secret-in-clear", "no Argon2id hash"),
        ("alice:{ARGON2ID}$argon2d$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$secret-in-clear", "no Argon2id hash"),
        ("alice:{ARGON2I}secret-in-clear", "no Argon2i hash"),
        ("alice:{ARGON2ID}$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$c2VjcmV0LWluLWNsZWFy", "KiB of memory"),
        (":{PLAIN}secret-in-clear", "not empty"),
        ("../x:{PLAIN}secret-in-clear", '"/"'),
        ("a b:{PLAIN}secret-in-clear", "blanks"),
        ("bob:{PLAIN}secret-in-clear\nbob:{PLAIN}x", "twice"),
    ],
)
def test_a_faulty_line_is_named_and_no_secret_shown(line: str, words: str) -> None:
    faulty = [found for found in lines_of(f"# first\n{line}\n") if found.fault]
    assert len(faulty) == 1
    assert words in faulty[0].fault
    assert "secret-in-clear" not in repr(faulty)


def test_blank_and_indented_lines_carriage_returns_and_a_byte_order_mark_harm_nothing() -> None:
    text = (
        "\ufeffalice:{PLAIN}a\r\n\r\n   \n\t\r\n  # indented: comment\r\n# comment\n"
        "  bob:{PLAIN} b \r\n\tcarol:{PLAIN}c\ndora:{PLAIN}d::::::nologin\r"
    )
    lines = list(lines_of(text))
    assert [(line.number, line.name, line.fault, line.indented) for line in lines] == [
        (1, "alice", "", False),
        (7, "bob", "", True),
        (8, "carol", "", True),
        (9, "dora", "", False),
    ]
    values = [line.user.secret.value for line in lines if line.user is not None and line.user.secret is not None]
    assert values == ["a", " b ", "c", "d"]
    assert users_of(text)["dora"].account.forbidden == "nologin"


def test_of_two_lines_with_one_name_the_first_counts() -> None:
    """With Dovecot too, which logs `User alice exists more than once`."""
    first, second = lines_of("alice:{PLAIN}a\n alice:{PLAIN}b\n")
    assert first.user is not None
    assert second.user is None
    assert second.fault == "the user 'alice' stands there twice; line 1 counts"
    first, second = lines_of("alice:*\nalice:{PLAIN}b\n")
    assert first.user is not None
    assert first.user.account.forbidden
    assert second.user is None


def test_fields_of_no_use_may_be_in_any_encoding() -> None:
    (line,) = lines_of("alice:{PLAIN}a:1:2:J\udcfcrgen:/home/alice:/bin/sh:nologin")
    assert (line.fault, line.user is not None) == ("", True)


def test_extra_fields_may_have_a_colon_in_them() -> None:
    user = users_of("alice:{PLAIN}a::::::userdb_mail=maildir:~/Maildir allow_nets=2001:db8::/32 nologin")["alice"]
    assert user.account.forbidden == "nologin"
    assert str(user.account.networks[0]) == "2001:db8::/32"


SCHEMES_OF_LINES = st.sampled_from(
    ("", "{PLAIN}", "{CRYPT}", "{MD5}", "{SSHA}", "{SHA.HEX}", "{PLAIN.B64}", "{PBKDF2}", "{SCRAM-SHA-1}", "{ARGON2ID}")
)
ODD_LINE = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda name, scheme, rest: f"{name}:{scheme}{rest}".encode("utf-8", "surrogatepass"),
        st.text(max_size=8),
        SCHEMES_OF_LINES,
        st.text(st.characters(exclude_characters="\n"), max_size=60),
    ),
    st.builds(lambda extra: f"u:{{PLAIN}}x::::::{extra}".encode("utf-8", "surrogatepass"), st.text(max_size=60)),
)


@given(before=st.lists(ODD_LINE, max_size=6), after=st.lists(ODD_LINE, max_size=6))
def test_no_line_gets_in_the_way_of_another(before: list[bytes], after: list[bytes]) -> None:
    octets = b"\n".join([*before, b"good-user:{PLAIN}secret", *after])
    found = users_of(octets.decode("utf-8", "surrogateescape"))
    if not any(b"good-user" in line for line in before):
        secret = found["good-user"].secret
        assert secret is not None
        assert secret.value == "secret"
