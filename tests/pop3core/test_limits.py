"""Every limit is kept: exactly so much is taken, and one more is not. One test per field, and none without its test."""

import sys
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from pop3core.answers import Content, LoginAccepted, LoginRejected, TlsEstablished
from pop3core.client import ClientConfig
from pop3core.commands import Capa, Dele, Lang, List, Noop, Pass, Retr, User
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    CapabilityItem,
    Closed,
    ContentRequested,
    Disconnected,
    ListEnded,
    ListItem,
    LoginRequested,
    MoreWork,
    NeedData,
    SendData,
)
from pop3core.limits import DEFAULT_LIMITS, REPLY_OCTETS_MAX, Limits
from pop3core.maildrop import Listing
from pop3core.sasl import MECHANISMS
from pop3core.server import ServerConfig, ServerConnection
from tests.pop3core.play import EVERYTHING, Dialogue, Listener


def server(limits: Limits) -> Dialogue:
    return Dialogue(config=ServerConfig(limits=limits))


def inside(limits: Limits, sizes: list[int]) -> ServerConnection:
    """Logged in, all that was said is sent."""
    conn = ServerConnection(ServerConfig(limits=limits))
    conn.answer(TlsEstablished())
    conn.receive_data(b"USER alice\r\nPASS x\r\n")
    while not isinstance(conn.next_event(), LoginRequested):
        continue
    conn.answer(LoginAccepted(Listing(sizes, [b"%d" % number for number in range(len(sizes))])))
    while not isinstance(conn.next_event(), NeedData):
        continue
    return conn


def client(limits: Limits, *, greeting: bytes = b"+OK ready\r\n") -> Listener:
    return Listener(ClientConfig(limits=limits), greeting=greeting)


def client_inside(limits: Limits) -> Listener:
    listener = client(limits)
    for command in (User("a"), Pass(b"x")):
        listener.conn.send(command)
        listener.hear(b"+OK\r\n")
    listener.sent = b""
    return listener


def test_every_limit_has_its_test() -> None:
    tests = {name.removeprefix("test_") for name, thing in vars(sys.modules[__name__]).items() if callable(thing)}
    assert {limit.name for limit in fields(Limits)} <= tests


def test_every_limit_is_positive_and_says_where_it_comes_from() -> None:
    for limit in fields(Limits):
        assert getattr(DEFAULT_LIMITS, limit.name) > 0
        # a limit's name ends in its unit, or in what it is the most of
        assert limit.name.removesuffix("_max").rpartition("_")[2] in {
            "octets", "commands", "failures", "items", "capabilities",
        }  # fmt: skip


def test_the_limits_of_rfc_2449() -> None:
    # RFC 2449 §4: a command has at most 255 octets, the first line of a reply 512, CRLF included
    assert DEFAULT_LIMITS.command_octets_max == 255
    assert REPLY_OCTETS_MAX == 512


def test_command_octets_max() -> None:
    limits = Limits(command_octets_max=12)
    assert server(limits).say("USER alice").startswith(b"+OK")  # 12 octets with CRLF
    assert server(limits).say("USER alice2") == b"-ERR a command has at most 12 octets\r\n"
    listener = client(limits)
    listener.conn.send(User("alice"))
    with pytest.raises(LocalProtocolError, match="longer than 12 octets"):
        client(limits).conn.send(User("alice2"))


def test_command_octets_max_by_default() -> None:
    for octets, answer in ((255, b"+OK"), (256, b"-ERR")):
        assert Dialogue().say("USER " + "x" * (octets - 7)).startswith(answer)


@pytest.mark.parametrize("auth", ["AUTH XOAUTH2 ", "auth oauthbearer ", "AUTH PLAIN "])
@pytest.mark.parametrize("octets", [253, 257, 401, 405])
@pytest.mark.parametrize("piece", [1, 300, 1000])
def test_a_token_may_make_auth_as_long_as_an_answer(auth: str, octets: int, piece: int) -> None:
    # RFC 5034 §4 has the client wait for a challenge instead; mpop and neomutt do not, with tokens of some 700 octets
    dialogue = Dialogue(config=replace(EVERYTHING, limits=Limits(sasl_octets_max=401)))
    line = (auth + "A" * (octets - 2 - len(auth)) + "\r\n").encode()
    answer = b"".join(dialogue.receive(line[start : start + piece]) for start in range(0, octets, piece))
    too_long = octets > 401 or (octets > 255 and auth == "AUTH PLAIN ")
    assert answer.startswith((b"-ERR", b"+ "))
    assert (answer == b"-ERR a command has at most 255 octets\r\n") is too_long
    if answer.startswith(b"+ "):
        dialogue.say("AQ==")
    assert dialogue.say("USER alice").startswith(b"+OK")  # and the session goes on


@pytest.mark.parametrize(
    "line", ["AUTHX ", "AUTH XOAUTH2\t", "AUTH XOAUTH2X ", "AUTH PLAIN ", "USER ", "USER AUTH XOAUTH2 "]
)
def test_no_other_command_may_be_longer(line: str) -> None:
    assert server(Limits()).say(line + "A" * 300) == b"-ERR a command has at most 255 octets\r\n"


def test_line_octets_max() -> None:
    limits = Limits(line_octets_max=1000)
    patient = server(limits)
    assert patient.receive(b"x" * 1000) == b""
    assert patient.conn.state.value == "AUTHORIZATION"
    assert patient.receive(b"x").endswith(b"closing\r\n")
    assert isinstance(patient.events[-1], Closed)


def test_sasl_octets_max() -> None:
    limits = Limits(sasl_octets_max=400)
    for octets, refused in ((400, b"octets"), (401, b"octets")):
        dialogue = server(limits)
        assert dialogue.say("AUTH PLAIN") == b"+ \r\n"
        answer = dialogue.say("A" * (octets - 2))
        assert answer.startswith(b"-ERR")
        # well-formed base64 of the right length is read, and found to be no message of PLAIN
        assert (refused in answer) == (octets > limits.sasl_octets_max)
        assert dialogue.say("USER alice").startswith(b"+OK")  # and the session goes on


def test_reply_octets_max() -> None:
    conn = ServerConnection(ServerConfig("h" * 1000))
    conn.answer(TlsEstablished())
    greeting = conn.next_event()
    assert isinstance(greeting, SendData)
    assert len(greeting.data) == 512
    conn.receive_data(b"USER alice\r\nPASS x\r\n")
    while not isinstance(conn.next_event(), LoginRequested):
        continue
    conn.answer(LoginRejected(None, "ü" * 1000))
    refusal = conn.next_event()
    assert isinstance(refusal, SendData)
    assert 510 <= len(refusal.data) <= 512
    assert refusal.data.decode().endswith("ü\r\n")  # cut between characters


def test_no_capability_line_is_over_512_octets() -> None:
    # RFC 2449 §5; the longest arguments there can be
    config = ServerConfig(mechanisms=tuple(MECHANISMS), expire="999999999 USER", login_delay="999999999 USER")
    dialogue = Dialogue(config=config, binding=b"x", identity="alice")
    lines = dialogue.say("CAPA").split(b"\r\n")
    assert len(lines) > 10
    assert max(map(len, lines)) < 512 - 2


def test_foreign_reply_octets_max() -> None:
    limits = Limits(foreign_reply_octets_max=600, greeting_octets_max=600)
    for octets in (600, 601):
        listener = client_inside(limits)
        listener.conn.send(Noop())
        line = b"+OK " + b"x" * (octets - 6) + b"\r\n"
        if octets <= 600:
            assert len(listener.hear(line)) == 1
        else:
            with pytest.raises(RemoteProtocolError, match="too long"):
                listener.hear(line)


def test_greeting_octets_max() -> None:
    limits = Limits(greeting_octets_max=100)
    assert client(limits, greeting=b"+OK " + b"x" * 94 + b"\r\n").conn.state.value == "AUTHORIZATION"
    with pytest.raises(RemoteProtocolError, match="too long"):
        client(limits, greeting=b"+OK " + b"x" * 95 + b"\r\n")


def test_output_octets() -> None:
    # NOOP's +OK has 5 octets: the tenth reply reaches the mark, and leaves before the next command is executed
    conn = inside(Limits(output_octets=50), [])
    conn.receive_data(b"NOOP\r\n" * 25)
    writes = []
    while isinstance(event := conn.next_event(), SendData):
        writes.append(len(event.data))
    assert writes == [50, 50, 25]


def test_content_octets_max() -> None:
    conn = inside(Limits(content_octets_max=10), [12])
    conn.receive_data(b"RETR 1\r\n")
    assert isinstance(conn.next_event(), ContentRequested)
    with pytest.raises(LocalProtocolError, match="at most 10 octets"):
        conn.answer(Content(b"x" * 11, last=False))
    conn.answer(Content(b"x" * 10, last=False))


def test_list_piece_octets() -> None:
    # "1 9" and CRLF are 5 octets; each write is a piece, for pieces are larger than the mark for output
    conn = inside(Limits(list_piece_octets=20, output_octets=1), [9] * 9)
    conn.receive_data(b"LIST\r\n")
    writes = []
    while isinstance(event := conn.next_event(), SendData):
        writes.append(event.data.count(b"\r\n"))
    assert writes == [1, 4, 4, 2]  # the status line; four lines twice; the last line and the dot


def test_turn_commands() -> None:
    conn = inside(Limits(turn_commands=5), [])
    for commands, events in {5: [SendData, NeedData], 6: [MoreWork, SendData, NeedData]}.items():
        conn.receive_data(b"NOOP\r\n" * commands)
        assert [type(conn.next_event()) for _ in events] == events


@pytest.mark.parametrize("line", ["FROB", "STAT", "USER", "x" * 300])
def test_bad_commands_max(line: str) -> None:
    dialogue = server(Limits(bad_commands_max=3))
    for turn in range(1, 4):
        answer = dialogue.say(line)
        assert answer.startswith(b"-ERR")
        assert answer.endswith(b"closing\r\n") == (turn == 3)
    assert isinstance(dialogue.events[-1], Closed)
    assert dialogue.say("CAPA") == b""


def test_auth_failures_max() -> None:
    dialogue = server(Limits(auth_failures_max=2))
    assert dialogue.say("USER alice", "PASS no").endswith(b"-ERR [AUTH] wrong user name or password\r\n")
    assert dialogue.say("USER alice", "PASS s e", "CAPA").endswith(b"closing\r\n")
    assert isinstance(dialogue.events[-1], Closed)


def test_window_commands() -> None:
    listener = client_inside(Limits(window_commands=3))
    listener.conn.send(Capa())
    listener.hear(b"+OK\r\nPIPELINING\r\n.\r\n")
    for number in range(1, 6):
        listener.conn.send(Dele(number))
    listener.run()
    assert listener.conn.unanswered == 3
    assert listener.conn.waiting == 2


def test_queue_commands_max() -> None:
    listener = client(Limits(queue_commands_max=2))
    listener.conn.send(Capa())
    listener.conn.send(Capa())
    with pytest.raises(LocalProtocolError, match="more than 2 commands wait"):
        listener.conn.send(Capa())
    listener.run()  # one has left
    listener.conn.send(Capa())


@pytest.mark.parametrize("size", [1, 100_000])
def test_list_items_max(size: int) -> None:
    listener = client_inside(Limits(list_items_max=3))
    listener.conn.send(List())
    heard = listener.hear(b"+OK\r\n1 1\r\n2 1\r\n3 1\r\n.\r\n")
    assert sum(isinstance(event, ListItem) for event in heard) == 3
    assert_endless(listener, b"1 1\r\n", size, lambda: listener.conn.send(List()))


@pytest.mark.parametrize("size", [1, 100_000])
def test_capabilities_max(size: int) -> None:
    listener = client(Limits(capabilities_max=3))
    listener.conn.send(Capa())
    heard = listener.hear(b"+OK\r\nA\r\nB\r\nC\r\n.\r\n")
    assert sum(isinstance(event, CapabilityItem) for event in heard) == 3
    assert_endless(listener, b"X\r\n", size, lambda: listener.conn.send(Capa()))


@pytest.mark.parametrize("command", [Capa(), Lang()])
def test_capabilities_octets_max(command: Capa | Lang) -> None:
    listener = client(Limits(capabilities_octets_max=10))
    for lines in (b"ABCDE\r\nFGHIJ\r\n", b"ABCDEFGHIJ\r\n"):  # the count begins anew
        listener.conn.send(command)
        assert isinstance(listener.hear(b"+OK\r\n" + lines + b".\r\n")[-1], ListEnded)
    listener.conn.send(command)
    with pytest.raises(RemoteProtocolError, match="does not end"):
        listener.hear(b"+OK\r\nABCDE\r\nFGHIJK\r\n")


def assert_endless(listener: Listener, line: bytes, size: int, send: Callable[[], None]) -> None:
    """A list that never ends is given up at the fourth line, however it comes."""
    send()
    listener.hear(b"+OK\r\n")
    data = line * 1000
    with pytest.raises(RemoteProtocolError, match="does not end") as caught:
        for at in range(0, len(data), size):
            listener.hear(data[at : at + size])
    assert caught.value.code == "endless-list"
    assert isinstance(listener.run()[-1], Disconnected)
    assert listener.conn.unanswered == 1


def test_content_has_no_limit_of_its_own() -> None:
    # a message may be of any size, in lines of any length (RFC 5322's 998 is not kept by real mail)
    listener = client_inside(Limits())
    listener.conn.send(Retr(1))
    listener.hear(b"+OK\r\n")
    for _ in range(64):
        listener.hear(b"x" * 65_536)
    assert listener.hear(b"\r\n.\r\n")[-1].octets == 64 * 65_536 + 2
