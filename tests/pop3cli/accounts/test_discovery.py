"""Which server an address has: DNS and https are real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pop3cli.accounts.discovery import DiscoveredServer, discover
from pop3cli.errors import ServerDown, TimedOut, UsageFault
from tests.pki import Authority
from tests.pop3cli.conftest import Cli, Loop

dns_message = pytest.importorskip("dns.message", reason="pip install 'pop3core[discover]'")
import dns.asyncresolver  # noqa: E402
import dns.rcode  # noqa: E402
import dns.rrset  # noqa: E402

pytestmark = pytest.mark.usefixtures("home")

# --- DNS ---


class Dns:
    """A name server; ``records``: SRV records by name, each ``priority weight port target``."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.rcode = dns.rcode.NXDOMAIN
        self.silent = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            wire, address = self.socket.recvfrom(4096)
            if not wire:
                return
            query = dns_message.from_wire(wire)
            name = query.question[0].name
            self.asked.append(str(name))
            response = dns_message.make_response(query)
            records = self.records.get(str(name))
            if records is None:
                response.set_rcode(self.rcode)
            elif records:
                response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "SRV", records))
            if not self.silent:
                self.socket.sendto(response.to_wire(), address)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.socket.getsockname())
        self.thread.join(10)
        self.socket.close()


@pytest.fixture
def server() -> Iterator[Dns]:
    name_server = Dns()
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], name_server.socket.getsockname()[1]
    before = dns.asyncresolver.default_resolver
    dns.asyncresolver.default_resolver = resolver
    yield name_server
    dns.asyncresolver.default_resolver = before
    name_server.stop()


# --- https ---


class Web:
    """An https server that is every host; ``pages``: host and path, without the query, to an answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.wanted: list[str] = []

    async def dial(self, host: str, port: int) -> socket.socket:
        self.wanted.append(f"{host}:{port}")
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        host = head.partition("Host: ")[2].partition("\r\n")[0]
        target = head.split()[1]
        self.asked.append(f"{host}{target}")
        page = self.pages.get(f"{host}{target.partition('?')[0]}")
        if page is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif page.startswith((b"https://", b"http://")):
            writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + page + b"\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n" + page)
        await writer.drain()


HOSTS = ["autoconfig.example.test", "example.test", "autoconfig.thunderbird.net", "elsewhere.test"]


@pytest.fixture
def web(loop_thread: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("web", dns=HOSTS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    web = Web(0)
    web.port = loop_thread.do(loop_thread.serve(web, context))
    yield web
    loop_thread.do(loop_thread.stop_servers())


def config(*servers: str) -> bytes:
    provider = f'<emailProvider id="x">{"".join(servers)}</emailProvider>'
    return f'<?xml version="1.0"?><!-- theirs --><clientConfig>{provider}</clientConfig>'.encode()


def incoming(
    host: str = "pop.example.test",
    port: int = 995,
    kind: str = "SSL",
    user: str = "%EMAILADDRESS%",
    auth: str = "password-cleartext",
    protocol: str = "pop3",
) -> str:
    return (
        f'<incomingServer type="{protocol}"><hostname>{host}</hostname><port>{port}</port>'
        f"<socketType>{kind}</socketType><username>{user}</username><authentication>{auth}</authentication></incomingServer>"
    )


OWN = "autoconfig.example.test/mail/config-v1.1.xml"
WELL_KNOWN = "example.test/.well-known/autoconfig/mail/config-v1.1.xml"
COLLECTION = "autoconfig.thunderbird.net/v1.1/example.test"
ALICE = "alice@example.test"


def short(found: list[DiscoveredServer]) -> list[tuple[str, bool]]:
    return [(one.account.url, one.confirmed) for one in found]


# --- by DNS ---


async def test_srv_records_in_their_order(server: Dns) -> None:
    server.records = {
        "_pop3s._tcp.example.test.": [
            "20 0 995 backup.example.test.",
            "10 1 995 pop.elsewhere.test.",
            "10 5 9995 POP.example.test.",
        ],
        "_pop3._tcp.example.test.": ["0 0 110 pop.example.test."],
    }
    assert short(await discover(ALICE)) == [
        ("pop3s://alice%40example.test@pop.example.test:9995", True),
        ("pop3s://alice%40example.test@pop.elsewhere.test:995", False),
        ("pop3s://alice%40example.test@backup.example.test:995", True),
        ("pop3://alice%40example.test@pop.example.test:110", True),
    ]


async def test_a_domain_of_other_letters(server: Dns) -> None:
    server.records = {"_pop3s._tcp.xn--bcher-kva.test.": ["0 0 995 mail.xn--bcher-kva.test."]}
    assert (await discover("alice@Bücher.test"))[0].confirmed


@pytest.mark.parametrize("records", [None, [], ["0 0 0 ."], ["0 0 995 under_score.test."], ["0 0 0 pop.example.test."]])
async def test_dns_that_knows_nothing(
    server: Dns, web: Web, records: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if records is not None:
        server.records = {"_pop3s._tcp.example.test.": records}
    monkeypatch.setattr("pop3cli.accounts.discovery._by_https", nowhere)
    with pytest.raises(ServerDown, match="asked by https"):
        await discover(ALICE)
    assert sorted(set(server.asked)) == ["_pop3._tcp.example.test.", "_pop3s._tcp.example.test."]


async def nowhere(*_: Any) -> list[DiscoveredServer]:
    raise ServerDown("asked", "asked by https")


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_dns_that_fails(server: Dns, rcode: dns.rcode.Rcode, monkeypatch: pytest.MonkeyPatch) -> None:
    server.rcode = rcode
    monkeypatch.setattr("pop3cli.accounts.discovery._by_https", nowhere)
    with pytest.raises(ServerDown, match="asked by https"):
        await discover(ALICE)


async def test_dns_that_is_silent(server: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    server.silent = True
    monkeypatch.setattr("pop3cli.accounts.discovery._DNS_SECONDS", 0.2)
    monkeypatch.setattr("pop3cli.accounts.discovery._by_https", nowhere)
    with pytest.raises(ServerDown, match="asked by https"):
        await discover(ALICE)
    monkeypatch.setattr("pop3cli.accounts.discovery._SECONDS", 0.05)
    with pytest.raises(TimedOut, match="nobody answered within"):
        await discover(ALICE)


# --- by https ---


async def test_the_domains_own_configuration(web: Web) -> None:
    web.pages[OWN] = config(
        incoming("imap.example.test", 993, protocol="imap"),
        incoming("clear.example.test", 110, "plain"),
        incoming("pop.elsewhere.test", 110, "STARTTLS", "%EMAILLOCALPART%"),
        incoming("pop.%EMAILDOMAIN%", 995),
    )
    assert short(await discover(ALICE, dial=web.dial)) == [
        ("pop3s://alice%40example.test@pop.example.test:995", True),
        ("pop3://alice@pop.elsewhere.test:110", True),
    ]
    assert web.asked == [f"{OWN}?emailaddress=alice%40example.test"]


async def test_the_order_of_those_asked(web: Web) -> None:
    web.pages[COLLECTION] = config(incoming("pop.elsewhere.test", auth="OAuth2"))
    [found] = await discover(ALICE, dial=web.dial)
    assert (found.account.host, found.confirmed, found.oauth) == ("pop.elsewhere.test", False, True)
    assert [one.partition("?")[0] for one in web.asked] == [OWN, WELL_KNOWN, COLLECTION]
    assert "alice" not in web.asked[-1]


async def test_redirects(web: Web) -> None:
    web.pages[OWN] = b"https://elsewhere.test/config.xml"
    web.pages["elsewhere.test/config.xml"] = config(incoming())
    assert (await discover(ALICE, dial=web.dial))[0].confirmed
    for target in (
        b"http://elsewhere.test/config.xml",
        b"http://127.0.0.1/config.xml",
        b"https://elsewhere.test/again",
    ):
        web.asked.clear()
        web.pages[OWN] = target
        web.pages["elsewhere.test/again"] = b"https://elsewhere.test/again"
        with pytest.raises(ServerDown, match="nobody says which it is; ask its provider"):
            await discover(ALICE, dial=web.dial)
        assert len(web.asked) <= 6
    assert all(one.endswith(":443") for one in web.wanted)


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">%s]><clientConfig>&j;</clientConfig>' % b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in b"bcdefghij"
)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"frob",
        b"\xff\xfe<\x00",
        b"<clientConfig>",
        config().replace(b"clientConfig", b"x"),
        BOMB,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + config(incoming()),
        BOMB.decode().encode("utf-16"),
        config(incoming("a b")),
        config(incoming("pop.example.test/evil")),
        config(incoming("evil@pop.example.test")),
        config(incoming(port=99999)),
        config(incoming(port=0)),
        config(incoming(user="a\nb")),
        config(incoming(kind="")),
        b"<a>" * 50_000,
        config(incoming()) + b" " * 300_000,
    ],
)
async def test_documents_that_say_nothing(web: Web, document: bytes) -> None:
    web.pages[OWN] = document
    with pytest.raises(ServerDown, match="nobody says which it is"):
        await discover(ALICE, dial=web.dial)


@pytest.mark.parametrize(
    "address", ["", "alice", "@example.test", "alice@", "alice@localhost", "a b@c.de", "a@b..c", "a@-/c.d"]
)
async def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageFault, match="not a mail address"):
        await discover(address)


# --- the command line ---


def test_the_command(pop3cli: Cli, server: Dns) -> None:
    server.records["_pop3s._tcp.example.test."] = ["0 0 995 pop.example.test.", "1 0 995 pop.elsewhere.test."]
    ran = pop3cli("discover", ALICE)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.decode().splitlines() == [
        "pop3s://alice%40example.test@pop.example.test:995  (DNS, _pop3s._tcp.example.test)",
        "pop3s://alice%40example.test@pop.elsewhere.test:995  "
        "(DNS, _pop3s._tcp.example.test; the domain itself does not confirm it)",
    ]
    assert json.loads(pop3cli("--json", "discover", ALICE).out)[0] == {
        "url": "pop3s://alice%40example.test@pop.example.test:995",
        "source": "DNS, _pop3s._tcp.example.test",
        "confirmed": True,
        "oauth": False,
    }
    assert pop3cli("discover", "frob").status == 2


def test_an_account_whose_server_is_found(pop3cli: Cli, server: Dns) -> None:
    server.records["_pop3s._tcp.example.test."] = ["0 0 995 pop.example.test."]
    server.records["_pop3s._tcp.forged.test."] = ["0 0 995 pop.evil.test."]
    ran = pop3cli("account", "add", "work", ALICE, "--discover")
    assert (ran.status, "found pop3s://alice%40example.test@pop.example.test:995" in ran.err) == (0, True)
    # a server of another domain, named by DNS alone, is not taken without a person's word
    ran = pop3cli("account", "add", "forged", "alice@forged.test", "--discover")
    assert ran.status == 2
    assert "its domain does not confirm it, and nobody can be asked; give --yes" in ran.err
    assert pop3cli("account", "add", "forged", "alice@forged.test", "--discover", "--yes").status == 0
    urls = [one["url"] for one in json.loads(pop3cli("account", "list", "--json").out)]
    assert urls == [
        "pop3s://alice%40forged.test@pop.evil.test:995",
        "pop3s://alice%40example.test@pop.example.test:995",
    ]
