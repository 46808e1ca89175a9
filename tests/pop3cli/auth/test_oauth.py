"""Tokens of OAuth 2, from the login to the mailbox. The issuer is a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from pop3cli.accounts.url import Settings, parse_account
from pop3cli.auth.oauth import (
    PRESETS,
    OAuthClient,
    Prompt,
    Tokens,
    browser_login,
    device_login,
    provider_of,
    renewed,
)
from pop3cli.auth.token_store import StoredTokens, keep
from pop3cli.errors import LoginRefused, MailError, ServerBroken, ServerDown, SettingFault, TimedOut
from pop3cli.net.https import check_url, request
from pop3core.answers import Committed, LoginAccepted, LoginRejected, TlsEstablished
from pop3core.events import Closed, CommitRequested, LoginRequested, NeedData, SendData
from pop3core.maildrop import Listing
from pop3core.sasl.base import Token
from pop3core.server import ServerConnection
from pop3core.settings import ServerConfig
from tests import issuer as keys_and_tokens
from tests.pop3cli.conftest import Cli, Serve
from tests.pop3cli.issuer import CLIENT, Issuer, provider_at
from tests.site import Daemon, Site

pytestmark = pytest.mark.usefixtures("home")


class Patience:
    """Lets seconds pass in no time, and counts them."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        assert len(self.waits) < 5000


PENDING = (400, {"error": "authorization_pending"})
SLOW_DOWN = (400, {"error": "slow_down"})


async def log_in(issuer: Issuer, patience: Patience, client: OAuthClient = CLIENT) -> tuple[Tokens, list[Prompt]]:
    shown: list[Prompt] = []
    provider = await provider_of(issuer.url)
    return await device_login(provider, client, shown.append, wait=patience), shown


# --- a code on another device ---


async def test_a_login_by_a_code(issuer: Issuer) -> None:
    issuer.answers = [PENDING, SLOW_DOWN, PENDING]
    patience = Patience()
    before = time.time()
    tokens, [prompt] = await log_in(issuer, patience, OAuthClient("our-id", "mail", "hush"))
    assert prompt == Prompt(f"{issuer.url}/activate", "ABCD-EFGH")
    assert patience.waits == [1, 1, 6, 6]  # RFC 8628 §3.5: slow_down adds five seconds
    assert (tokens.access, tokens.refresh) == ("access-1", "refresh-1")
    assert tokens.expires is not None
    assert before + 3500 < tokens.expires < time.time() + 3700
    assert issuer.forms("/device") == [{"client_id": "our-id", "scope": "mail", "client_secret": "hush"}]
    assert issuer.forms()[0] == {
        "client_id": "our-id",
        "client_secret": "hush",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "a device's code",
    }
    assert "access-1" not in repr(tokens)
    assert "hush" not in repr(OAuthClient("our-id", "mail", "hush"))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            (400, {"error": "access_denied", "error_description": "The user\nsaid no"}),
            "access_denied: The user; log in",
        ),
        ((400, {"error": "expired_token"}), "expired_token; log in anew: pop3cli account login NAME"),
        ((401, {}), "401; log in anew"),
        ((400, {"error": "\x1b[31minvalid_client"}), "␛.31minvalid_client"),
    ],
)
async def test_a_login_that_is_refused(issuer: Issuer, answer: tuple[int, dict[str, Any]], text: str) -> None:
    issuer.answers = [PENDING, answer]
    with pytest.raises(LoginRefused, match=text) as caught:
        await log_in(issuer, Patience())
    assert caught.value.status == 77
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", [{"expires_in": 20, "interval": 7}, {"expires_in": 1e9, "interval": 0}])
async def test_nobody_comes(issuer: Issuer, device: dict[str, Any]) -> None:
    issuer.device, issuer.answer = device, PENDING
    patience = Patience()
    with pytest.raises(TimedOut, match="nobody logged in within"):
        await log_in(issuer, patience)
    assert sum(patience.waits) <= min(device["expires_in"], 1800) + 7
    assert min(patience.waits) >= 1


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ({"device_code": None}, "its answer has no device_code"),
        ({"user_code": "a\x1bb"}, "its answer has no user_code"),
        ({"verification_uri": "http://example.org/"}, "the address to log in at is not https"),
        ({"verification_uri": "javascript:alert(1)"}, "the address to log in at is not"),
    ],
)
async def test_what_a_person_would_be_shown(issuer: Issuer, device: dict[str, Any], text: str) -> None:
    issuer.device = device
    with pytest.raises(ServerBroken, match=text):
        await log_in(issuer, Patience())


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": 7},
        {"access_token": "a\x01b"},
        {"access_token": "a", "refresh_token": ["x"]},
        {"access_token": ""},
    ],
)
async def test_tokens_that_are_none(issuer: Issuer, answer: dict[str, Any]) -> None:
    issuer.answer = (200, answer)
    with pytest.raises(ServerBroken, match=r"is no (refresh )?token"):
        await log_in(issuer, Patience())


# --- providers ---


async def test_presets_are_https() -> None:
    for name, provider in PRESETS.items():
        assert await provider_of(name) is provider
        for url in filter(None, (provider.token, provider.device, provider.authorization)):
            assert check_url(url).scheme == "https"


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ({"issuer": "https://other.example"}, "it calls itself otherwise"),
        ({"token_endpoint": "http://example.org/token"}, "its token_endpoint is not https"),
        ({"device_authorization_endpoint": "https://a@b/"}, "its device_authorization_endpoint is not a URL of a host"),
        ({"token_endpoint": None}, "its token_endpoint is"),
    ],
)
async def test_a_provider_that_describes_itself_wrongly(issuer: Issuer, description: dict[str, Any], text: str) -> None:
    issuer.description = description
    with pytest.raises(ServerBroken, match=text):
        await provider_of(issuer.url)


@pytest.mark.parametrize(
    "url", ["http://example.org", "ftp://example.org", "frob", "https://", "https://a b", "https://ä.de"]
)
async def test_providers_that_are_none(url: str) -> None:
    with pytest.raises(SettingFault, match="`oauth`"):
        await provider_of(url)


# --- a browser on this machine ---


async def follow(prompt: Prompt, **changes: str) -> tuple[int, dict[str, str]]:
    """What a browser does when a person has said yes: the status it is told, and what was asked for."""
    asked = {key: values[0] for key, values in parse_qs(urlsplit(prompt.url).query).items()}
    query = urlencode({"code": "the-code", "state": asked["state"], **changes})
    return (await request(f"{asked['redirect_uri']}?{query}")).status, asked


async def test_a_login_by_browser(issuer: Issuer) -> None:
    provider = await provider_of(issuer.url)
    shown: asyncio.Queue[Prompt] = asyncio.Queue()
    login = asyncio.create_task(browser_login(provider, CLIENT, shown.put_nowait))
    prompt = await shown.get()
    assert prompt.url.startswith(f"{issuer.url}/authorize?")
    # nobody else can answer in the provider's place
    assert (await follow(prompt, state="guessed"))[0] == 404
    assert not login.done()
    status, asked = await follow(prompt)
    assert status == 200
    assert (await login).access == "access-1"
    [form] = issuer.forms()
    assert (form["code"], form["redirect_uri"]) == ("the-code", asked["redirect_uri"])
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert asked["client_id"] == "our-id"


async def test_a_login_by_browser_that_is_refused(issuer: Issuer) -> None:
    provider = await provider_of(issuer.url)
    shown: asyncio.Queue[Prompt] = asyncio.Queue()
    login = asyncio.create_task(browser_login(provider, CLIENT, shown.put_nowait))
    asked = parse_qs(urlsplit((await shown.get()).url).query)
    answer = urlencode({"error": "access_denied", "state": asked["state"][0]})
    await request(f"{asked['redirect_uri'][0]}?{answer}")
    with pytest.raises(LoginRefused, match="access_denied"):
        await login
    with pytest.raises(TimedOut, match="nobody logged in within"):
        await browser_login(provider, CLIENT, lambda prompt: None, seconds=0.05)


# --- renewing ---


async def test_a_refresh_token_stays_unless_there_is_a_new_one(issuer: Issuer) -> None:
    old = Tokens("old", "old-refresh", 0)
    assert (await renewed(provider_at(issuer), CLIENT, old)).refresh == "refresh-1"
    issuer.answer = (200, issuer.tokens("access-2", ""))
    assert (await renewed(provider_at(issuer), CLIENT, old)).refresh == "old-refresh"
    assert issuer.forms()[0] == {
        "client_id": "our-id", "grant_type": "refresh_token", "refresh_token": "old-refresh"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "fault"),
    [((400, {"error": "invalid_grant"}), LoginRefused), ((503, {}), ServerDown)],
)
async def test_a_renewal_that_fails(issuer: Issuer, answer: tuple[int, dict[str, Any]], fault: type[MailError]) -> None:
    issuer.answer = answer
    with pytest.raises(fault):
        await renewed(provider_at(issuer), CLIENT, Tokens("old", "old-refresh", 0))
    with pytest.raises(LoginRefused, match="there is none to renew it"):
        await renewed(provider_at(issuer), CLIENT, Tokens("old", "", 0))


# --- the command line ---


@dataclass
class TokenMailbox:
    """An empty mailbox that opens to one token."""

    token: bytes
    mechanisms: tuple[str, ...] = ("PLAIN", "XOAUTH2", "OAUTHBEARER")
    seen: list[Token] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conn = ServerConnection(ServerConfig(mechanisms=self.mechanisms))
        conn.answer(TlsEstablished())
        while True:
            match conn.next_event():
                case NeedData():
                    conn.receive_data(await reader.read(65536))
                case SendData(data):
                    writer.write(data)
                    await writer.drain()
                case LoginRequested(Token() as token):
                    self.seen.append(token)
                    good = token.token == self.token
                    conn.answer(LoginAccepted(Listing([], [])) if good else LoginRejected(None, "a bad token"))
                case CommitRequested():
                    conn.answer(Committed())
                case Closed():
                    return
                case other:
                    raise AssertionError(other)


@pytest.mark.parametrize(
    ("mechanisms", "taken"),
    [(("PLAIN", "XOAUTH2", "OAUTHBEARER"), "OAUTHBEARER"), (("PLAIN", "XOAUTH2"), "XOAUTH2")],
)
def test_from_the_login_to_the_mailbox(
    pop3cli: Cli, serve: Serve, issuer: Issuer, mechanisms: tuple[str, ...], taken: str, tmp_path: Path
) -> None:
    mailbox = TokenMailbox(b"access-1", mechanisms)
    server = serve(mailbox)
    add = ("account", "add", "work", server.account(), "--cacert", server.certificate)
    ran = pop3cli(*add, "--oauth", issuer.url, "--client-id", "our-id", "--oauth-scope", "mail")
    assert (ran.status, "now log in: pop3cli account login work" in ran.err) == (0, True)
    ran = pop3cli("stat", "work")
    assert (ran.status, "nobody has logged in yet; pop3cli account login work" in ran.err) == (77, True)
    ran = pop3cli("account", "login", "work")
    assert (ran.status, ran.out) == (0, b"logged in: work\n")
    assert ran.err.splitlines()[:2] == [f"Open {issuer.url}/activate", "and enter the code ABCD-EFGH"]
    assert issuer.forms("/device")[0]["scope"] == "mail"
    assert pop3cli("stat", "work").status == 0
    assert (mailbox.seen[0].username, mailbox.seen[0].mechanism) == ("alice", taken)
    assert "access-1" not in (tmp_path / "config" / "pop3cli" / "accounts.toml").read_text()
    report = json.loads(pop3cli("check", "work", "--json").out)
    assert report["login"]["mechanism"] == taken
    # a token that is refused is a login that is refused
    mailbox.token = b"another"
    ran = pop3cli("stat", "work")
    assert (ran.status, "access-1" in ran.err) == (77, False)
    assert pop3cli("account", "remove", "work").status == 0
    assert list((tmp_path / "state" / "pop3cli" / "tokens").iterdir()) == []


def test_a_server_that_takes_no_tokens(pop3cli: Cli, serve: Serve, issuer: Issuer) -> None:
    server = serve(TokenMailbox(b"", ("PLAIN",)))
    settings = Settings(oauth=issuer.url, title="work")
    pop3cli(
        "account", "add", "work", server.account(), "--cacert", server.certificate,
        "--oauth", issuer.url, "--client-id", "x",
    )  # fmt: skip
    account = parse_account(server.account())
    keep("work", settings, StoredTokens(account.url, provider_at(issuer), CLIENT, Tokens("good", "", None)))
    ran = pop3cli("stat", "work")
    assert (ran.status, "offers PLAIN: it takes no tokens of OAuth 2" in ran.err) == (77, True)


def test_a_token_from_elsewhere(pop3cli: Cli, serve: Serve) -> None:
    mailbox = TokenMailbox(b"from-elsewhere")
    server = serve(mailbox)
    more = ("--cacert", server.certificate, "--password-command", "echo from-elsewhere")
    assert pop3cli("stat", server.account(), "--auth", "xoauth2", *more).status == 0
    assert mailbox.seen[0].mechanism == "XOAUTH2"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--oauth", "microsoft"], "give its --client-id"),
        (["--client-id", "x"], "are for --oauth"),
        (["--oauth", "http://example.org", "--client-id", "x"], "not https; microsoft, google or https://"),
        (["--oauth", "google", "--client-id", "x", "--password-command", "y"], "does not go with --password-command"),
    ],
)
def test_what_cannot_be_added(pop3cli: Cli, arguments: list[str], text: str) -> None:
    ran = pop3cli("account", "add", "work", "pop3s://a@b", *arguments)
    assert (ran.status, text in ran.err) == (2, True)


def test_logins_that_are_none(pop3cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    pop3cli("account", "add", "work", "pop3s://a@b")
    ran = pop3cli("account", "login", "work")
    assert (ran.status, "its login is not by OAuth" in ran.err) == (2, True)
    pop3cli("account", "add", "gmail", "pop3s://a@pop.gmail.com", "--oauth", "google", "--client-id", "x")
    ran = pop3cli("account", "login", "gmail")
    assert (ran.status, "set POP3CLI_CLIENT_SECRET" in ran.err) == (2, True)


@pytest.mark.parametrize("mechanisms", ['["oauthbearer"]', '["xoauth2"]'])
def test_pop3d_takes_the_tokens_and_refuses_others(
    pop3cli: Cli, issuer: Issuer, site: Site, mechanisms: str, tmp_path: Path
) -> None:
    """The daemon itself, which checks a token's signature: from the login by a code to a renewal and a refusal."""
    keys = keys_and_tokens.Issuer()
    site.maildir("alice", {"new/1.host": b"Subject: hello\n\nhello\n"})
    oauth = f'issuer = "{keys_and_tokens.NAME}"\naudience = "{keys_and_tokens.AUDIENCE}"\njwks = "{keys.url}/keys"'
    settings = f"mechanisms = {mechanisms}\n[auth.oauth]\n{oauth}\n[limits]\nauth_penalty = 0\n"
    site.config.write_text(site.config.read_text().replace('users = "users"', settings))
    daemon = Daemon(site)
    try:
        first, second, late = keys_and_tokens.token(), keys_and_tokens.token(jti="2"), keys_and_tokens.token(exp=1)
        issuer.answer = (200, issuer.tokens(first, "refresh-1", expires_in=1))
        account = f"pop3s://alice@localhost:{site.port}"
        add = ("account", "add", "work", account, "--cacert", site.certificate)
        assert pop3cli(*add, "--oauth", issuer.url, "--client-id", "our-id").status == 0
        assert pop3cli("account", "login", "work").status == 0
        # a second's token is renewed before it is used
        issuer.answer = (200, issuer.tokens(second, "refresh-2", expires_in=1))
        ran = pop3cli("list", "work", "--json")
        assert (ran.status, json.loads(ran.out)[0]["subject"]) == (0, "hello")
        assert issuer.forms()[-1]["refresh_token"] == "refresh-1"
        # what pop3d refuses is told, and the token is not
        issuer.answer = (200, issuer.tokens(late, "refresh-3", expires_in=3600))
        ran = pop3cli("stat", "work")
        assert ran.status == 77
        assert ran.err.count("\n") == 1
        assert not any(secret in ran.err for secret in (late, *late.split(".")))
    finally:
        daemon.end()
        keys.close()
    assert "user=alice" in daemon.log
    assert "expired_token" in daemon.log
    kept = json.loads((tmp_path / "state" / "pop3cli" / "tokens" / "work.json").read_text())
    assert "refresh-3" in json.dumps(kept)
