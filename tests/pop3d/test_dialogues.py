"""The dialogues of the engine's tests, once more over real connections: the daemon's driver, its TLS, its streams."""

import asyncio
import ssl
from collections.abc import Collection
from pathlib import Path

import pytest

from pop3core.answers import Content, ContentFailed, LoginRejected, NoSecret, PlainSecret, ScramSecret
from pop3core.events import Credential
from pop3core.maildrop import Listing
from pop3core.sasl.base import SecretKind
from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.abuse.login_throttle import LoginThrottle
from pop3d.auth import Account
from pop3d.config import Limits
from pop3d.net.certificates import create_self_signed
from pop3d.net.channel import Channel
from pop3d.net.tls import ServerTls, server_tls
from pop3d.net.transport import Transport
from pop3d.session import ServerSession, Services
from pop3d.stores import RemovalFailed, StoreError
from tests.pki import Authority
from tests.pop3core.play import Dialogue, Transcript, transcripts


class Site:
    """An authenticator and a store that know what the dialogue's driver knows."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.messages = Listing([len(text) for text in dialogue.messages], dialogue.uids)
        self.refusal: LoginRejected | None = None

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        answer = self.dialogue.login(credential)
        self.refusal = answer if isinstance(answer, LoginRejected) else None
        if self.refusal is not None and self.refusal.code is None:
            return None
        return Account("alice")

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret | PlainSecret | NoSecret:
        return self.dialogue.secret(username, kind)

    async def reload(self) -> None:
        raise AssertionError

    async def close(self) -> None:
        pass

    async def open(self, account: Account, *, utf8: bool) -> "Site":
        if self.refusal is not None:
            raise StoreError(self.refusal.text, code=self.refusal.code)
        return self

    async def read(self, number: int, offset: int) -> Content:
        answer = self.dialogue.content(number, offset)
        if isinstance(answer, ContentFailed):
            raise StoreError(answer.text, code=answer.code)
        return answer

    async def remove(self, numbers: Collection[int]) -> None:
        if self.dialogue.left:
            raise RemovalFailed(self.dialogue.left, "as the dialogue wants it")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServerTls, ssl.SSLContext]:
    files = create_self_signed(["localhost"], tmp_path_factory.mktemp("certificate"))
    return server_tls(*files), ssl.create_default_context(cafile=files[0])


def with_client_certificates(folder: Path, identity: str) -> tuple[ServerTls, ssl.SSLContext]:
    """A server that asks for one, and a client that has one."""
    authority = Authority(folder)
    tls = server_tls(*authority.issue("server", dns=["localhost"]), client_ca=authority.certificate)
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(*authority.issue("client", cn=[identity], client=True))
    return tls, context


@pytest.mark.parametrize("transcript", transcripts(), ids=lambda transcript: transcript.name)
async def test_the_daemon_says_what_the_dialogue_says(
    transcript: Transcript, certificate: tuple[ServerTls, ssl.SSLContext], tmp_path: Path
) -> None:
    tls, context = certificate
    if identity := transcript.settings.get("identity"):
        tls, context = with_client_certificates(tmp_path, identity)
    secure = transcript.settings.get("secure") != "no"
    site = Site(transcript.dialogue())
    timestamp = transcript.settings.get("timestamp")
    limits = Limits(auth_penalty=0)
    services = Services(
        site,
        site,
        ConnectionLimits(limits),
        LoginThrottle(limits),
        transcript.config(),
        limits,
        tls,
        (lambda: timestamp) if timestamp else None,
        client_name="cn",
    )

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ServerSession(services, Channel(Transport(writer), tls if secure else None)).run()

    async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server, asyncio.timeout(30):
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context if secure else None, server_hostname="localhost" if secure else None
        )
        for said, answer in transcript.turns:
            writer.write(said)
            assert await reader.readexactly(len(answer)) == answer
            if said == b"STLS\r\n" and answer.startswith(b"+OK"):
                await writer.start_tls(context, server_hostname="localhost")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_every_rfc_has_a_dialogue() -> None:
    names = " ".join(transcript.name for transcript in transcripts())
    for rfc in (1939, 2449, 2595, 4422, 5034, 6856, 7628):
        assert f"rfc{rfc}" in names


async def test_what_comes_with_stls_is_not_read_as_pop3(
    certificate: tuple[ServerTls, ssl.SSLContext], tmp_path: Path
) -> None:
    """RFC 2595 §4: clear text in the same segment, or behind it before the handshake, ends the connection."""
    transcript = Transcript("injection", {"secure": "no", "stls": "yes"}, [b"a\r\n"])
    for behind in (0.0, 0.1):
        site = Site(transcript.dialogue())
        limits = Limits()
        services = Services(
            site, site, ConnectionLimits(limits), LoginThrottle(limits), transcript.config(), limits, certificate[0]
        )

        async def accepted(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, services: Services = services
        ) -> None:
            await ServerSession(services, Channel(Transport(writer), None)).run()

        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            assert (await reader.readline()).startswith(b"+OK")
            writer.write(b"STLS\r\n" + (b"" if behind else b"CAPA\r\n"))
            if behind:
                await reader.readline()
                writer.write(b"CAPA\r\n")
            rest = await reader.read()
            assert b"IMPLEMENTATION" not in rest
            writer.close()
