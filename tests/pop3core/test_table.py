"""The full product of states and commands, each state reached by the legal road; and the RFCs' own words beside it."""

import pytest

from pop3core.client import ClientConnection
from pop3core.commands import (
    Apop,
    Auth,
    Capa,
    Dele,
    Lang,
    List,
    Noop,
    Pass,
    Quit,
    Retr,
    Rset,
    Stat,
    Stls,
    Top,
    Uidl,
    User,
    Utf8,
)
from pop3core.errors import LocalProtocolError
from pop3core.events import Replied
from pop3core.syntax import parse
from pop3core.table import RULES, Home, Reply, Rule, State
from tests.pop3core.play import Dialogue, client_in, server_in

OPEN = [State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION]
PRODUCT = [(state, rule) for state in State for rule in RULES]
IDS = [f"{state.value}-{rule.keyword}" for state, rule in PRODUCT]


@pytest.mark.parametrize(("state", "rule"), PRODUCT, ids=IDS)
def test_the_server_obeys_every_cell(state: State, rule: Rule) -> None:
    server = server_in(state)
    assert server.conn.state is state
    answer = server.say(rule.example)
    target = rule.after(state)
    if state is State.CLOSED:
        assert answer == b""
    elif target is None:
        assert answer.startswith(b"-ERR")
        assert rule.keyword.encode() in answer
        assert server.conn.state is state
        assert server.conn.summary.bad_commands == 1
    else:
        assert answer.startswith(b"+OK")
        assert answer.endswith(b"\r\n.\r\n") == rule.has_lines(parse(rule.example.encode()))
        assert server.conn.state is target
        assert server.conn.summary.bad_commands == 0


@pytest.mark.parametrize(("state", "rule"), PRODUCT, ids=IDS)
def test_the_client_obeys_every_cell(state: State, rule: Rule) -> None:
    client = client_in(state)
    assert client.conn.state is state
    command = parse(rule.example.encode())
    target = rule.after(state)
    if target is None:
        with pytest.raises(LocalProtocolError):
            client.conn.send(command)
        assert client.conn.state is state
    else:
        client.conn.send(command)
        lines = b"1 5\r\n.\r\n" if rule.has_lines(command) else b""
        text = b"1 5" if rule.command in (Stat, List, Uidl) else b"done"
        replied = [event for event in client.hear(b"+OK " + text + b"\r\n" + lines) if isinstance(event, Replied)]
        assert [event.command for event in replied] == [command]
        assert client.conn.state is target


@pytest.mark.parametrize(("state", "rule"), PRODUCT, ids=IDS)
def test_the_client_follows_a_refusal(state: State, rule: Rule) -> None:
    if rule.after(state) is None:
        return
    client = client_in(state)
    client.conn.send(parse(rule.example.encode()))
    client.hear(b"-ERR no\r\n")
    assert client.conn.state is (rule.failed or state)


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("line", ["FROB", "STAT 1", "RETR", "RETR 0", "LIST 1 2", "QUIT now", "USER", "PASS", "TOP 1"])
def test_a_line_that_is_no_command_moves_nothing(state: State, line: str) -> None:
    server = server_in(state)
    assert server.say(line).startswith(b"-ERR")
    assert server.conn.state is state


# --- independent of the table: what the RFCs say, written down a second time ---


def same(what: str, table: set[str], here: set[str]) -> None:
    """``table``: the commands of which the table says ``what``; ``here``: those of which this file says it."""
    more, fewer = ", ".join(sorted(table - here)), ", ".join(sorted(here - table))
    faults = [f"by the table, not by this test: {more}"] * bool(more) + [f"not by the table: {fewer}"] * bool(fewer)
    assert not faults, (
        f"{what}: {'; '.join(faults)}. Read the RFC that the row cites, then mend the cell in pop3core/table.py, or "
        "what tests/pop3core/test_table.py says"
    )


ANYWHERE = {"CAPA", "LANG", "QUIT"}
BEFORE_LOGIN = {"USER", "APOP", "AUTH", "STLS", "UTF8"}
BEHIND_USER = {"PASS"}
BEHIND_LOGIN = {"STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL"}


@pytest.mark.parametrize(
    ("state", "valid"),
    [
        ("AUTHORIZATION", ANYWHERE | BEFORE_LOGIN),
        ("IDENTIFIED", ANYWHERE | BEFORE_LOGIN | BEHIND_USER),
        ("TRANSACTION", ANYWHERE | BEHIND_LOGIN),
        ("CLOSED", set()),
    ],
)
def test_what_is_valid_where_as_rfc_1939_and_2449_say(state: str, valid: set[str]) -> None:
    same(f"valid in {state}", {rule.keyword for rule in RULES if rule.after(State(state)) is not None}, valid)


def test_where_commands_lead() -> None:
    moves = {
        f"{rule.keyword} from {state.value} to {after.value}"
        for rule in RULES
        for state in OPEN
        if (after := rule.after(state)) not in (None, state)
    }
    rfcs = {
        "USER from AUTHORIZATION to IDENTIFIED",
        "PASS from IDENTIFIED to TRANSACTION",
        "APOP from AUTHORIZATION to TRANSACTION",
        "APOP from IDENTIFIED to TRANSACTION",
        "AUTH from AUTHORIZATION to TRANSACTION",
        "AUTH from IDENTIFIED to TRANSACTION",
        "STLS from IDENTIFIED to AUTHORIZATION",  # RFC 2595 §4: what the client said before is forgotten
        "QUIT from AUTHORIZATION to CLOSED",
        "QUIT from IDENTIFIED to CLOSED",
        "QUIT from TRANSACTION to CLOSED",
    }
    same("+OK leads", moves, rfcs)


def test_where_a_refusal_leads() -> None:
    moves = {f"{rule.keyword} to {rule.failed.value}" for rule in RULES if rule.failed}
    back = {f"{keyword} to AUTHORIZATION" for keyword in ("USER", "PASS", "APOP", "AUTH")}
    same("-ERR leads", moves, back | {"QUIT to CLOSED"})


def test_the_other_columns() -> None:
    same("needs TLS", {rule.keyword for rule in RULES if rule.home is Home.TLS}, {"USER", "PASS"})
    same("is for before TLS", {rule.keyword for rule in RULES if rule.home is Home.PLAIN}, {"STLS"})
    barriers = {"USER", "PASS", "AUTH", "APOP", "STLS", "UTF8", "LANG", "QUIT"}
    same("nothing is sent behind it", {rule.keyword for rule in RULES if rule.barrier}, barriers)
    lines, either = {"CAPA", "RETR", "TOP"}, {"LIST", "UIDL", "LANG"}
    same("has lines behind +OK", {rule.keyword for rule in RULES if rule.reply is Reply.LINES}, lines)
    same("has lines without an argument", {rule.keyword for rule in RULES if rule.reply is Reply.EITHER}, either)


def test_secret_arguments() -> None:
    secret = {f"{rule.keyword} {rule.secret.name}" for rule in RULES if rule.secret}
    same("is secret", secret, {"PASS string", "APOP digest", "AUTH initial-response"})
    for rule in RULES:
        assert rule.secret is None or rule.secret.name in {reader.name for reader in rule.arguments}


def test_each_example_is_a_command_of_its_row() -> None:
    for rule in RULES:
        assert type(parse(rule.example.encode())) is rule.command
        assert len({other.keyword for other in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("command", "lines"),
    [(List(), True), (List(1), False), (Uidl(), True), (Uidl(1), False), (Retr(1), True), (Top(1, 1), True),
     (Capa(), True), (Stat(), False), (Noop(), False), (Rset(), False), (Dele(1), False), (Quit(), False),
     (User("a"), False), (Pass(b"a"), False), (Lang(), True), (Lang("de"), False), (Auth("PLAIN"), False),
     (Apop("a", "0" * 32), False), (Stls(), False), (Utf8(), False)],
    ids=repr,
)  # fmt: skip
def test_which_replies_have_lines(command, lines: bool) -> None:
    (rule,) = [rule for rule in RULES if rule.command is type(command)]
    assert rule.has_lines(command) is lines


def test_secrets_need_tls_on_both_sides() -> None:
    server = Dialogue(secure=False)
    assert server.say("USER alice").startswith(b"-ERR")
    assert b"995" in server.say("USER")
    assert server.say("PASS secret").startswith(b"-ERR")
    assert b"USER" not in server.say("CAPA").split(b"\r\n")
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match="clear text"):
        client.send(User("alice"))
