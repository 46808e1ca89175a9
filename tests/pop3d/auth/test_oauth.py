"""OAuth 2 tokens: which are believed, which are not, and what happens when nobody answers."""

import asyncio
import contextlib
import hmac
import json
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from pop3cli.errors import LoginRefused, TryLater
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3core.events import Password, Token, Verified
from pop3core.sasl import oauth, plain
from pop3d.assembly import assemble
from pop3d.auth import Account, AuthError, AuthUnavailable
from pop3d.auth.oauth import ALGORITHMS, OAuthTokens, oauth_tokens
from pop3d.auth.users_file import UsersFile
from pop3d.config import Config, OAuth
from pop3d.extras import install_line
from pop3d.net.certificates import create_self_signed
from tests.issuer import AUDIENCE, CLIENT, KEYS, NAME, SECRET, Issuer, base64url, claims, key_set, part, signed, token
from tests.maildirs import make_maildir
from tests.pki import Authority
from tests.site import Daemon, Site


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.close()


@pytest.fixture
def users(tmp_path: Path) -> UsersFile:
    (tmp_path / "users").write_text("alice:{PLAIN}s e c::::/home/alice\nbob:{PLAIN}b\n")
    return UsersFile(tmp_path / "users")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def by_signature(jwks: object, **others: Any) -> OAuth:
    return OAuth.model_validate({"issuer": NAME, "audience": AUDIENCE, "jwks": str(jwks), **others})


def by_introspection(folder: Path, server: Issuer, **others: Any) -> OAuth:
    (folder / "secret").write_text(f"{SECRET}\n")
    return OAuth.model_validate(
        {
            "introspection": f"{server.url}/introspect",
            "client_id": CLIENT,
            "client_secret_file": folder / "secret",
            "audience": AUDIENCE,
            **others,
        }
    )


def with_file(folder: Path, users: UsersFile | None, keys: object = None, **others: Any) -> OAuthTokens:
    (folder / "keys.json").write_text(json.dumps(keys or key_set()))
    return oauth_tokens(by_signature(folder / "keys.json", **others), users)


async def check(tokens: OAuthTokens, text: str, username: str = "alice") -> Account | None:
    return await tokens.authenticate(Token(username, "OAUTHBEARER", text.encode()))


# --- by signature ---


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_a_good_token(tmp_path: Path, users: UsersFile, alg: str) -> None:
    tokens = with_file(tmp_path, users)
    for name in ("alice", ""):
        assert await check(tokens, token(alg), name) == Account("alice", "/home/alice")
    await tokens.close()


async def test_one_key_without_a_name_is_the_one(tmp_path: Path, users: UsersFile) -> None:
    key = KEYS["ES256"]
    bare = {name: value for name, value in key.as_dict(private=False).items() if name != "kid"}
    tokens = with_file(tmp_path, users, {"keys": [bare]})
    assert await check(tokens, signed({"alg": "ES256"}, claims(), key)) is not None
    assert await check(with_file(tmp_path, users), signed({"alg": "ES256"}, claims(), key)) is None  # which of many?


WRONG: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time.time()) - 3600},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "never"},
    "not yet valid": {"nbf": int(time.time()) + 3600},
    "made in the future": {"iat": int(time.time()) + 3600},
    "another issuer": {"iss": "https://other.example.org"},
    "no issuer": {"iss": None},
    "another audience": {"aud": ["other"]},
    "no audience": {"aud": None},
    "an audience of numbers": {"aud": [1]},
    "another scope": {"scope": "openid mailbox"},
    "no scope": {"scope": None},
    "a scope that is no text": {"scope": {"mail": 1}},
    "another user": {"email": "bob"},
    "an unknown user": {"email": "carol"},
    "no user": {"email": None},
    "a user that is no text": {"email": ["alice"]},
    "an address not verified": {"email_verified": False},
    "an address of which nobody says": {"email_verified": None},
}


@pytest.mark.parametrize("others", WRONG.values(), ids=WRONG)
async def test_claims_that_are_wrong(tmp_path: Path, users: UsersFile, others: dict[str, Any]) -> None:
    tokens = with_file(tmp_path, users, scope="mail")
    assert await check(tokens, token()) is not None
    assert await check(tokens, token(**others)) is None
    if "email" in others:
        assert await check(tokens, token(**others), "carol") is None


async def test_claims_as_others_call_them(tmp_path: Path, users: UsersFile) -> None:
    tokens = with_file(tmp_path, users, scope="mail", user_claim="preferred_username")
    others = {"email": None, "preferred_username": "bob", "scope": None, "aud": AUDIENCE}
    for scp in (["mail", "x"], "x mail"):
        assert await check(tokens, token(**others, scp=scp), "bob") == Account("bob")


async def test_a_token_is_good_some_seconds_beyond_its_times(tmp_path: Path, users: UsersFile) -> None:
    late = token(exp=int(time.time()) - 100)
    assert await check(with_file(tmp_path, users, leeway_seconds=200), late) is not None
    assert await check(with_file(tmp_path, users, leeway_seconds=0), late) is None


def hmac_signed(header: object, secret: bytes) -> str:
    text = f"{part(header)}.{part(claims())}"
    return f"{text}.{base64url(hmac.digest(secret, text.encode(), 'sha256'))}"


def hostile() -> dict[str, str]:
    """Tokens that are not of the issuer."""
    rsa, ec = KEYS["RS256"], KEYS["ES256"]
    assert isinstance(rsa, RSAKey)
    public = rsa.as_pem(private=False)
    head, body, proof = token("RS256").split(".")
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    heads: dict[str, object] = {
        "a list": ["alg"],
        "a number": 1,
        "nothing": None,
        "without an algorithm": {"kid": "rsa"},
        "with a list of algorithms": {"alg": ["RS256"], "kid": "rsa"},
        "with a list of names": {"alg": "RS256", "kid": ["rsa"]},
        "with a number that is critical": {"alg": "RS256", "kid": "rsa", "crit": 1},
    }
    return {
        "none": f"{part({'alg': 'none'})}.{body}.",
        "none, with a key's name": f"{part({'alg': 'none', 'kid': 'rsa'})}.{body}.",
        "HMAC with the public key": hmac_signed({"alg": "HS256", "kid": "rsa"}, public),
        "HMAC with the public key, said to be RSA": hmac_signed({"alg": "RS256", "kid": "rsa"}, public),
        "HMAC with a shared key": hmac_signed({"alg": "HS256", "kid": "oct"}, b"a shared secret"),
        "another body": f"{head}.{part(claims(sub='x'))}.{proof}",
        "no signature": f"{head}.{body}.",
        "another's key of the same name": token(key=stranger),
        "a key that it brings": token(key=stranger, header={"jwk": stranger.as_dict(private=False), "kid": "x"}),
        "a key that it points to": token(key=stranger, header={"jku": "http://127.0.0.1/keys", "kid": "x"}),
        "an algorithm that is not ours": token("RS512", key=rsa),
        "another algorithm than the key's": token("RS256", key=KEYS["PS256"]),
        "a key of another kind": token(header={"kid": "rsa"}),
        "something critical": token(header={"crit": ["exp"], "exp": 1}),
        "no claims": signed({"alg": "ES256", "kid": "ec"}, [1], ec),
        "no token": "abc",
        "five parts": "a.b.c.d.e",
        "dots": "..",
        "octets": f"____.{body}.{proof}",
        "a header that nests": base64url(b"[" * 2999) + f".{body}.{proof}",
        "a header without an end": base64url(b"{" * 6000) + f".{body}.{proof}",
        **{f"a header that is {name}": f"{part(value)}.{body}.{proof}" for name, value in heads.items()},
    }


HOSTILE = hostile()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_signatures_that_are_wrong(tmp_path: Path, users: UsersFile, text: str) -> None:
    shared = OctKey.import_key("a shared secret", {"kid": "oct"}).as_dict()
    tokens = with_file(tmp_path, users, {"keys": [*key_set()["keys"], shared]})
    assert await check(tokens, text) is None


async def test_other_credentials_are_the_users_files(tmp_path: Path, users: UsersFile) -> None:
    tokens = with_file(tmp_path, users)
    assert await tokens.authenticate(Password("alice", "", b"s e c")) is not None
    assert await tokens.authenticate(Password("alice", "", b"wrong")) is None
    assert await tokens.authenticate(Verified("alice", "", "SCRAM-SHA-256")) is not None
    assert await tokens.account("alice") == Account("alice", "/home/alice")
    assert await tokens.account("nobody") is None
    with pytest.raises(AuthUnavailable, match="the issuer of tokens cannot say"):
        await with_file(tmp_path, None).account("alice")


async def test_without_a_users_file_every_user_of_the_issuer_is_one(tmp_path: Path) -> None:
    tokens = with_file(tmp_path, None)
    assert await check(tokens, token(email="dave@example.org"), "dave@example.org") == Account("dave@example.org")
    for name in ("", "../alice", ".", "a/b", "a b", "a:b", "x" * 300):
        assert await check(tokens, token(email=name), name) is None
    assert await tokens.authenticate(Password("dave@example.org", "", b"")) is None
    assert await tokens.authenticate(Verified("dave@example.org", "", "EXTERNAL")) is None
    await tokens.reload()
    await tokens.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", 'an object with "keys"'),
        ('{"keys": []}', "no key for RS256, PS256, ES256, EdDSA"),
        ('{"keys": [1, {}, {"kty": "EC"}, {"kty": "oct", "k": "eA"}]}', "no key for"),
    ],
)
async def test_keys_that_are_not_usable(tmp_path: Path, users: UsersFile, text: str, words: str) -> None:
    tokens = with_file(tmp_path, users)
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(AuthError, match=f"keys.json.*{words}"):
        await tokens.reload()
    assert await check(tokens, token()) is not None
    with pytest.raises(AuthError, match=words):
        oauth_tokens(by_signature(tmp_path / "keys.json"), users)
    with pytest.raises(AuthError, match="nowhere: No such file"):
        oauth_tokens(by_signature(tmp_path / "nowhere"), users)


async def test_a_fault_in_one_source_does_not_keep_the_other_from_what_is_new(tmp_path: Path, users: UsersFile) -> None:
    tokens = with_file(tmp_path, users)
    (tmp_path / "keys.json").write_text("{")
    (tmp_path / "users").write_text("carol:{PLAIN}c\n")
    with pytest.raises(AuthError, match="not JSON"):
        await tokens.reload()
    assert await check(tokens, token(email="carol"), "carol") is not None
    (tmp_path / "keys.json").write_text(json.dumps(key_set(KEYS["RS256"])))
    (tmp_path / "users").write_text("carol")
    with pytest.raises(AuthError, match="users"):
        await tokens.reload()
    assert await check(tokens, token("ES256", email="carol"), "carol") is None  # its key was withdrawn


async def test_keys_that_are_not_believed(tmp_path: Path, users: UsersFile, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(match="2048"):
        small = RSAKey.generate_key(1024, {"kid": "small"})
        weak = token("RS256", key=small)
    sealing = ECKey.generate_key("P-256", {"kid": "sealing", "use": "enc"})
    keys = {"keys": [small.as_dict(private=False), sealing.as_dict(private=False), *key_set()["keys"]]}
    tokens = with_file(tmp_path, users, keys)
    assert "less than 2048 bits" in caplog.text
    assert await check(tokens, weak) is None
    assert await check(tokens, token()) is not None


# --- keys from a server ---


async def test_keys_are_asked_for_once_and_again_when_old(users: UsersFile, issuer: Issuer) -> None:
    clock = Clock()
    tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), users, clock=clock)
    assert all(await asyncio.gather(*(check(tokens, token()) for _ in range(20))))
    assert issuer.asked == {"/keys": 1}
    clock.now += 3599
    assert await check(tokens, token()) is not None
    assert issuer.asked == {"/keys": 1}
    clock.now += 1
    issuer.keys = key_set(KEYS["RS256"])
    assert await check(tokens, token()) is None  # this key was withdrawn
    assert issuer.asked == {"/keys": 2}
    await tokens.close()


async def test_an_unknown_key_is_asked_for_at_most_once_a_minute(users: UsersFile, issuer: Issuer) -> None:
    clock = Clock()
    new = ECKey.generate_key("P-256", {"kid": "new"})
    tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), users, clock=clock)
    assert not any(await asyncio.gather(*(check(tokens, token(key=new)) for _ in range(20))))
    assert issuer.asked == {"/keys": 1}
    issuer.keys = key_set(*KEYS.values(), new)
    assert await check(tokens, token(key=new)) is None
    assert issuer.asked == {"/keys": 1}
    clock.now += 60
    assert all(await asyncio.gather(*(check(tokens, token(key=new)) for _ in range(20))))
    assert issuer.asked == {"/keys": 2}
    await tokens.close()


async def test_a_server_that_is_down_refuses_for_now(users: UsersFile, issuer: Issuer) -> None:
    clock = Clock()
    issuer.status = 503
    tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), users, clock=clock)
    for _ in range(3):
        with pytest.raises(AuthUnavailable, match=r"/keys answers with status 503"):
            await check(tokens, token())
    assert issuer.asked == {"/keys": 1}  # a crowd does not make it worse
    with pytest.raises(AuthError, match="503"):
        await tokens.reload()
    issuer.status = 200
    clock.now += 5
    assert await check(tokens, token()) is not None
    issuer.close()
    clock.now += 3000
    assert await check(tokens, token()) is not None  # with what is known
    with pytest.raises(AuthUnavailable, match="Connection refused"):  # an unknown key may be a new one
        await check(tokens, token(header={"kid": "new"}))
    clock.now += 3600
    with pytest.raises(AuthUnavailable, match="Connection refused"):
        await check(tokens, token())
    await tokens.close()


@pytest.mark.parametrize(
    ("keys", "status", "words"),
    [
        (b"x" * 300_000, 200, "more than 262144 octets"),
        (b"<html>", 200, "no JSON"),
        (b"[" * 100_000, 200, "no JSON"),
        ([], 200, "no JSON object"),
        ({"keys": []}, 200, "no key for"),
        (key_set(), 302, "status 302"),
        (key_set(), 404, "status 404"),
    ],
)
async def test_invalid_answers_of_an_issuer_refuse_for_now(
    users: UsersFile, issuer: Issuer, keys: object, status: int, words: str
) -> None:
    issuer.keys, issuer.status = keys, status
    tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), users)
    with pytest.raises(AuthUnavailable, match=words):
        await check(tokens, token())
    assert issuer.asked == {"/keys": 1}
    await tokens.close()


async def test_https_and_whose_certificate(tmp_path: Path, users: UsersFile, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", dns=["127.0.0.1"]))
    issuer = Issuer(context)
    try:
        tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), users)
        with pytest.raises(AuthUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await check(tokens, token())
        await tokens.close()
        (tmp_path / "users").write_text("alice:{PLAIN}x\n")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        tokens = oauth_tokens(by_signature(f"{issuer.url}/keys"), UsersFile(tmp_path / "users"))
        assert await check(tokens, token()) is not None
        await tokens.close()
    finally:
        issuer.close()


# --- by introspection ---


async def test_introspection_tells_whose_a_token_is(tmp_path: Path, users: UsersFile, issuer: Issuer) -> None:
    tokens = oauth_tokens(by_introspection(tmp_path, issuer, scope="mail"), users)
    issuer.known["good"] = claims(iss=None, exp=None)
    assert await check(tokens, "good") == Account("alice", "/home/alice")
    assert await check(tokens, "unknown") is None
    for others in WRONG.values():
        issuer.known["wrong"] = claims(**others)
        good = others in (WRONG["no end"], WRONG["no issuer"], WRONG["another issuer"])  # it was the issuer that spoke
        assert (await check(tokens, "wrong") is not None) == good, others
    del issuer.known["good"]  # withdrawn
    assert await check(tokens, "good") is None
    await tokens.close()


async def test_introspection_names_the_issuer(tmp_path: Path, users: UsersFile, issuer: Issuer) -> None:
    tokens = oauth_tokens(by_introspection(tmp_path, issuer, issuer=NAME), users)
    issuer.known = {"good": claims(), "other": claims(iss="https://other.example.org")}
    assert await check(tokens, "good") is not None
    assert await check(tokens, "other") is None
    await tokens.close()


async def test_introspection_that_fails_refuses_for_now(tmp_path: Path, users: UsersFile, issuer: Issuer) -> None:
    config = by_introspection(tmp_path, issuer)
    (tmp_path / "secret").write_text("wrong")
    tokens = oauth_tokens(config, users)
    issuer.known["good"] = claims()
    with pytest.raises(AuthUnavailable, match="/introspect answers with status 401"):
        await check(tokens, "good")
    (tmp_path / "secret").write_text(SECRET)
    await tokens.reload()
    assert await check(tokens, "good") is not None
    (tmp_path / "secret").write_text(" \n")
    with pytest.raises(AuthError, match="empty"):
        await tokens.reload()
    with pytest.raises(AuthError, match="empty"):
        oauth_tokens(config, users)
    assert await check(tokens, "good") is not None
    issuer.close()
    with pytest.raises(AuthUnavailable, match="Connection refused"):
        await check(tokens, "good")
    await tokens.close()


# --- sessions ---


@contextlib.asynccontextmanager
async def serving(folder: Path, auth: dict[str, Any]) -> AsyncIterator[int]:
    certificate, key = create_self_signed(["127.0.0.1"], folder)
    (folder / "users").write_text("alice:{PLAIN}s e c\n")
    for user in ("alice", "bob"):
        make_maildir(folder / "mail" / user, {"new/1.host": b"Subject: x\n\nhello\n"})
    server = assemble(
        Config.model_validate(
            {
                "hostname": "localhost",
                "state": folder / "state",
                "listen": [{"host": "127.0.0.1", "port": 0}],
                "tls": {"certificate": certificate, "private_key": key},
                "auth": {"users": folder / "users", "mechanisms": ["oauthbearer", "xoauth2"], **auth},
                "store": {"path": str(folder / "mail" / "{user}")},
                "limits": {"connections": 100, "auth_penalty": 0},
            }
        )
    )
    await server.start()
    try:
        yield server.addresses[0][1]
    finally:
        await server.drain(1)


async def log_in(folder: Path, port: int, mechanism: str, user: str, text: str) -> None:
    steps = oauth.bearer_client(user, text) if mechanism == "OAUTHBEARER" else oauth.xoauth2_client(user, text)
    async with Session() as session, asyncio.timeout(30):
        await session.connect("127.0.0.1", port, tls=client_context(folder / "cert.pem"), implicit=True, timeout=10)
        assert mechanism in (await session.capa())["SASL"]
        await session.authenticate(mechanism, steps)
        assert (await session.stat()).messages == 1
        await session.quit()


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_tokens_in_a_session_are_taken_or_refused_alike(
    tmp_path: Path, issuer: Issuer, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = by_signature(f"{issuer.url}/keys").model_dump()
    async with serving(tmp_path, {"mechanisms": ["plain", "oauthbearer", "xoauth2"], "oauth": config}) as port:
        await log_in(tmp_path, port, mechanism, "alice", token())
        refusals = set()
        for text in (token(exp=1), token(email="bob"), token(email="carol"), HOSTILE["none"]):
            with pytest.raises(LoginRefused) as refused:
                await log_in(tmp_path, port, mechanism, "alice", text)
            refusals.add(str(refused.value))
            assert text not in caplog.text
        assert len(refusals) == 1
        async with Session() as session:  # passwords go on
            await session.connect("127.0.0.1", port, tls=client_context(tmp_path / "cert.pem"), timeout=10)
            await session.authenticate("PLAIN", plain.client("alice", b"s e c"))
            await session.quit()


async def test_a_session_whose_token_cannot_be_checked(tmp_path: Path, issuer: Issuer) -> None:
    issuer.close()
    config = by_introspection(tmp_path, issuer).model_dump()
    async with serving(tmp_path, {"backend": "oauth", "oauth": config}) as port:
        for _ in range(4):  # none of which is a failure
            with pytest.raises(TryLater, match="cannot be checked now"):
                await log_in(tmp_path, port, "XOAUTH2", "bob", "good")


async def test_a_session_of_a_user_without_a_file(tmp_path: Path, issuer: Issuer) -> None:
    issuer.known["good"] = claims(email="bob")
    config = by_introspection(tmp_path, issuer).model_dump()
    async with serving(tmp_path, {"backend": "oauth", "oauth": config}) as port:
        await log_in(tmp_path, port, "XOAUTH2", "bob", "good")
        await log_in(tmp_path, port, "OAUTHBEARER", "", "good")
        with pytest.raises(LoginRefused):
            await log_in(tmp_path, port, "XOAUTH2", "alice", "good")


async def test_the_daemon_and_its_log(site: Site, issuer: Issuer) -> None:
    site.maildir("alice", {"new/1.host": b"Subject: x\n\nhello\n"})
    text = site.config.read_text().replace(
        'users = "users"',
        f"""
mechanisms = ["xoauth2"]
[auth.oauth]
issuer = "{NAME}"
audience = "{AUDIENCE}"
jwks = "{issuer.url}/keys"
[limits]
auth_penalty = 0
""",
    )
    site.config.write_text(text)
    daemon = await asyncio.to_thread(Daemon, site)
    good, late = token(), token(exp=1)
    try:
        await log_in(site.root, site.port, "XOAUTH2", "alice", good)
        with pytest.raises(LoginRefused):
            await log_in(site.root, site.port, "XOAUTH2", "alice", late)
    finally:
        assert await asyncio.to_thread(daemon.end) == 0
    assert "user=alice" in daemon.log
    assert "token of 'alice' refused: expired_token (exp)" in daemon.log
    for secret in (*good.split("."), *late.split(".")):
        assert secret not in daemon.log


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    monkeypatch.delitem(sys.modules, "pop3d.auth.oauth")
    auth = {"backend": "oauth", "mechanisms": ["xoauth2"], "oauth": by_signature(tmp_path / "keys.json")}
    listen = {"host": "127.0.0.1", "tls": "none"}
    config = Config.model_validate({"state": tmp_path / "state", "listen": [listen], "auth": auth})
    with pytest.raises(AuthError, match=re.escape(f"needs the Python module joserfc: {install_line('oauth')}")):
        assemble(config)


def test_mail_for_users_without_a_file(tmp_path: Path, run_pop3d) -> None:
    (tmp_path / "pop3d.toml").write_text(f"""
[[listen]]
host = "127.0.0.1"
tls = "none"
[auth]
backend = "oauth"
mechanisms = ["xoauth2"]
[auth.oauth]
issuer = "{NAME}"
audience = "{AUDIENCE}"
jwks = "https://issuer.example.org/keys"
""")
    for name, code in (("dave@example.org", 0), ("../dave", 67)):
        done = run_pop3d("deliver", name, "--config", str(tmp_path / "pop3d.toml"), stdin="Subject: x\n\n")
        assert done.returncode == code, done.stderr
    assert done.stderr.startswith("pop3d: no such user: '../dave'; the name cannot be a user's: one has no blanks, ")
    assert len(list((tmp_path / "mail/dave@example.org/new").iterdir())) == 1
