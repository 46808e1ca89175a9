"""Users who may not log in, or not from here: refused as for a wrong password, by every mechanism and backend."""

import asyncio
import base64
import logging
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pop3core.answers import LoginRejected
from pop3core.events import Credential, Password, Token, Verified
from pop3d.abuse.login_throttle import LoginThrottle
from pop3d.auth import Account
from pop3d.auth.names import AS_IS
from pop3d.auth.passwords import hashed
from pop3d.config import Limits
from pop3d.logins import Logins
from tests.pop3d.test_guessing import REFUSED, connected, site

USERS = """\
alice:{PLAIN}secret
left:{PLAIN}secret::::::nologin
inhouse:{PLAIN}secret::::::allow_nets=192.0.2.0/24,2001:db8::/32
near:{PLAIN}secret::::::allow_nets=::ffff:127.0.0.0/104
elsewhere:{PLAIN}secret::::::proxy=y host=10.0.0.1
"""
WHY = {
    "left": "nologin",
    "inhouse": '"not from this network"',
    "elsewhere": '"proxy: the mailbox is on another server"',
}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("pop3d"), "propagate", True)
    return caplog


@pytest.mark.parametrize("mechanism", ["PASS", "APOP", "SCRAM", "LOGIN", "PLAIN"])
@pytest.mark.parametrize("user", WHY)
async def test_a_good_proof_is_refused_as_a_wrong_one_is(
    tmp_path: Path, told: pytest.LogCaptureFixture, user: str, mechanism: str
) -> None:
    async with site(tmp_path, USERS) as server, connected(server) as client:
        match mechanism:
            case "PASS":
                answer = await client.login(user, "secret")
            case "APOP":
                answer = await client.apop(user, "secret")
            case "SCRAM":
                answers = await client.scram(user, "secret")
                assert len(answers) == 1  # the server has not proved itself: it did not tell that the proof was good
                answer = answers[0]
            case "LOGIN":
                await client.ask("AUTH LOGIN")
                await client.ask(base64.b64encode(user.encode()).decode())
                answer = await client.ask(base64.b64encode(b"secret").decode())
            case _:
                answer = await client.ask("AUTH PLAIN " + base64.b64encode(f"\0{user}\0secret".encode()).decode())
        assert answer == REFUSED
        assert f"authentication failed ip=127.0.0.1 user={user} reason={WHY[user]}" in told.messages


@pytest.mark.parametrize("user", ["alice", "near"])
async def test_others_log_in(tmp_path: Path, user: str) -> None:
    async with site(tmp_path, USERS) as server, connected(server) as client:
        assert (await client.login(user, "secret")).startswith("+OK")


async def test_a_wrong_password_tells_nothing_of_why(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    async with site(tmp_path, USERS) as server, connected(server) as client:
        assert await client.login("left", "wrong") == REFUSED
        assert "authentication failed ip=127.0.0.1 user=left" in told.messages


class OneUser:
    """An authenticator whose every credential is one account's."""

    def __init__(self, account: Account) -> None:
        self.account = account

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        return self.account

    async def reload(self) -> None: ...

    async def close(self) -> None: ...


async def logged_in(account: Account, credential: Credential, peer: str) -> Account | LoginRejected:
    limits = Limits(auth_penalty=0)
    channel: Any = SimpleNamespace(peer=peer, wait_eof=asyncio.Event().wait)
    logins = Logins(OneUser(account), LoginThrottle(limits), limits, channel, AS_IS)
    return await logins.account(credential)


HERE = Account("alice", networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
CREDENTIALS = [
    Password("alice", "", b"secret"),
    Verified("alice", "", "SCRAM-SHA-256"),
    Verified("alice", "", "APOP"),
    Verified("alice", "", "EXTERNAL"),
    Token("alice", "OAUTHBEARER", b"token"),
]


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda one: getattr(one, "mechanism", "PASS"))
async def test_networks_hold_for_whatever_proves_a_user(credential: Credential) -> None:
    for peer in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "2001:db8::1%eth0"):
        assert await logged_in(HERE, credential, peer) == HERE, peer
    for peer in ("198.51.100.7", "::ffff:198.51.100.7", "2001:db9::1", "", "unix", "192.0.2.7.example.org"):
        refused = cast("LoginRejected", await logged_in(HERE, credential, peer))
        assert (refused.code, refused.text) == (None, "wrong user name or password"), peer


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda one: getattr(one, "mechanism", "PASS"))
async def test_who_may_not_log_in_at_all(credential: Credential) -> None:
    left = Account("alice", forbidden="nologin")
    assert isinstance(await logged_in(left, credential, "192.0.2.7"), LoginRejected)


async def test_a_locked_user_costs_what_an_unknown_one_costs(tmp_path: Path) -> None:
    """As many failures as wrong passwords would be: limits of the account are reached all the same."""
    users = f"left:{hashed('secret')}::::::nologin\n"
    async with (
        site(tmp_path, users, limits={"auth_failures_per_account": 1}) as server,
        connected(server) as client,
    ):
        assert await client.login("left", "secret") == REFUSED
        assert "too many failed logins" in await client.login("left", "secret")
