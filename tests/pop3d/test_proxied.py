"""`pop3d serve` behind a proxy that says PROXY: who the client is, when TLS begins, what is refused without a word."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.config import Limits
from tests.pop3d.abuse.test_connection_limits import Connection
from tests.pop3d.net.test_proxy_protocol import IPV4, IPV6, TLS13, v2
from tests.pop3d.net.test_proxy_protocol import ssl as ssl_tlv
from tests.site import Daemon, Site
from tests.site import served as site_served

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 995\r\n"
LOCAL = v2(b"", 0x00, 0x20)
OTHER = b"PROXY TCP4 192.0.2.8 198.51.100.1 4711 995\r\n"


@contextmanager
def served(
    site: Site, tls: str = "implicit", trusted: str = "127.0.0.1/32", limits: str = "", insecure: bool = False
) -> Iterator[Daemon]:
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n"})
    keys = f'tls = "{tls}"\nproxy_protocol = true\ntrusted_proxies = ["{trusted}"]'
    keys += "\ninsecure = true\n[tls]" if insecure else "\n[tls]"
    site.config.write_text(site.config.read_text().replace("[tls]", keys) + f"\n[limits]\n{limits}\n")
    with site_served(site) as daemon:
        yield daemon


class Client:
    """Octets to the daemon, and TLS above them when it is wanted."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sock = socket.create_connection(("127.0.0.1", site.port), timeout=20)

    def begin_tls(self, header: bytes, send: Callable[[bytes], None] | None = None) -> None:
        """A handshake whose first flight follows ``header`` in the same call of ``send``."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.site.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        send = send or self.sock.sendall
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                send(header + outgoing.read())
                header = b""
                incoming.write(self.sock.recv(65536) or pytest.fail("closed within the handshake"))
            else:
                break
        send(outgoing.read())
        self._tls, self._incoming, self._outgoing = tls, incoming, outgoing

    def talk(self, *lines: bytes) -> list[bytes]:
        """All that is said until QUIT's reply, behind TLS."""
        self._tls.write(b"".join(line + b"\r\n" for line in (*lines, b"QUIT")))
        self.sock.sendall(self._outgoing.read())
        said = b""
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self.sock.recv(65536) or pytest.fail("closed without a farewell"))
                continue
            if not data:
                return said.split(b"\r\n")[:-1]
            said += data

    def talk_in_clear(self, *octets: bytes) -> bytes:
        """All that is said until the end."""
        said = b""
        try:
            self.sock.sendall(b"".join(octets))
            self.sock.shutdown(socket.SHUT_WR)
            while data := self.sock.recv(65536):
                said += data
        except TimeoutError:
            raise
        except OSError:
            pass  # closed before we had said all, or on octets that nobody read
        return said

    def close(self) -> None:
        self.sock.close()


def dribble(client: Client) -> Callable[[bytes], None]:
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(octets: bytes) -> None:
        for octet in octets:
            client.sock.sendall(bytes([octet]))

    return send


@pytest.mark.parametrize(
    ("header", "address"), [(V1, "192.0.2.7"), (v2(IPV6, 0x21), "2001:db8::7"), (LOCAL, "127.0.0.1")]
)
def test_header_and_client_hello_in_one_segment_and_octet_by_octet(site: Site, header: bytes, address: str) -> None:
    with served(site) as daemon:
        for sender in (None, dribble):
            with closing(Client(site)) as client:
                client.begin_tls(header, sender and sender(client))
                assert client.talk(b"USER alice", b"PASS secret", b"STAT")[3] == b"+OK 1 19"
    assert daemon.log.count(f"session ip={address} user=alice tls=TLSv1.3") == 2


def test_stls_behind_a_proxy(site: Site) -> None:
    with served(site, "starttls") as daemon, closing(Client(site)) as client:
        client.sock.sendall(V1)
        assert client.sock.recv(1000).startswith(b"+OK")
        client.sock.sendall(b"STLS\r\n")
        assert client.sock.recv(1000).startswith(b"+OK")
        client.begin_tls(b"")
        client.talk(b"USER alice", b"PASS secret")
    assert "session ip=192.0.2.7 user=alice tls=TLSv1.3" in daemon.log


@pytest.mark.parametrize("tls", ["implicit", "none"])
def test_nobody_else_may_say_who_is_connected(site: Site, tls: str) -> None:
    with served(site, tls, trusted="192.0.2.0/24") as daemon, closing(Client(site)) as client:
        assert client.talk_in_clear(V1, b"CAPA\r\n") == b""
    refused = [line for line in daemon.log.splitlines() if "ip=" in line]
    assert len(refused) == 1
    assert 'connection refused ip=127.0.0.1 reason="not one of trusted_proxies"' in refused[0]


@pytest.mark.parametrize("tls", ["implicit", "starttls", "none"])
@pytest.mark.parametrize("begin", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"CAPA\r\n", b"PROXY TCP4 x\r\n"])
def test_a_missing_or_bad_header_gets_no_answer(site: Site, tls: str, begin: bytes) -> None:
    with served(site, tls) as daemon, closing(Client(site)) as client:
        assert client.talk_in_clear(begin) == b""
    refused = [line for line in daemon.log.splitlines() if "ip=" in line]
    assert len(refused) == 1
    assert 'connection refused ip=127.0.0.1 reason="no PROXY header: ' in refused[0]


def test_a_header_is_in_time_or_the_connection_goes(site: Site) -> None:
    with served(site, limits="handshake_timeout = 1") as daemon:
        with closing(Client(site)) as client:
            client.sock.sendall(V1[:-1])
            assert client.sock.recv(1) == b""
        with closing(Client(site)) as client:
            client.sock.sendall(V1)
            assert client.sock.recv(1) == b""
    assert "ip=127.0.0.1 user=- tls=- cipher=- mechanism=- messages=- retrieved=0 octets=0" in daemon.log
    assert "no PROXY header in time" in daemon.log
    assert "no TLS handshake in time" in daemon.log


def test_limits_and_failed_logins_are_the_clients_not_the_proxys(site: Site) -> None:
    with served(site, limits="connections_per_ip = 1") as daemon:
        with closing(Client(site)) as first, closing(Client(site)) as other, closing(Client(site)) as second:
            first.begin_tls(V1)
            other.begin_tls(OTHER)
            assert second.talk_in_clear(V1) == b""
            assert other.talk(b"USER alice", b"PASS wrong")[2].startswith(b"-ERR [AUTH]")
            first.talk()
        with closing(Client(site)) as again:
            again.begin_tls(V1)
            again.talk(b"USER alice", b"PASS secret")
    assert daemon.log.count('connection refused ip=192.0.2.7 reason="too many connections from this address"') == 1
    assert "authentication failed ip=192.0.2.8 user=alice" in daemon.log


@pytest.mark.parametrize(
    ("header", "allowed"),
    [(v2(IPV4 + TLS13), True), (v2(IPV4), False), (v2(IPV4 + ssl_tlv(0)), False), (V1, False), (LOCAL, False)],
    ids=["TLS", "no word of it", "none", "v1", "LOCAL"],
)
@pytest.mark.parametrize("insecure", [False, True])
def test_passwords_where_the_proxy_ended_tls_and_says_so(
    site: Site, header: bytes, allowed: bool, insecure: bool
) -> None:
    with served(site, "none", insecure=insecure) as daemon, closing(Client(site)) as client:
        said = client.talk_in_clear(header, b"CAPA\r\nUSER alice\r\nPASS secret\r\nQUIT\r\n")
    assert (b"\r\nUSER\r\n" in said) is allowed
    assert (b"1 messages" in said) is allowed
    assert b"STLS" not in said
    if allowed:
        assert "session ip=192.0.2.7 user=alice tls=TLSv1.3" in daemon.log
    else:
        assert b"-ERR USER needs TLS first" in said


def test_starttls_is_ours_whatever_the_proxy_says(site: Site) -> None:
    with served(site, "starttls"), closing(Client(site)) as client:
        assert b"-ERR USER needs TLS first: say STLS" in client.talk_in_clear(v2(IPV4 + TLS13), b"USER alice\r\n")


def test_the_guard_counts_who_was_introduced() -> None:
    guard = ConnectionLimits(Limits(connections_per_ip=2, unauthenticated_per_ip=1, unauthenticated=3))
    first, second, third = (Connection("proxy") for _ in range(3))
    for connection in (first, second, third):
        assert guard.admit(connection, proxied=True) is None  # the proxy's address does not count
        connection.address = "client"
    assert guard.count_address(first) is None
    assert guard.count_address(second) is not None
    guard.release(second)
    guard.logged_in(first)
    assert guard.count_address(third) is None
    guard.release(third)
    guard.release(first)
    assert not guard._of_address
    assert not guard._strangers_of_address
    assert not guard._addresses


def test_the_oldest_may_be_introduced_while_it_goes() -> None:
    guard = ConnectionLimits(Limits(unauthenticated=1))
    old, new = Connection("proxy"), Connection("b")
    assert guard.admit(old, proxied=True) is None
    assert guard.admit(new) is None
    assert old.cut_for is not None
    assert guard.count_address(old) is None
    guard.release(old)
    guard.release(new)
    assert not guard._of_address
    assert not guard._strangers_of_address


@pytest.mark.parametrize("tls", ["implicit", "none"])
@pytest.mark.parametrize("header", [b"", LOCAL, b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_who_only_looks_whether_we_are_there_is_told_at_debug(site: Site, tls: str, header: bytes, level: str) -> None:
    site.config.write_text(site.config.read_text() + f'[log]\nlevel = "{level}"\n')
    with served(site, tls) as daemon:
        for _ in range(3):
            client = Client(site)
            client.sock.sendall(header)
            if header and tls == "none":
                assert client.sock.recv(1000).startswith(b"+OK")
            client.sock.close()
        client = Client(site)  # who says something has a line as ever
        client.sock.sendall(V1 + (b"XYZZY\r\n" if tls == "none" else b"nonsense of some length\r\n"))
        with closing(client.sock):
            while client.sock.recv(1000):
                if tls == "none":
                    break
    lines = [line for line in daemon.log.splitlines() if " session ip=" in line]
    assert [line for line in lines if " INFO " in line] == [line for line in lines if "ip=192.0.2.7" in line] != []
    assert sum(" DEBUG session ip=127.0.0.1 " in line for line in lines) == (3 if level == "debug" else 0)


def test_networks_of_a_user_are_the_clients_and_not_the_proxys(site: Site) -> None:
    (site.root / "users").write_text(
        "alice:{PLAIN}secret::::::allow_nets=192.0.2.7\nbob:{PLAIN}secret::::::allow_nets=127.0.0.1\n"
    )
    with served(site, limits="auth_penalty = 0.1"):
        for name, allowed in (("alice", True), ("bob", False)):
            client = Client(site)
            with closing(client.sock):
                client.begin_tls(V1)
                said = client.talk(f"USER {name}".encode(), b"PASS secret", b"QUIT")
                assert said[2].startswith(b"+OK" if allowed else b"-ERR [AUTH] wrong user name or password"), said
