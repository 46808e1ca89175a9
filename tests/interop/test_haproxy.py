"""The real HAProxy in front of `pop3d serve`: both versions of its PROXY protocol, TLS passed through and TLS ended."""

import poplib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.site import Daemon, Site, free_port

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is missing; install it")

CLIENT = "127.0.0.2"  # any address of 127/8 is ours to connect from, and is not the proxy's


@contextmanager
def behind_haproxy(site: Site, tls: str, bind: str, server: str) -> Iterator[tuple[int, Daemon]]:
    """The port of HAProxy, and pop3d behind it. ``bind``, ``server``: what the lines of these names say further."""
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n"})
    keys = f'tls = "{tls}"\nproxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]\n[tls]'
    site.config.write_text(site.config.read_text().replace("[tls]", keys))
    port = free_port()
    both = site.root / "both.pem"
    both.write_bytes(site.certificate.read_bytes() + (site.root / "key.pem").read_bytes())
    config = site.root / "haproxy.cfg"
    config.write_text(f"""
global
    maxconn 50
defaults
    mode tcp
    timeout connect 20s
    timeout client 60s
    timeout server 60s
listen pop3
    bind 127.0.0.1:{port} {bind.format(certificate=both)}
    server pop3d 127.0.0.1:{site.port} {server} check inter 50ms
""")
    daemon = Daemon(site)
    # -db: in the foreground, a child of ours
    haproxy = subprocess.Popen(
        ["haproxy", "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(port, haproxy)
        yield port, daemon
    finally:
        haproxy.terminate()
        haproxy.communicate(timeout=20)
        assert daemon.end() == 0


def wait_for(port: int, haproxy: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
            return
        except OSError:
            if haproxy.poll() is not None or time.monotonic() > deadline:
                assert haproxy.stderr is not None
                haproxy.terminate()
                raise AssertionError(f"haproxy did not start: {haproxy.stderr.read()}") from None
            time.sleep(0.02)


class FromElsewhere(poplib.POP3_SSL):
    """Connects from `CLIENT`, so that who is logged can only come from HAProxy's word."""

    def _create_socket(self, timeout: float) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timeout, (CLIENT, 0))
        return self.context.wrap_socket(sock, server_hostname="localhost")


def visit(port: int, context: ssl.SSLContext) -> None:
    client = FromElsewhere("127.0.0.1", port, context=context, timeout=20)
    assert "USER" in client.capa()
    client.user("alice")
    client.pass_("secret")
    assert client.retr(1)[1] == [b"Subject: one", b"", b"1"]
    client.quit()


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_tls_is_passed_through(site: Site, server: str) -> None:
    with behind_haproxy(site, "implicit", "", server) as (port, daemon):
        visit(port, site.context())
    assert f"session ip={CLIENT} user=alice tls=TLSv1." in daemon.log
    assert "session ip=127.0.0.1" not in daemon.log  # its checks are told at level debug


def test_haproxy_ends_tls_and_says_so(site: Site) -> None:
    server = "send-proxy-v2-ssl-cn proxy-v2-options ssl,ssl-cipher,cert-sig,authority,crc32c"
    with behind_haproxy(site, "none", "ssl crt {certificate}", server) as (port, daemon):
        visit(port, site.context())
    assert f"session ip={CLIENT} user=alice tls=TLSv1.3" in daemon.log


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2"])
def test_haproxy_ends_tls_and_does_not_say_so(site: Site, server: str) -> None:
    with behind_haproxy(site, "none", "ssl crt {certificate}", server) as (port, daemon):
        client = FromElsewhere("127.0.0.1", port, context=site.context(), timeout=20)
        assert "USER" not in client.capa()
        with pytest.raises(poplib.error_proto, match="needs TLS first"):
            client.user("alice")
        client.quit()
    assert f"session ip={CLIENT} user=- tls=-" in daemon.log


def test_haproxy_takes_clear_text_and_says_so(site: Site) -> None:
    with behind_haproxy(site, "none", "", "send-proxy-v2-ssl") as (port, _):
        client = poplib.POP3("127.0.0.1", port, timeout=20)
        with pytest.raises(poplib.error_proto, match="needs TLS first"):
            client.user("alice")
        client.quit()


def test_without_its_word_nobody_gets_through(site: Site) -> None:
    with behind_haproxy(site, "implicit", "", "") as (port, daemon), pytest.raises((OSError, ssl.SSLError)):
        FromElsewhere("127.0.0.1", port, context=site.context(), timeout=20)
    assert 'connection refused ip=127.0.0.1 reason="no PROXY header: ' in daemon.log
