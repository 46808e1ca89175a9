"""Refusals: every bad line in every state, and what no reply may ever do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.events import CommitRequested, ContentRequested, LoginRequested
from pop3core.table import RULES, State
from tests.pop3core.play import server_in
from tests.pop3core.test_syntax import BAD

OPEN = [State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION]
QUESTIONS = (LoginRequested, ContentRequested, CommitRequested)


@pytest.mark.parametrize("state", OPEN, ids=lambda state: state.value)
@pytest.mark.parametrize("line", [line for lines in BAD.values() for line in lines], ids=repr)
def test_a_bad_line_is_refused_once_and_moves_nothing(state: State, line: bytes) -> None:
    server = server_in(state)
    del server.events[:]
    answer = server.say(line)
    assert answer.startswith(b"-ERR ")
    assert answer.count(b"\r\n") == 1
    assert server.conn.state is state
    assert server.conn.summary.bad_commands == 1
    assert not [event for event in server.events if isinstance(event, QUESTIONS)]
    assert server.say("CAPA").startswith(b"+OK")  # and the session goes on


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.keyword)
def test_where_a_command_is_valid_a_bad_argument_is_told_how_it_is_used(rule) -> None:
    for state in OPEN:
        if rule.after(state) is None:
            continue
        for line in BAD[rule.keyword]:
            answer = server_in(state).say(line).decode()
            assert f"usage: {rule.usage}" in answer, line


# what people, and those who search for holes, send: printable or not, with blanks, in any case
words = st.sampled_from([rule.keyword.encode() for rule in RULES] + [b"", b"XTND", b"quit", b"user", b"a" * 300])
lines = st.lists(
    st.builds(
        lambda keyword, blank, rest: keyword + blank + rest,
        words,
        st.sampled_from([b" ", b"", b"  ", b"\t"]),
        st.binary(max_size=30).map(lambda octets: octets.replace(b"\n", b"")),
    ),
    max_size=12,
)


@given(st.sampled_from(OPEN), lines)
def test_every_reply_is_a_line_of_at_most_512_octets_that_a_client_can_read(state: State, said: list[bytes]) -> None:
    server = server_in(state)
    for line in said:
        answer = server.say(line)
        if server.conn.state is State.CLOSED:
            return
        assert answer.endswith(b"\r\n")
        for reply in answer.split(b"\r\n")[:-1]:
            assert len(reply) <= 510
            assert not set(reply) & {*range(0x20), 0x7F}
            reply.decode("utf-8")
        assert answer.startswith((b"+OK", b"-ERR", b"+ "))


@given(st.sampled_from(OPEN), lines)
def test_nothing_is_answered_that_was_not_said(state: State, said: list[bytes]) -> None:
    """As many answers as lines, unless the session has ended: nothing is dropped, nothing is said twice."""
    server = server_in(state)
    replies = 0
    for line in said:
        answer = server.say(line)
        if server.conn.state is State.CLOSED:
            return
        first, *rest = answer.split(b"\r\n")[:-1]
        replies += first.startswith((b"+OK", b"-ERR", b"+ "))
        if rest:
            assert rest[-1] == b"."
    assert replies == len(said)
