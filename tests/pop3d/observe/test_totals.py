from pop3core.answers import LoginAccepted, LoginRejected
from pop3core.maildrop import Listing
from pop3d.observe.report import Observer, SessionReport
from pop3d.observe.totals import Totals


class Heard(Observer):
    """Notes the names of what it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []


def _note(name: str):
    return lambda self, *_, **__: self.names.append(name)


TOLD = [name for name in vars(Observer) if not name.startswith("_")]
for name in TOLD:
    setattr(Heard, name, _note(name))


def report() -> SessionReport:
    return SessionReport(
        address="192.0.2.1", user="alice", tls="", cipher="", mechanism="USER", listing=None, commands={}, retrieved=2,
        retrieved_octets=200, octets_in=30, octets_out=400, deleted=1, seconds=1.0, reason="QUIT", expired=5,
    )  # fmt: skip


def test_totals_count_and_pass_on() -> None:
    heard = Heard()
    totals = Totals(heard)
    totals.connected()
    totals.refused("too many connections")
    totals.login(LoginAccepted(Listing([], [])), 0.1)
    totals.login(LoginRejected(None, "no"), 0.1)
    totals.login(LoginRejected("IN-USE", "no"), 0.1)
    totals.opened(0.1)
    totals.certificates([("", "cert.pem", 1.0)])
    totals.ended(report())
    totals.ended(report())
    totals.delivered(250, 0.1)
    totals.delivered(550, 0.0)
    totals.lmtp_connections(1)
    totals.healthy(True, {})
    totals.reloaded(ok=True, at=1.0)
    totals.lag(0.1)
    assert set(heard.names) == set(TOLD), "Totals does not pass on all that an Observer is told"
    assert (totals.connections, totals.refused_for) == (1, {"too many connections": 1})
    assert totals.outcomes == {"accepted": 1, "rejected": 1, "IN-USE": 1}
    assert (totals.retrieved, totals.retrieved_octets, totals.deleted, totals.expired) == (4, 400, 2, 10)
    assert (totals.octets_in, totals.octets_out) == (60, 800)
    assert totals.deliveries == {"delivered": 1, "unknown_user": 1}
    assert totals.served_certificates == [("", "cert.pem", 1.0)]
