"""What may be shown of a line, and what stands in a transcript for the rest."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3core import grammar
from pop3core.events import LoginRequested
from pop3core.grammar import BadArgument, Reader
from pop3core.sasl import MECHANISMS, SaslError, scram
from pop3core.sasl.base import Tls
from pop3core.secrecy import is_harmless, masked
from pop3core.stand_ins import for_argument, for_message
from pop3core.table import RULES
from pop3core.transcript import RecordingServer, replay
from tests.pop3core import play
from tests.pop3core.play import EVERYTHING, TIMESTAMP, Dialogue


def shown(line: bytes) -> bytes:
    return masked(line, lambda _octets, _reader: b"***")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # as it should be
        (b"USER alice", b"USER alice"),
        (b"pass hunter2", b"pass ***"),
        (b"PASS hunter2 and more ", b"PASS ***"),
        (b"PASS", b"PASS"),
        (b"APOP alice c4c9334bac560ecc979e58001b3e22fb", b"APOP alice ***"),
        (b"AUTH", b"AUTH"),
        (b"AUTH plain", b"AUTH plain"),
        (b"AUTH PLAIN AGFsaWNlAHMgZSBj", b"AUTH PLAIN ***"),
        (b"AUTH PLAIN =", b"AUTH PLAIN ***"),
        (b"TOP 1 10", b"TOP 1 10"),
        (b"LIST", b"LIST"),
        (b"QUIT", b"QUIT"),
        # a secret in the wrong place
        (b"USER alice hunter2", b"USER ***"),
        (b"USER  hunter2", b"USER ***"),
        (b"PAS hunter2", b"***"),
        (b"PASS\thunter2", b"***"),
        (b" PASS hunter2", b"***"),
        (b"hunter2", b"***"),
        (b"AGFsaWNlAHMgZSBj", b"***"),
        (b"", b"***"),
        (b"APOP alice hunter2", b"APOP *** ***"),
        (b"APOP hunter2", b"APOP ***"),
        (b"AUTH hunter2", b"AUTH ***"),
        (b"AUTH hunter2 hunter3", b"AUTH *** ***"),
        (b"AUTH PLAIN alice hunter2", b"AUTH *** ***"),
        (b"QUIT hunter2", b"QUIT ***"),
        (b"RETR hunter2", b"RETR ***"),
        (b"TOP 1 hunter2", b"TOP *** ***"),
        (b"LANG hunter2", b"LANG ***"),
    ],
)
def test_what_is_shown(line: bytes, expected: bytes) -> None:
    assert shown(line) == expected
    assert is_harmless(line) is (b"***" not in expected)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.keyword)
def test_each_example_is_shown_but_for_its_secret(rule) -> None:
    assert is_harmless(rule.example.encode()) is (rule.secret is None)


READERS = [grammar.word, grammar.password, grammar.digest, grammar.mechanism, grammar.number, grammar.count]
WORDS = st.one_of(
    st.binary(max_size=40),
    st.from_regex(r"[0-9]{1,12}", fullmatch=True).map(str.encode),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"0", b"=", b"PLAIN", b"a b", b"\x7f", b"\xff", b"c4c9334bac560ecc979e58001b3e22fb", b"pt-BR"]),
)


@given(WORDS, st.sampled_from(READERS))
def test_an_argument_is_refused_as_its_stand_in_is(octets: bytes, reader: Reader) -> None:
    def verdict(octets: bytes) -> str:
        try:
            reader.read(octets)
        except BadArgument as fault:
            return str(fault)
        return "taken"

    other = for_argument(octets, reader)
    assert verdict(other) == verdict(octets)
    assert len(other) == len(octets)


MESSAGES = st.one_of(
    st.binary(max_size=30),
    st.lists(st.sampled_from([b"", b"alice", b"hunter2", b"\xff", "é".encode(), b"user=alice", b"auth=Bearer abc=",
                              b"auth=bearer  x", b"auth=", b"AUTH=Bearer abc", b"n,a=alice,", b"n,,", b"y,bob,",
                              b"p=x,,", b"host=h", "\u05d0".encode(), "\u00ad".encode(), b"x" * 1024]),
                     max_size=6)
    .flatmap(lambda parts: st.sampled_from([b"\0".join(parts), b"\x01".join(parts), b"\x01".join((*parts, b"", b""))])),
)  # fmt: skip


@example("hunter2\u05d0".encode(), "EXTERNAL")  # two directions
@example("\u00ad\u00ad".encode(), "EXTERNAL")  # nothing is left of it
@example(b"hunter2\x7f", "EXTERNAL")
@example(b"hunter2" * 200 + b"\x7f", "EXTERNAL")  # too long to be prepared
@given(MESSAGES, st.sampled_from(["PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"]))
def test_a_message_has_the_fate_of_its_stand_in(message: bytes, mechanism: str) -> None:
    def fate(message: bytes) -> str:
        steps = MECHANISMS[mechanism].steps(Tls(identity="bob"))
        next(steps)
        try:
            steps.send(message)
            steps.send(b"x")
        except SaslError as fault:
            return str(fault)
        except StopIteration as done:
            return repr(done.value)
        raise AssertionError("it goes on")

    other = for_message(mechanism, 1, message)
    assert len(other) == len(message)
    if mechanism != "EXTERNAL" or message not in (b"", b"bob"):
        assert fate(other) == fate(message)
    assert for_message(mechanism, 2, message) == b"x" * len(message)


HUNTER = base64.b64encode(b"hunter2hunter2").decode()
PLAIN = base64.b64encode(b"\0alice\0hunter2hunter2").decode()
SCRAM = base64.b64encode(b"n,,n=alice,r=nonce,x=hunter2hunter2").decode()
BEARER = base64.b64encode(b"n,,\x01auth=Bearer bad\x01\x01").decode()
FINAL = base64.b64encode(b"c=biws,r=nonceours,x=hunter2hunter2,p=aHVudGVyMmh1bnRlcjI=").decode()


@pytest.mark.parametrize(
    "lines",
    [
        ("PASS hunter2hunter2",),
        ("USER hunter2hunter2 x",),
        ("USER alice", "PASS s e c", "PASS hunter2hunter2"),
        ("USER alice", "PASS s e c", f"AUTH PLAIN {PLAIN}", f"AUTH LOGIN {HUNTER}", PLAIN),
        ("hunter2hunter2",),
        ("PAS hunter2hunter2",),
        ("LIST hunter2hunter2", "NOOP hunter2hunter2", "LANG hunter2hunter2", "AUTH hunter2hunter2"),
        ("APOP hunter2hunter2", "APOP alice hunter2hunter2"),
        (f"AUTH X {HUNTER}", f"AUTH PLAIN {HUNTER}!"),
        ("AUTH LOGIN", "", HUNTER),
        ("AUTH LOGIN", "=", HUNTER),
        (f"AUTH LOGIN {PLAIN}", HUNTER),
        ("AUTH LOGIN =", HUNTER),
        (f"AUTH PLAIN {HUNTER}", f"AUTH PLAIN {base64.b64encode(b'hunter2hunter2' + bytes(3)).decode()}"),
        (f"AUTH EXTERNAL {HUNTER}",),
        ("AUTH EXTERNAL YWxpY2U=", "STAT"),
        (f"AUTH OAUTHBEARER {HUNTER}",),
        (f"AUTH OAUTHBEARER {BEARER}", HUNTER),
        (f"AUTH SCRAM-SHA-256 {HUNTER}",),
        (f"AUTH SCRAM-SHA-256 {SCRAM}", HUNTER),
        (f"AUTH SCRAM-SHA-256 {SCRAM}", FINAL),
        (f"AUTH SCRAM-SHA-256 {SCRAM}", base64.b64encode(b"c=biws,r=nonceours,p=hunter2hunter2!").decode()),
        (f"AUTH SCRAM-SHA-256 {SCRAM}", base64.b64encode(b"c=!,r=nonceours,p=").decode()),
    ],
    ids=range(23),
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_in_no_transcript(lines: tuple[str, ...], monkeypatch) -> None:
    monkeypatch.setattr(play, "ServerConnection", RecordingServer)
    dialogue = Dialogue(config=EVERYTHING, timestamp=TIMESTAMP, identity="alice")
    for line in lines:
        dialogue.say(line)
    assert isinstance(dialogue.conn, RecordingServer)
    transcript = dialogue.conn.transcript
    assert replay(transcript) is None
    text = transcript.dumps()
    for form in ("hunter2hunter2", HUNTER.rstrip("="), PLAIN.rstrip("=")[4:], SCRAM[-12:], FINAL):
        assert form not in text


def test_the_last_answer_of_scram_is_in_no_transcript(monkeypatch) -> None:
    monkeypatch.setattr(play, "ServerConnection", RecordingServer)
    dialogue = Dialogue(config=EVERYTHING)
    client = scram.client("alice", b"s e c", "nonce")
    said = dialogue.say(f"AUTH SCRAM-SHA-256 {base64.b64encode(next(client) or b'').decode()}")
    dialogue.say(base64.b64encode(client.send(base64.b64decode(said[2:])) or b""))
    dialogue.say(HUNTER)
    assert isinstance(dialogue.conn, RecordingServer)
    assert replay(dialogue.conn.transcript) is None
    assert HUNTER.rstrip("=") not in dialogue.conn.transcript.dumps()
    assert not isinstance(dialogue.conn._question, LoginRequested)


PIECES = ["USER", "PASS", "APOP", "AUTH", "PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER", "EXTERNAL", "TOP", "LANG"]
PIECES += [" ", "  ", "alice", "hunter2hunter2", "1", "0", "=", "*", "QUIT", "\xff", "\x01", "s e c"]
PIECES += [HUNTER, PLAIN, SCRAM, FINAL, BEARER]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map(lambda parts: "".join(parts)), max_size=5))
def test_whatever_is_typed_replays(lines: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "ServerConnection", RecordingServer)
        dialogue = Dialogue(config=EVERYTHING, timestamp=TIMESTAMP, identity="alice")
        for line in lines:
            dialogue.receive(line.encode("latin-1") + b"\r\n")
        assert replay(dialogue.conn.transcript) is None
