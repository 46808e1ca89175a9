"""What has happened since the start, in plain numbers, for `pop3d status`; with or without metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pop3core.answers import LoginAccepted, LoginRejected
from pop3d.observe.report import OUTCOME_OF_REPLY, ConnectionPool, Observer, SessionReport

__all__ = ["Totals"]


class Totals(Observer):
    """Counts, and passes all on to ``also``. To count is some additions a session, and nothing for a command."""

    def __init__(self, also: Observer | None = None) -> None:
        self._also = also or Observer()
        self.connections = 0
        self.outcomes: Counter[str] = Counter()
        """Logins that were answered: ``accepted``, ``rejected``, and the response codes of the others."""
        self.refused_for: Counter[str] = Counter()
        """Connections that were not let in, by the reason."""
        self.retrieved = self.retrieved_octets = self.deleted = self.expired = 0
        """Of sessions that have ended."""
        self.octets_in = self.octets_out = 0
        self.deliveries: Counter[str] = Counter()
        """Recipients of LMTP, by `OUTCOME_OF_REPLY`."""
        self.served_certificates: Sequence[tuple[str, str, float]] = ()
        """As `Observer.certificates` has them."""

    def connected(self) -> None:
        """See `Observer.connected`."""
        self.connections += 1
        self._also.connected()

    def refused(self, reason: str) -> None:
        """See `Observer.refused`."""
        self.refused_for[reason] += 1
        self._also.refused(reason)

    def login(self, answer: LoginAccepted | LoginRejected, seconds: float) -> None:
        """See `Observer.login`."""
        self.outcomes["accepted" if isinstance(answer, LoginAccepted) else answer.code or "rejected"] += 1
        self._also.login(answer, seconds)

    def opened(self, seconds: float) -> None:
        """See `Observer.opened`."""
        self._also.opened(seconds)

    def certificates(self, ends: Sequence[tuple[str, str, float]]) -> None:
        """See `Observer.certificates`."""
        self.served_certificates = ends
        self._also.certificates(ends)

    def healthy(self, healthy: bool, databases: Mapping[str, ConnectionPool | None]) -> None:
        """See `Observer.healthy`."""
        self._also.healthy(healthy, databases)

    def reloaded(self, *, ok: bool, at: float) -> None:
        """See `Observer.reloaded`."""
        self._also.reloaded(ok=ok, at=at)

    def ended(self, report: SessionReport) -> None:
        """See `Observer.ended`."""
        self.retrieved += report.retrieved
        self.retrieved_octets += report.retrieved_octets
        self.deleted += report.deleted
        self.expired += report.expired
        self.octets_in += report.octets_in
        self.octets_out += report.octets_out
        self._also.ended(report)

    def delivered(self, code: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self.deliveries[OUTCOME_OF_REPLY.get(code, "refused")] += 1
        self._also.delivered(code, seconds)

    def lmtp_connections(self, number: int) -> None:
        """See `Observer.lmtp_connections`."""
        self._also.lmtp_connections(number)

    def lag(self, seconds: float) -> None:
        """See `Observer.lag`."""
        self._also.lag(seconds)
