"""One user by every spelling, whatever the mechanism; and two users by none."""

import asyncio
import base64
from pathlib import Path

import pytest

from pop3core.events import Password, Token, Verified
from pop3d.auth import Account, AuthUnavailable
from pop3d.auth.names import UserNames
from pop3d.auth.oauth import oauth_tokens
from pop3d.auth.users_file import UsersFile
from tests.issuer import key_set, token
from tests.pop3d.auth.test_oauth import by_signature
from tests.pop3d.test_guessing import LATER, REFUSED, connected, site

ALICE = "alice@example.org:{PLAIN}secret\n"


def plain(*words: str) -> str:
    return "AUTH PLAIN " + base64.b64encode("\0".join(words).encode()).decode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("name", ["alice@example.org", "alice@Example.ORG", "Alice@example.org", "ALICE", "alice"])
async def test_every_mechanism_finds_the_user(tmp_path: Path, name: str) -> None:
    async with site(tmp_path, ALICE, {"default_domain": "example.org"}) as server:
        async with connected(server) as client:
            assert (await client.login(name, "secret")).startswith("+OK")
        for authzid in ("", name, "alice@EXAMPLE.org", "Alice"):
            async with connected(server) as client:
                assert (await client.ask(plain(authzid, name, "secret"))).startswith("+OK")
        async with connected(server) as client:
            await client.ask(f"AUTH LOGIN {encoded(name)}")
            assert (await client.ask(encoded("secret"))).startswith("+OK")
        async with connected(server) as client:
            assert (await client.apop(name, "secret")).startswith("+OK")
        async with connected(server) as client:
            assert (await client.scram(name, "secret"))[-1].startswith("+OK")
        async with connected(server) as client:
            assert await client.ask(plain("bob", name, "secret")) == REFUSED
            assert await client.ask(plain("alice@example.net", name, "secret")) == REFUSED


async def test_a_name_counts_once_whatever_its_spelling(tmp_path: Path) -> None:
    limits = {"auth_penalty": 0.0, "auth_penalty_max": 0.0, "auth_failures_per_account": 3}
    async with (
        site(tmp_path, ALICE, {"default_domain": "example.org"}, limits) as server,
        connected(server) as one,
        connected(server) as two,
    ):
        for client, name in ((one, "alice"), (one, "Alice@Example.org"), (two, "alice@example.org")):
            assert await client.login(name, "wrong") == REFUSED
        assert await two.login("ALICE", "wrong") == LATER


async def test_two_users_of_one_name_are_let_in_by_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = "a@x.org:{PLAIN}one\na@X.org:{PLAIN}two\nbob:{PLAIN}bob\n"
    async with site(tmp_path, users, limits={"auth_penalty": 0.0, "auth_penalty_max": 0.0}) as server:
        for name in ("a@x.org", "a@X.org"):
            for password in ("one", "two"):
                async with connected(server) as client:
                    assert await client.login(name, password) == REFUSED
        async with connected(server) as client:
            assert (await client.login("bob", "bob")).startswith("+OK")
    told = [record.getMessage() for record in caplog.records if "one name" in record.getMessage()]
    assert told == [
        f"{tmp_path / 'users'}: 'a@x.org' and 'a@X.org' are one name, 'a@x.org', by `auth.usernames` and "
        "`default_domain`: none of them can log in"
    ]
    file = UsersFile(tmp_path / "users", names=UserNames())
    with pytest.raises(AuthUnavailable, match="are one name"):  # and mail for them waits
        await file.account("a@x.org")
    await file.close()


async def test_as_is_a_name_is_what_was_said(tmp_path: Path) -> None:
    limits = {"auth_penalty": 0.0, "auth_penalty_max": 0.0}
    async with site(tmp_path, ALICE, {"usernames": "as-is"}, limits) as server:
        for name in ("alice@Example.org", "Alice@example.org", "alice"):
            async with connected(server) as client:
                assert await client.login(name, "secret") == REFUSED
        async with connected(server) as client:
            assert (await client.login("alice@example.org", "secret")).startswith("+OK")


async def test_no_spelling_tells_by_its_salt_that_nobody_has_the_name(tmp_path: Path) -> None:
    async def salts(client, *names: str) -> set[str]:
        found = set()
        for name in names:
            first = await client.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={name},r=abc')}")
            found.add(base64.b64decode(first[2:]).decode().partition(",")[2])
            await client.ask("*")
        return found

    async with site(tmp_path, ALICE) as server, connected(server) as client:
        for user in ("alice", "nobody"):
            assert (
                len(await salts(client, f"{user}@example.org", f"{user}@Example.org", f"{user.upper()}@example.org"))
                == 1
            )


async def test_tokens_and_certificates(tmp_path: Path) -> None:
    import json

    (tmp_path / "users").write_text("alice@example.org:{PLAIN}x\n")
    (tmp_path / "keys.json").write_text(json.dumps(key_set()))
    names = UserNames()
    users = UsersFile(tmp_path / "users", names=names)
    tokens = oauth_tokens(by_signature(tmp_path / "keys.json"), users, names=names)
    alone = oauth_tokens(by_signature(tmp_path / "keys.json"), None, names=names)
    text = token(email="Alice@Example.ORG").encode()
    for said in ("alice@example.org", "Alice@example.org", ""):
        assert await tokens.authenticate(Token(said, "XOAUTH2", text)) == Account("alice@example.org")
        assert await alone.authenticate(Token(said, "XOAUTH2", text)) == Account("Alice@example.org")
    assert await tokens.authenticate(Token("bob@example.org", "XOAUTH2", text)) is None
    external = Verified("Alice@example.org", "alice@example.org", "EXTERNAL")
    assert await users.authenticate(external) == Account("alice@example.org")
    assert await users.authenticate(Password("alice@example.org", "bob@example.org", b"x")) is None
    for one in (tokens, alone):
        await one.close()
    await asyncio.sleep(0)
