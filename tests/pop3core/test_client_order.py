"""What a client sends when, once it may pipeline; and that its end is one end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import TlsEstablished
from pop3core.client import ClientConfig
from pop3core.commands import Capa, Command, Dele, List, Noop, Pass, Quit, Retr, Rset, Stat, Stls, Top, Uidl, User
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    Abandoned,
    ContentReceived,
    Disconnected,
    NeedData,
    Replied,
    SendData,
    TlsReady,
)
from pop3core.limits import Limits
from pop3core.syntax import encode
from tests.pop3core.play import Listener

ANNOUNCED = b"+OK\r\nPIPELINING\r\n.\r\n"


def pipelining(limits: Limits | None = None) -> Listener:
    """Not logged in; the server has announced PIPELINING."""
    listener = Listener(ClientConfig(limits=limits or Limits()))
    listener.conn.send(Capa())
    listener.hear(ANNOUNCED)
    listener.sent = b""
    listener.events.clear()
    return listener


def test_a_barrier_holds_also_where_the_window_would_not() -> None:
    listener = pipelining()
    for command in (User("alice"), Pass(b"x"), Stat(), Noop(), Quit()):
        listener.conn.send(command)
    listener.run()
    assert listener.sent == b"USER alice\r\n"
    listener.hear(b"+OK\r\n")
    assert listener.sent == b"USER alice\r\nPASS x\r\n"
    listener.hear(b"+OK\r\n")
    assert listener.sent == b"USER alice\r\nPASS x\r\nSTAT\r\nNOOP\r\nQUIT\r\n"


def test_commands_leave_in_one_write() -> None:
    listener = pipelining()
    for command in (User("alice"), Pass(b"x")):
        listener.conn.send(command)
        listener.hear(b"+OK\r\n")
    for number in range(1, 11):
        listener.conn.send(Dele(number))
    assert listener.conn.next_event() == SendData(b"".join(b"DELE %d\r\n" % number for number in range(1, 11)))
    assert isinstance(listener.conn.next_event(), NeedData)


PROGRAM = st.lists(
    st.sampled_from([Stat(), List(), List(2), Uidl(), Noop(), Rset(), Dele(1), Retr(1), Top(1, 1), Capa()]), max_size=30
)
LINES = {Capa: b"PIPELINING\r\n.\r\n", Retr: b"..x\r\n.\r\n", Top: b"\r\n.\r\n"}


def answer_to(line: bytes, ok: bool) -> bytes:
    """A well-formed answer, to a line that a client sent."""
    keyword, _, argument = line.partition(b" ")
    if not ok:
        return b"-ERR no\r\n"
    if keyword in (b"CAPA", b"RETR", b"TOP"):
        return b"+OK\r\n" + LINES[{b"CAPA": Capa, b"RETR": Retr, b"TOP": Top}[keyword]]
    if keyword in (b"LIST", b"UIDL") and not argument:
        return b"+OK\r\n1 1\r\n2 2\r\n.\r\n"
    return b"+OK 2 2\r\n"


@given(PROGRAM, st.integers(1, 8), st.lists(st.booleans(), min_size=40, max_size=40), st.integers(1, 200))
def test_every_command_is_sent_once_in_order_and_answered_once(
    program: list[Command], window: int, refusals: list[bool], cut: int
) -> None:
    listener = pipelining(Limits(window_commands=window))
    commands = [User("alice"), Pass(b"x"), *program, Quit()]
    for command in commands:
        listener.conn.send(command)
    coming, answered = b"", 0
    while True:
        event = listener.conn.next_event()
        if isinstance(event, SendData):
            for line in event.data.splitlines():
                barrier = line[:4] in (b"USER", b"PASS", b"QUIT")
                ok = barrier or not refusals[answered]
                coming += answer_to(line, ok)
                answered += 1
            listener.sent += event.data
            assert listener.conn.unanswered <= window
        elif isinstance(event, NeedData):
            listener.conn.receive_data(coming[:cut])
            coming = coming[cut:]
        else:
            listener.events.append(event)
            if isinstance(event, Disconnected):
                break
    assert listener.sent == b"".join(encode(command) for command in commands)
    assert [event.command for event in listener.events if isinstance(event, Replied)] == commands
    assert event == Disconnected(expected=True, unanswered=())
    # a content's events stand together, behind their reply
    for before, after in pairwise(listener.events):
        if isinstance(after, ContentReceived):
            assert isinstance(before, ContentReceived) or isinstance(before.command, Retr | Top)


@given(
    st.sampled_from(["USER", "PASS"]),
    st.lists(st.sampled_from([Stat(), Noop(), Dele(1), Retr(1)]), max_size=10),
)
def test_what_waits_behind_a_failure_comes_back_in_order(failing: str, behind: list[Command]) -> None:
    listener = pipelining()
    commands = [User("alice"), Pass(b"x"), *behind, Quit()]
    for command in commands:
        listener.conn.send(command)
    events = listener.hear(b"+OK\r\n" if failing == "PASS" else b"-ERR no\r\n")
    if failing == "PASS":
        events = listener.hear(b"-ERR [AUTH] no\r\n")
    sent = 2 if failing == "PASS" else 1
    assert events[1:] == [Abandoned(command) for command in commands[sent:]]
    assert listener.sent == b"".join(encode(command) for command in commands[:sent])
    assert listener.conn.waiting == listener.conn.unanswered == 0
    listener.conn.send(Quit())  # the session is where it was, and goes on
    assert listener.hear(b"+OK\r\n")[-1] == Disconnected(expected=True, unanswered=())


def test_content_that_comes_renews_the_time_that_a_driver_waits() -> None:
    listener = pipelining()
    for command in (User("alice"), Pass(b"x"), Retr(1)):
        listener.conn.send(command)
        listener.hear(b"+OK\r\n")
    conn = listener.conn
    conn.receive_data(b"x" * 10)
    assert conn.next_event() == ContentReceived(b"x" * 10)
    assert conn.next_event() == NeedData(resumed=False)
    assert conn.next_event() == NeedData(resumed=True)


@pytest.mark.parametrize("how", ["the server", "the stream", "a lie"])
def test_there_is_one_end_whatever_comes_behind_it(how: str) -> None:
    listener = pipelining()
    listener.conn.send(Capa())
    if how == "the server":
        listener.hear(ANNOUNCED)
        listener.conn.send(Quit())
        listener.hear(b"+OK\r\n")
    elif how == "the stream":
        listener.hear(b"")
    else:
        with pytest.raises(RemoteProtocolError):
            listener.hear(b"what?\r\n")
    conn = listener.conn
    end = conn.next_event()
    assert end == Disconnected(how == "the server", () if how == "the server" else (Capa(),))
    conn.hang_up()
    conn.receive_data(b"+OK\r\n")
    conn.receive_data(b"")
    conn.receive_data(b"data behind the end of the stream is nobody's mistake any more")
    assert [conn.next_event(), conn.next_event()] == [end, end]
    assert conn.state.value == "CLOSED"


@pytest.mark.parametrize("moment", ["queued", "sent", "accepted", "behind TLS"])
def test_stls_is_said_once_whenever_it_is_asked_for_again(moment: str) -> None:
    # RFC 2595 §4: not valid once TLS is there; so it must not be queued behind one that will bring it about
    listener = Listener(secure=False)
    conn = listener.conn
    conn.send(Stls())
    if moment != "queued":
        assert conn.next_event() == SendData(b"STLS\r\n")
    if moment in ("accepted", "behind TLS"):
        conn.receive_data(b"+OK\r\n")
        assert isinstance(conn.next_event(), Replied)
        assert conn.next_event() == TlsReady()
    if moment == "behind TLS":
        conn.answer(TlsEstablished())
        assert conn.secure
    with pytest.raises(LocalProtocolError, match="RFC 2595"):
        conn.send(Stls())
    conn.send(User("alice"))  # which leaves behind TLS only
    assert conn.waiting == (2 if moment == "queued" else 1)


def test_stls_may_be_said_again_after_a_refusal() -> None:
    listener = Listener(secure=False)
    listener.conn.send(Stls())
    listener.conn.send(User("alice"))
    assert listener.hear(b"-ERR not now\r\n")[1:] == [Abandoned(User("alice"))]
    with pytest.raises(LocalProtocolError, match="clear text"):
        listener.conn.send(User("alice"))
    listener.conn.send(Stls())
