"""The server engine: order, questions and answers, the end; whatever a driver or a client does."""

import itertools
import tracemalloc
from collections.abc import Callable

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
from pop3core.errors import LocalProtocolError
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    LoginRequested,
    NeedData,
    Password,
    SendData,
    ServerEvent,
)
from pop3core.limits import Limits
from pop3core.maildrop import Listing
from pop3core.server import CUT_OFF, ServerConfig, ServerConnection
from pop3core.table import State
from tests.pop3core.play import Dialogue, server_in

LISTING = Listing([5, 7], [b"a", b"b"])


def connection(config: ServerConfig | None = None) -> ServerConnection:
    """Greeted, behind TLS."""
    conn = ServerConnection(config)
    conn.answer(TlsEstablished())
    assert isinstance(conn.next_event(), SendData)
    assert conn.next_event() == NeedData(resumed=False)
    return conn


def events(conn: ServerConnection, data: bytes | None = None) -> list[ServerEvent]:
    """What comes until the driver has to do something but write."""
    if data is not None:
        conn.receive_data(data)
    found = []
    while True:
        event = conn.next_event()
        found.append(event)
        if not isinstance(event, SendData | ContentDropped):
            return found


def sent(found: list[ServerEvent]) -> bytes:
    return b"".join(event.data for event in found if isinstance(event, SendData))


def logged_in(listing: Listing = LISTING, config: ServerConfig | None = None) -> ServerConnection:
    conn = connection(config)
    assert isinstance(events(conn, b"USER alice\r\nPASS x\r\n")[-1], LoginRequested)
    conn.answer(LoginAccepted(listing))
    assert isinstance(events(conn)[-1], NeedData)
    return conn


# --- order ---


def test_a_pipelined_batch_is_answered_in_one_write() -> None:
    conn = logged_in()
    found = events(conn, b"NOOP\r\nSTAT\r\nLIST\r\nUIDL\r\nDELE 1\r\nNOOP\r\n")
    assert [type(event) for event in found] == [SendData, NeedData]
    assert sent(found).count(b"+OK") == 6


def test_what_stands_behind_pass_waits_for_the_answer() -> None:
    conn = connection()
    found = events(conn, b"USER alice\r\nPASS x\r\nSTAT\r\nQUIT\r\n")
    assert sent(found) == b"+OK send PASS\r\n"  # flushed first: checking may take long
    assert found[-1] == LoginRequested(Password("alice", "", b"x"), utf8=False)
    conn.answer(LoginAccepted(LISTING))
    found = events(conn)
    assert sent(found) == b"+OK 2 messages (12 octets)\r\n+OK 2 12\r\n"
    assert found[-1] == CommitRequested(())


def test_content_is_asked_for_without_a_flush_and_pipelined_retrs_leave_together() -> None:
    conn = logged_in()
    assert events(conn, b"NOOP\r\nRETR 1\r\nRETR 2\r\nNOOP\r\n") == [ContentRequested(1, 0, None)]
    conn.answer(Content(b"abc\r\n", last=True))
    assert events(conn) == [ContentRequested(2, 0, None)]
    conn.answer(Content(b"abcde\r\n", last=True))
    found = events(conn)
    assert [type(event) for event in found] == [SendData, NeedData]
    assert sent(found) == b"+OK\r\n+OK 5 octets\r\nabc\r\n.\r\n+OK 7 octets\r\nabcde\r\n.\r\n+OK\r\n"


def test_one_who_must_wait_sends_first() -> None:
    conn = logged_in()
    assert events(conn, b"NOOP\r\nRETR 1\r\n") == [ContentRequested(1, 0, None)]
    assert conn.unsent == 5
    conn.answer(Pending())
    found = events(conn)
    assert [type(event) for event in found] == [SendData, ContentRequested]
    assert conn.unsent == 0
    conn.answer(Content(b"abc\r\n", last=True))
    assert sent(events(conn)) == b"+OK 5 octets\r\nabc\r\n.\r\n"


def test_output_over_the_threshold_leaves_before_more_is_asked_for() -> None:
    conn = logged_in(Listing([1_000_000], [b"a"]))
    asked: list[int] = []
    largest = 0
    found = events(conn, b"RETR 1\r\n")
    while not isinstance(found[-1], NeedData):
        largest = max([largest, *(len(event.data) for event in found if isinstance(event, SendData))])
        question = found[-1]
        assert isinstance(question, ContentRequested)
        asked.append(question.offset)
        rest = 1_000_000 - question.offset
        conn.answer(Content(b"x" * 65536 if rest > 65536 else b"x" * (rest - 2) + b"\r\n", last=rest <= 65536))
        found = events(conn)
    assert asked == list(range(0, 1_000_000, 65536))
    assert largest < 65536 + 100


def test_a_long_list_is_made_piece_by_piece() -> None:
    class Sizes(list):
        """Ones, without being a hundred thousand of them."""

        def __len__(self) -> int:
            return 100_000

        def __iter__(self):
            return itertools.repeat(b"u" if self.uids else 1, len(self))

    sizes, uids = Sizes(), Sizes()
    sizes.uids, uids.uids = False, True
    conn = logged_in(Listing(sizes, uids))
    tracemalloc.start()
    conn.receive_data(b"LIST\r\nUIDL\r\n")
    lines = largest = 0
    while isinstance(event := conn.next_event(), SendData):
        lines += event.data.count(b"\r\n")
        largest = max(largest, len(event.data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == 2 * (100_000 + 2)
    assert largest < 100_000
    assert peak < 1_000_000


def test_resumed_says_that_nothing_whole_came() -> None:
    conn = logged_in()
    assert events(conn, b"NO") == [NeedData(resumed=True)]
    assert events(conn, b"OP") == [NeedData(resumed=True)]
    assert events(conn, b"\r\nNOO")[-1] == NeedData(resumed=False)
    assert events(conn, b"P")[-1] == NeedData(resumed=True)


# --- limits ---


def test_a_line_too_long_is_answered_once_behind_its_end() -> None:
    conn = logged_in()
    assert events(conn, b"x" * 300) == [NeedData(resumed=True)]
    assert events(conn, b"x" * 300) == [NeedData(resumed=True)]
    assert sent(events(conn, b"x\r\nNOOP\r\n")) == b"-ERR a command has at most 255 octets\r\n+OK\r\n"
    assert sent(events(conn, b"PASS " + b"x" * 248 + b"\r\n")).startswith(b"-ERR PASS is not valid")
    assert sent(events(conn, b"PASS " + b"x" * 249 + b"\r\n")) == b"-ERR a command has at most 255 octets\r\n"


def test_a_line_without_end_closes() -> None:
    conn = logged_in()
    found: list[ServerEvent] = []
    for _ in range(20):
        found += events(conn, b"x" * 4096)
    assert sent(found) == b"-ERR a line without end; closing\r\n"
    assert found[-1] == Closed("a line without end", committed=False)
    assert found[-1].reason in CUT_OFF


def test_bad_commands_are_counted() -> None:
    conn = connection(ServerConfig(limits=Limits(bad_commands_max=4)))
    found = events(conn, b"FROB\r\nSTAT\r\nUSER\r\nNOOP x\r\nCAPA\r\n")
    assert sent(found).count(b"-ERR") == 4
    assert b"too many bad commands, closing" in sent(found)
    assert found[-1] == Closed("too many bad commands", committed=False)
    assert conn.summary.bad_commands == 4


def test_a_message_that_is_not_there_is_no_bad_command() -> None:
    conn = logged_in()
    found = events(conn, b"RETR 9\r\n" * 100)
    assert isinstance(found[-1], NeedData)
    assert conn.summary.bad_commands == 0


def test_refused_passwords_are_counted_and_other_reasons_are_not() -> None:
    conn = connection()
    for _ in range(10):
        assert isinstance(events(conn, b"USER alice\r\nPASS x\r\n")[-1], LoginRequested)
        conn.answer(LoginRejected("IN-USE", "busy"))
        assert sent(events(conn)) == b"-ERR [IN-USE] busy\r\n"
        assert conn.state is State.AUTHORIZATION
    for turn in range(3):
        assert isinstance(events(conn, b"USER alice\r\nPASS x\r\n")[-1], LoginRequested)
        conn.answer(LoginRejected(None, "no"))
        found = events(conn)
        assert sent(found).startswith(b"-ERR [AUTH] no")
        assert isinstance(found[-1], Closed) == (turn == 2)
    assert conn.summary.auth_failures == 3
    assert conn.username is None


def test_replies_keep_their_limit() -> None:
    dialogue = Dialogue(config=ServerConfig("x" * 253))
    everything = dialogue.greeting + dialogue.say(
        "USER alice", "PASS s e c", "CAPA", "LIST", "x" * 5000, "UIDL", "QUIT"
    )
    for line in everything.split(b"\r\n"):
        assert len(line) <= 510


# --- content ---


def test_a_message_that_fails_at_once() -> None:
    conn = logged_in()
    events(conn, b"RETR 1\r\n")
    conn.answer(ContentFailed(None, "gone"))
    found = events(conn, b"NOOP\r\n")
    assert sent(found) == b"-ERR gone\r\n+OK\r\n"
    assert conn.summary.retrieved == 0


def test_a_message_that_fails_later_is_never_ended() -> None:
    conn = logged_in()
    events(conn, b"RETR 1\r\nNOOP\r\n")
    conn.answer(Content(b"ab", last=False))
    assert events(conn) == [ContentRequested(1, 2, None)]
    conn.answer(ContentFailed("SYS/TEMP", "gone"))
    found = events(conn)
    assert sent(found) == b"+OK 5 octets\r\nab"
    assert found[-1] == Closed("a message could not be read to its end", committed=False)


def test_top_drops_what_it_does_not_need() -> None:
    conn = logged_in()
    assert events(conn, b"TOP 1 1\r\nNOOP\r\n") == [ContentRequested(1, 0, 1)]
    conn.answer(Content(b"Subject: a\r\n\r\none\r\ntwo\r\n", last=False))
    found = events(conn)
    assert found[0] == ContentDropped(1)
    assert sent(found) == b"+OK top of message follows\r\nSubject: a\r\n\r\none\r\n.\r\n+OK\r\n"
    assert conn.summary.retrieved == 0
    assert conn.summary.retrieved_octets == 19


def test_top_of_a_message_given_whole_drops_nothing() -> None:
    conn = logged_in()
    events(conn, b"TOP 1 0\r\n")
    conn.answer(Content(b"a\r\n\r\nb\r\n", last=True))
    assert not any(isinstance(event, ContentDropped) for event in events(conn))


@pytest.mark.parametrize(
    "answer",
    [
        Content(b"", last=False),
        Content(b"x" * 65537, last=False),
        Content(b"no end", last=True),
        Committed(),
        CommitFailed((), "SYS/TEMP"),
        LoginAccepted(LISTING),
        LoginRejected(None, "x"),
    ],
    ids=repr,
)
def test_an_answer_that_does_not_fit_changes_nothing(answer) -> None:
    conn = logged_in()
    events(conn, b"RETR 1\r\n")
    with pytest.raises(LocalProtocolError):
        conn.answer(answer)
    conn.answer(Content(b"abc\r\n", last=True))
    assert sent(events(conn)) == b"+OK 5 octets\r\nabc\r\n.\r\n"


def test_a_last_piece_may_be_empty_behind_a_line_end_only() -> None:
    conn = logged_in()
    events(conn, b"RETR 1\r\n")
    conn.answer(Content(b"ab", last=False))
    conn.next_event()
    with pytest.raises(LocalProtocolError, match="CRLF"):
        conn.answer(Content(b"", last=True))
    conn.answer(Content(b"\r\n", last=False))
    conn.next_event()
    conn.answer(Content(b"", last=True))
    assert sent(events(conn)).endswith(b"ab\r\n.\r\n")


# --- the driver's mistakes ---


def test_an_answer_to_nothing() -> None:
    for conn in (connection(), logged_in()):
        with pytest.raises(LocalProtocolError, match="answers nothing"):
            conn.answer(Committed())


def test_an_answer_before_the_question_was_put() -> None:
    conn = connection()
    conn.receive_data(b"USER alice\r\nPASS x\r\n")
    assert isinstance(conn.next_event(), SendData)
    with pytest.raises(LocalProtocolError):
        conn.answer(LoginAccepted(LISTING))


def test_an_event_before_the_answer() -> None:
    conn = logged_in()
    events(conn, b"QUIT\r\n")
    with pytest.raises(LocalProtocolError, match="wants an answer"):
        conn.next_event()


def test_tls_only_at_the_start() -> None:
    with pytest.raises(LocalProtocolError):
        connection().answer(TlsEstablished())


def test_data_behind_the_end() -> None:
    conn = logged_in()
    conn.receive_data(b"")
    with pytest.raises(LocalProtocolError):
        conn.receive_data(b"NOOP\r\n")


# --- the end ---


def test_quit_asks_for_a_commit_also_of_nothing() -> None:
    conn = logged_in()
    assert events(conn, b"DELE 2\r\nQUIT\r\nNOOP\r\n")[-1] == CommitRequested((2,))
    conn.answer(Committed())
    found = events(conn)
    assert sent(found) == b"+OK bye\r\n"
    assert found[-1] == Closed("QUIT", committed=True)
    assert conn.next_event() == found[-1]
    conn.receive_data(b"ignored")
    conn.finish("ignored")
    assert conn.next_event() == found[-1]
    assert conn.summary.deleted == 1
    assert events(logged_in(), b"QUIT\r\n")[-1] == CommitRequested(())


def test_quit_before_login_asks_for_none() -> None:
    found = events(connection(), b"USER a\r\nQUIT\r\n")
    assert found[-1] == Closed("QUIT", committed=False)


def test_a_failed_commit_is_of_messages_that_were_marked() -> None:
    conn = logged_in()
    events(conn, b"DELE 1\r\nQUIT\r\n")
    with pytest.raises(LocalProtocolError, match="CommitFailed"):
        conn.answer(CommitFailed([1, 2], "SYS/TEMP"))
    conn.answer(CommitFailed([1, 1], "SYS/TEMP"))
    assert sent(events(conn)) == b"-ERR [SYS/TEMP] 1 of 1 deleted messages could not be removed\r\n"


def test_a_failed_commit_is_told() -> None:
    conn = logged_in()
    events(conn, b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
    conn.answer(CommitFailed([2], "SYS/PERM"))
    found = events(conn)
    assert sent(found) == b"-ERR [SYS/PERM] 1 of 2 deleted messages could not be removed\r\n"
    assert isinstance(found[-1], Closed)
    assert not found[-1].committed
    assert conn.summary.deleted == 1


@pytest.mark.parametrize("last", [b"", b"QUI", b"QUIT", b"DELE 2\r\nQUIT"])
def test_the_end_of_the_stream_never_commits(last: bytes) -> None:
    conn = logged_in()
    events(conn, b"DELE 1\r\n" + last)
    found = events(conn, b"")
    assert found[-1] == Closed("the client went away without QUIT", committed=False)


def test_quit_and_the_end_of_the_stream_together_commit() -> None:
    conn = logged_in()
    conn.receive_data(b"DELE 1\r\nQUIT\r\n")
    assert events(conn, b"")[-1] == CommitRequested((1,))


SITUATIONS: dict[str, Callable[[], ServerConnection]] = {}


def situation(make: Callable[[], ServerConnection]) -> Callable[[], ServerConnection]:
    SITUATIONS[make.__name__] = make
    return make


@situation
def new() -> ServerConnection:
    return ServerConnection()


@situation
def idle() -> ServerConnection:
    return logged_in()


@situation
def with_commands_waiting() -> ServerConnection:
    conn = logged_in()
    conn.receive_data(b"NOOP\r\nDELE 1\r\nQUIT\r\n")
    return conn


@situation
def login_asked() -> ServerConnection:
    conn = connection()
    events(conn, b"USER alice\r\nPASS x\r\nSTAT\r\n")
    return conn


@situation
def content_asked() -> ServerConnection:
    conn = logged_in()
    events(conn, b"RETR 1\r\nQUIT\r\n")
    return conn


@situation
def content_begun() -> ServerConnection:
    conn = logged_in()
    events(conn, b"RETR 1\r\nQUIT\r\n")
    conn.answer(Content(b"ab", last=False))
    conn.next_event()
    return conn


@situation
def commit_waiting() -> ServerConnection:
    conn = logged_in()
    conn.receive_data(b"NOOP\r\nDELE 1\r\nQUIT\r\n")
    assert isinstance(conn.next_event(), SendData)
    return conn


@situation
def commit_asked() -> ServerConnection:
    conn = logged_in()
    events(conn, b"DELE 1\r\nQUIT\r\n")
    return conn


@situation
def closed() -> ServerConnection:
    conn = logged_in()
    events(conn, b"")
    return conn


LATE = {
    "login_asked": LoginAccepted(LISTING),
    "content_asked": Content(b"abc\r\n", last=True),
    "content_begun": Content(b"c\r\n", last=True),
    "commit_asked": Committed(),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_hang_up_ends_at_once_whatever_goes_on(name: str) -> None:
    conn = SITUATIONS[name]()
    conn.hang_up("enough")
    if name == "commit_asked":  # runs to its end, but nothing more is said
        with pytest.raises(LocalProtocolError):
            conn.next_event()
    if name in LATE:
        conn.answer(LATE[name])
    found = events(conn)
    assert sent(found) == b""
    assert any(isinstance(event, ContentDropped) for event in found) == name.startswith("content")
    reason = "the client went away without QUIT" if name == "closed" else "enough"
    assert found[-1] == Closed(reason, committed=name == "commit_asked")
    assert conn.state is State.CLOSED


def test_hang_up_during_a_commit_that_fails() -> None:
    conn = commit_asked()
    conn.hang_up("enough")
    conn.answer(CommitFailed([1], "SYS/TEMP"))
    assert events(conn) == [Closed("enough", committed=False)]


FAREWELL = b"-ERR [SYS/TEMP] shutting down; closing\r\n"


@pytest.mark.parametrize(
    ("name", "said", "reason", "committed"),
    [
        ("new", b"+OK POP3 server ready\r\n" + FAREWELL, "shutting down", False),
        ("idle", FAREWELL, "shutting down", False),
        ("with_commands_waiting", FAREWELL, "shutting down", False),
        ("login_asked", FAREWELL, "shutting down", False),
        ("content_asked", b"+OK 5 octets\r\nabc\r\n.\r\n" + FAREWELL, "shutting down", False),
        ("content_begun", b"+OK 5 octets\r\nabc\r\n.\r\n" + FAREWELL, "shutting down", False),
        ("commit_asked", b"+OK bye\r\n", "QUIT", True),
        ("closed", b"", "the client went away without QUIT", False),
    ],
)
def test_finish_ends_behind_the_reply_under_way(name: str, said: bytes, reason: str, committed: bool) -> None:
    conn = SITUATIONS[name]()
    conn.finish("shutting down")
    if name in LATE:
        conn.answer(LATE[name])
    found = events(conn)
    assert sent(found) == said
    assert found[-1] == Closed(reason, committed)


def test_finish_completes_a_commit_that_was_not_asked_for_yet() -> None:
    conn = commit_waiting()
    conn.finish("shutting down")
    assert events(conn) == [CommitRequested((1,))]
    conn.answer(Committed())
    assert events(conn)[-1] == Closed("QUIT", committed=True)


def test_finish_completes_a_list() -> None:
    conn = logged_in(Listing([1] * 50_000, [b"x"] * 50_000))
    conn.receive_data(b"LIST\r\nNOOP\r\n")
    first = conn.next_event()
    assert isinstance(first, SendData)
    conn.finish("shutting down")
    said = first.data + sent(events(conn))
    assert said.count(b"\r\n") == 50_003
    assert said.endswith(b"\r\n.\r\n" + FAREWELL)


# --- what must never be ---


@given(st.binary(max_size=60).filter(lambda octets: b"\n" not in octets))
def test_no_reply_echoes_what_a_client_sent(octets: bytes) -> None:
    marker = b"zqj~" + octets
    for state in (State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION):
        server = server_in(state)
        for form in (b"%b", b"USER %b", b"LIST %b", b"RETR %b", b"TOP 1 %b", b"QUIT %b"):
            assert b"zqj~" not in server.say(form % marker)


@given(st.lists(st.binary(max_size=30), max_size=20), st.sampled_from(list(SITUATIONS)))
def test_no_octets_of_a_client_make_an_exception(pieces: list[bytes], name: str) -> None:
    conn = SITUATIONS[name]()
    for piece in pieces:
        if not piece:
            continue
        conn.receive_data(piece)
    for _ in range(1000):
        try:
            event = conn.next_event()
        except LocalProtocolError:
            return  # a question is open
        match event:
            case LoginRequested():
                conn.answer(LoginAccepted(LISTING))
            case ContentRequested():
                conn.answer(Content(b"abc\r\n", last=True))
            case CommitRequested():
                conn.answer(Committed())
            case Closed():
                return
            case NeedData():
                conn.receive_data(b"")
    raise AssertionError("never ends")


def test_no_secret_in_any_repr() -> None:
    conn = connection()
    found = events(conn, b"USER alice\r\nPASS hush-hush\r\n")
    assert "hush" not in repr(found)
    assert "hush" not in repr([getattr(part, name) for part in (conn, conn._login) for name in part.__slots__])
    conn.answer(LoginAccepted(LISTING))
    events(conn, b"RETR 1\r\n")
    answer = Content(b"hush\r\n", last=True)
    assert "hush" not in repr(answer)
    conn.answer(answer)
    assert "hush" not in repr(events(conn))


def test_what_can_be_read() -> None:
    conn = ServerConnection()
    assert (conn.state, conn.secure, conn.username) == (State.AUTHORIZATION, False, None)
    conn = logged_in()
    assert (conn.state, conn.secure, conn.username) == (State.TRANSACTION, True, "alice")
    events(conn, b"RETR 1\r\n")
    conn.answer(Content(b".bc\r\n", last=True))
    events(conn)
    summary = conn.summary
    assert (summary.commands, summary.retrieved, summary.retrieved_octets) == (3, 1, 5)
    assert summary.by_keyword == {"USER": 1, "PASS": 1, "RETR": 1}
    assert summary.mechanism == "USER"
    events(conn, b"NONSENSE\r\nRETR 9\r\nRETR x\r\nPASS x\r\n")
    assert summary.by_keyword == {"USER": 1, "PASS": 1, "RETR": 2}  # those that were understood, and valid there
    assert summary.commands == 7
