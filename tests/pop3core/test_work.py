"""What the server engine does for one event is bounded, whatever a client sends: others can have their turn."""

import base64
from array import array

import pytest

from pop3core.answers import CommitFailed, LoginAccepted, TlsEstablished
from pop3core.errors import LocalProtocolError
from pop3core.events import Closed, CommitRequested, LoginRequested, MoreWork, NeedData, SendData, ServerEvent
from pop3core.framing import TopCutter
from pop3core.limits import Limits
from pop3core.maildrop import Listing, PackedOctets
from pop3core.server import ServerConfig, ServerConnection
from tests.pop3core.play import Dialogue

MESSAGES = 20_000
COMMANDS = 500
AT_ONCE = 16  # commands that are executed for one event
OUTPUT = Limits().output_octets


def logged_in(messages: int = MESSAGES) -> ServerConnection:
    conn = ServerConnection(ServerConfig(limits=Limits(turn_commands=AT_ONCE)))
    conn.answer(TlsEstablished())
    conn.receive_data(b"USER alice\r\nPASS secret\r\n")
    while not isinstance(conn.next_event(), LoginRequested):
        pass
    conn.answer(LoginAccepted(Listing(array("Q", [7]) * messages, PackedOctets(b"%d" % n for n in range(messages)))))
    while not isinstance(conn.next_event(), NeedData):
        pass
    return conn


def said(conn: ServerConnection, data: bytes) -> list[ServerEvent]:
    """All events up to the one that waits for client or driver."""
    conn.receive_data(data)
    events = [conn.next_event()]
    while isinstance(events[-1], MoreWork | SendData):
        events.append(conn.next_event())
    return events


def marked(conn: ServerConnection, numbers: range) -> None:
    said(conn, b"".join(b"DELE %d\r\n" % number for number in numbers))


@pytest.mark.parametrize("line", [b"NOOP", b"CAPA", b"LANG", b"LANG de", b"STAT", b"RSET", b"DELE 99999", b"UIDL 1"])
def test_after_some_commands_the_driver_is_asked(line: bytes) -> None:
    events = said(logged_in(), (line + b"\r\n") * COMMANDS)
    assert events.count(MoreWork()) >= COMMANDS // AT_ONCE - len(events)
    assert events.count(MoreWork()) > 20


def test_a_driver_that_did_not_ask_for_it_is_not_told() -> None:
    conn = ServerConnection()
    conn.answer(TlsEstablished())
    assert [type(event) for event in said(conn, b"CAPA\r\n" * COMMANDS)] == [SendData, SendData, NeedData]


def test_a_few_commands_are_answered_in_one_write() -> None:
    assert [type(event) for event in said(logged_in(), b"NOOP\r\n" * AT_ONCE)] == [SendData, NeedData]


def test_pipelined_replies_still_leave_together() -> None:
    """`MoreWork` is no reason to send what there is: a batch of replies is one write."""
    sent = [event.data for event in said(logged_in(), b"NOOP\r\n" * COMMANDS) if isinstance(event, SendData)]
    assert sent == [b"+OK\r\n" * COMMANDS]


@pytest.mark.parametrize("keyword", [b"LIST", b"UIDL"])
def test_a_long_list_is_made_in_pieces(keyword: bytes) -> None:
    events = said(logged_in(), keyword + b"\r\n")
    sent = [event.data for event in events if isinstance(event, SendData)]
    assert max(map(len, sent)) < OUTPUT + 2 * Limits().list_piece_octets
    assert b"".join(sent).count(b"\r\n") == MESSAGES + 2
    assert MoreWork() in events


@pytest.mark.parametrize("keyword", [b"LIST", b"UIDL"])
def test_lists_of_marked_messages_are_made_in_no_time(keyword: bytes) -> None:
    """They are not gone over one by one: 20,000 of them took 2 ms for each of 2,730 commands in a segment."""
    conn = logged_in()
    marked(conn, range(1, MESSAGES + 1))
    looked_at = _Counting([7] * MESSAGES)
    conn._listing = Listing(looked_at, looked_at)  # type: ignore[arg-type]
    looked_at.looks = 0
    events = said(conn, (keyword + b"\r\n") * COMMANDS)
    assert events.count(MoreWork()) > 20
    assert looked_at.looks == 0


class _Counting(list[int]):
    looks = 0

    def __iter__(self):
        for one in super().__iter__():
            self.looks += 1
            yield one

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)


def test_lists_leave_out_what_is_marked() -> None:
    conn = logged_in(10)
    marked(conn, range(2, 10, 2))
    event = said(conn, b"LIST\r\n")[0]
    assert isinstance(event, SendData)
    assert event.data.splitlines()[1:] == [b"1 7", b"3 7", b"5 7", b"7 7", b"9 7", b"10 7", b"."]


def test_a_commit_names_all_that_is_marked() -> None:
    conn = logged_in()
    marked(conn, range(1, MESSAGES + 1, 3))
    asked = said(conn, b"QUIT\r\n")[-1]
    assert isinstance(asked, CommitRequested)
    assert list(asked.numbers) == list(range(1, MESSAGES + 1, 3))
    assert len(asked.numbers) == len(range(1, MESSAGES + 1, 3))
    assert 1 in asked.numbers and 2 not in asked.numbers and 0 not in asked.numbers and "1" not in asked.numbers
    assert (asked.numbers[0], asked.numbers[-1], asked.numbers[:2]) == (1, 19_999, (1, 4))
    assert asked == CommitRequested(tuple(asked.numbers)) and hash(asked) == hash(CommitRequested(tuple(asked.numbers)))
    assert asked != CommitRequested([1])
    conn.answer(CommitFailed(asked.numbers, "SYS/TEMP"))
    reply = conn.next_event()
    assert isinstance(reply, SendData) and b"6667 of 6667 deleted messages" in reply.data


@pytest.mark.parametrize("left", [(2,), (1, 3, 4), (0,), (4, -1), (1, 3, 3, 99)])
def test_what_is_left_is_among_what_was_to_go(left: tuple[int, ...]) -> None:
    conn = logged_in()
    marked(conn, range(1, 4, 2))
    said(conn, b"QUIT\r\n")
    with pytest.raises(LocalProtocolError):
        conn.answer(CommitFailed(left, "SYS/TEMP"))


def test_a_session_may_end_between_two_turns() -> None:
    conn = logged_in()
    conn.receive_data(b"NOOP\r\n" * COMMANDS)
    assert conn.next_event() == MoreWork()
    conn.hang_up("enough")
    assert conn.next_event() == Closed("enough", committed=False)


def test_finishing_between_two_turns_drops_what_waits() -> None:
    conn = logged_in()
    conn.receive_data(b"NOOP\r\n" * COMMANDS)
    assert conn.next_event() == MoreWork()
    conn.finish("shutting down")
    reply = conn.next_event()
    assert isinstance(reply, SendData)
    assert reply.data == b"+OK\r\n" * AT_ONCE + b"-ERR [SYS/TEMP] shutting down; closing\r\n"


@pytest.mark.parametrize("lines", [0, 1, 2, 63, 64, 65, 10_000])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_top_cuts_where_it_should_in_a_body_of_short_lines(lines: int, piece: int) -> None:
    head, body = b"A: b\r\n\r\n", b"\r\n" * 32 + b"x\r\n" * 32
    cutter, got, data = TopCutter(lines), b"", head + body
    for at in range(0, len(data), piece):
        if not cutter.ended:
            got += cutter.feed(data[at : at + piece])
    assert got == head + b"".join(body.splitlines(keepends=True)[:lines])


def test_an_identity_longer_than_any_name_is_refused_before_it_is_prepared() -> None:
    server = Dialogue(config=ServerConfig(allow_plaintext=True))
    long = "\ufdfa".encode() * 400 + b"\0alice\0s e c"
    answer = server.say("AUTH PLAIN", base64.b64encode(long))
    assert answer == b"+ \r\n-ERR a name or password is too long\r\n"
