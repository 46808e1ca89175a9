"""`pop3d serve` as a process: real configuration, real TLS, real Maildir, real signals."""

import asyncio
import contextlib
import fcntl
import os
import poplib
import re
import signal
import socket
import ssl
import time
import types
from pathlib import Path
from typing import cast

import pytest

from pop3d.commands.serve import _log_file, _reload, _Service
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.net.certificates import create_self_signed
from pop3d.system.privileges import Identity
from tests.site import Daemon, Site


def login(site: Site, password: str = "secret") -> poplib.POP3_SSL:
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
    try:
        client.user("alice")
        client.pass_(password)
    except BaseException:
        client.close()
        raise
    return client


class Raw:
    """Octets behind TLS."""

    def __init__(self, site: Site) -> None:
        plain = socket.create_connection(("localhost", site.port), timeout=20)
        try:
            self.sock = site.context().wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.file = self.sock.makefile("rb")
        assert self.file.readline().startswith(b"+OK")

    def say(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def line(self) -> bytes:
        return self.file.readline()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


MAIL = {"new/1.host": b"Subject: one\n\n1\n", "cur/2.host:2,S": b"Subject: two\n\n2\n", "new/3.host": b"three\n"}


def test_more_connections_than_descriptors(site: Site) -> None:
    """They are refused before descriptors are used up: an accept that fails is tried again and again, and logged."""
    site.config.write_text(
        site.config.read_text() + "\n[limits]\nconnections_per_ip = 9000\nunauthenticated_per_ip = 9000\n"
    )
    site.maildir("alice", MAIL)
    daemon = Daemon(site, prefix=("prlimit", "--nofile=200:200"))
    try:
        old = login(site)
        strangers = [socket.create_connection(("127.0.0.1", site.port), timeout=20) for _ in range(400)]
        assert old.noop().startswith(b"+OK")
        for stranger in strangers:
            stranger.close()
        old.quit()
        for _ in range(100):  # until the server has seen them go
            with contextlib.suppress(OSError):
                login(site).quit()
                break
            time.sleep(0.05)
        else:
            pytest.fail("nobody gets in any more")
    finally:
        daemon.end()
    assert "out of system resource" not in daemon.log
    assert "connections lowered from 10000 to 45: the limit on open files is 200" in daemon.log


def test_a_whole_session(site: Site, daemon: Daemon) -> None:
    box = site.maildir("alice", MAIL)
    client = login(site)
    assert client.stat() == (3, 19 + 19 + 7)
    assert client.list()[1] == [b"1 19", b"2 19", b"3 7"]
    assert client.uidl()[1] == [b"1 1.host", b"2 2.host", b"3 3.host"]
    assert client.retr(3)[1] == [b"three"]
    assert client.top(1, 0)[1] == [b"Subject: one", b""]
    client.dele(2)
    client.quit()
    assert sorted(path.name for path in box.glob("*/*")) == ["1.host", "3.host"]
    assert daemon.end() == 0
    assert "user=alice tls=TLSv1.3" in daemon.log
    assert "deleted=1" in daemon.log
    assert "secret" not in daemon.log


def test_without_quit_nothing_is_removed(site: Site, daemon: Daemon) -> None:
    box = site.maildir("alice", MAIL)
    client = login(site)
    client.dele(1)
    client.close()
    client = login(site)
    assert client.stat()[0] == 3
    client.dele(1)
    client.rset()
    client.quit()
    assert len(list(box.glob("*/*"))) == 3


def test_a_wrong_password_is_refused_logged_and_never_shown(site: Site, daemon: Daemon) -> None:
    site.maildir("alice", MAIL)
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        login(site, "not-the-password")
    assert daemon.end() == 0
    assert "authentication failed ip=127.0.0.1 user=alice" in daemon.log
    assert "not-the-password" not in daemon.log


def test_one_session_per_mailbox(site: Site, daemon: Daemon) -> None:
    site.maildir("alice", MAIL)
    first = login(site)
    with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
        login(site)
    first.quit()
    login(site).quit()  # free at QUIT's +OK
    gone = login(site)
    gone.close()
    login(site).quit()  # and when the client is gone


def test_a_mailbox_in_use_is_logged_with_its_holder(site: Site, daemon: Daemon) -> None:
    box = site.maildir("alice", MAIL)
    first = login(site)
    with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
        login(site)
    first.quit()
    by_us = r"mailbox in use ip=127\.0\.0\.1 user=alice holder=127\.0\.0\.1 since=\S+[+-]\d\d:\d\d seconds=\d+\.\d{3}$"
    daemon.wait_for("mailbox in use")
    assert re.search(by_us, daemon.log, re.MULTILINE)

    descriptor = os.open(box, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as a delivery agent, or a second daemon
    try:
        with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
            login(site)
    finally:
        os.close(descriptor)
    daemon.wait_for('holder="another process"')
    if Path("/proc/locks").exists():
        assert daemon.log.rstrip().endswith(f"pid={os.getpid()}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_the_log_file_is_opened_with_the_rights_of_user(tmp_path: Path) -> None:
    """Root would follow a link in a folder of that user's to any file."""
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    listen = [{"host": "127.0.0.1", "tls": "none"}]
    config = Config.model_validate({"listen": listen, "user": "nobody", "log": {"file": mine / "log"}})
    opened = _log_file(config, Identity(65534, 65534))
    assert opened is not None and os.geteuid() == 0
    with pytest.raises(
        CommandError, match=r"`log\.file` .*/log: Permission denied; nobody must be able to write there"
    ):
        opened()
    opened = _log_file(config, None)
    assert opened is not None
    os.close(opened())
    assert (mine / "log").exists()


def test_a_pipelined_session_in_one_segment(site: Site, daemon: Daemon) -> None:
    site.maildir("alice", MAIL)
    raw = Raw(site)
    raw.say(b"USER alice\r\nPASS secret\r\nSTAT\r\nRETR 3\r\nQUIT\r\n")
    assert raw.file.read().split(b"\r\n")[2:] == [b"+OK 3 45", b"+OK 7 octets", b"three", b".", b"+OK bye", b""]
    raw.close()


def test_a_name_with_a_line_end_forges_no_log_line(site: Site, daemon: Daemon) -> None:
    raw = Raw(site)
    raw.say("USER al\u2028ice\x1b[31m\r\n".encode())
    assert raw.line().startswith(b"-ERR")
    raw.close()
    assert daemon.end() == 0
    assert "\x1b" not in daemon.log


def test_the_last_words_reach_a_client_that_was_cut_off(site: Site, daemon: Daemon) -> None:
    raw = Raw(site)
    raw.say(b"x" * 200_000)
    assert raw.line() == b"-ERR a line without end; closing\r\n"
    assert raw.line() == b""
    raw.close()


def test_sigterm_completes_the_reply_under_way_and_tells_the_idle(site: Site, daemon: Daemon) -> None:
    site.maildir("alice", {"new/1.host": b"x" * 8_000_000 + b"\n"})
    idle = Raw(site)
    busy = Raw(site)
    busy.say(b"USER alice\r\nPASS secret\r\nRETR 1\r\nRETR 1\r\n")
    for _ in range(3):
        assert busy.line().startswith(b"+OK")
    started = time.monotonic()
    daemon.send(signal.SIGTERM)
    assert idle.line() == b"-ERR [SYS/TEMP] shutting down; closing\r\n"
    assert idle.line() == b""
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", site.port), timeout=5)
    assert busy.line() == b"x" * 8_000_000 + b"\r\n"
    assert busy.line() == b".\r\n"
    assert busy.line() == b"-ERR [SYS/TEMP] shutting down; closing\r\n"
    assert busy.line() == b""
    busy.close()
    idle.close()
    assert daemon.process.wait(timeout=20) == 0
    assert time.monotonic() - started < 10


def test_ctrl_c_ends_serve_with_0(site: Site, daemon: Daemon) -> None:
    assert daemon.end(signal.SIGINT) == 0


def test_sighup_takes_a_new_certificate_and_keeps_sessions(site: Site, daemon: Daemon) -> None:
    site.maildir("alice", MAIL)
    before = login(site)
    old = site.certificate.read_bytes()
    fresh = site.root / "fresh"
    create_self_signed(["localhost"], fresh)
    site.certificate.write_bytes(b"garbage")
    daemon.send(signal.SIGHUP)
    daemon.wait_for("certificate not reloaded")
    site.certificate.write_bytes(old)
    login_refused_as_busy(site)
    for name in ("cert.pem", "key.pem"):
        (site.root / name).write_bytes((fresh / name).read_bytes())
    daemon.send(signal.SIGHUP)
    daemon.wait_for("certificate reloaded")
    assert before.stat()[0] == 3
    before.quit()
    login(site).quit()  # trusts the new one only
    with pytest.raises(ssl.SSLError):
        poplib.POP3_SSL("localhost", site.port, context=ssl.create_default_context(cadata=old.decode()), timeout=20)


def login_refused_as_busy(site: Site) -> None:
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        login(site)


def test_sighup_takes_new_users(site: Site, daemon: Daemon) -> None:
    users = site.root / "users"
    users.write_text("alice:{PLAIN}changed:::::\n")
    daemon.send(signal.SIGHUP)
    daemon.wait_for("users reloaded")
    login(site, "changed").quit()
    users.write_text("bob:{PLAIN}other\nalice:{NOPE}x\n")  # somebody else's line is no excuse
    daemon.send(signal.SIGHUP)
    daemon.wait_for("line 2: an unknown scheme")
    daemon.wait_for("users reloaded")
    with pytest.raises(poplib.error_proto, match="wrong user name or password"):
        login(site, "changed")


@pytest.mark.parametrize("text", [None, "", "# nobody\n", "no scheme at all\n", "alice:x\n"])
def test_sighup_keeps_the_old_users_when_no_line_can_be_read(site: Site, daemon: Daemon, text: str | None) -> None:
    if text is None:
        (site.root / "users").unlink()
    else:
        (site.root / "users").write_text(text)
    daemon.send(signal.SIGHUP)
    daemon.wait_for("ERROR users not reloaded, the old ones stay: users file")
    login(site).quit()


def test_a_faulty_line_of_the_users_file_costs_its_own_user(site: Site) -> None:
    with (site.root / "users").open("ab") as file:
        file.write(b"bob:*\ncarol:{NOPE}secret\n\xff\xfe:{PLAIN}secret\n  \n  # no line\nalice:{PLAIN}other\n")
    daemon = Daemon(site)
    try:
        login(site).quit()
        with pytest.raises(poplib.error_proto, match="wrong user name or password"):
            login(site, "other")
    finally:
        assert daemon.end() == 0
    told = [line.partition(" line ")[2] for line in daemon.log.splitlines() if "WARNING" in line and " line " in line]
    assert [text.split(":")[0] for text in told] == ["2", "3", "4", "7"]


@pytest.mark.parametrize("text", ["alice:x\n", "alice:x\nbob:{NOPE}secret\n"])
def test_a_users_file_of_which_no_line_can_be_read_is_a_configuration_fault(site: Site, run_pop3d, text: str) -> None:
    (site.root / "users").write_text(text)
    done = run_pop3d("serve", "--config", str(site.config))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1 + done.stderr.count("WARNING"))
    assert "users file " in done.stderr
    assert "secret" not in done.stderr.replace("the secret is", "")


@pytest.mark.parametrize(
    ("limits", "say", "reason"),
    [
        ("handshake_timeout = 1", None, "no TLS handshake in time"),
        ("login_timeout = 1", b"USER alice\r\n", "no login in time"),
        ("idle_timeout = 1", b"USER alice\r\nPASS secret\r\n", "autologout"),
    ],
)
def test_the_slow_are_cut_off(site: Site, limits: str, say: bytes | None, reason: str) -> None:
    site.config.write_text(site.config.read_text() + f"\n[limits]\n{limits}\n")
    daemon = Daemon(site)
    try:
        if say is None:
            with socket.create_connection(("127.0.0.1", site.port), timeout=10) as sock:
                assert sock.recv(1) == b""
        else:
            raw = Raw(site)
            raw.say(say)
            while line := raw.line():
                assert line.startswith(b"+OK")  # and nothing is said at the end (RFC 1939 §3)
            raw.close()
        assert daemon.end() == 0
        assert reason in daemon.log
    finally:
        daemon.end()


def test_a_client_that_takes_nothing_is_cut_off(site: Site) -> None:
    site.config.write_text(site.config.read_text() + "\n[limits]\nwrite_timeout = 1\n")
    site.maildir("alice", {"new/1.host": b"x" * 70 * 1_000_000})
    daemon = Daemon(site)
    try:
        raw = Raw(site)
        raw.say(b"USER alice\r\nPASS secret\r\nRETR 1\r\n")
        daemon.wait_for("the client takes nothing")
        raw.close()
    finally:
        assert daemon.end() == 0


def test_connections_are_limited_per_address(site: Site) -> None:
    site.config.write_text(site.config.read_text() + "\n[limits]\nconnections_per_ip = 2\n")
    daemon = Daemon(site)
    try:
        first, second = Raw(site), Raw(site)
        with pytest.raises((OSError, ssl.SSLError)):
            Raw(site)
        first.close()
        second.close()
        deadline = time.monotonic() + 5
        while True:
            try:
                Raw(site).close()
                break
            except OSError:
                assert time.monotonic() < deadline
    finally:
        assert daemon.end() == 0


def test_the_oldest_stranger_makes_room(site: Site) -> None:
    site.config.write_text(site.config.read_text() + "\n[limits]\nunauthenticated = 2\n")
    site.maildir("alice", MAIL)
    daemon = Daemon(site)
    try:
        first, second, third = Raw(site), Raw(site), Raw(site)
        assert first.line() == b""
        third.say(b"USER alice\r\nPASS secret\r\n")
        assert third.line().startswith(b"+OK")
        assert third.line().startswith(b"+OK")
        for raw in (first, second, third):
            raw.close()
    finally:
        assert daemon.end() == 0


def test_a_taken_port_is_one_clear_line(site: Site, daemon: Daemon, run_pop3d) -> None:
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 69
    assert result.stderr.splitlines()[-1] == (
        f"pop3d: cannot listen on 127.0.0.1 port {site.port}: Address already in use; "
        "end what listens there, or choose another port"
    )


def test_two_processes_on_one_port(site: Site) -> None:
    text = site.config.read_text().replace("[tls]", "reuse_port = true\n[tls]")
    site.config.write_text(f'{text}[log]\nlevel = "debug"\n')  # also who says nothing has a line then
    site.maildir("alice", MAIL)
    first, second = Daemon(site), Daemon(site)
    try:
        holder = login(site)
        for _ in range(40):  # the system deals them out by a hash of both addresses
            Raw(site).close()
            login_refused_as_busy(site)  # one mailbox, one session, whichever process has it
        holder.quit()
        login(site).quit()
        first.send(signal.SIGTERM)
        assert first.process.wait(timeout=20) == 0
        for _ in range(10):
            login(site).quit()
    finally:
        codes = first.end(), second.end()
    assert codes == (0, 0)
    sessions = first.log.count("session ip="), second.log.count("session ip=")
    assert min(sessions) > 0
    assert sum(sessions) == 1 + 2 * 40 + 1 + 10


def test_a_faulty_certificate_is_a_configuration_fault(site: Site, run_pop3d) -> None:
    create_self_signed(["localhost"], site.root / "other")
    (site.root / "key.pem").write_bytes((site.root / "other" / "key.pem").read_bytes())
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 78
    assert "key" in result.stderr


def test_plain_listeners_serve_on_loopback(site: Site) -> None:
    text = site.config.read_text().replace("[tls]", 'tls = "none"\n[tls]')
    site.config.write_text(text)
    site.maildir("alice", MAIL)
    daemon = Daemon(site)
    try:
        client = poplib.POP3("127.0.0.1", site.port, timeout=20)
        client.user("alice")
        client.pass_("secret")
        assert client.stat()[0] == 3
        client.quit()
    finally:
        assert daemon.end() == 0


def test_serve_started_as_root_needs_a_user(site: Site, run_pop3d) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    site.config.write_text(site.config.read_text().replace('user = "root"', ""))
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 78
    assert "`user`" in result.stderr


def test_serve_becomes_the_user_when_root_starts_it(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    site.config.write_text(site.config.read_text().replace('user = "root"', 'user = "nobody"'))
    site.maildir("alice", MAIL)
    for path in (site.root / "users", site.root / "mail", *(site.root / "mail").rglob("*")):
        os.chown(path, 65534, 65534)
    parent = site.root
    while parent != Path("/tmp") and parent != Path("/"):
        parent.chmod(0o755)
        parent = parent.parent
    daemon = Daemon(site)
    try:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert "Groups:\t\n" in status or "Groups:\t \n" in status
        client = login(site)
        client.dele(1)
        client.quit()
    finally:
        assert daemon.end() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stls", [False, True])
def test_each_version_of_tls_completes_its_handshake(site: Site, version: ssl.TLSVersion, stls: bool) -> None:
    """TLS 1.2 ends with the server's word: behind STLS no greeting takes it along, and the client waits for it."""
    if stls:
        site.config.write_text(site.config.read_text().replace("[[listen]]", '[[listen]]\ntls = "starttls"'))
    context = site.context()
    context.minimum_version = context.maximum_version = version
    daemon = Daemon(site)
    try:
        if stls:
            client = poplib.POP3("localhost", site.port, timeout=20)
            client.stls(context)
        else:
            client = poplib.POP3_SSL("localhost", site.port, context=context, timeout=20)
        client.user("alice")
        client.pass_("secret")
        assert client.stat() == (0, 0)
        client.quit()
    finally:
        assert daemon.end() == 0
    assert f"tls={version.name.replace('_', '.')}" in daemon.log


def test_a_reload_waits_until_root_was_given_up() -> None:
    done: list[str] = []

    async def run() -> None:
        done.append("run")

    async def play() -> None:
        reload = types.SimpleNamespace(one_at_a_time=asyncio.Lock(), run=run)
        notifier = types.SimpleNamespace(reloading=lambda: done.append("reloading"), ready=lambda: done.append("ready"))
        started = asyncio.Event()
        service = cast(_Service, types.SimpleNamespace(reload=reload, notifier=notifier))
        task = asyncio.ensure_future(_reload(service, started))
        await asyncio.sleep(0.01)
        assert not done
        started.set()
        await task

    asyncio.run(play())
    assert done == ["reloading", "run", "ready"]
