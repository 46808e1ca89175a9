"""Two engines joined without a network: however the octets and the content are cut, the same is said and heard."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pop3core.client import ClientConnection
from pop3core.commands import Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Top, Uidl, User
from pop3core.events import ContentEnded, ContentReceived, Disconnected, NeedData, Replied, SendData
from tests.pop3core.play import MAIL, Dialogue, TlsEstablished

lines = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x\ry", b"\xff", b"Subject: a"]), max_size=8)
texts = lines.map(lambda parts: b"".join(part + b"\r\n" for part in parts))
numbers = st.integers(1, 4)
programs = st.lists(
    st.one_of(
        st.sampled_from([Stat(), List(), Uidl(), Noop(), Rset(), Capa()]),
        st.builds(List, numbers),
        st.builds(Uidl, numbers),
        st.builds(Retr, numbers),
        st.builds(Dele, numbers),
        st.builds(Top, numbers, st.integers(0, 4)),
    ),
    max_size=12,
)


@dataclass
class Heard:
    """What came of a session."""

    events: list[object] = field(default_factory=list)
    wire: bytes = b""
    contents: list[bytes] = field(default_factory=list)
    removed: tuple[int, ...] | None = None


def session(messages: list[bytes], program: list[Command], cut: int, piece: int) -> Heard:
    server = Dialogue(messages, piece=piece)
    client = ClientConnection()
    client.answer(TlsEstablished())
    for command in (User("alice"), Pass(b"s e c"), *program, Quit()):
        client.send(command)
    heard = Heard(wire=server.greeting)
    coming = server.greeting
    while True:
        event = client.next_event()
        match event:
            case NeedData():
                client.receive_data(coming[:cut])  # b"" once the server has closed
                coming = coming[cut:]
            case SendData(data):
                for at in range(0, len(data), cut):
                    said = server.receive(data[at : at + cut])
                    coming += said
                    heard.wire += said
            case ContentReceived(data):
                if not heard.events or heard.events[-1] != "content":
                    heard.events.append("content")
                    heard.contents.append(b"")
                heard.contents[-1] += data
            case Disconnected():
                heard.events.append(event)
                heard.removed = server.removed
                return heard
            case _:
                heard.events.append(event)


@given(st.lists(texts, max_size=4), programs, st.integers(1, 9), st.integers(1, 9))
def test_cuts_change_nothing(messages: list[bytes], program: list[Command], cut: int, piece: int) -> None:
    whole = session(messages, program, 1 << 20, 1 << 16)
    assert session(messages, program, cut, piece) == whole
    assert session(messages, program, 1, 1) == whole
    assert whole.events[-1] == Disconnected(expected=True, unanswered=())


@given(st.lists(texts, min_size=1, max_size=4))
def test_what_is_stored_is_what_arrives(messages: list[bytes]) -> None:
    program: list[Command] = [Retr(number) for number in range(1, len(messages) + 1)]
    heard = session(messages, program, 5, 3)
    ended = [event.octets for event in heard.events if isinstance(event, ContentEnded)]
    assert ended == [len(text) for text in messages]
    assert heard.contents == [text for text in messages if text]


@given(st.lists(st.integers(1, 3), max_size=5), st.booleans())
def test_what_is_marked_is_what_is_removed(marks: list[int], reset: bool) -> None:
    program: list[Command] = [*map(Dele, marks), *([Rset()] if reset else [])]
    heard = session([b"a\r\n", b"b\r\n", b"c\r\n"], program, 4, 4)
    assert heard.removed == (() if reset else tuple(sorted(set(marks))))


def test_pipelining_is_used_once_it_is_announced() -> None:
    program: list[Command] = [Capa(), *[Retr(1)] * 200]
    server, client = Dialogue(), ClientConnection()
    client.answer(TlsEstablished())
    client.receive_data(server.greeting)
    for command in (User("alice"), Pass(b"s e c"), *program, Quit()):
        client.send(command)
    writes: list[int] = []
    replies = 0
    while not isinstance(event := client.next_event(), Disconnected):
        if isinstance(event, SendData):
            writes.append(event.data.count(b"\r\n"))
            client.receive_data(server.receive(event.data))
        replies += isinstance(event, Replied)
    assert replies == 204
    assert writes[:3] == [1, 1, 1]
    assert max(writes) == 64
    assert len(writes) < 12
    assert len(MAIL) == 2
