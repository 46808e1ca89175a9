"""Metrics and health, asked over real sockets, of real sessions."""

import contextlib
import http.client
import poplib
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pop3core.table import RULES
from pop3d.config import ConfigError, Limits, load
from pop3d.extras import install_line
from pop3d.observe.metrics import LIMIT_OF, Metrics
from tests.pki import NOW, Authority
from tests.site import Daemon, Site, free_port

ROOT = Path(__file__).parents[3]
Sample = tuple[str, frozenset[tuple[str, str]]]


class Watched:
    """A site with metrics, served."""

    def __init__(self, site: Site, limits: str = "") -> None:
        self.port = free_port()
        text = site.config.read_text()
        site.config.write_text(f'{text}\n[limits]\n{limits}\n[metrics]\nlisten = "127.0.0.1:{self.port}"\n')
        self.site, self.daemon = site, Daemon(site)

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def values(self) -> dict[Sample, float]:
        status, text = self.get("/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.values()[(f"pop3d_{name}", frozenset(labels.items()))]

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def connect(self) -> poplib.POP3_SSL:
        return poplib.POP3_SSL("localhost", self.site.port, context=self.site.context(), timeout=20)


@pytest.fixture
def watched(site: Site) -> Iterator[Watched]:
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n", "new/2.host": b"two\n"})
    running = Watched(site)
    try:
        yield running
    finally:
        assert running.daemon.end() == 0


def test_what_sessions_did_is_counted(watched: Watched) -> None:
    before = watched.values()
    assert not any(value for (name, _), value in before.items() if name.startswith("pop3d_sessions"))
    client = watched.connect()
    assert watched.value("sessions_open") == watched.value("sessions_unauthenticated") == 1
    client.user("alice")
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.user("alice")
    client.pass_("secret")
    other = watched.connect()
    other.user("alice")
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        other.pass_("secret")
    assert (watched.value("sessions_open"), watched.value("sessions_unauthenticated")) == (2, 1)
    client.retr(1)
    client.dele(1)
    client.dele(2)
    client.rset()
    client.dele(2)
    client.quit()
    other.quit()
    watched.wait(lambda: watched.value("sessions_open") == 0)
    values = watched.values()

    def value(name: str, **labels: str) -> float:
        return values[(f"pop3d_{name}", frozenset(labels.items()))]

    assert value("sessions_total") == 2
    assert value("sessions_unauthenticated") == 0
    outcomes = {outcome: value("logins_total", outcome=outcome) for outcome in ("accepted", "rejected", "in_use")}
    assert outcomes == {"accepted": 1, "rejected": 1, "in_use": 1}
    assert value("logins_total", outcome="unavailable") == 0
    counts = {rule.keyword: value("commands_total", command=rule.keyword) for rule in RULES}
    wanted = {"USER": 3, "PASS": 3, "RETR": 1, "DELE": 3, "RSET": 1, "QUIT": 2}
    assert {keyword: count for keyword, count in counts.items() if count} == wanted
    assert (value("messages_retrieved_total"), value("messages_deleted_total")) == (1, 1)
    assert value("octets_in_total") == len("USER alice\r\nPASS secret\r\n") * 3 - 1 + len("RETR 1\r\n") * 4 + 6 + 6 * 2
    assert value("octets_out_total") > 100
    assert value("login_seconds_count") == 3
    assert value("mailbox_opening_seconds_count") == 1
    watched.wait(lambda: watched.value("event_loop_lag_seconds_count") > 0)


def test_limits_are_counted_by_name(site: Site) -> None:
    watched = Watched(
        site, "bad_commands = 2\nconnections_per_ip = 3\nidle_timeout = 2\nmax_auth_failures = 1\nauth_penalty = 0\n"
    )
    guess = watched.connect()
    guess.user("alice")
    with pytest.raises(poplib.error_proto, match="too many failed logins, closing"):
        guess.pass_("wrong")
    guess.close()
    watched.wait(lambda: watched.value("limits_total", limit="max_auth_failures") == 1)
    watched.wait(lambda: watched.value("sessions_open") == 0)
    first, second = watched.connect(), watched.connect()
    third = watched.connect()
    with pytest.raises(OSError):
        watched.connect()
    for _ in range(2):
        with pytest.raises(poplib.error_proto):
            first._shortcmd("XYZZY")  # type: ignore[attr-defined]
    second.sock.sendall(b"x" * 70_000)
    third.user("alice")
    third.pass_("secret")
    names = ("connections_per_ip", "bad_commands", "line", "idle_timeout")
    watched.wait(lambda: all(watched.value("limits_total", limit=name) == 1 for name in names))
    assert sum(value for (name, _), value in watched.values().items() if name == "pop3d_limits_total") == 5
    for client in (first, second, third):
        client.close()
    assert watched.daemon.end() == 0


def test_every_reason_is_one_that_is_given_and_every_name_a_limit() -> None:
    source = "".join(
        (ROOT / name).read_text()
        for name in ("pop3d/abuse/connection_limits.py", "pop3d/session.py", "pop3core/server.py")
    )
    for reason in LIMIT_OF:
        assert f'"{reason}"' in source, reason
    assert set(LIMIT_OF.values()) - {"line"} <= set(Limits.model_fields)


def test_health_says_when_it_is_draining(watched: Watched) -> None:
    assert watched.get("/health") == (200, "ok")
    assert watched.get("/health?verbose=1") == (200, "ok")
    # a client that takes its message slowly holds the drain up
    box = watched.site.root / "mail" / "alice" / "new" / "3.host"
    box.write_bytes(b"x" * 30_000_000 + b"\n")
    client = watched.connect()
    client.user("alice")
    client.pass_("secret")
    client.sock.sendall(b"RETR 3\r\n")
    assert client.file.read(1) == b"+"
    watched.daemon.send(signal.SIGTERM)
    watched.wait(lambda: watched.get("/health")[0] == 503)
    assert watched.value("sessions_open") == 1
    while client.file.read(1 << 20):
        pass
    client.close()
    assert watched.daemon.process.wait(20) == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405), ("DELETE", "/health", 405)],
)
def test_nothing_else_is_answered(watched: Watched, method: str, path: str, status: int) -> None:
    got, text = watched.get(path, method)
    assert got == status
    assert path.strip("/") not in text or path == "/"


def test_no_label_has_values_that_a_client_chooses() -> None:
    labels = {name for family in Metrics().registry.collect() for s in family.samples for name in s.labels}
    assert labels == {"outcome", "command", "limit", "le", "version", "python", "openssl"}


class Pool:
    connections = (3, 1)


def all_metrics() -> Metrics:
    """With those that have no series of their own at the start."""
    metrics = Metrics()
    metrics.certificates([("localhost", "cert.pem", 0.0)])
    metrics.healthy(True, {"users": None, "mail": Pool()})
    metrics.watch_log(int, bool)
    return metrics


def test_alerts_to_copy_name_metrics_that_there_are() -> None:
    text = (ROOT / "examples/prometheus/pop3d.rules.yml").read_text()
    samples = [s for family in all_metrics().registry.collect() for s in family.samples]
    named = set(re.findall(r"\b(?:pop3d|process)_\w+", text))
    assert named - {s.name for s in samples} == set()
    assert len(named) >= 9
    for name, label, values in re.findall(r"(pop3d_\w+)\{(\w+)=~?\"([^\"]+)\"", text):
        assert set(values.split("|")) <= {s.labels.get(label) for s in samples if s.name == name}, (name, values)
    alerts = re.findall(r"^      - alert: (\w+)$", text, re.MULTILINE)
    assert len(alerts) == len(set(alerts)) == text.count("\n        expr: ") == text.count("\n          summary: ")


def test_connections_of_a_database_and_reloads_are_told() -> None:
    metrics = all_metrics()
    value = metrics.registry.get_sample_value
    assert value("pop3d_database_connections", {"database": "mail", "state": "used"}) == 2
    assert value("pop3d_database_connections", {"database": "mail", "state": "idle"}) == 1
    metrics.reloaded(ok=True, at=1000.0)
    metrics.reloaded(ok=False, at=2000.0)
    assert value("pop3d_config_last_reload_success_timestamp_seconds") == 1000
    assert value("pop3d_config_last_reload_successful") == 0
    metrics.certificates([("other", "other.pem", 1.0)])
    assert value("pop3d_certificate_not_after_seconds", {"name": "localhost", "certificate": "cert.pem"}) is None


def test_the_page_lists_every_metric() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    listed = re.findall(r"^\| `((?:pop3d|process)_\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", text, re.MULTILINE)
    metrics = all_metrics()
    families = {family.name: family for family in metrics.registry.collect()}
    made = set()
    for name, family in families.items():
        label = ",".join(dict.fromkeys(label for s in family.samples for label in s.labels if label != "le"))
        made.add((name + ("_total" if family.type == "counter" else ""), label, family.type))
    assert set(listed) == made
    for name in LIMIT_OF.values():
        assert f"`{name}`" in text


def test_off_loopback_is_warned_of(site: Site) -> None:
    site.config.write_text(f'{site.config.read_text()}\n[metrics]\nlisten = "0.0.0.0:{free_port()}"\n')
    daemon = Daemon(site)
    assert daemon.end() == 0
    assert "WARNING `metrics.listen` 0.0.0.0:" in daemon.log


def test_a_taken_port_is_one_clear_line(site: Site, run_pop3d) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site.config.write_text(f'{site.config.read_text()}\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
        result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 69
    assert result.stderr.splitlines()[-1].startswith(f"pop3d: cannot listen on 127.0.0.1 port {port}: Address already")


@pytest.mark.parametrize("listen", ["9195", "localhost", ":9195", "::1:9195", "[::1:9195", "h:x", "h:65536", "h:-1"])
def test_invalid_addresses_for_metrics_are_refused(site: Site, listen: str) -> None:
    site.config.write_text(f'{site.config.read_text()}\n[metrics]\nlisten = "{listen}"\n')
    with pytest.raises(ConfigError, match=r"`metrics\.listen`"):
        load(site.config)


def test_addresses_for_metrics_are_read(site: Site) -> None:
    text = site.config.read_text()
    for listen, host, port in (("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:9195", "::1", 9195), ("h:1", "h", 1)):
        site.config.write_text(f'{text}\n[metrics]\nlisten = "{listen}"\n')
        metrics = load(site.config).metrics
        assert metrics is not None
        assert (metrics.host, metrics.port) == (host, port)


def test_metrics_without_the_extra_say_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    site.config.write_text(f"{site.config.read_text()}\n[metrics]\n")
    with pytest.raises(ConfigError) as caught:
        load(site.config)
    (fault,) = caught.value.faults
    assert fault.endswith(f"`metrics`: prometheus-client is missing: {install_line('metrics')}")


def test_when_each_certificate_ends(site: Site) -> None:
    authority = Authority(site.root)
    for name in ("a", "faulty", "expired"):
        authority.issue(name, dns=[f"{name}.example.org"], days=-1 if name == "expired" else 30)
    authority.issue("rsa", dns=["localhost"], key="rsa", days=20)
    (site.root / "faulty.key").write_bytes(b"garbage")
    sni = "".join(
        f'[[tls.sni]]\nhosts = ["{name}.example.org"]\ncertificate = "{name}.pem"\nprivate_key = "{name}.key"\n'
        for name in ("a", "faulty", "expired")
    )
    text = site.config.read_text()
    beside = 'certificate_rsa = "rsa.pem"\nprivate_key_rsa = "rsa.key"\n'
    site.config.write_text(text.replace("[auth]", f"{beside}{sni}[auth]"))
    watched = Watched(site)

    def ends(name: str, file: str) -> float:
        labels = {("name", name), ("certificate", str(site.root / file))}
        return watched.values()[("pop3d_certificate_not_after_seconds", frozenset(labels))]

    def in_days(days: float) -> object:
        return pytest.approx(NOW.timestamp() + days * 86400, abs=1)

    try:
        assert ends("a.example.org", "a.pem") == in_days(30)
        assert ends("localhost", "rsa.pem") == in_days(20)
        assert ends("localhost", "cert.pem") > time.time() + 300 * 86400
        assert ends("expired.example.org", "expired.pem") == in_days(-1)
        assert ends("faulty.example.org", "faulty.pem") == 0  # nothing is served for it
        authority.issue("expired", dns=["expired.example.org"], days=60)
        (site.root / "a.key").write_bytes(b"garbage")
        watched.daemon.send(signal.SIGHUP)
        watched.daemon.wait_for("all other certificates reloaded")
        assert ends("expired.example.org", "expired.pem") == in_days(60)
        assert ends("a.example.org", "a.pem") == in_days(30)  # the old one, which is served
    finally:
        assert watched.daemon.end() == 0


def test_what_expires_and_who_comes_too_soon_is_counted(site: Site) -> None:
    site.maildir("alice", {"new/1.host": b"1\n", "new/2.host": b"2\n"})
    text = site.config.read_text().replace("[store]", "[store]\nexpire = 0")
    site.config.write_text(text)
    watched = Watched(site, "login_delay = 3600\n")
    client = watched.connect()
    client.user("alice")
    client.pass_("secret")
    client.retr(1)
    client.quit()
    again = watched.connect()
    again.user("alice")
    with pytest.raises(poplib.error_proto, match="LOGIN-DELAY"):
        again.pass_("secret")
    again.quit()
    watched.wait(lambda: watched.value("sessions_open") == 0)
    assert watched.value("logins_total", outcome="too_soon") == watched.value("messages_expired_total") == 1
    assert watched.value("messages_deleted_total") == watched.value("logins_total", outcome="unavailable") == 0
    assert watched.daemon.end() == 0
    assert "expired=1" in watched.daemon.log
