"""LOGIN-DELAY and EXPIRE: what is announced is what is done, by every mechanism, for each user."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pop3d.assembly import assemble
from pop3d.auth.user_limits import UserLimits
from pop3d.config import Config
from pop3d.expiry import SteadyClock
from pop3d.policy import Policy
from pop3d.server import Server
from tests.maildirs import files, make_maildir
from tests.pop3d.test_guessing import ALL, REFUSED, Client, connected

TOO_SOON = "-ERR [LOGIN-DELAY] this login comes too soon after the last one"
DAY = 86_400


@asynccontextmanager
async def site(folder: Path, users: str, *, days_on: float = 0, **tables: dict[str, object]) -> AsyncIterator[Server]:
    """A server with Maildirs, whose clock is ``days_on`` days ahead."""
    (folder / "users").write_text(users)
    config = Config.model_validate(
        {
            "hostname": "localhost",
            "state": folder / "state",
            "listen": [{"host": "127.0.0.1", "port": 0, "tls": "none"}],
            "auth": {"users": folder / "users", "mechanisms": ALL},
            "store": {"path": f"{folder}/mail/{{user}}", **tables.get("store", {})},
            "limits": {"auth_penalty": 0, "auth_penalty_max": 0, **tables.get("limits", {})},
        }
    )
    server = assemble(config)
    server._clock = SteadyClock(lambda: time.time() + days_on * DAY)
    await server.start()
    try:
        yield server
    finally:
        await server.drain(1)


async def capabilities(client: Client) -> list[str]:
    """Those that are about a policy."""
    assert (await client.ask("CAPA")).startswith("+OK")
    lines = []
    while (line := await client.line()) != ".":
        lines.append(line)
    return [line for line in lines if line.startswith(("EXPIRE", "LOGIN-DELAY"))]


async def session(server: Server, user: str, *lines: str) -> list[str]:
    """First lines of the replies behind a login by USER and PASS; of RETR the rest is read."""
    async with connected(server) as client:
        replies = [await client.login(user, "secret")]
        for line in lines:
            replies.append(await client.ask(line))
            if line.startswith(("RETR", "TOP")):
                while await client.line() != ".":
                    pass
        return replies


# --- what is announced ---


@pytest.mark.parametrize(
    ("site_says", "own", "announced"),
    [
        ((0, "never"), [], ("", "NEVER")),
        ((60, 30), [], ("60", "30")),
        ((60, 30), [UserLimits()], ("60", "30")),
        ((60, 30), [UserLimits(login_delay=60, expire=30)], ("60", "30")),
        ((60, 30), [UserLimits(login_delay=5, expire=math.inf)], ("60 USER", "30 USER")),
        ((60, 30), [UserLimits(login_delay=900), UserLimits(expire=7)], ("900 USER", "7 USER")),
        ((0, "never"), [UserLimits(login_delay=900), UserLimits(expire=0)], ("900 USER", "0 USER")),
        ((0, "never"), [UserLimits(login_delay=0, expire=math.inf)], ("", "NEVER")),
    ],
)
def test_before_the_login_what_holds_for_every_user(site_says, own, announced) -> None:
    config = Config.model_validate(
        {"listen": [{"port": 1}], "limits": {"login_delay": site_says[0]}, "store": {"expire": site_says[1]},
         "tls": {"certificate": "c", "private_key": "k"}}
    )  # fmt: skip
    policy = Policy.of(config, own)
    assert (policy.announced_delay, policy.announced_expire) == announced


def test_nobodys_own_goes_beyond_what_was_announced() -> None:
    policy = Policy(60, 30, delay_max=60, expire_min=30, delays_differ=True, expires_differ=True)
    strict, mild = UserLimits(login_delay=900, expire=7), UserLimits(login_delay=5, expire=math.inf)
    assert (policy.own_delay(strict), policy.own_expire(strict)) == ("60", "30")
    assert (policy.own_delay(mild), policy.own_expire(mild)) == ("5", "NEVER")
    assert (policy.delay_of(UserLimits()), policy.expire_of(UserLimits())) == (60, 30)
    assert (Policy().announced_expire, Policy().own_expire(strict), Policy().expire_of(strict)) == ("", "", None)


async def test_each_user_is_told_the_own_behind_the_login(tmp_path: Path) -> None:
    users = (
        "alice:{PLAIN}secret\nbob:{PLAIN}secret::::::login_delay=0 expire=never\ncarol:{PLAIN}secret::::::expire=7\n"
    )
    limits, store = {"login_delay": 60}, {"expire": 30}
    async with site(tmp_path, users, limits=limits, store=store) as server:
        for user, told in (
            ("alice", ["EXPIRE 30", "LOGIN-DELAY 60"]),
            ("bob", ["EXPIRE NEVER", "LOGIN-DELAY 0"]),
            ("carol", ["EXPIRE 7", "LOGIN-DELAY 60"]),
        ):
            async with connected(server) as client:
                assert await capabilities(client) == ["EXPIRE 7 USER", "LOGIN-DELAY 60 USER"]
                assert (await client.login(user, "secret")).startswith("+OK")
                assert await capabilities(client) == told
        (tmp_path / "users").write_text("alice:{PLAIN}secret\n")
        await server.reload_users()
        async with connected(server) as client:
            assert await capabilities(client) == ["EXPIRE 30", "LOGIN-DELAY 60"]


async def test_without_a_rule_mail_is_kept_for_ever_and_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, "alice:{PLAIN}secret\n") as server, connected(server) as client:
        assert await capabilities(client) == ["EXPIRE NEVER"]


# --- LOGIN-DELAY ---


@pytest.mark.parametrize("mechanism", ["PASS", "APOP", "SCRAM"])
async def test_a_login_too_soon_is_refused_behind_the_right_password_only(tmp_path: Path, mechanism: str) -> None:
    async def login(password: str) -> str:
        async with connected(server) as client:
            match mechanism:
                case "PASS":
                    return await client.login("alice", password)
                case "APOP":
                    return await client.apop("alice", password)
                case _:
                    return (await client.scram("alice", password))[-1]

    limits = {"login_delay": 3600, "auth_failures_per_account": 3}
    async with site(tmp_path, "alice:{PLAIN}secret\nbob:{PLAIN}secret\n", limits=limits) as server:
        assert (await login("secret")).startswith("+OK")
        for _ in range(5):  # no failed logins, or the account would be at its limit
            assert await login("secret") == TOO_SOON
        assert await login("wrong") == REFUSED
        assert (await session(server, "bob"))[0].startswith("+OK")


async def test_a_login_that_found_the_mailbox_in_use_was_none(tmp_path: Path) -> None:
    make_maildir(tmp_path / "mail/alice", {"new/1.host": b"1\n"})
    async with (
        site(tmp_path, "alice:{PLAIN}secret::::::login_delay=1\n") as server,
        connected(server) as first,
    ):
        assert (await first.login("alice", "secret")).startswith("+OK")
        await asyncio.sleep(1.1)
        assert (await session(server, "alice"))[0].startswith("-ERR [IN-USE]")
        assert (await first.ask("QUIT")).startswith("+OK")
        assert (await session(server, "alice"))[0].startswith("+OK")
        assert (await session(server, "alice"))[0] == TOO_SOON


# --- EXPIRE ---


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """Three messages that came just now, and one that comes in a month."""
    names = {f"new/{number}.host": f"{number}\n".encode() for number in (1, 2, 3)}
    return make_maildir(tmp_path / "mail/alice", {**names, f"new/{int(time.time()) + 40 * DAY}.host": b"4\n"})


async def test_messages_go_at_quit_when_they_are_old(tmp_path: Path, mail: Path, caplog) -> None:
    users = "alice:{PLAIN}secret\n"
    for days_on, left in ((29.9, 4), (30.1, 1)):
        async with site(tmp_path, users, days_on=days_on, store={"expire": 30}) as server:
            assert (await session(server, "alice"))[0] == "+OK 4 messages (12 octets)"
            assert len(files(mail)) == 4  # no QUIT, so no UPDATE state
            with caplog.at_level("INFO", "pop3d"):
                assert await session(server, "alice", "DELE 1", "RSET", "QUIT") == [
                    "+OK 4 messages (12 octets)",
                    "+OK marked as deleted",
                    "+OK 4 messages (12 octets)",
                    "+OK bye",
                ]
            assert len(files(mail)) == left
    assert caplog.text.count("expired=3") == 1


async def test_what_expires_is_kept_where_deletions_are(tmp_path: Path, mail: Path) -> None:
    store = {"expire": 1, "deleted": f"{tmp_path}/deleted/{{user}}"}
    async with site(tmp_path, "alice:{PLAIN}secret\n", days_on=2, store=store) as server:
        await session(server, "alice", "DELE 1", "QUIT")
    assert len(files(mail)) == 1
    assert len(files(tmp_path / "deleted/alice")) == 3


async def test_a_users_own_rule_and_one_who_has_none(tmp_path: Path, mail: Path) -> None:
    make_maildir(tmp_path / "mail/bob", {"new/1.host": b"1\n"})
    users = "alice:{PLAIN}secret::::::expire=never\nbob:{PLAIN}secret::::::expire=5\n"
    async with site(tmp_path, users, days_on=10, store={"expire": 7}) as server:
        for user, left in (("alice", 4), ("bob", 0)):
            assert (await session(server, user, "QUIT"))[-1] == "+OK bye"
            assert len(files(tmp_path / "mail" / user)) == left


async def test_expire_0_takes_what_was_retrieved_whole(tmp_path: Path, mail: Path) -> None:
    async with site(tmp_path, "alice:{PLAIN}secret\n", store={"expire": 0, "mark_seen": True}) as server:
        await session(server, "alice", "RETR 1", "TOP 2 0")
        assert len(files(mail)) == 4
        await session(server, "alice", "RETR 1", "TOP 2 0", "DELE 3", "RSET", "QUIT")
        assert len(files(mail)) == 3
        async with connected(server) as client:
            assert "EXPIRE 0" in await capabilities(client)


async def test_what_cannot_be_removed(tmp_path: Path, mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pop3d.stores import RemovalFailed
    from pop3d.stores.maildir.store import MaildirMaildrop

    async def remove(self, numbers) -> None:
        assert list(numbers) == [1, 3, 4]  # the second one comes in a month
        raise RemovalFailed(left, "the disk")

    monkeypatch.setattr(MaildirMaildrop, "remove", remove)
    async with site(tmp_path, "alice:{PLAIN}secret\n", days_on=31, store={"expire": 30}) as server:
        left = [1, 3]
        assert (await session(server, "alice", "DELE 4", "QUIT"))[-1] == "+OK bye"
        left = [1, 4]
        assert (await session(server, "alice", "DELE 4", "QUIT"))[-1].startswith("-ERR [SYS/TEMP]")


def test_what_cannot_be_configured() -> None:
    from pydantic import ValidationError

    for store in ({"expire": -1}, {"expire": "soon"}, {"expire": 1.5}, {"expire": 30, "backend": "memory"}):
        with pytest.raises(ValidationError, match="expire"):
            Config.model_validate(json.loads(json.dumps({"listen": [{"tls": "none", "host": "::1"}], "store": store})))


# --- clear text ---


async def test_clear_text_is_refused_for_single_users(tmp_path: Path) -> None:
    users = "alice:{PLAIN}secret::::::require_tls\nbob:{PLAIN}secret\n"
    async with site(tmp_path, users) as server:
        assert (await session(server, "alice"))[0] == REFUSED
        assert (await session(server, "bob"))[0].startswith("+OK")
        async with connected(server) as client:
            assert (await client.scram("alice", "secret"))[-1] == REFUSED
