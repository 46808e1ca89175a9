"""What is counted for Prometheus, in a registry of its own. Needs the extra ``metrics`` (prometheus-client).

No label has values that a client chooses: no users, no addresses, and commands by the names of the protocol's table, so
the number of series is fixed. Most is counted when a session ends, from its report: what a session is costs nothing
while it runs.
"""

from __future__ import annotations

import platform
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pop3core.answers import LoginAccepted, LoginRejected
from pop3core.table import RULES
from pop3d.observe.report import OUTCOME_OF_REPLY, ConnectionPool, Observer, SessionReport

__all__ = ["LIMIT_OF", "Metrics"]

LIMIT_OF: Final = {
    "too many connections": "connections",
    "too many connections from this address": "connections_per_ip",
    "too many connections have not logged in, and this one is the oldest": "unauthenticated",
    "too many connections from this address have not logged in": "unauthenticated_per_ip",
    "no TLS handshake in time": "handshake_timeout",
    "no login in time": "login_timeout",
    "the client takes nothing": "write_timeout",
    "the client answers no more": "lost_after",
    "autologout": "idle_timeout",
    "too many bad commands": "bad_commands",
    "too many failed logins": "max_auth_failures",
    "a line without end": "line",
}
"""Which limit stands behind the reason why a connection was refused or ended; the names are those of ``[limits]``."""

_OUTCOMES: Final = ("accepted", "rejected", "in_use", "too_soon", "unavailable")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class _Registry(CollectorRegistry):
    """Without the time at which each series was made, which would double their number."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _LogMetrics(Collector):
    """What the log's writer tells of itself, asked when somebody asks us."""

    def __init__(self, lost: Callable[[], int], works: Callable[[], bool]) -> None:
        self._lost, self._works = lost, works

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("pop3d_log_lines_lost", "Lines of the log that could not be written.", self._lost())
        yield GaugeMetricFamily(
            "pop3d_log_works", "1: lines of the log can be written; 0: they are lost.", self._works()
        )


class Metrics(Observer):
    """``registry``: what `prometheus_client.generate_latest` wants."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = _Registry()
        registry = self.registry

        def counter(name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
            made = Counter(f"pop3d_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)  # shown as 0 from the start
            return made

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"pop3d_{name}", text, buckets=_SECONDS, registry=registry)

        self._sessions = counter("sessions", "Connections that were let in.")
        self._open = Gauge("pop3d_sessions_open", "Connections that are open now.", registry=registry)
        self._strangers = Gauge(
            "pop3d_sessions_unauthenticated", "Connections open now that have not logged in.", registry=registry
        )
        self._logins = counter("logins", "Logins that were answered, by outcome.", "outcome", _OUTCOMES)
        keywords = [rule.keyword for rule in RULES]
        self._commands = counter("commands", "Commands that were understood and valid.", "command", keywords)
        self._octets_in = counter("octets_in", "Octets read from clients, without what TLS adds.")
        self._octets_out = counter("octets_out", "Octets sent to clients, without what TLS adds.")
        self._retrieved = counter("messages_retrieved", "Messages sent whole by RETR.")
        self._deleted = counter("messages_deleted", "Messages removed at QUIT.")
        self._expired = counter("messages_expired", "Messages removed at QUIT without having been deleted.")
        self._limits = counter("limits", "Connections refused or ended by a limit.", "limit", LIMIT_OF.values())
        self._login_seconds = histogram("login_seconds", "From a credential to its answer, the mailbox open.")
        self._opening_seconds = histogram("mailbox_opening_seconds", "Opening and listing a mailbox.")
        self._not_after = Gauge(
            "pop3d_certificate_not_after_seconds",
            "When each certificate that is served ends, in Unix time; 0: none is.",
            ["name", "certificate"],
            registry=registry,
        )
        results = dict.fromkeys(OUTCOME_OF_REPLY.values())
        self._deliveries = counter("deliveries", "Recipients of mail by LMTP, by outcome.", "outcome", results)
        self._delivery_seconds = histogram("delivery_seconds", "Delivering a message by LMTP into one mailbox.")
        self._lmtp_open = Gauge("pop3d_lmtp_connections_open", "LMTP connections that are open now.", registry=registry)
        self._healthy = Gauge("pop3d_healthy", "1: users and mail could be asked at the last look.", registry=registry)
        self._databases = Gauge(
            "pop3d_database_connections",
            "Connections to PostgreSQL, of users and of mail, that are idle or in use.",
            ["database", "state"],
            registry=registry,
        )
        self._reload_ok = Gauge(
            "pop3d_config_last_reload_successful",
            "1: configuration and users were without a fault when they were read last.",
            registry=registry,
        )
        self._reload_at = Gauge(
            "pop3d_config_last_reload_success_timestamp_seconds",
            "When they were, in Unix time: the start, or the last SIGHUP that found no fault.",
            registry=registry,
        )
        self.reloaded(ok=True, at=time.time())
        build = Gauge("pop3d_build_info", "1, with what runs.", ["version", "python", "openssl"], registry=registry)
        build.labels(version("pop3core"), platform.python_version(), ssl.OPENSSL_VERSION.partition("  ")[0]).set(1)
        ProcessCollector(registry=registry)
        self._lag_seconds = histogram("event_loop_lag_seconds", "How late the event loop is, looked at each second.")

    def watch_log(self, lost: Callable[[], int], works: Callable[[], bool]) -> None:
        """From now on tell of the log: how many lines were ``lost``, and whether it ``works``."""
        self.registry.register(_LogMetrics(lost, works))

    def connected(self) -> None:
        """See `Observer.connected`."""
        self._sessions.inc()
        self._open.inc()
        self._strangers.inc()

    def refused(self, reason: str) -> None:
        """See `Observer.refused`."""
        if limit := LIMIT_OF.get(reason):
            self._limits.labels(limit).inc()

    def login(self, answer: LoginAccepted | LoginRejected, seconds: float) -> None:
        """See `Observer.login`."""
        match answer:
            case LoginAccepted():
                outcome = "accepted"
                self._strangers.dec()
            case LoginRejected(None):
                outcome = "rejected"
            case LoginRejected("IN-USE"):
                outcome = "in_use"
            case LoginRejected("LOGIN-DELAY"):
                outcome = "too_soon"
            case _:
                outcome = "unavailable"
        self._logins.labels(outcome).inc()
        self._login_seconds.observe(seconds)

    def opened(self, seconds: float) -> None:
        """See `Observer.opened`."""
        self._opening_seconds.observe(seconds)

    def certificates(self, ends: Sequence[tuple[str, str, float]]) -> None:
        """See `Observer.certificates`."""
        self._not_after.clear()  # one that is not served any more must not ring an alarm
        for name, file, end in ends:
            self._not_after.labels(name, file).set(end)

    def healthy(self, healthy: bool, databases: Mapping[str, ConnectionPool | None]) -> None:
        """See `Observer.healthy`."""
        self._healthy.set(healthy)
        for name, database in databases.items():
            if database is not None:
                opened, idle = database.connections
                self._databases.labels(name, "idle").set(idle)
                self._databases.labels(name, "used").set(opened - idle)

    def reloaded(self, *, ok: bool, at: float) -> None:
        """See `Observer.reloaded`."""
        self._reload_ok.set(ok)
        if ok:
            self._reload_at.set(at)

    def ended(self, report: SessionReport) -> None:
        """See `Observer.ended`."""
        self._open.dec()
        if report.listing is None:
            self._strangers.dec()
        for keyword, count in report.commands.items():
            self._commands.labels(keyword).inc(count)
        self._octets_in.inc(report.octets_in)
        self._octets_out.inc(report.octets_out)
        self._retrieved.inc(report.retrieved)
        self._deleted.inc(report.deleted)
        self._expired.inc(report.expired)
        self.refused(report.reason)

    def delivered(self, code: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self._deliveries.labels(OUTCOME_OF_REPLY.get(code, "refused")).inc()
        if seconds:
            self._delivery_seconds.observe(seconds)

    def lmtp_connections(self, number: int) -> None:
        """See `Observer.lmtp_connections`."""
        self._lmtp_open.set(number)

    def lag(self, seconds: float) -> None:
        """See `Observer.lag`."""
        self._lag_seconds.observe(seconds)
