"""A server proves itself where the mechanism lets it, or is left (RFC 5802 §5): +OK alone is an impostor's."""

import base64
import hmac
from dataclasses import dataclass

import pytest

from pop3core.answers import SaslCancelled, SaslResponse
from pop3core.commands import Auth
from pop3core.errors import RemoteProtocolError
from pop3core.events import Challenged, Disconnected, Replied
from pop3core.sasl import SaslError, external, login, oauth, plain, scram
from pop3core.sasl.base import ClientSteps, ServerRefused, Tls
from pop3core.table import State
from tests.pop3core.play import Listener


@dataclass
class Proving:
    """A client in a SCRAM exchange, and a server that can give the right signature."""

    client: Listener
    steps: ClientSteps
    first: bytes
    message: bytes = b""

    @classmethod
    def begun(cls, nonce: str = "nonce") -> "Proving":
        client, steps = Listener(), scram.client("alice", b"s e c", nonce)
        first = next(steps)
        client.conn.send(Auth("SCRAM-SHA-256", first))
        client.run()
        assert first is not None
        return cls(client, steps, first)

    def challenge(self) -> bytes:
        return b"r=nonceours,s=c2FsdA==,i=4096"

    def answer(self, challenge: bytes) -> None:
        """The client hears a challenge and answers as its generator says."""
        assert isinstance(self.client.hear(b"+ " + base64.b64encode(challenge) + b"\r\n")[-1], Challenged)
        response = self.steps.send(challenge)
        assert response is not None
        self.message = self.first[3:] + b"," + challenge + b"," + response.partition(b",p=")[0]
        self.client.conn.answer(SaslResponse(response))
        self.client.run()

    def signature(self) -> bytes:
        _, server_key = scram.verifier(b"s e c", b"salt")
        return b"v=" + base64.b64encode(hmac.digest(server_key, self.message, "sha256"))


def left(client: Listener, said: bytes) -> None:
    """The client takes what the server said for an impostor's."""
    with pytest.raises(RemoteProtocolError, match="impostor") as caught:
        client.hear(said)
    assert (caught.value.code, caught.value.rfc) == ("unproved", "RFC 5802 §5")
    assert client.conn.state is State.CLOSED
    assert client.run() == [Disconnected(expected=False, unanswered=client.conn.next_event().unanswered)]


def test_ok_behind_the_servers_proof_logs_in() -> None:
    proving = Proving.begun()
    proving.answer(proving.challenge())
    proving.answer(proving.signature())
    assert proving.client.hear(b"+OK\r\n")[0] == Replied(Auth("SCRAM-SHA-256", proving.first), True, None, "")
    assert proving.client.conn.state is State.TRANSACTION


def test_ok_behind_the_client_first_message_is_an_impostors() -> None:
    left(Proving.begun().client, b"+OK welcome\r\n")


def test_ok_behind_the_client_final_message_is_an_impostors() -> None:
    proving = Proving.begun()
    proving.answer(proving.challenge())
    left(proving.client, b"+OK welcome\r\n")


def test_ok_behind_an_exchange_that_the_client_broke_off_is_an_impostors() -> None:
    proving = Proving.begun()
    proving.client.hear(b"+ e30=\r\n")
    proving.client.conn.answer(SaslCancelled())
    left(proving.client, b"+OK\r\n")


def test_ok_behind_a_challenge_that_is_no_base64_is_an_impostors() -> None:
    proving = Proving.begun()
    assert proving.client.hear(b"+ !!\r\n") == []
    left(proving.client, b"+OK\r\n")


def test_a_proof_counts_for_its_own_exchange_only() -> None:
    proving = Proving.begun()
    proving.answer(proving.challenge())
    proving.answer(proving.signature())
    proving.client.hear(b"-ERR [AUTH] no\r\n")
    proving.client.conn.send(Auth("SCRAM-SHA-256", proving.first))
    left(proving.client, b"+OK\r\n")


def test_a_challenge_behind_the_proof_takes_it_back() -> None:
    proving = Proving.begun()
    proving.answer(proving.challenge())
    proving.answer(proving.signature())
    assert isinstance(proving.client.hear(b"+ e30=\r\n")[-1], Challenged)
    with pytest.raises(SaslError, match="after the last one"):
        proving.steps.send(b"{}")
    proving.client.conn.answer(SaslResponse(b""))
    left(proving.client, b"+OK\r\n")


def test_an_answer_that_a_driver_made_up_proves_nothing() -> None:
    proving = Proving.begun()
    proving.client.hear(b"+ e30=\r\n")
    proving.client.conn.answer(SaslResponse(b""))
    left(proving.client, b"+OK\r\n")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512"])
def test_each_mechanism_of_the_family_has_the_proof(mechanism: str) -> None:
    client = Listener()
    client.conn.send(Auth(mechanism, b"n,,n=alice,r=x"))
    left(client, b"+OK\r\n")


def test_each_wrong_last_message_of_a_server_is_an_impostors() -> None:
    for damage in (
        lambda _: b"",
        lambda _: b"v=",
        lambda good: good[:-1],
        lambda good: good + good[1:],
        lambda good: good + b"," + good,
        lambda good: b"v=AAAA," + good,
        lambda good: good + b",e=other-error",
        lambda good: b"V" + good[1:],
        lambda good: b"v=" + base64.b64encode(bytes(32)),
        lambda good: good.rstrip(b"="),
        lambda _: b"e=",
        lambda _: b"e=\x1b[2J",
    ):
        proving = Proving.begun()
        proving.answer(proving.challenge())
        said = damage(proving.signature())
        with pytest.raises(SaslError, match="impostor"):
            proving.steps.send(said)


@pytest.mark.parametrize("said", [b"e=invalid-proof", b"e=other-error,x=y"])
def test_a_server_may_say_why_it_refuses(said: bytes) -> None:
    proving = Proving.begun()
    proving.answer(proving.challenge())
    with pytest.raises(ServerRefused, match=r"refuses the proof: (invalid-proof|other-error)$"):
        proving.steps.send(said)


@pytest.mark.parametrize(
    ("steps", "responses"),
    [
        (plain.client("alice", b"x"), 1),
        (login.client("alice", b"x"), 3),
        (external.client("alice"), 1),
        (oauth.bearer_client("alice", "x"), 2),
        (oauth.xoauth2_client("alice", "x"), 2),
    ],
    ids=["PLAIN", "LOGIN", "EXTERNAL", "OAUTHBEARER", "XOAUTH2"],
)
def test_a_challenge_too_many_is_the_servers_fault(steps: ClientSteps, responses: int) -> None:
    next(steps)
    for _ in range(responses - 1):
        steps.send(b"")
    with pytest.raises(SaslError, match="after the last one"):
        steps.send(b"")


# --- channel binding (RFC 5802 §6) ---


@pytest.mark.parametrize(
    ("options", "header"),
    [({}, b"n,,"), ({"could_bind": True}, b"y,,"), ({"could_bind": True, "authzid": "bob"}, b"y,a=bob,"),
     ({"channel_binding": b"x"}, b"p=tls-server-end-point,,")],
    ids=["none", "could", "could-as-bob", "does"],
)  # fmt: skip
def test_what_a_client_says_of_channel_binding(options, header: bytes) -> None:
    steps = scram.client("alice", b"s e c", "nonce", **options)
    assert next(steps) == header + b"n=alice,r=nonce"
    final = steps.send(b"r=nonceours,s=c2FsdA==,i=4096")
    bound = header + (b"x" if header.startswith(b"p") else b"")
    assert final is not None
    assert final.startswith(b"c=" + base64.b64encode(bound) + b",r=nonceours,p=")


@pytest.mark.parametrize("offered", [True, False])
def test_a_server_that_offered_binding_refuses_who_saw_none(offered: bool) -> None:
    side = scram.server(Tls(b"x" if offered else None, binding_offered=offered))
    next(side)
    if offered:
        with pytest.raises(SaslError, match="somebody hid it"):
            side.send(b"y,,n=alice,r=nonce")
    else:
        side.send(b"y,,n=alice,r=nonce")
