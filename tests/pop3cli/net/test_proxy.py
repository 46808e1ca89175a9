"""Through a proxy: SOCKS and HTTP, with TLS and STLS, and proxies that do not connect."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

import pytest

from tests.pop3cli.conftest import Cli, Loop, Mailbox, Serve
from tests.site import Site, served

pytestmark = pytest.mark.usefixtures("home")


class Socks:
    """A SOCKS 5 proxy (RFC 1928) that connects everybody to one port; what was asked for."""

    def __init__(self, port: int, answer: int = 0) -> None:
        self.port, self.answer = port, answer
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = (await reader.readexactly(2))[1]
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode() if kind == 3 else "an address"
        if kind == 1:
            host = socket.inet_ntoa(await reader.readexactly(4))
        self.asked.append((host, struct.unpack("!H", await reader.readexactly(2))[0]))
        writer.write(bytes([5, self.answer, 0, 1]) + bytes(6))
        if self.answer:
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        await relayed((reader, writer), (there, back))


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relayed(client: Ends, server: Ends) -> None:
    """What each says goes to the other, until one of them ends."""
    back = server[1]
    tasks = [asyncio.create_task(pump(client[0], back)), asyncio.create_task(pump(server[0], client[1]))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        back.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            await back.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
def socks(serve: Serve) -> Callable[..., tuple[Socks, str]]:
    pytest.importorskip("python_socks", reason="pip install 'pop3core[socks]'")

    def start(port: int, answer: int = 0) -> tuple[Socks, str]:
        proxy = Socks(port, answer)
        return proxy, f"socks5://127.0.0.1:{serve(proxy, tls=False).port}"

    return start


def test_through_a_proxy(pop3cli: Cli, serve: Serve, socks: Callable[..., tuple[Socks, str]]) -> None:
    mailbox = Mailbox()
    server = serve(mailbox)
    proxy, url = socks(server.port)
    account = "pop3s://alice@localhost:4711"  # only the proxy knows where that is
    ran = pop3cli("stat", account, "--cacert", server.certificate, "--proxy", url)
    assert (ran.status, ran.err) == (0, "")
    assert proxy.asked == [("localhost", 4711)]
    # who is verified is the server behind it, and why it is refused is asked through it as well
    ran = pop3cli("stat", account, "--proxy", url)
    assert ran.status == 77
    assert "not signed by anyone trusted" in ran.err
    assert proxy.asked == [("localhost", 4711)] * 3


def test_stls_through_a_proxy(pop3cli: Cli, site: Site, socks: Callable[..., tuple[Socks, str]]) -> None:
    site.config.write_text(site.config.read_text().replace("[tls]", 'tls = "starttls"\n[tls]', 1))
    site.maildir("alice", {})
    proxy, url = socks(site.port)
    with served(site):
        more = ("--proxy", url, "--cacert", site.certificate, "--password-command", "echo secret")
        assert pop3cli("stat", "pop3://alice@localhost:110", *more).status == 0
    assert proxy.asked == [("localhost", 110)]


def test_proxies_that_do_not_connect(pop3cli: Cli, socks: Callable[..., tuple[Socks, str]], loop_thread: Loop) -> None:
    _, url = socks(1, 5)
    ran = pop3cli("stat", "pop3s://alice@localhost", "--proxy", url)
    assert ran.status == 69
    assert f"localhost port 995: the proxy {url} does not connect to it" in ran.err
    ran = pop3cli("stat", "pop3s://alice@localhost", "--proxy", "socks5://127.0.0.1:1")
    assert ran.status == 69
    assert "is it running" in ran.err


class Connecting:
    """An HTTP proxy that connects everybody to one port, when it says 2xx; ``apart``: its answer comes octet by octet,
    else together with what the server says first."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n", apart: bool = False):
        self.port, self.answer, self.apart = port, answer, apart
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        if b" 2" not in self.answer[:10]:
            writer.write(self.answer)
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        if self.apart:
            for octet in self.answer:
                writer.write(bytes([octet]))
                await writer.drain()
                await asyncio.sleep(0.001)
        else:
            writer.write(self.answer + await there.readline())
        await relayed((reader, writer), (there, back))


def test_through_an_http_proxy(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox())
    proxy = Connecting(server.port, b"HTTP/1.0 204 Yes\r\nVia: x\r\nX-Long: %s\r\n\r\n" % (b"x" * 200), apart=True)
    url = f"http://127.0.0.1:{serve(proxy, tls=False).port}"
    account = "pop3s://alice@localhost:4711"  # only the proxy knows where that is
    ran = pop3cli("stat", account, "--cacert", server.certificate, "--proxy", url)
    assert (ran.status, ran.err) == (0, "")
    assert proxy.asked == [b"CONNECT localhost:4711 HTTP/1.1\r\nHost: localhost:4711\r\n\r\n"]


def test_stls_through_an_http_proxy_that_sends_the_greeting_with_its_answer(
    pop3cli: Cli, site: Site, serve: Serve
) -> None:
    site.config.write_text(site.config.read_text().replace("[tls]", 'tls = "starttls"\n[tls]', 1))
    site.maildir("alice", {})
    proxy = Connecting(site.port)
    url = f"http://127.0.0.1:{serve(proxy, tls=False).port}"
    with served(site):
        more = ("--proxy", url, "--cacert", site.certificate, "--password-command", "echo secret")
        assert pop3cli("stat", "pop3://alice@localhost:110", *more).status == 0
    assert pop3cli("stat", "pop3://alice@[::1]:110", "--proxy", url).status == 69
    assert [asked.splitlines()[0] for asked in proxy.asked] == [
        b"CONNECT localhost:110 HTTP/1.1",
        b"CONNECT [::1]:110 HTTP/1.1",
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 For\x1b[2Jbidden\r\n\r\n", "(403 For␛[2Jbidden); does it allow this host and port?"),
        (b"HTTP/1.1 407\r\n\r\n", "asks for a name and a password (407); use a proxy without them"),
        (b"HTTP/1.1 500 " + b"x" * 300 + b"\r\n\r\n", "(500 " + "x" * 80 + ");"),
        (b"+OK a server\r\n\r\n", "does not answer as an HTTP proxy; is it running"),
        (b"HTTP/1.1 502 cut off\r\n", "does not answer as an HTTP proxy; is it running"),
        (b"x" * 20_000, "does not answer as an HTTP proxy; is it running"),
    ],
)
def test_http_proxies_that_do_not_connect(pop3cli: Cli, serve: Serve, answer: bytes, told: str) -> None:
    url = f"http://127.0.0.1:{serve(Connecting(1, answer), tls=False).port}"
    ran = pop3cli("stat", "pop3s://alice@localhost", "--proxy", url)
    assert (ran.status, ran.err.count("\n")) == (69, 1)
    assert f"localhost port 995: the proxy {url} " in ran.err
    assert told in ran.err


def test_no_http_proxy_at_all(pop3cli: Cli, serve: Serve) -> None:
    ran = pop3cli("stat", "pop3s://alice@localhost", "--proxy", "http://127.0.0.1:1")
    assert ran.status == 69
    assert "the proxy http://127.0.0.1:1 does not connect to it (" in ran.err
    assert "is it running" in ran.err

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    url = f"http://127.0.0.1:{serve(mute, tls=False).port}"
    ran = pop3cli("stat", "pop3s://alice@localhost", "--proxy", url, "--timeout", "0.3")
    assert ran.status == 69
    assert f"no connection through {url} within 0.3 s" in ran.err
