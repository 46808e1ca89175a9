"""Dialogues, as the RFCs write them, against both engines: whole, octet by octet, cut anywhere, pipelined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.client import ClientConfig
from pop3core.events import ClientEvent, ContentReceived, Disconnected, Replied
from pop3core.syntax import BadCommand, parse
from pop3core.table import AFTER
from tests.core.play import Listener, Transcript, in_pieces, transcripts

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
    said = b"".join(said for said, _ in transcript.turns)
    wanted = b"".join(answer for _, answer in transcript.turns)
    for cut in (sizes, [1], [len(said)]):
        dialogue = transcript.dialogue()
        dialogue.piece = piece
        assert dialogue.greeting + in_pieces(said, cut, dialogue.receive) == wanted


def heard(transcript: Transcript, size: int) -> list[ClientEvent]:
    """What a client reports that says each line it may say, and hears the answers in pieces of ``size``."""
    (_, greeting), *turns = transcript.turns
    client = Listener(ClientConfig(allow_plaintext=True), greeting=greeting)
    for said, answer in turns:
        try:
            command = parse(said[:-2])
        except BadCommand:
            continue  # no client of ours would say it
        if type(command) not in AFTER[client.conn.state]:
            continue
        client.sent = b""
        client.conn.send(command)
        client.run()
        assert client.sent == said
        before = len(client.events)
        for at in range(0, len(answer), size):
            client.hear(answer[at : at + size])
        replies = [event for event in client.events[before:] if isinstance(event, Replied)]
        assert [(event.command, event.ok) for event in replies] == [(command, answer.startswith(b"+OK"))]
    assert client.events[-1] == Disconnected(expected=True, unanswered=())
    return [event for event in client.events if not isinstance(event, ContentReceived | Disconnected)]


@each
def test_the_client_understands_each_answer_however_it_is_cut(transcript: Transcript) -> None:
    whole = heard(transcript, 100_000)
    assert heard(transcript, 1) == whole
    assert heard(transcript, 7) == whole
