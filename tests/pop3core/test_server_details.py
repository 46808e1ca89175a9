"""Details of the server engine that mutants had shown to be untested."""

import base64

import pytest

from pop3core.errors import LocalProtocolError
from pop3core.events import Closed, ContentDropped, SecretRequested, SendData
from pop3core.server import ServerConfig, ServerConnection
from tests.pop3core.play import TIMESTAMP, Dialogue

FIRST = base64.b64encode(b"y,,n=alice,r=abc").decode()  # "y": the client can bind, and thinks that the server cannot


def test_the_bounds_of_a_timestamp() -> None:
    for inside in ("a", "a" * 200):
        ServerConnection(timestamp=f"<{inside}>")
    for inside in ("", "a" * 201):
        with pytest.raises(LocalProtocolError):
            ServerConnection(timestamp=f"<{inside}>")


def test_nothing_waits_to_be_sent_before_the_first_event() -> None:
    assert ServerConnection().unsent == 0


def test_a_message_is_dropped_once_however_often_it_is_hung_up() -> None:
    server = Dialogue([b"x\r\n" * 10], piece=3)
    server.say("USER alice", "PASS s e c")
    server.conn.receive_data(b"RETR 1\r\n")
    event = server.conn.next_event()
    while isinstance(event, SendData):
        event = server.conn.next_event()
    server.conn.answer(server.content(1, 0))
    server.conn.hang_up("enough")
    assert server.conn.next_event() == ContentDropped(1)
    server.conn.hang_up("enough, really")
    assert isinstance(server.conn.next_event(), Closed)


@pytest.mark.parametrize(
    ("mechanisms", "binding", "refused"),
    [
        (("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), b"the channel", True),
        (("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), None, False),
        (("SCRAM-SHA-256",), b"the channel", False),
        (("SCRAM-SHA-256",), None, False),
    ],
)
def test_a_client_that_was_told_of_no_binding_is_refused_where_there_is_one(
    mechanisms: tuple[str, ...], binding: bytes | None, refused: bool
) -> None:
    """RFC 5802 §6: somebody in between has taken -PLUS out of the list."""
    server = Dialogue(config=ServerConfig(mechanisms=mechanisms), binding=binding)
    answer = server.say(f"AUTH SCRAM-SHA-256 {FIRST}")
    assert answer.startswith(b"-ERR" if refused else b"+ ")


def test_the_word_of_failure_of_a_mechanism_is_said_for_it_alone() -> None:
    """RFC 7628 §3.2.3: a challenge that tells of the failure; a password refused later has none."""
    server = Dialogue(config=ServerConfig(mechanisms=("OAUTHBEARER", "PLAIN")), timestamp=TIMESTAMP)
    bad = base64.b64encode(b"n,a=alice,\x01auth=Bearer bad\x01\x01").decode()
    assert server.say(f"AUTH OAUTHBEARER {bad}").startswith(b"+ ")
    assert server.say("AQ==").startswith(b"-ERR [AUTH]")
    assert server.say("USER alice", "PASS wrong").endswith(b"-ERR [AUTH] wrong user name or password\r\n")
    server = Dialogue(config=ServerConfig(mechanisms=("OAUTHBEARER", "PLAIN")), timestamp=TIMESTAMP)
    server.say(f"AUTH OAUTHBEARER {bad}", "AQ==")
    assert server.say("APOP alice " + "0" * 32).startswith(b"-ERR [AUTH]")


@pytest.mark.parametrize("line", ["", "*", "QUIT", "no base64", "x" * 13_000], ids=lambda line: line[:10])
def test_whatever_follows_the_word_of_failure_takes_note_of_it(line: str) -> None:
    """RFC 7628 §3.2.3: the -ERR to AUTH follows, and what was said instead of a response is no command."""
    server = Dialogue(config=ServerConfig(mechanisms=("OAUTHBEARER",)))
    bad = base64.b64encode(b"n,a=alice,\x01auth=Bearer bad\x01\x01").decode()
    assert server.say(f"AUTH OAUTHBEARER {bad}").startswith(b"+ ")
    assert server.say(line) == b"-ERR [AUTH] wrong user name or password\r\n"
    assert server.conn.summary.bad_commands == 0
    assert server.say("CAPA").startswith(b"+OK")


@pytest.mark.parametrize("command", [f"AUTH SCRAM-SHA-256 {FIRST}", "APOP alice " + "0" * 32])
def test_what_was_answered_leaves_before_a_secret_is_looked_up(command: str) -> None:
    server = Dialogue(config=ServerConfig(mechanisms=("SCRAM-SHA-256",)), timestamp=TIMESTAMP)
    server.events.clear()
    server.say("CAPA", command)
    kinds = [type(event) for event in server.events]
    assert kinds.index(SendData) < kinds.index(SecretRequested)


def test_octets_retrieved_are_counted_over_all_pieces() -> None:
    server = Dialogue([b"x" * 98 + b"\r\n"], piece=7)
    server.say("USER alice", "PASS s e c", "RETR 1", "RETR 1")
    assert server.conn.summary.retrieved_octets == 200
