"""The full product of questions and answers: what fits is taken, what does not changes nothing.

Written down beside the engine, not derived from it: which answers each question takes.
"""

from base64 import b64encode
from typing import get_args

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
    NoSecret,
    Pending,
    PlainSecret,
    ScramSecret,
    ServerAnswer,
    TlsEstablished,
)
from pop3core.errors import LocalProtocolError
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentRequested,
    LoginRequested,
    NeedData,
    SecretRequested,
    SendData,
    ServerEvent,
    TlsRequested,
)
from pop3core.maildrop import Listing
from pop3core.replies import decode
from pop3core.server import ServerConnection
from tests.pop3core.play import EVERYTHING, TIMESTAMP

LISTING = Listing([5], [b"a"])
ANSWERS = {
    type(answer).__name__: answer
    for answer in (
        LoginAccepted(LISTING),
        LoginRejected("IN-USE", "busy"),
        ScramSecret(b"salt", 4096, b"s" * 32, b"k" * 32, "nonce"),
        PlainSecret(b"tanstaaf"),
        NoSecret(b"salt", 4096, "nonce"),
        TlsEstablished(),
        Content(b"abc\r\n", last=True),
        ContentFailed(None, "gone"),
        Pending(),
        Committed(),
        CommitFailed([], "SYS/TEMP"),
    )
}
LOGIN = b"USER alice\r\nPASS x\r\n"
SCRAM = b"AUTH SCRAM-SHA-256 " + b64encode(b"n,,n=alice,r=fyko") + b"\r\n"
APOP = b"APOP alice c4c9334bac560ecc979e58001b3e22fb\r\n"  # RFC 1939 §7
QUESTIONS: dict[str, tuple[bytes, list[str], type[ServerEvent], set[str]]] = {
    # what the client says, what the driver answers on the way, then: the question, and what it takes
    "password": (LOGIN, [], LoginRequested, {"LoginAccepted", "LoginRejected"}),
    "scram": (SCRAM, [], SecretRequested, {"ScramSecret", "NoSecret", "LoginRejected"}),
    "apop": (APOP, [], SecretRequested, {"PlainSecret", "NoSecret", "LoginRejected"}),
    "apop proved": (APOP, ["PlainSecret"], LoginRequested, {"LoginAccepted", "LoginRejected"}),
    "apop not proved": (APOP, ["NoSecret"], LoginRequested, {"LoginRejected"}),
    "tls": (b"STLS\r\n", [], TlsRequested, {"TlsEstablished"}),
    "content": (LOGIN + b"RETR 1\r\n", ["LoginAccepted"], ContentRequested, {"Content", "ContentFailed", "Pending"}),
    "top": (LOGIN + b"TOP 1 0\r\n", ["LoginAccepted"], ContentRequested, {"Content", "ContentFailed", "Pending"}),
    "commit": (LOGIN + b"QUIT\r\n", ["LoginAccepted"], CommitRequested, {"Committed", "CommitFailed"}),
}


def question_of(conn: ServerConnection) -> ServerEvent:
    """What comes behind all that has to be sent."""
    while isinstance(event := conn.next_event(), SendData):
        continue
    return event


def asked(name: str) -> ServerConnection:
    """A connection whose driver has just been asked this question."""
    said, answers, kind, _ = QUESTIONS[name]
    conn = ServerConnection(EVERYTHING, timestamp=TIMESTAMP)
    assert isinstance(question_of(conn), NeedData)
    conn.receive_data(said)
    for answer in answers:
        question_of(conn)
        conn.answer(ANSWERS[answer])
    assert isinstance(question_of(conn), kind)
    return conn


def test_every_answer_and_every_question_is_here() -> None:
    assert {kind.__name__ for kind in get_args(ServerAnswer)} == ANSWERS.keys()
    questions = {kind for kind in get_args(ServerEvent) if kind.__name__.endswith("Requested")}
    assert questions == {kind for _, _, kind, _ in QUESTIONS.values()}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_fits_is_taken_and_what_does_not_changes_nothing(question: str, answer: str) -> None:
    conn = asked(question)
    fitting = QUESTIONS[question][3]
    before = (conn.state, conn.username, conn.secure, conn.unsent)
    if answer not in fitting:
        with pytest.raises(LocalProtocolError, match=answer):
            conn.answer(ANSWERS[answer])
        assert (conn.state, conn.username, conn.secure, conn.unsent) == before
        with pytest.raises(LocalProtocolError, match="wants an answer"):
            conn.next_event()
        answer = min(fitting)  # it is still open, and can be answered well
    conn.answer(ANSWERS[answer])
    question_of(conn)  # and the session goes on, or ends


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_to_nothing_is_a_mistake(answer: str) -> None:
    conn = ServerConnection(EVERYTHING)
    if answer != "TlsEstablished":  # which may come before the first event: TLS from the start
        with pytest.raises(LocalProtocolError):
            conn.answer(ANSWERS[answer])
    assert isinstance(question_of(conn), NeedData)
    with pytest.raises(LocalProtocolError):
        conn.answer(ANSWERS[answer])
    assert conn.next_event() == NeedData(resumed=True)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("end", ["hang_up", "finish"])
def test_an_answer_that_comes_too_late_is_no_mistake(answer: str, end: str) -> None:
    conn = asked("password")
    getattr(conn, end)("enough")
    conn.answer(ANSWERS[answer])
    assert question_of(conn) == Closed("enough", committed=False)
    assert conn.username is None


@pytest.mark.parametrize(("answer", "question"), [(LoginRejected, "password"), (ContentFailed, "content")])
@given(text=st.text(max_size=40) | st.text(st.sampled_from("a\r\n\0ä\ud800 "), min_size=200), code=st.just("SYS/TEMP"))
def test_what_a_driver_says_is_one_reply_whatever_it_holds(answer, question: str, text: str, code: str) -> None:
    # RFC 2449 §4: at most 512 octets, CRLF included. A store's or a directory's message may hold anything.
    conn = asked(question)
    behind = conn.unsent  # what is answered already leaves with it
    conn.answer(answer(code, text))
    event = conn.next_event()
    assert isinstance(event, SendData)
    line = event.data[behind:]
    assert line.endswith(b"\r\n")
    assert len(line) <= 512
    assert not set(line[:-2]) & {*range(0x20), 0x7F}
    status = decode(line[:-2])
    assert status is not None
    assert (status.ok, status.code) == (False, "SYS/TEMP")


@pytest.mark.parametrize(
    ("pieces", "last"),
    [([], b"no end"), ([], b"abc\r"), ([], b"abc\n"), ([], b"\n"), ([b"ab"], b"c\n"), ([b"ab"], b""),
     ([b"ab\r"], b"c\n"), ([b"ab"], b"\n"), ([b"ab\n"], b""), ([b"a\r", b"b"], b"\n")],
    ids=repr,
)  # fmt: skip
def test_a_message_that_does_not_end_with_crlf_is_never_ended(pieces: list[bytes], last: bytes) -> None:
    # RFC 1939 §3: the terminator is CRLF "." CRLF. Behind anything else a client would wait for ever.
    conn = asked("content")
    for piece in pieces:
        conn.answer(Content(piece, last=False))
        question_of(conn)
    with pytest.raises(LocalProtocolError, match="CRLF"):
        conn.answer(Content(last, last=True))
    conn.answer(Content(b"\r\n", last=True))
    conn.next_event()


@pytest.mark.parametrize(
    "pieces", [[b""], [b"\r\n"], [b"\r", b"\n"], [b"ab\r", b"\n"], [b"ab\r\n", b""], [b"a", b"\r\n"]]
)
def test_a_message_may_end_with_any_piece_of_its_crlf(pieces: list[bytes]) -> None:
    conn = asked("content")
    for piece in pieces[:-1]:
        conn.answer(Content(piece, last=False))
        assert isinstance(question_of(conn), ContentRequested)
    conn.answer(Content(pieces[-1], last=True))
    event = conn.next_event()
    assert isinstance(event, SendData)
    assert event.data.endswith(b"".join(pieces) + b".\r\n")
