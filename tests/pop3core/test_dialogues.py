"""Dialogues, as the RFCs write them, against both engines: whole, octet by octet, cut anywhere, pipelined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import SaslCancelled, SaslResponse
from pop3core.client import ClientConfig
from pop3core.commands import Auth, Command
from pop3core.errors import LocalProtocolError
from pop3core.events import Challenged, ClientEvent, ContentReceived, Disconnected, Replied
from pop3core.grammar import BadArgument, decode_base64
from pop3core.syntax import BadCommand, parse
from tests.pop3core.play import Listener, Transcript, in_pieces, transcripts

ALL = transcripts()
each = pytest.mark.parametrize("transcript", ALL, ids=lambda transcript: transcript.name)


def test_there_are_transcripts() -> None:
    assert len(ALL) >= 11


@each
def test_the_server_says_each_line(transcript: Transcript) -> None:
    dialogue = transcript.dialogue()
    for said, answer in transcript.turns:
        got = dialogue.receive(said) if said else dialogue.greeting
        assert got == answer, said


@each
@given(sizes=st.lists(st.integers(1, 9), min_size=1), piece=st.integers(1, 9))
def test_cuts_and_pipelining_change_nothing(transcript: Transcript, sizes: list[int], piece: int) -> None:
    turns = transcript.turns
    if "stls" not in transcript.settings:  # behind which nothing may be sent ahead
        turns = [(b"".join(said for said, _ in turns), b"".join(answer for _, answer in turns))]
    for cut in (sizes, [1], [1_000_000]):
        dialogue = transcript.dialogue()
        dialogue.piece = piece
        got = dialogue.greeting
        for said, _ in turns:
            got += in_pieces(said, cut, dialogue.receive)
        assert got == b"".join(answer for _, answer in turns)


def heard(transcript: Transcript, size: int) -> list[ClientEvent]:
    """What a client reports that says each line it may say, and hears the answers in pieces of ``size``."""
    return walked(transcript, size)[0]


def walked(transcript: Transcript, size: int) -> tuple[list[ClientEvent], list[tuple[bytes, bytes]]]:
    """The same, and the turns of the dialogue that it was."""
    (_, greeting), *turns = transcript.turns
    walk = [(b"", greeting)]
    secure = transcript.settings.get("secure") != "no"
    client = Listener(ClientConfig(allow_plaintext=True), greeting=greeting, secure=secure)
    command: Command | None = None
    for said, answer in turns:
        client.sent = b""
        if client.events and isinstance(client.events[-1], Challenged):
            said = respond(client, said[:-2]) + b"\r\n"
        elif (command := sayable(client, said)) is None:
            continue
        client.run()
        assert client.sent == said
        walk.append((said, answer))
        before = len(client.events)
        for at in range(0, len(answer), size):
            client.hear(answer[at : at + size])
        if answer.startswith(b"+ "):
            assert isinstance(client.events[-1], Challenged)
            continue
        replies = [event for event in client.events[before:] if isinstance(event, Replied)]
        assert [(event.command, event.ok) for event in replies] == [(command, answer.startswith(b"+OK"))]
    assert client.events[-1] == Disconnected(expected=True, unanswered=())
    return [event for event in client.events if not isinstance(event, ContentReceived | Disconnected)], walk


def sayable(client: Listener, said: bytes) -> Command | None:
    """The command sent, when it is one that a client of ours would say."""
    try:
        command = parse(said[:-2])
        announced = client.conn.capabilities
        if isinstance(command, Auth) and command.initial is not None and announced and "SASL" not in announced:
            return None  # RFC 5034 §3: a client sends no initial response then
        client.conn.send(command)
    except (BadCommand, LocalProtocolError):
        return None
    return command


def respond(client: Listener, said: bytes) -> bytes:
    """Answer a challenge; what is sent for it."""
    try:
        data = decode_base64(said)
    except BadArgument:
        client.conn.answer(SaslCancelled())
        return b"*"
    client.conn.answer(SaslResponse(data))
    return said


@each
def test_the_client_understands_each_answer_however_it_is_cut(transcript: Transcript) -> None:
    whole = heard(transcript, 100_000)
    assert heard(transcript, 1) == whole
    assert heard(transcript, 7) == whole
