"""Two engines joined, with everything that can be cut cut at random: both directions, the content, and the waiting.

`test_joined` has the plain case. Here each side's octets arrive in pieces of random sizes, a store answers in pieces of
random sizes and now and then must wait, messages may fail, and the client may pipeline. What is said and heard is the
same as when nothing is cut and nobody waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import (
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    Pending,
    TlsEstablished,
)
from pop3core.client import ClientConnection
from pop3core.commands import Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Top, Uidl, User
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentEnded,
    ContentReceived,
    ContentRequested,
    Disconnected,
    LoginRequested,
    NeedData,
    Replied,
    SendData,
)
from pop3core.framing import CrlfNormalizer
from pop3core.maildrop import Listing
from pop3core.server import ServerConnection

FAILING = 3
"""The number of a message that cannot be read."""

# stored text, as careless people and programs leave it; a store sends it with CRLF
stored = st.lists(
    st.sampled_from(
        [b"", b".", b"..", b".\r", b"\r", b"x", b".x", b"x.", b"\x00", b"\xff", b"\n", b"\r\n", b"\n.\n", b"\r\n.\r\n"]
    )
).map(b"".join)
programs = st.lists(
    st.one_of(
        st.sampled_from([Capa(), Stat(), List(), Uidl(), Noop(), Rset()]),
        st.builds(Retr, st.integers(1, 5)),
        st.builds(Top, st.integers(1, 5), st.integers(0, 3)),
        st.builds(Dele, st.integers(1, 5)),
    ),
    min_size=1,
    max_size=10,
)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def as_sent(text: bytes) -> bytes:
    normalizer = CrlfNormalizer()
    return normalizer.feed(text) + normalizer.finish()


@dataclass
class Outcome:
    """What the client was told, what crossed the wire, and what was removed."""

    events: list[object] = field(default_factory=list)
    wire: bytes = b""
    removed: tuple[int, ...] | None = None

    def tell(self, event: object) -> None:
        """Adjacent pieces of content count as one: how it was cut is nobody's business."""
        if isinstance(event, ContentReceived) and self.events and isinstance(self.events[-1], bytes):
            self.events[-1] += event.data
        else:
            self.events.append(event.data if isinstance(event, ContentReceived) else event)


@dataclass
class Joined:
    """A session between two engines. ``pieces``: sizes of what a store gives, 0 for having to wait first."""

    messages: list[bytes]
    upstream: Iterator[int]
    downstream: Iterator[int]
    pieces: Iterator[int]

    def run(self, program: list[Command]) -> Outcome:
        server, client, outcome = ServerConnection(), ClientConnection(), Outcome()
        server.answer(TlsEstablished())
        client.answer(TlsEstablished())
        for command in program:
            client.send(command)
        to_client = self.serve(server, outcome)
        while True:
            match client.next_event():
                case NeedData():
                    octets = next(self.downstream)
                    client.receive_data(to_client[:octets])
                    to_client = to_client[octets:]
                case SendData(data):
                    while data:
                        octets = next(self.upstream)
                        server.receive_data(data[:octets])
                        data = data[octets:]
                        to_client += self.serve(server, outcome)
                case Disconnected() as end:
                    outcome.tell(end)
                    return outcome
                case event:
                    outcome.tell(event)

    def serve(self, server: ServerConnection, outcome: Outcome) -> bytes:
        sent = b""
        while True:
            match server.next_event():
                case NeedData() | Closed():
                    outcome.wire += sent
                    return sent
                case SendData(data):
                    sent += data
                case LoginRequested():
                    names = [b"uid%d" % number for number in range(len(self.messages))]
                    server.answer(LoginAccepted(Listing([len(text) for text in self.messages], names)))
                case ContentRequested(number, offset):
                    server.answer(self.read(number, offset))
                case CommitRequested(numbers):
                    outcome.removed = numbers
                    server.answer(Committed())
                case ContentDropped():
                    pass

    def read(self, number: int, offset: int) -> Content | ContentFailed | Pending:
        if number == FAILING:
            return ContentFailed("SYS/TEMP", "gone")
        octets = next(self.pieces)
        if octets == 0:
            return Pending()
        piece = self.messages[number - 1][offset : offset + octets]
        return Content(piece, last=offset + octets >= len(self.messages[number - 1]))


@given(st.lists(stored, max_size=5), programs, st.booleans(), sizes, sizes, sizes, st.booleans())
def test_however_it_is_cut_the_same_is_said_and_heard(
    texts: list[bytes],
    program: list[Command],
    ahead: bool,
    upstream: list[int],
    downstream: list[int],
    pieces: list[int],
    waits: bool,
) -> None:
    messages = [as_sent(text) for text in texts]
    asks_first = [Capa()] if ahead else []  # after which the client pipelines
    commands = [*asks_first, User("alice"), Pass(b"s e c"), *program, Quit()]
    whole = Joined(messages, cycle([1 << 20]), cycle([1 << 20]), cycle([1 << 16])).run(commands)
    waiting = [0] * waits
    cut = Joined(messages, cycle(upstream), cycle(downstream), cycle([*waiting, *pieces])).run(commands)
    assert cut == whole
    assert Joined(messages, cycle([1]), cycle([1]), cycle([*waiting, 1])).run(commands) == whole
    # and what it says is right
    assert [event.command for event in whole.events if isinstance(event, Replied)] == commands
    assert whole.events[-1] == Disconnected(expected=True, unanswered=())
    assert whole.removed is not None
    for content, ended in zip(whole.events, whole.events[1:], strict=False):
        if isinstance(ended, ContentEnded) and isinstance(ended.command, Retr):
            given_out = content if isinstance(content, bytes) else b""
            assert given_out == messages[ended.command.number - 1]
            assert ended.octets == len(given_out)
