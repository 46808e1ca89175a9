"""The login as a machine of its own: commands, lines and answers in, one step at a time out, without a connection."""

import base64
from dataclasses import replace

import pytest
from read_rooms import imports, sources

from pop3core import login
from pop3core.answers import LoginAccepted, LoginRejected, PlainSecret, TlsEstablished
from pop3core.commands import Apop, Auth, Pass, Stls, User
from pop3core.errors import LocalProtocolError
from pop3core.events import LoginRequested, Password, ProofFailed, SecretRequested
from pop3core.limits import Limits
from pop3core.login import Login, LoginRefusal, NoCredential
from pop3core.maildrop import Listing
from pop3core.sasl.base import Challenge
from pop3core.settings import ServerConfig, Summary
from pop3core.table import State
from tests.pop3core.play import TIMESTAMP

CONFIG = ServerConfig(mechanisms=("OAUTHBEARER", "PLAIN"), stls=True, limits=Limits(auth_failures_max=2))
PLAIN = b"\0alice\0s e c"
NO = LoginRejected(None, "wrong user name or password")
MAIL = LoginAccepted(Listing([7], [b"a"]))


def behind_tls(summary: Summary | None = None) -> Login:
    machine = Login(CONFIG, summary or Summary(), TIMESTAMP)
    machine.tls_established(TlsEstablished())
    return machine


def test_it_knows_neither_framing_nor_maildrop() -> None:
    texts = sources()
    known = {arrow.target for arrow in imports(login.__name__, texts[login.__name__], texts)}
    assert not known & {"pop3core.framing", "pop3core.maildrop", "pop3core.texts"}


def test_user_and_pass() -> None:
    summary = Summary()
    machine = behind_tls(summary)
    machine.named = "alice"
    question = machine.begin(Pass(b"s e c"))
    assert question == LoginRequested(Password("alice", "", b"s e c"), False)
    assert isinstance(question, LoginRequested)
    assert machine.answer(question, MAIL) is MAIL
    assert (machine.username, summary.mechanism) == ("alice", "USER")


def test_an_exchange_of_two_lines() -> None:
    machine = behind_tls()
    assert machine.begin(Auth("PLAIN")) == Challenge(b"")
    assert machine.exchange is not None
    assert machine.respond(base64.b64encode(PLAIN)) == LoginRequested(Password("alice", "", b"s e c"), False)
    assert machine.exchange is None
    assert machine.username is None


def test_what_leads_to_no_credential_is_not_counted() -> None:
    summary = Summary()
    machine = behind_tls(summary)
    machine.begin(Auth("PLAIN"))
    assert machine.respond(b"*") == NoCredential("authentication was cancelled")
    machine.begin(Auth("PLAIN"))
    assert machine.too_long(100) == NoCredential("a command has at most {octets} octets", {"octets": 100})
    assert machine.begin(Auth("LOGIN")) == NoCredential("this mechanism is not offered")
    assert summary.auth_failures == 0


def test_refused_credentials_are_counted_to_the_last() -> None:
    summary = Summary()
    machine = behind_tls(summary)
    bearer = Auth("OAUTHBEARER", b"n,a=alice,\x01auth=Bearer bad\x01\x01")
    for last in (False, True):
        question = machine.begin(bearer)
        assert isinstance(question, LoginRequested)
        first = machine.answer(question, NO)
        assert isinstance(first, LoginRefusal)
        assert first.challenge is not None
        assert machine.respond(b"AQ==") == replace(first, challenge=None) == LoginRefusal(NO.text, "AUTH", last)
    assert summary.auth_failures == 2


def test_apop_asks_for_the_secret_and_tells_only_the_driver() -> None:
    machine = behind_tls()
    question = machine.begin(Apop("alice", "0" * 32))
    assert question == SecretRequested("alice", "APOP")
    assert isinstance(question, SecretRequested)
    with pytest.raises(LocalProtocolError, match="LoginAccepted is no answer to SecretRequested"):
        machine.answer(question, MAIL)
    assert machine.answer(question, PlainSecret(b"tanstaaf")) == LoginRequested(ProofFailed("alice", "APOP"), False)


def test_what_is_open_follows_tls() -> None:
    machine = Login(CONFIG, Summary(), None)
    assert Stls in machine.open
    assert User not in machine.open
    assert "SASL" not in " ".join(machine.capabilities(State.AUTHORIZATION))
    machine.tls_established(TlsEstablished())
    assert Stls not in machine.open
    assert User in machine.open
    assert "SASL OAUTHBEARER PLAIN" in machine.capabilities(State.AUTHORIZATION)
