"""Recording, replaying and explaining: exact but for the secrets, which are nowhere."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import Committed
from pop3core.sasl import oauth, plain, scram
from pop3core.server import ServerConfig
from pop3core.transcript import Entry, RecordingServer, Transcript, explain, replay
from tests.pop3core import play
from tests.pop3core.play import EVERYTHING, TIMESTAMP, Dialogue, transcripts

SECRETS = [b"s e c", b"tanstaaf", b"wrong-one", b"good", play.STORED_KEY, play.SERVER_KEY]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch):
    """A dialogue whose server records itself."""
    monkeypatch.setattr(play, "ServerConnection", RecordingServer)

    def make(**options) -> Dialogue:
        return Dialogue(**options)

    return make


def check(dialogue: Dialogue) -> Transcript:
    """The transcript, which replays, survives being written, and holds no secret."""
    assert isinstance(dialogue.conn, RecordingServer)
    transcript = dialogue.conn.transcript
    assert replay(transcript) is None
    text = transcript.dumps()
    again = Transcript.loads(text)
    assert replay(again) is None
    assert again.dumps() == text
    for secret in SECRETS:
        for form in (secret, base64.b64encode(secret).rstrip(b"="), secret.hex().encode()):
            assert form.decode("latin-1") not in text
            assert form.decode("latin-1") not in explain(transcript)
    return transcript


@pytest.mark.parametrize("written", transcripts(), ids=lambda written: written.name)
def test_every_dialogue_replays(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "ServerConnection", RecordingServer)
    dialogue = written.dialogue()
    for said, _ in written.turns:
        dialogue.receive(said) if said else None
    check(dialogue)


PARTS = [
    *play.MAIL,
    *(
        line + b"\r\n"
        for line in (b"USER alice", b"PASS s e c", b"PASS wrong-one", b"AUTH PLAIN", b"*", b"RETR 1", b"")
    ),
    *(b"AGFsaWNlAHMgZSBj\r\n", b"NOOP\n", b"QU", b"x" * 300, b"QUIT\r\n", b"pass hush", b"STLS\r\n"),
]


@given(st.lists(st.sampled_from(PARTS)), st.integers(1, 40))
def test_whatever_is_said_replays(parts: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "ServerConnection", RecordingServer)
        dialogue = Dialogue(config=EVERYTHING)
        said = b"".join(parts)
        for at in range(0, len(said), size):
            dialogue.receive(said[at : at + size])
        transcript = dialogue.conn.transcript
    assert replay(transcript) is None
    assert "wrong-one" not in transcript.dumps()
    assert "s e c" not in transcript.dumps()


@pytest.mark.parametrize("password", [b"s e c", b"wrong-one"])
@pytest.mark.parametrize("binding", [None, b"hash"])
def test_scram(recorded, password: bytes, binding: bytes | None) -> None:
    dialogue = recorded(config=EVERYTHING, binding=binding)
    client = scram.client("alice", password, "nonce", channel_binding=binding)
    mechanism = "SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256"
    answer = dialogue.say(f"AUTH {mechanism} {base64.b64encode(next(client)).decode()}")
    answer = dialogue.say(base64.b64encode(client.send(base64.b64decode(answer[2:]))))
    if password == b"s e c":
        signature = answer
        assert client.send(base64.b64decode(answer[2:])) == b""
        assert dialogue.say("", "STAT").startswith(b"+OK 2 messages")
        assert signature.strip() not in dialogue.conn.transcript.dumps().encode()
    else:
        assert answer.startswith(b"-ERR [AUTH]")
    dialogue.say("QUIT")
    check(dialogue)


@pytest.mark.parametrize("last", ["", "*", "aHVzaA=="])
def test_what_a_scram_client_says_last(recorded, last: str) -> None:
    dialogue = recorded(config=EVERYTHING)
    client = scram.client("alice", b"s e c", "nonce")
    answer = dialogue.say(f"AUTH SCRAM-SHA-256 {base64.b64encode(next(client)).decode()}")
    dialogue.say(base64.b64encode(client.send(base64.b64decode(answer[2:]))))
    dialogue.say(last, "QUIT")
    assert "aHVzaA==" not in check(dialogue).dumps()


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        ("PLAIN", next(plain.client("alice", b"s e c"))),
        ("PLAIN", next(plain.client("alice", b"wrong-one"))),
        ("OAUTHBEARER", next(oauth.bearer_client("alice", "good"))),
        ("XOAUTH2", next(oauth.xoauth2_client("alice", "wrong-one"))),
    ],
)
@pytest.mark.parametrize("initial", [True, False])
def test_other_mechanisms(recorded, mechanism: str, message: bytes | None, initial: bool) -> None:
    dialogue = recorded(config=EVERYTHING)
    assert message is not None
    encoded = base64.b64encode(message).decode()
    if initial:
        dialogue.say(f"AUTH {mechanism} {encoded}")
    else:
        dialogue.say(f"AUTH {mechanism}", encoded)
    # a bearer token that happens to be the placeholder's word would be no secret
    assert isinstance(dialogue.conn, RecordingServer)
    transcript = dialogue.conn.transcript
    difference = replay(transcript)
    assert difference is None
    assert encoded not in transcript.dumps()


def test_an_exchange_that_was_broken_off_leaves_nothing_behind(recorded) -> None:
    dialogue = recorded(config=EVERYTHING)
    first = base64.b64encode(next(scram.client("alice", b"s e c", "nonce"))).decode()
    dialogue.say(f"AUTH SCRAM-SHA-256 {first}")
    dialogue.say("*")
    dialogue.say("AUTH LOGIN")
    dialogue.say("YWxpY2U=")
    assert dialogue.say("cyBlIGM=").startswith(b"+OK")
    check(dialogue)


def test_apop_good_and_bad(recorded) -> None:
    dialogue = recorded(config=EVERYTHING, timestamp=TIMESTAMP)
    dialogue.say("APOP alice c4c9334bac560ecc979e58001b3e22fc")
    assert dialogue.say("APOP alice c4c9334bac560ecc979e58001b3e22fb").startswith(b"+OK")
    dialogue.say("QUIT")
    transcript = check(dialogue)
    assert "c4c9334b" not in transcript.dumps()


def test_a_change_is_found(recorded) -> None:
    dialogue = recorded()
    dialogue.say("USER alice", "PASS s e c", "STAT", "QUIT")
    transcript = check(dialogue)
    changed = [
        Entry(e.kind, e.octets.replace(b"+OK 2 ", b"+OK 3 "), e.text, e.answer) if e.kind == "event" else e
        for e in transcript.entries
    ]
    difference = replay(Transcript(transcript.config, transcript.timestamp, changed))
    assert difference is not None
    assert "+OK 3 " in difference.recorded
    assert "+OK 2 " in difference.replayed
    shorter = [entry for entry in transcript.entries if entry.kind != "answer"]
    difference = replay(Transcript(ServerConfig(), None, shorter))
    assert difference is not None
    difference = replay(Transcript(ServerConfig(), None, [Entry("answer", answer=Committed())]))
    assert difference is not None
    assert "LocalProtocolError" in difference.replayed


def test_lines_too_long_and_without_end(recorded) -> None:
    dialogue = recorded()
    dialogue.say("PASS hush" * 100, "NOOP")
    dialogue.receive(b"hush" * 30_000)
    assert "hush" not in check(dialogue).dumps()


def test_hang_up_and_finish_are_part_of_it(recorded) -> None:
    for end in ("hang_up", "finish"):
        dialogue = recorded()
        dialogue.say("USER alice", "PASS s e c", "NO")
        getattr(dialogue.conn, end)("enough")
        dialogue.run()
        assert "enough" in check(dialogue).dumps()


def test_explaining(recorded) -> None:
    dialogue = recorded()
    dialogue.say("USER alice", "PASS s e c", "RETR 1", "FROB", "QUIT")
    told = explain(check(dialogue)).splitlines()
    assert any(line.startswith("C: USER alice") and line.endswith("USER name (RFC 1939 §7)") for line in told)
    assert any(line.startswith("C: PASS xxxxx") for line in told)
    assert any(line.startswith("C: xxxx") for line in told)
    assert any(line.startswith("S: Subject: one") for line in told)
    assert any("CommitRequested" in line for line in told)
    assert explain(Transcript(ServerConfig(), None, [])) == ""


@pytest.mark.parametrize("text", ["", "{}", '"x"', '{"format": "other"}'])
def test_what_is_no_transcript(text: str) -> None:
    with pytest.raises(ValueError, match="this is no"):
        Transcript.loads(text)
