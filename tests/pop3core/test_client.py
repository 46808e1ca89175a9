"""The client engine: what it sends when, what it hears, and what it makes of servers that lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.answers import TlsEstablished
from pop3core.client import ClientConfig, ClientConnection
from pop3core.commands import Capa, Dele, Lang, List, Noop, Pass, Quit, Retr, Stat, Top, Uidl, User
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    Abandoned,
    CapabilityItem,
    ContentEnded,
    ContentReceived,
    Disconnected,
    Greeted,
    ListEnded,
    ListItem,
    NeedData,
    Replied,
    SendData,
    StatItem,
    UidItem,
)
from pop3core.limits import Limits
from pop3core.table import State
from tests.pop3core.play import Listener, client_in


def in_transaction(limits: Limits | None = None, *, pipelining: bool = False) -> Listener:
    client = Listener(ClientConfig(limits=limits) if limits else None)
    client.conn.send(User("alice"))
    client.hear(b"+OK\r\n")
    client.conn.send(Pass(b"x"))
    client.hear(b"+OK\r\n")
    if pipelining:
        client.conn.send(Capa())
        client.hear(b"+OK\r\nPIPELINING\r\n.\r\n")
    client.sent = b""
    client.events.clear()
    return client


# --- what is heard ---


def test_the_greeting() -> None:
    assert Listener(greeting=b"+OK hello\r\n").events == [Greeted(True, None, "hello")]


def test_a_server_that_does_not_serve_now() -> None:
    client = Listener(greeting=b"")
    client.conn.send(User("alice"))
    events = client.hear(b"-ERR [SYS/TEMP] too busy\r\n")
    assert events == [
        Greeted(False, "SYS/TEMP", "too busy"),
        Abandoned(User("alice")),
        Disconnected(expected=False, unanswered=()),
    ]


def test_items() -> None:
    client = in_transaction()
    for command, answer, items in [
        (Stat(), b"+OK 2 320\r\n", [StatItem(2, 320), ListEnded(Stat())]),
        (Stat(), b"+OK 2 320 and more\r\n", [StatItem(2, 320), ListEnded(Stat())]),
        (List(), b"+OK\r\n1 120\r\n2 200 x\r\n.\r\n", [ListItem(1, 120), ListItem(2, 200), ListEnded(List())]),
        (List(2), b"+OK 2 200\r\n", [ListItem(2, 200), ListEnded(List(2))]),
        (Uidl(), b"+OK\r\n1 ab.\r\n.\r\n", [UidItem(1, "ab."), ListEnded(Uidl())]),
        (Uidl(1), b"+OK 1 ab\r\n", [UidItem(1, "ab"), ListEnded(Uidl(1))]),
        (Capa(), b"+OK\r\nTOP\r\n..x\r\n.\r\n", [CapabilityItem("TOP"), CapabilityItem(".x"), ListEnded(Capa())]),
        (List(), b"+OK\r\n.\r\n", [ListEnded(List())]),
        (List(9), b"-ERR no such message\r\n", []),
    ]:
        client.conn.send(command)
        assert client.hear(answer)[1:] == items
    assert dict(client.conn.capabilities) == {"TOP": (), ".X": ()}


def test_an_implementation_changes_nothing() -> None:
    # RFC 2449 §6.9
    sent = []
    for name in (b"Buggy-POP-0.1", b"Dovecot", b"pop3core"):
        client = in_transaction()
        client.conn.send(Capa())
        client.hear(b"+OK\r\nPIPELINING\r\nIMPLEMENTATION " + name + b"\r\n.\r\n")
        for command in (Stat(), Uidl(), Top(1, 0), Retr(1)):
            client.conn.send(command)
        client.run()
        sent.append(client.sent)
    assert sent[0] == sent[1] == sent[2]


def test_two_messages_may_have_the_same_unique_id() -> None:
    # RFC 1939 §7 UIDL: it may be a hash of the message, and two messages may be the same
    client = in_transaction()
    client.conn.send(Uidl())
    events = client.hear(b"+OK\r\n1 same\r\n2 same\r\n.\r\n")
    assert events[1:] == [UidItem(1, "same"), UidItem(2, "same"), ListEnded(Uidl())]


def test_content() -> None:
    client = in_transaction()
    client.conn.send(Retr(1))
    events = client.hear(b"+OK\r\n..a\r\n") + client.hear(b"b\r\n.") + client.hear(b"\r\n")
    assert events == [
        Replied(Retr(1), True, None, ""),
        ContentReceived(b".a"),
        ContentReceived(b"\r\nb"),
        ContentReceived(b"\r\n"),
        ContentEnded(Retr(1), 7),
    ]


def test_only_a_terminator_ends_a_message() -> None:
    client = in_transaction()
    client.conn.send(Retr(1))
    events = client.hear(b"+OK\r\nhalf\r\n") + client.hear(b"")
    assert not any(isinstance(event, ContentEnded) for event in events)
    assert events[-1] == Disconnected(expected=False, unanswered=(Retr(1),))


# --- what is sent when ---


def test_one_at_a_time_until_pipelining_is_announced() -> None:
    client = in_transaction()
    for number in (1, 2, 3):
        client.conn.send(Dele(number))
    client.run()
    assert client.sent == b"DELE 1\r\n"
    assert (client.conn.unanswered, client.conn.waiting) == (1, 2)
    client.hear(b"+OK\r\n")
    assert client.sent == b"DELE 1\r\nDELE 2\r\n"


def test_the_window_is_filled_again_at_half() -> None:
    client = in_transaction(Limits(window_commands=4), pipelining=True)
    for number in range(1, 8):
        client.conn.send(Dele(number))
    client.run()
    assert client.sent.count(b"DELE") == 4
    client.hear(b"+OK\r\n")
    assert client.sent.count(b"DELE") == 4
    client.hear(b"+OK\r\n")
    assert client.sent.count(b"DELE") == 6


def test_nothing_is_sent_behind_a_barrier() -> None:
    client = Listener()
    for command in (User("alice"), Pass(b"x"), Stat()):
        client.conn.send(command)
    client.run()
    assert client.sent == b"USER alice\r\n"
    client.hear(b"+OK\r\n")
    assert client.sent == b"USER alice\r\nPASS x\r\n"
    client.hear(b"+OK\r\n")
    assert client.sent.endswith(b"STAT\r\n")


def test_nothing_is_sent_before_the_greeting() -> None:
    client = Listener(greeting=b"")
    client.conn.send(User("alice"))
    client.run()
    assert client.sent == b""
    client.hear(b"+OK\r\n")
    assert client.sent == b"USER alice\r\n"


def test_what_waits_behind_a_failed_barrier_is_abandoned() -> None:
    client = Listener()
    for command in (User("alice"), Pass(b"x"), Stat(), Quit()):
        client.conn.send(command)
    client.hear(b"+OK\r\n")
    events = client.hear(b"-ERR [AUTH] no\r\n")
    assert events == [Replied(Pass(b"x"), False, "AUTH", "no"), Abandoned(Stat()), Abandoned(Quit())]
    assert client.conn.state is State.AUTHORIZATION
    client.conn.send(User("alice"))  # and it goes on from there
    client.run()
    assert client.sent.endswith(b"USER alice\r\n")


def test_other_failures_abandon_nothing() -> None:
    client = in_transaction()
    client.conn.send(Retr(9))
    client.conn.send(Noop())
    client.hear(b"-ERR no such message\r\n")
    assert client.sent == b"RETR 9\r\nNOOP\r\n"


# --- the driver's mistakes ---


def test_a_command_at_the_wrong_moment() -> None:
    client = Listener()
    with pytest.raises(LocalProtocolError, match=r"STAT is not valid in the AUTHORIZATION state \(RFC 1939 §5\)"):
        client.conn.send(Stat())
    client.conn.send(Quit())
    with pytest.raises(LocalProtocolError, match="CLOSED"):
        client.conn.send(Capa())
    client.hear(b"+OK\r\n")
    with pytest.raises(LocalProtocolError, match="the connection has ended"):
        client.conn.send(Capa())


def test_a_command_that_cannot_be_said_or_is_too_long() -> None:
    client = Listener()
    for name in ("a\r\nQUIT", "", "x" * 300):
        with pytest.raises(LocalProtocolError):
            client.conn.send(User(name))
    assert client.conn.waiting == 0


def test_more_commands_than_may_wait() -> None:
    client = in_transaction(Limits(queue_commands_max=3))
    for _ in range(3):
        client.conn.send(Noop())
    with pytest.raises(LocalProtocolError, match="wait"):
        client.conn.send(Noop())


def test_secrets_are_never_sent_in_clear_text() -> None:
    client = Listener(secure=False)
    assert not client.conn.secure
    with pytest.raises(LocalProtocolError, match="clear text"):
        client.conn.send(User("alice"))
    relaxed = Listener(ClientConfig(allow_plaintext=True), secure=False)
    relaxed.conn.send(User("alice"))
    assert Listener().conn.secure


def test_tls_is_said_before_the_first_octet() -> None:
    client = Listener()
    with pytest.raises(LocalProtocolError):
        client.conn.answer(TlsEstablished())


def test_data_behind_the_end() -> None:
    client = in_transaction()
    client.conn.receive_data(b"")
    with pytest.raises(LocalProtocolError):
        client.conn.receive_data(b"+OK\r\n")


# --- servers that lie ---


def broken(client: Listener, data: bytes) -> RemoteProtocolError:
    """The error that this brings about; the end comes behind it, once and for all."""
    waiting = client.conn.waiting
    with pytest.raises(RemoteProtocolError) as caught:
        client.hear(data)
    client.run()
    ended = client.events[-1]
    assert isinstance(ended, Disconnected)
    assert not ended.expected
    assert client.conn.next_event() == ended
    assert client.conn.state is State.CLOSED
    client.conn.receive_data(b"more")
    assert client.conn.next_event() == ended
    assert waiting >= 0
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    "line", [b"* OK IMAP ready\r\n", b"220 smtp ready\r\n", b"\r\n", b"\x15\x03\x01\r\n", b"HTTP/1.1 400\n"]
)
def test_a_greeting_of_another_protocol(line: bytes) -> None:
    fault = broken(Listener(greeting=b""), line)
    assert (fault.code, fault.state, fault.command) == ("bad-status", "AUTHORIZATION", None)


def test_a_greeting_without_end() -> None:
    assert broken(Listener(greeting=b""), b"+OK " + b"x" * 20_000).code == "line-too-long"
    assert broken(Listener(greeting=b""), b"+OK " + b"x" * 20_000 + b"\r\n").code == "line-too-long"


@pytest.mark.parametrize(
    ("command", "answer", "code"),
    [
        (Noop(), b"OK\r\n", "bad-status"),
        (Noop(), b"+OK" + b"x" * 20_000 + b"\r\n", "line-too-long"),
        (Noop(), b"+OK\r\n+OK\r\n", "unasked"),
        (Noop(), b"+OK\r\n-ERR [SYS/TEMP] going down\r\n", "unasked"),
        (Stat(), b"+OK\r\n", "bad-item"),
        (Stat(), b"+OK 1\r\n", "bad-item"),
        (Stat(), b"+OK one 2\r\n", "bad-item"),
        (Stat(), b"+OK -1 2\r\n", "bad-item"),
        (Stat(), b"+OK 1 " + b"9" * 30 + b"\r\n", "bad-item"),
        (List(), b"+OK\r\n1\r\n", "bad-item"),
        (List(), b"+OK\r\n1 x\r\n", "bad-item"),
        (List(), "+OK\r\n1 ٢\r\n".encode(), "bad-item"),
        (List(1), b"+OK\r\n", "bad-item"),
        (List(1), b"+OK 2 100\r\n", "bad-item"),
        (Uidl(2), b"+OK 1 ab\r\n", "bad-item"),
        (Uidl(), b"+OK\r\n1\r\n", "bad-item"),
        (Uidl(), b"+OK\r\n1 \r\n", "bad-item"),
        (Uidl(), b"+OK\r\n1 a b\r\n", "bad-item"),
        (Uidl(), b"+OK\r\n1 \x1b[2J\r\n", "bad-item"),
        (Uidl(), b"+OK\r\n1 \xe4\r\n", "bad-item"),
        (Uidl(), b"+OK\r\nx a\r\n", "bad-item"),
        (List(), b"+OK\r\n0 5\r\n", "bad-item"),
        (List(), b"+OK\r\n99999999999 5\r\n", "bad-item"),
        (Uidl(), b"+OK\r\n0 a\r\n", "bad-item"),
        (List(), b"+OK\r\n" + b"1 1\r\n" * 101, "endless-list"),
        (Capa(), b"+OK\r\n" + b"X\r\n" * 11, "endless-list"),
        (Lang(), b"+OK\r\n" + b"x y\r\n" * 11, "endless-list"),
        (Stat(), b"+OK 1 " + b"9" * 21 + b"\r\n", "bad-item"),
    ],
)
def test_answers_that_are_none(command, answer: bytes, code: str) -> None:
    client = in_transaction(Limits(list_items_max=100, capabilities_max=10))
    client.conn.send(command)
    fault = broken(client, answer)
    assert (fault.code, fault.state) == (code, "TRANSACTION")
    assert fault.rfc.startswith("RFC ")
    assert fault.command == (None if code == "unasked" else type(command).keyword)


@pytest.mark.parametrize("early", [b"+OK you are root\r\n", b"+OK half a li", b"\r\n"])
def test_what_was_said_before_it_was_asked_answers_nothing(early: bytes) -> None:
    client = Listener()
    client.conn.send(User("alice"))
    client.conn.send(Pass(b"x"))
    assert broken(client, b"+OK\r\n" + early).code == "unasked"
    assert b"PASS" not in client.sent


def test_the_end_in_the_middle() -> None:
    client = in_transaction(pipelining=True)
    for command in (Dele(1), Dele(2)):
        client.conn.send(command)
    client.run()
    assert client.hear(b"+OK\r\n") == [Replied(Dele(1), True, None, "")]
    assert client.hear(b"") == [Disconnected(expected=False, unanswered=(Dele(2),))]


def test_hang_up() -> None:
    client = in_transaction()
    client.conn.send(Retr(1))
    client.conn.send(Noop())
    client.hear(b"+OK\r\nabc")
    client.conn.hang_up()
    client.conn.hang_up()
    assert client.run() == [Abandoned(Noop()), Disconnected(expected=True, unanswered=(Retr(1),))]


def test_quit_refused_is_the_end_as_well() -> None:
    client = in_transaction()
    client.conn.send(Quit())
    events = client.hear(b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
    assert events[-1] == Disconnected(expected=True, unanswered=())
    assert client.conn.state is State.CLOSED


def test_resumed_says_that_nothing_whole_came() -> None:
    client = in_transaction()
    client.conn.send(Noop())
    conn = client.conn
    assert isinstance(conn.next_event(), SendData)
    assert isinstance(conn.next_event(), NeedData)
    conn.receive_data(b"+O")
    assert conn.next_event() == NeedData(resumed=True)
    conn.receive_data(b"K\r\n")
    assert isinstance(conn.next_event(), Replied)
    assert conn.next_event() == NeedData(resumed=False)


@given(st.lists(st.binary(max_size=40), max_size=10), st.sampled_from([*State]), st.booleans())
def test_no_octets_of_a_server_make_another_exception(pieces: list[bytes], state: State, framed: bool) -> None:
    client = client_in(state)
    for command in (Retr(1), List(), Uidl(), Capa(), Top(1, 1), Stat(), Uidl(1), Quit()):
        try:
            client.conn.send(command)
        except LocalProtocolError:
            continue
    try:
        for piece in pieces:
            client.hear(b"+OK " + piece + b"\r\n" if framed else piece or b"+OK\r\n")
    except RemoteProtocolError:
        assert isinstance(client.run()[-1], Disconnected)


def test_no_secret_in_any_repr() -> None:
    client = Listener()
    client.conn.send(User("alice"))
    client.conn.send(Pass(b"hush-hush"))
    client.hear(b"+OK\r\n")
    assert isinstance(client.conn, ClientConnection)
    assert "hush" not in repr(client.conn.__dict__)
    assert "hush" not in repr(SendData(b"PASS hush\r\n"))
    assert "hush" not in repr(client.hear(b"-ERR no\r\n"))


def test_an_error_shows_what_was_said_and_to_which_command() -> None:
    client = Listener()
    client.conn.send(Capa())
    client.hear(b"+OK\r\nPIPELINING\r\n.\r\n")
    client.conn.send(Capa())
    client.conn.send(Quit())
    line = b"\xff" * 79 + b"ab"
    with pytest.raises(RemoteProtocolError) as caught:
        client.hear(line + b"\r\n")
    assert caught.value.command == "CAPA"
    assert str(caught.value) == "no status indicator: " + ascii(line[:80].decode("latin-1"))


def test_the_largest_number_and_the_first_wait() -> None:
    fresh = ClientConnection()
    assert fresh.next_event() == NeedData(resumed=False)
    client = Listener()
    client.conn.send(User("alice"))
    client.hear(b"+OK\r\n")
    client.conn.send(Pass(b"x"))
    client.hear(b"+OK\r\n")
    client.conn.send(Stat())
    assert StatItem(1, 10**20 - 1) in client.hear(b"+OK 1 " + b"9" * 20 + b"\r\n")
