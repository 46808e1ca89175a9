"""Who is trusted, and how one logs in: pins, client certificates, mechanisms. The daemon is pop3d itself."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from pop3cli.accounts.url import Settings, parse_account
from pop3cli.auth.login import prepare, way_to
from pop3cli.errors import CertificateRefused, LoginRefused, SettingFault, UsageFault
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context, pin_of
from pop3core.sasl import scram
from tests.pki import Authority
from tests.pop3cli.conftest import Certificate, Cli, Liar, Mailbox, Serve, Server
from tests.site import Site, served

pytestmark = pytest.mark.usefixtures("home")


def of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("certificate", ["good", "other", "cn", "expired"])
@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_a_pin_takes_the_place_of_authorities(
    pop3cli: Cli, serve: Serve, certificate: str, kind: str, certificates: Mapping[str, Certificate]
) -> None:
    own = of(certificates[certificate].path)
    right = pin_of(own.public_bytes(Encoding.DER)) if kind == "key" else own.fingerprint(hashes.SHA256())
    server = serve(Mailbox(), certificate)
    assert pop3cli("stat", server.account(), "--pin", "ab" * 32, "--pin", right.hex()).status == 0


def test_another_key_is_refused_before_anything_is_said(
    pop3cli: Cli, serve: Serve, certificates: Mapping[str, Certificate]
) -> None:
    mailbox = Mailbox()
    server = serve(mailbox)
    seen = pin_of(of(server.certificate).public_bytes(Encoding.DER)).hex()
    for more in ((), ("--cacert", server.certificate)):  # a good certificate does not make up for it
        ran = pop3cli("stat", server.account(), "--pin", "ab" * 32, *more)
        assert (ran.status, ran.out) == (77, b"")
        assert f"its key is sha256:{seen}, which is not pinned" in ran.err
    # with an authority named, both must hold
    ran = pop3cli("stat", server.account(), "--pin", seen, "--cacert", certificates["other"].path)
    assert ran.status == 77
    assert mailbox.logins == []


def test_a_pin_holds_behind_stls(pop3cli: Cli, site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("[tls]", 'tls = "starttls"\n[tls]', 1))
    site.maildir("alice", {})
    with served(site):
        url = f"pop3://alice@127.0.0.1:{site.port}"
        right = of(site.certificate).fingerprint(hashes.SHA256()).hex()
        command = ("--password-command", "echo secret")
        assert pop3cli("stat", url, "--pin", right, *command).status == 0
        assert pop3cli("stat", url, "--pin", "ab" * 32, *command).status == 77


def test_insecure_is_loud_and_works(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox(), "expired")
    ran = pop3cli("stat", server.account(), "--insecure")
    assert ran.status == 0
    assert "--insecure: the server is NOT verified" in ran.err
    for other in (("--pin", "ab" * 32), ("--cacert", server.certificate)):
        ran = pop3cli("stat", server.account(), "--insecure", *other)
        assert (ran.status, "does not go with --pin or --cacert" in ran.err) == (2, True)


# --- mechanisms ---


@pytest.fixture
def mechanisms(site: Site) -> Callable[..., None]:
    def configure(*names: str) -> None:
        (site.root / "users").write_text("alice:{PLAIN}secret\n")
        site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n"})
        listed = ", ".join(f'"{name}"' for name in names)
        text = site.config.read_text().replace("[auth]", f"[auth]\nmechanisms = [{listed}]")
        site.config.write_text(f"{text}\n[limits]\nauth_penalty = 0\n")

    return configure


@pytest.mark.parametrize(
    ("offered", "said", "taken"),
    [
        (("plain",), (), "PLAIN"),
        (("plain", "scram-sha-256"), (), "SCRAM-SHA-256"),
        (("plain", "scram-sha-256", "scram-sha-256-plus"), (), "SCRAM-SHA-256-PLUS"),
        (("login",), (), "LOGIN"),
        (("plain", "login", "scram-sha-256-plus"), ("--auth", "Login"), "LOGIN"),
        (("plain", "scram-sha-256-plus"), ("--auth", "user"), "USER"),
        (("plain", "scram-sha-256-plus"), ("--auth", "scram-sha-256-plus"), "SCRAM-SHA-256-PLUS"),
        (("scram-sha-256", "scram-sha-256-plus"), ("--auth", "scram-sha-256"), "SCRAM-SHA-256"),
    ],
)
def test_the_best_mechanism_is_taken(
    pop3cli: Cli,
    site: Site,
    mechanisms: Callable[..., None],
    offered: tuple[str, ...],
    said: tuple[str, ...],
    taken: str,
) -> None:
    mechanisms(*offered)
    with served(site) as daemon:
        common = ("stat", f"pop3s://alice@localhost:{site.port}", "--cacert", site.certificate, *said)
        ran = pop3cli(*common, "--password-command", "echo secret")
        assert (ran.status, ran.err) == (0, "")
        assert pop3cli(*common, "--password-command", "echo wrong").status == 77
    assert f"mechanism={taken}" in daemon.log


def test_a_password_that_scram_cannot_prove(pop3cli: Cli, site: Site, mechanisms: Callable[..., None]) -> None:
    mechanisms("plain", "scram-sha-256")
    (site.root / "users").write_text("alice:{PLAIN}a\u2028b\n")
    command = ("--cacert", site.certificate, "--password-command", r"printf 'a\342\200\250b\n'")
    with served(site) as daemon:
        url = f"pop3s://alice@localhost:{site.port}"
        ran = pop3cli("stat", url, *command, "--auth", "scram-sha-256")
        assert (ran.status, "is not for SCRAM; use --auth plain" in ran.err) == (2, True)
        assert pop3cli("stat", url, *command).status == 0
    assert "mechanism=PLAIN" in daemon.log


def test_nothing_weaker_follows_a_refusal(pop3cli: Cli, serve: Serve) -> None:
    liar = Liar({"CAPA": b"+OK\r\nUSER\r\nSASL PLAIN SCRAM-SHA-256\r\n.\r\n", "AUTH": b"-ERR [AUTH] no\r\n"})
    server = serve(liar)
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    assert ran.status == 77
    assert "by SCRAM-SHA-256, which needs a verifier on the server; --auth plain does not" in ran.err
    assert [line.split()[:2] for line in liar.seen] == [[b"CAPA"], [b"AUTH", b"SCRAM-SHA-256"]]


def test_a_server_that_does_not_know_the_password_is_left(pop3cli: Cli, serve: Serve) -> None:
    challenge = base64.b64encode(b"r=other,s=c2FsdA==,i=4096")
    liar = Liar({"CAPA": b"+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n", "AUTH": b"+ " + challenge + b"\r\n"})
    server = serve(liar)
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    assert ran.status == 76
    assert "has another nonce" in ran.err


class Scram:
    """A server that speaks SCRAM as far as ``until`` and then says ``last``; the password is "secret"."""

    def __init__(self, until: str, last: bytes, announced: bytes = b"SCRAM-SHA-256") -> None:
        self.until, self.last, self.announced = until, last, announced
        self.first = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: bytes) -> None:
            writer.write(line + b"\r\n")

        def challenge(data: bytes) -> None:
            say(b"+ " + base64.b64encode(data))

        say(b"+OK hello")
        while line := await reader.readline():
            if line.startswith(b"CAPA"):
                say(b"+OK\r\nSASL " + self.announced + b"\r\n.")
            elif line.startswith(b"AUTH"):
                self.first = base64.b64decode(line.split()[2])
                if self.until == "first":
                    say(self.last)
                    continue
                bare = self.first.split(b",", 2)[2]
                server_first = b"r=" + bare.rpartition(b"r=")[2] + b"ours,s=c2FsdA==,i=4096"
                challenge(server_first)
                final = base64.b64decode(await reader.readline())
                if self.until == "proof":
                    say(self.last)
                    continue
                message = b",".join((bare, server_first, final.rpartition(b",p=")[0]))
                challenge(
                    b"v=" + base64.b64encode(hmac.digest(scram.verifier(b"secret", b"salt")[1], message, "sha256"))
                )
                await reader.readline()
                say(self.last)
            else:
                say(b"-ERR" if line != b"*\r\n" else self.last)


@pytest.mark.parametrize(
    ("until", "last", "status", "why"),
    [
        ("first", b"+OK welcome", 76, "may be an impostor"),
        ("proof", b"+OK welcome", 76, "may be an impostor"),
        ("proof", b"+ " + base64.b64encode(b"v=AAAA"), 76, "may be an impostor"),
        ("proof", b"+", 76, "may be an impostor"),
        ("proof", b"+ " + base64.b64encode(b"e=invalid-proof") + b"\r\n-ERR [AUTH] no", 77, "refused the login"),
        ("proof", b"+ " + base64.b64encode(b"e=invalid-proof") + b"\r\n+OK", 76, "may be an impostor"),
        ("proof", b"+ !!\r\n+OK", 76, "may be an impostor"),
        ("end", b"+ " + base64.b64encode(b"more"), 76, "after the last one of the mechanism"),
        ("end", b"-ERR [AUTH] no", 77, "refused the login"),
    ],
)
def test_a_server_that_does_not_prove_itself_gets_no_further(
    pop3cli: Cli, serve: Serve, until: str, last: bytes, status: int, why: str
) -> None:
    server = serve(Scram(until, last))
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--password-command", "echo secret")
    assert (ran.status, why in ran.err) == (status, True), ran.err


@pytest.mark.parametrize(
    ("announced", "said", "flag"),
    [
        (b"SCRAM-SHA-256", (), b"y"),
        (b"SCRAM-SHA-256", ("--auth", "scram-sha-256"), b"y"),
        (b"SCRAM-SHA-256 SCRAM-SHA-256-PLUS", ("--auth", "scram-sha-256"), b"n"),
        (b"SCRAM-SHA-256 SCRAM-SHA-256-PLUS", (), b"p"),
    ],
)
def test_what_is_said_of_channel_binding(
    pop3cli: Cli, serve: Serve, announced: bytes, said: tuple[str, ...], flag: bytes
) -> None:
    liar = Scram("first", b"-ERR channel binding was offered, and somebody hid it", announced)
    server = serve(liar)
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, *said)
    assert ran.status == 77
    assert liar.first[:1] == flag
    assert "somebody between may have hidden SCRAM-SHA-256-PLUS" in ran.err
    assert "--auth plain" not in ran.err


@pytest.mark.parametrize(
    ("announced", "replies"),
    [
        (b"USER", {"PASS": b"-ERR not hunter2\r\n"}),
        (b"SASL PLAIN", {"AUTH": b"-ERR not AGFsaWNlAGh1bnRlcjI= which is hunter2\r\n"}),
        (b"SASL LOGIN", {"AUTH": b"+ \r\n", "YWXPY2U=": b"+ \r\n", "AHVUDGVYMG==": b"-ERR not hunter2\r\n"}),
    ],
)
def test_no_error_repeats_a_password_that_the_server_repeats(
    pop3cli: Cli, serve: Serve, announced: bytes, replies: dict[str, bytes]
) -> None:
    server = serve(Liar({"CAPA": b"+OK\r\n" + announced + b"\r\n.\r\n", **replies}))
    command = ("--cacert", server.certificate, "--password-command", "echo hunter2")
    ran = pop3cli("stat", server.account(), *command)
    assert (ran.status, "refused the login: not ***" in ran.err) == (77, True), ran.err
    assert "hunter2" not in ran.err


# --- client certificates ---


@pytest.fixture
def authority(site: Site) -> Authority:
    """Of the clients; mechanism EXTERNAL is on."""
    authority = Authority(site.root / "clients", "client authority")
    text = site.config.read_text()
    text = text.replace("[auth]", f'client_ca = "{authority.certificate}"\nclient_name = "cn"\n[auth]')
    site.config.write_text(text.replace("[store]", 'mechanisms = ["plain", "external"]\n[store]'))
    (site.root / "users").write_text("alice:{PLAIN}secret\nbob:{PLAIN}secret\n")
    for user in ("alice", "bob"):
        site.maildir(user, {"new/1.host": b"Subject: one\n\n1\n"})
    return authority


def test_a_client_certificate_needs_no_password(
    pop3cli: Cli, site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POP3CLI_PASSWORD")
    certificate, key = authority.issue("alice", cn=["alice"], client=True)
    both = site.root / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with served(site) as daemon:
        url = f"localhost:{site.port}"
        common = ("--cacert", site.certificate)
        pair = ("--client-cert", certificate, "--client-key", key)
        assert pop3cli("stat", f"pop3s://alice@{url}", *common, *pair).out.startswith(b"1 message")
        assert pop3cli("stat", f"pop3s://alice@{url}", *common, "--client-cert", both, "--auth", "external").status == 0
        # another's mailbox is not opened, and not one's own in its place
        ran = pop3cli("stat", f"pop3s://bob@{url}", *common, *pair)
        assert (ran.status, ran.out) == (77, b"")
        # whoever wants it logs in by password
        by_password = ("--auth", "plain", "--password-command", "echo secret")
        assert pop3cli("stat", f"pop3s://bob@{url}", *common, *pair, *by_password).status == 0
    assert "mechanism=EXTERNAL" in daemon.log


def test_a_server_without_external(pop3cli: Cli, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = Authority(tmp_path / "clients").issue("alice", client=True)
    mailbox = Mailbox()
    server = serve(mailbox)
    common = ("--cacert", server.certificate, "--client-cert", certificate, "--client-key", key)
    assert pop3cli("stat", server.account(), *common).status == 0  # the password is known
    monkeypatch.delenv("POP3CLI_PASSWORD")
    ran = pop3cli("stat", server.account(), *common)
    assert ran.status == 77
    assert "offers PLAIN: it takes no client certificate, and no password is known" in ran.err
    assert len(mailbox.logins) == 1


def test_client_certificates_that_are_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "clients")
    certificate, _ = authority.issue("alice", client=True)
    _, other = authority.issue("bob", client=True)
    locked = tmp_path / "locked.key"
    key = load_pem_private_key(other.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")))
    for paths, text in (
        ((certificate, other), "the key is another certificate's"),
        ((certificate, None), "is the key in `client_key`"),
        ((tmp_path / "none", None), "none: cannot be read: No such file"),
        ((None, other), "there is no `client_cert`"),
        ((tmp_path / "clients" / "bob.pem", locked), "or a wrong passphrase"),
    ):
        with pytest.raises(SettingFault, match=text) as caught:
            client_context(client_cert=paths[0], client_key=paths[1])
        assert caught.value.status == 78
    client_context(client_cert=tmp_path / "clients" / "bob.pem", client_key=locked, passphrase=lambda: b"open sesame")
    with pytest.raises(SettingFault, match="there is no client certificate to log in by"):
        prepare(parse_account("pop3s://a@b"), Settings(auth="external"))


async def test_a_secret_shows_nowhere() -> None:
    login_plan = prepare(parse_account("pop3s://a@b"), Settings(password_command="echo hunter2"))
    assert "hunter2" not in repr(login_plan)


async def test_one_entrance_lets_several_sessions_in(server: Server) -> None:
    login_plan = prepare(
        parse_account(server.account()), Settings(cacert=server.certificate, password_command="echo s e c r e t")
    )
    for _ in range(2):
        async with Session() as session:
            await login_plan.connect(session)
            assert (await login_plan.log_in(session))[0] == "PLAIN"
            await session.quit()


async def test_without_a_secret_nothing_is_said(server: Server) -> None:
    login_plan = way_to(parse_account(server.account()), Settings(cacert=server.certificate))
    async with Session() as session:
        await login_plan.connect(session)
        with pytest.raises((LoginRefused, UsageFault)):
            await login_plan.log_in(session)


async def test_the_error_of_a_pin_is_the_certificates(server: Server) -> None:
    login_plan = way_to(parse_account(server.account()), Settings(pins=("ab" * 32,)))
    async with Session() as session:
        with pytest.raises(CertificateRefused, match="do not go on"):
            await login_plan.connect(session)
        assert not session.connected
