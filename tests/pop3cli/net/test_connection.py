"""What can go wrong with a connection, each with its error, its one line and its exit status. All servers are real."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from pop3cli.errors import (
    CertificateRefused,
    ConnectionCut,
    MailError,
    ServerBroken,
    ServerDown,
    TimedOut,
    TryLater,
)
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from tests.pop3cli.conftest import PASSWORD, Certificate, Liar, Mailbox, Serve, Server


async def connect(
    server: Server, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, timeout: float = 5
) -> None:
    async with Session() as session:
        await session.connect(host, server.port, tls=tls or server.tls, timeout=timeout)


async def failure(server: Server, *, timeout: float = 5) -> MailError:
    """How a session with a liar ends: login, then RETR 1, then QUIT."""
    with pytest.raises(MailError) as caught:
        async with Session() as session:
            await session.connect("127.0.0.1", server.port, tls=server.tls, timeout=timeout)
            await session.login("alice", PASSWORD)
            await consume(session.retrieve(1))
            await session.quit()
    assert not session.connected
    assert "\n" not in str(caught.value)
    return caught.value


async def consume(pieces: AsyncIterator[object]) -> None:
    async for _ in pieces:
        pass


# --- nobody there ---


async def test_a_refused_connection_says_what_to_check(free_port: int) -> None:
    server = Server(free_port, Path())
    with pytest.raises(ServerDown, match="Connection refused; is the server running") as caught:
        await connect(server, tls=client_context())
    assert caught.value.status == 69


async def test_a_connection_refused_at_every_address_names_the_host(free_port: int) -> None:
    with pytest.raises(ServerDown, match=r"localhost port .*: Connection refused;"):
        await connect(Server(free_port, Path()), "localhost", client_context())


@pytest.fixture
def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 70 + ".example"])
async def test_no_such_name(name: str) -> None:
    with pytest.raises(ServerDown, match="no such host"):
        await connect(Server(995, Path()), name, client_context())


async def test_silence_before_tls(serve: Serve) -> None:
    async def mute(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    begun = time.monotonic()
    with pytest.raises(TimedOut, match=r"no connection within 0\.3 s") as caught:
        await connect(serve(mute, tls=False), timeout=0.3)
    assert caught.value.status == 69
    assert time.monotonic() - begun < 2


async def test_closed_before_tls(serve: Serve) -> None:
    async def shut(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        return

    with pytest.raises(ServerDown, match="closed the connection during the TLS handshake"):
        await connect(serve(shut, tls=False))


@pytest.mark.parametrize("said", [b"+OK POP3 in plain text ready\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_server_without_tls_is_told_as_such(serve: Serve, said: bytes) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await asyncio.sleep(1)

    with pytest.raises(ServerBroken, match="that port does not speak TLS") as caught:
        await connect(serve(plain, tls=False))
    assert caught.value.status == 76


# --- certificates ---


@pytest.mark.parametrize(
    ("certificate", "host"),
    [("good", "localhost"), ("good", "127.0.0.1"), ("dns", "localhost"), ("ip", "127.0.0.1")],
)
async def test_dns_names_and_addresses_are_accepted(serve: Serve, certificate: str, host: str) -> None:
    await connect(serve(Mailbox(), certificate), host)


async def refused(server: Server, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> str:
    with pytest.raises(CertificateRefused) as caught:
        await connect(server, host, tls)
    assert caught.value.status == 77
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_an_unknown_issuer_is_refused(serve: Serve, certificates: Mapping[str, Certificate]) -> None:
    mailbox = Mailbox()
    server = serve(mailbox)
    for tls in (client_context(), client_context(certificates["other"].path)):
        text = await refused(server, tls=tls)
        assert "not signed by anyone trusted; if it is the right one, give its certificate with `cacert=FILE`" in text
    assert mailbox.logins == []


async def test_another_host_is_refused(serve: Serve) -> None:
    text = await refused(serve(Mailbox(), "other"), "localhost")
    assert "it is for other.example, not for localhost" in text
    text = await refused(serve(Mailbox(), "dns"), "127.0.0.1")
    assert "it is for localhost, not for 127.0.0.1" in text


@pytest.mark.parametrize(
    ("certificate", "host", "san"), [("cn", "localhost", "DNS:localhost"), ("cn-ip", "127.0.0.1", "IP:127.0.0.1")]
)
async def test_a_common_name_alone_is_refused(serve: Serve, certificate: str, host: str, san: str) -> None:
    server = serve(Mailbox(), certificate)
    for tls in (server.tls, client_context()):
        text = await refused(server, host, tls)
        assert f"it has only a common name ({host}) and no subjectAltName" in text
        assert f"pop3d cert create --host {host}" in text
        assert f"subjectAltName={san}" in text


async def test_an_expired_one_is_refused(serve: Serve) -> None:
    text = await refused(serve(Mailbox(), "expired"))
    assert "it expired (20" in text
    assert "the server needs a new one" in text


# --- liars ---


async def test_a_greeting_of_err(serve: Serve) -> None:
    server = serve(Liar(greeting=b"-ERR [SYS/TEMP] too many \x1b[2Jconnections\r\n"))
    with pytest.raises(TryLater, match=r"does not serve now: .SYS/TEMP. too many ␛.2Jconnections; try again later"):
        await connect(server)


@pytest.mark.parametrize("greeting", [b"220 smtp.example.org ESMTP\r\n", b"\x00\xff\r\n", b"\r\n"])
async def test_an_invalid_greeting_breaks_the_protocol(serve: Serve, greeting: bytes) -> None:
    fault = await failure(serve(Liar(greeting=greeting)))
    assert isinstance(fault, ServerBroken)
    assert "broke the protocol: no status indicator" in str(fault)
    assert fault.status == 76


async def test_no_greeting_at_all(serve: Serve) -> None:
    fault = await failure(serve(Liar(greeting=b"")), timeout=0.3)
    assert isinstance(fault, TimedOut)
    assert "no answer within 0.3 s; try again, or give it longer with `timeout`" in str(fault)


async def test_closed_in_place_of_a_greeting(serve: Serve) -> None:
    fault = await failure(serve(Liar(greeting=b"", cut="greeting")))
    assert isinstance(fault, ConnectionCut)
    assert "the server closed the connection" in str(fault)


async def test_a_port_of_tls_that_is_asked_in_clear_text() -> None:
    async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()  # as a server does that has waited for a handshake

    server = await asyncio.start_server(closes, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Session() as session:
        with pytest.raises(ConnectionCut) as caught:
            await session.connect("127.0.0.1", port, tls=client_context(), implicit=False, timeout=5)
        assert not session.connected
    remedy = "if the port speaks TLS from the first octet, as 995 does, use pop3s://"
    assert str(caught.value).endswith(f"the server closed the connection without a greeting; {remedy}")


@pytest.mark.parametrize("keyword", ["USER", "PASS", "RETR", "QUIT"])
async def test_a_cut_names_the_command(serve: Serve, keyword: str) -> None:
    replies = {"RETR": b"+OK\r\nwhole\r\n.\r\n"} | {keyword: b"+OK but no li"}
    fault = await failure(serve(Liar(replies, cut=keyword)))
    assert isinstance(fault, ConnectionCut)
    assert f"the server went away during {keyword}" in str(fault)
    assert fault.status == 69


@pytest.mark.parametrize("content", [b"half a mess", b"whole line\r\n", b"almost\r\n.", b"bare\n.\n"])
async def test_no_terminator_is_not_received(serve: Serve, content: bytes) -> None:
    fault = await failure(serve(Liar({"RETR": b"+OK\r\n" + content}, cut="RETR")))
    assert "the server went away during RETR; try again" in str(fault)


async def test_a_cut_quit_leaves_it_open_what_was_deleted(serve: Serve) -> None:
    server = serve(Liar({"QUIT": b""}))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        await session.login("alice", PASSWORD)
        await session.dele(1)
        with pytest.raises(ConnectionCut, match="whether marked messages were deleted is unknown"):
            await session.quit()


async def test_a_line_without_end(serve: Serve) -> None:
    fault = await failure(serve(Liar({"PASS": b"+OK"}, endless={"PASS": b"x" * 65536})))
    assert isinstance(fault, ServerBroken)
    assert "broke the protocol in answer to PASS: a line is too long" in str(fault)


async def test_an_answer_that_trickles_renews_no_patience(serve: Serve) -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK")
        for _ in range(100):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    begun = time.monotonic()
    assert isinstance(await failure(serve(trickle), timeout=0.4), TimedOut)
    assert time.monotonic() - begun < 2


async def test_foreign_text_in_an_error_is_harmless(serve: Serve) -> None:
    fault = await failure(serve(Liar({"PASS": b"-ERR \x1b[31mno\x07 \xe2\x80\xaetxet \xff\r\n"})))
    assert "␛[31mno␇ txet \ufffd" in str(fault)


async def test_content_without_end_costs_no_memory(serve: Serve) -> None:
    server = serve(Liar({"RETR": b"+OK\r\n"}, endless={"RETR": b"x" * 65536}))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        await session.login("alice", PASSWORD)
        octets = 0
        tracemalloc.start()
        async for piece in session.retrieve(1):
            octets += len(piece)
            if octets > 32 * 1024 * 1024:
                break
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await session.close()
    assert peak < 4 * 1024 * 1024  # the server's thread is counted with it


async def test_headers_without_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.net.session._TOP_MAX", 4 * 1024 * 1024)
    liar = Liar({"CAPA": b"+OK\r\nTOP\r\n.\r\n", "TOP": b"+OK\r\n"}, endless={"TOP": b"Subject: x\r\n" * 1000})
    server = serve(liar)
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        await session.login("alice", PASSWORD)
        with pytest.raises(ServerBroken, match="TOP does not end"):
            await consume(session.headers([1]))


async def test_capabilities_without_end(serve: Serve) -> None:
    server = serve(Liar({"CAPA": b"+OK\r\n"}, endless={"CAPA": b"X-MORE\r\n" * 1000}))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(ServerBroken, match="in answer to CAPA: a list does not end"):
            await session.capa()


async def test_a_listing_without_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.net.session._MESSAGES_MAX", 10_000)
    server = serve(Liar({"LIST": b"+OK\r\n"}, endless={"LIST": b"1 1\r\n" * 1000}))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        await session.login("alice", PASSWORD)
        with pytest.raises(ServerBroken, match="a list does not end"):
            await consume(session.list())
