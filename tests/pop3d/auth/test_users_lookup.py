"""One user looked up in a file's octets: the very same answer as reading all lines."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3d.auth import Account, AuthError, AuthUnavailable
from pop3d.auth.names import UserNames
from pop3d.auth.users_file import UsersFile
from pop3d.auth.users_lookup import account_in_file

NAMES = st.sampled_from(
    [
        *("a", "A", "b", "a@x.org", "a@X.org", "A@x.org", "b@x.org", "a@y"),
        *("ab", "#a", " a", "a b", ".a", "\u00e9", "\u00c9@x.org", ""),
    ]
)
SECRETS = st.sampled_from(
    [
        *("{PLAIN}x", "{PLAIN}a:b", "{NOPE}x", "!", "", "\udcff", "{PLAIN}a@x.org"),
        *("{PLAIN}x::::/home/a", "{PLAIN}:::::::nologin"),
        "{PLAIN}x:1:1:\udcff:/h::quota_messages=3 allow_nets=192.0.2.0/24",
    ]
)
BEFORE = st.sampled_from(["", " ", "\t", "\ufeff", "\ufeff "])
LINES = st.one_of(
    st.builds("{}{}:{}{}".format, BEFORE, NAMES, SECRETS, st.sampled_from(["", "\r"])),
    NAMES,
    st.sampled_from(["", "  ", "#", "# a:{PLAIN}x", "\r", "\0", "x\ra:{PLAIN}x"]),
)
DOMAINS = st.sampled_from(["", "x.org", "X.org"])
RULES = st.builds(UserNames, st.sampled_from(["as-is", "lower-domain", "lower"]), DOMAINS)


def answer(found: object) -> object:
    return (type(found), str(found)) if isinstance(found, Exception) else found


def by_reading_all(path: Path, name: str, names: UserNames) -> Account | Exception | None:
    try:
        return asyncio.run(UsersFile(path, names=names).account(name))
    except AuthError as fault:  # what delivers mail takes it for this
        return AuthUnavailable(str(fault))
    except AuthUnavailable as fault:
        return fault


def by_looking_up(path: Path, name: str, names: UserNames) -> Account | Exception | None:
    try:
        return account_in_file(path, name, names)
    except AuthUnavailable as fault:
        return fault


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=8), NAMES, RULES, st.sampled_from([1, 7, 1 << 18]))
def test_the_same_answer_as_reading_all(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], said: str, names: UserNames, piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "looked-up"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    name = names(said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pop3d.auth.users_lookup._PIECE", piece)
        assert answer(by_looking_up(path, name, names)) == answer(by_reading_all(path, name, names))


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthUnavailable, match="pop3d user add"):
        account_in_file(tmp_path / "users", "a", UserNames())
    (tmp_path / "users").write_text("a:{PLAIN}x\n" * 2)
    monkeypatch.setattr("pop3d.auth.users_lookup.FILE_OCTETS_MAX", 20)
    with pytest.raises(AuthUnavailable, match="larger than 20 octets"):
        account_in_file(tmp_path / "users", "a", UserNames())
