"""A users file that a real Dovecot has served: the same users log in here, and the same ones do not."""

import pytest

from pop3d.auth.passwords import matches, parse_secret
from pop3d.auth.schemes import UnknownScheme
from tests.interop import dovecot
from tests.interop.moving_users import DOVEADM, LINES, NEVER, all_lines, doveadm, logins, schemes

needs_doveadm = pytest.mark.skipif(
    DOVEADM is None, reason="doveadm is not installed (Debian: apt install dovecot-core)"
)
ENCODINGS = ("", ".b64", ".BASE64", ".hex", ".HEX")
PASSWORDS = ("secret", "pässwörd €", " s e c ", "x" * 72)


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


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_passwd_file_lets_the_same_users_in(end: str) -> None:
    lines = all_lines() if end == "\n" else LINES
    found = {one.name: one for one in await logins(lines, end)}
    never = {f"by-{name.lower()}" for name in NEVER}
    mapped = found.pop("mapped")
    assert (mapped.by_dovecot, mapped.by_pop3d) == (False, True)  # Dovecot knows no network of IPv4-mapped addresses
    for one in found.values():
        assert one.by_pop3d == (one.by_dovecot and one.name not in never), one
    ours = {name for name, one in found.items() if one.by_pop3d}
    assert {name for name in found if name.startswith("by-")} - never <= ours
    assert {"plain", "bare6", "yes", "pwdfile", "twice", "near", "shell", "removed"} <= ours
    assert not {"star", "nope", "first", "left", "no", "far", "none", "local", "both", "fails", "noauth"} & ours
