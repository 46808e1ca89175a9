"""However and whenever a session ends: nothing stays open, nothing is removed unasked, no half reply looks whole.

Random walks: a client that pipelines, a driver that answers each question in a random way that is allowed, and at a
random moment an end. What is asserted holds for every walk, whatever was said.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import (
    CommitFailed,
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    LoginRejected,
    Pending,
    TlsEstablished,
)
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    LoginRequested,
    MoreWork,
    NeedData,
    SendData,
    ServerEvent,
)
from pop3core.limits import Limits
from pop3core.maildrop import Listing
from pop3core.server import ServerConfig, ServerConnection

MAIL = [b"A: b\r\n\r\n.\r\nx\r\n", b"..\r\n.\r\n", b"", b"\r\n" * 40]
LISTING = Listing([len(text) for text in MAIL], [b"a", b"b", b"c", b"d"])
LINES = [
    b"USER alice", b"PASS x", b"STAT", b"LIST", b"LIST 2", b"UIDL", b"UIDL 9", b"RSET", b"NOOP", b"CAPA", b"FROB",
    b"RETR 1", b"RETR 2", b"RETR 3", b"RETR 4", b"TOP 1 0", b"TOP 1 1", b"TOP 4 2", b"TOP 2 9", b"DELE 1", b"DELE 4",
    b"QUIT",
]  # fmt: skip
NEVER = 1_000_000
End = Literal["hang_up", "finish", "end of stream"]


@dataclass
class Walk:
    """One session from its greeting to `Closed`, and what a driver must be able to rely on."""

    chance: Random
    said: bytes
    end: End
    moment: int
    """The number of events after which the end comes."""
    wire: bytes = b""
    asked_to_remove: list[tuple[int, ...]] = field(default_factory=list)
    committed: bool = False
    hung_up: bool = False
    opened: dict[int, int] = field(default_factory=dict)
    """Messages being read, and the offset that may be asked for next."""
    half: bool = False
    """A message failed behind its beginning."""

    def run(self) -> Closed:
        limits = Limits(
            output_octets=30, content_octets_max=16, list_piece_octets=12, bad_commands_max=6, turn_commands=3
        )
        conn = ServerConnection(ServerConfig(limits=limits))
        conn.answer(TlsEstablished())
        ended = False
        for turn in range(5_000):
            if turn == self.moment:
                ended = self.finally_ends(conn)
            event = conn.next_event()
            if isinstance(event, Closed):
                assert conn.next_event() == event
                return event
            if isinstance(event, NeedData):
                if not self.said:
                    self.end, ended = "end of stream", True
                octets = self.chance.randint(1, 40)
                piece, self.said = self.said[:octets], self.said[octets:]
                conn.receive_data(b"" if ended and self.end != "finish" else piece)
            else:
                self.obey(conn, event)
        raise AssertionError("the session never ends")

    def finally_ends(self, conn: ServerConnection) -> bool:
        match self.end:
            case "hang_up":
                conn.hang_up("enough")
                self.hung_up = True
            case "finish":
                conn.finish("shutting down")
            case "end of stream":
                conn.receive_data(b"")
        return True

    def obey(self, conn: ServerConnection, event: ServerEvent) -> None:
        chance = self.chance.random()
        match event:
            case SendData(data):
                assert data
                assert not self.hung_up, "something is sent after hang_up"
                self.wire += data
            case LoginRequested():
                assert not self.hung_up
                self.maybe_end_before_the_answer(conn)
                conn.answer(LoginAccepted(LISTING) if chance < 0.8 else LoginRejected("IN-USE", "busy"))
            case ContentRequested(number, offset):
                assert not self.hung_up
                assert offset == self.opened.setdefault(number, 0), "one cursor is not enough"
                assert len(self.opened) == 1, "two messages are read at a time"
                if chance < 0.15:
                    conn.answer(Pending())
                elif chance < 0.2:
                    del self.opened[number]
                    self.half = offset > 0
                    conn.answer(ContentFailed("SYS/TEMP", "gone"))
                else:
                    self.give(conn, number, offset)
            case MoreWork():
                assert not self.hung_up
            case ContentDropped(number):
                self.opened.pop(number, None)
            case CommitRequested(numbers):
                assert not self.hung_up
                self.asked_to_remove.append(numbers)
                self.maybe_end_before_the_answer(conn)
                self.committed = chance < 0.7
                conn.answer(Committed() if self.committed else CommitFailed(numbers, "SYS/TEMP"))
            case _:
                raise AssertionError(event)

    def give(self, conn: ServerConnection, number: int, offset: int) -> None:
        data = MAIL[number - 1][offset : offset + self.chance.randint(1, 16)]
        last = offset + len(data) == len(MAIL[number - 1])
        if last:
            del self.opened[number]
        else:
            self.opened[number] = offset + len(data)
        conn.answer(Content(data, last))

    def maybe_end_before_the_answer(self, conn: ServerConnection) -> None:
        """The end may come while a question is open: the answer is then too late, or a commit's, and never a fault."""
        if self.end != "end of stream" and self.chance.random() < 0.1:
            self.finally_ends(conn)


def statuses_of(wire: bytes, said: list[bytes], *, cut: bool) -> list[bytes]:
    """The status lines that a client reads who knows RFC 1939 §3. ``cut``: the last reply may lack its end."""
    statuses, lines = [], wire.split(b"\r\n")
    assert lines.pop() == b"" or cut, "the last line has no end"
    questions = [b"greeting", *said]
    while lines:
        status = lines.pop(0)
        question = questions.pop(0) if questions else b""
        assert len(status) <= 510
        statuses.append(status)
        words = question.split(b" ")
        listing = words[0] in (b"LIST", b"UIDL") and len(words) == 1
        if status.startswith(b"+OK") and (listing or words[0] in (b"CAPA", b"RETR", b"TOP")):
            ended = False
            while lines and not ended:
                ended = (line := lines.pop(0)) == b"."
                assert ended or line[:1] != b"." or line[:2] == b"..", "a dot was not stuffed"
            assert ended or cut, "a reply has no end"
    return statuses


walks = st.builds(
    Walk,
    st.randoms(use_true_random=False),
    # walks log in, and many say goodbye, or little would be asked
    st.builds(
        lambda lines, goodbye: b"".join(line + b"\r\n" for line in (b"USER alice", b"PASS x", *lines, *goodbye)),
        st.lists(st.sampled_from(LINES), min_size=3, max_size=25),
        st.sampled_from([[], [b"DELE 1", b"DELE 4", b"QUIT"], [b"QUIT", b"NOOP"]]),
    ),
    st.sampled_from(["hang_up", "finish", "end of stream"]),
    st.one_of(st.integers(0, 60), st.just(NEVER)),
)


@given(walks)
def test_nothing_stays_open_and_nothing_is_removed_unasked(walk: Walk) -> None:
    said = walk.said
    closed = walk.run()
    assert not walk.opened, "a message was neither read to its end, nor failed, nor dropped"
    assert closed.committed == walk.committed
    assert len(walk.asked_to_remove) <= (b"QUIT" in said)
    for numbers in walk.asked_to_remove:
        assert list(numbers) == sorted(set(numbers) & {1, 4})
    if not (walk.hung_up or walk.half):
        assert walk.wire.endswith(b"\r\n")


@given(walks)
def test_what_was_sent_is_whole_replies(walk: Walk) -> None:
    said = walk.said.split(b"\r\n")[:-1]
    walk.run()
    cut = walk.hung_up or walk.half
    statuses = statuses_of(walk.wire, said, cut=cut)
    if not cut:
        assert len(statuses) <= len(said) + 2  # the greeting, and what `finish` says
        assert all(status[:3] == b"+OK" or status[:5] == b"-ERR " for status in statuses)


@pytest.mark.parametrize("line", [b"LIST\r\n", b"UIDL\r\n"])
def test_hang_up_in_the_middle_of_a_list_sends_nothing_more(line: bytes) -> None:
    conn = ServerConnection()
    conn.answer(TlsEstablished())
    conn.receive_data(b"USER alice\r\nPASS x\r\n" + line)
    while not isinstance(conn.next_event(), LoginRequested):
        continue
    conn.answer(LoginAccepted(Listing([1] * 50_000, [b"x"] * 50_000)))
    while isinstance(event := conn.next_event(), MoreWork):
        continue
    assert isinstance(event, SendData)
    conn.hang_up("enough")
    assert conn.unsent == 0
    assert conn.next_event() == Closed("enough", committed=False)


def test_hang_up_takes_back_what_was_not_sent_yet() -> None:
    conn = ServerConnection()
    conn.answer(TlsEstablished())
    conn.receive_data(b"USER alice\r\nPASS x\r\nNOOP\r\nRETR 1\r\n")
    while not isinstance(conn.next_event(), LoginRequested):
        continue
    conn.answer(LoginAccepted(LISTING))
    assert isinstance(conn.next_event(), ContentRequested)
    assert conn.unsent > 0
    conn.hang_up("enough")
    assert conn.unsent == 0
    assert [conn.next_event() for _ in range(3)] == [
        ContentDropped(1),
        Closed("enough", committed=False),
        Closed("enough", committed=False),
    ]


@given(st.lists(st.sampled_from(LINES), max_size=12), st.integers(0, 200))
def test_a_stream_that_ends_anywhere_commits_exactly_when_a_whole_quit_came(lines: list[bytes], cut: int) -> None:
    said = b"".join(line + b"\r\n" for line in (b"USER alice", b"PASS x", *lines))[:cut]
    conn = ServerConnection()
    conn.answer(TlsEstablished())
    if said:
        conn.receive_data(said)
    conn.receive_data(b"")
    asked = []
    while not isinstance(event := conn.next_event(), Closed):
        match event:
            case LoginRequested():
                conn.answer(LoginAccepted(LISTING))
            case ContentRequested(number):
                conn.answer(Content(MAIL[number - 1], last=True))
            case CommitRequested(numbers):
                asked.append(numbers)
                conn.answer(Committed())
    whole = said.split(b"\n")[:-1]
    heard = [line.removesuffix(b"\r") for line in whole]
    marks: set[int] = set()
    inside = heard[:2] == [b"USER alice", b"PASS x"]
    expected = []
    for line in heard[2:] if inside else []:
        if line.startswith(b"DELE"):
            marks.add(int(line[5:]))
        elif line == b"RSET":
            marks.clear()
        elif line == b"QUIT":
            expected.append(tuple(sorted(marks)))
            break
    assert asked == expected
    assert event.committed == bool(expected)
