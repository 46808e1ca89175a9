"""The protocol on one screen. This file owns the state.

Each row is a command: its arguments, whether its +OK has lines behind it, and one cell per state. A cell holds the state
that +OK leads to; an empty cell (``_``) means that the command is not valid there. IDENTIFIED is AUTHORIZATION after a
USER that was accepted, so that "PASS only after USER" is a cell and not a flag. RFC 1939's UPDATE state is no column:
no command is valid in it; it is what the server does between QUIT and its reply. The other columns:

- *secret*: the argument that is a password, or proves to know one. All others are harmless, where they are valid: what is
  neither (a line that is no command, or a command with arguments it does not take) may hold a password in the wrong
  place, and is shown to nobody (`pop3core.secrecy`);
- *failed*: where -ERR leads, when it moves at all;
- *home*: where the command is at home: on any connection, on a plain one only, or (with secrets in clear text) on one
  with TLS only, unless the configuration relaxes it;
- *barrier*: a client sends nothing behind it before its reply has come.

Made from these rows, with nothing to do by hand: the parser, the server's validity check, the texts of refusals, where
CAPA announces STLS, the client's `send`, completion, what transcripts, traces and histories mask, and the fuzzer's
dictionary. If you touch a cell, run these; the second says in two seconds what to do, and where:

    python docs/make_protocol.py                                             docs/protocol.md: the table, the diagram
    python -m pytest tests/pop3core/test_table.py tests/pop3core/test_row_elsewhere.py
    python -m pytest -n 4 tests/pop3core tests/fuzz tests/test_rfc.py tests/test_docs.py

`tests/pop3core/test_table.py` says a second time, from the RFCs, what the cells hold. A new row needs more: a class in
`pop3core.commands`, a handler in `pop3core.server`, translations in `pop3core.texts`, bad lines, a step of the model's
walk, a dialogue, a section of an RFC that defines it, what announces it, a line of the changelog. `tests/pop3core/test_row_elsewhere.py` names what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pop3core.commands import (
    Apop,
    Auth,
    Capa,
    Command,
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
from pop3core.grammar import (
    Reader,
    count,
    digest,
    initial_response,
    language_tag,
    mechanism,
    number,
    optional,
    password,
    word,
)

__all__ = ["RULES", "Home", "Reply", "Rule", "State"]


class State(Enum):
    """Where a session is (RFC 1939 §3)."""

    AUTHORIZATION = "AUTHORIZATION"
    IDENTIFIED = "IDENTIFIED"
    TRANSACTION = "TRANSACTION"
    CLOSED = "CLOSED"

    __hash__ = object.__hash__  # the same as Enum's, but not in Python code: it is asked for at every command


class Reply(Enum):
    """What stands behind a command's +OK."""

    LINE = "one line"
    LINES = "lines, ended by a dot"
    EITHER = "lines without an argument, one line with it"


class Home(Enum):
    """On which connection a command is valid."""

    ANY = "any connection"
    PLAIN = "before TLS only"
    TLS = "behind TLS only, unless relaxed"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; the columns are explained at the top of this module."""

    command: type[Command]
    example: str
    arguments: tuple[Reader, ...]
    secret: Reader | None
    reply: Reply
    authorization: State | None
    identified: State | None
    transaction: State | None
    failed: State | None
    home: Home
    barrier: bool
    rfc: str

    @property
    def keyword(self) -> str:
        """The command's name, in capitals."""
        return self.command.keyword

    @property
    def usage(self) -> str:
        """The command's form, such as ``LIST [msg]``."""
        return " ".join((self.keyword, *(reader.usage for reader in self.arguments)))

    def after(self, state: State) -> State | None:
        """The state that +OK leads to from ``state``; None where the command is not valid."""
        return {
            State.AUTHORIZATION: self.authorization,
            State.IDENTIFIED: self.identified,
            State.TRANSACTION: self.transaction,
            State.CLOSED: None,
        }[state]

    def make(self, *values: object) -> Command:
        """The command with these arguments, in the order of the row."""
        make: Any = self.command  # the readers of the row see to it that the values fit
        command: Command = make(*values)
        return command

    def has_lines(self, command: Command) -> bool:
        """Whether this very command's +OK is followed by lines and a dot."""
        if self.reply is Reply.EITHER:
            return all(getattr(command, name) is None for name in command.__match_args__)
        return self.reply is Reply.LINES


_: None = None
_A, _I, _T, _C = State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION, State.CLOSED
_LINE, _LINES, _EITHER = Reply.LINE, Reply.LINES, Reply.EITHER
_ANY, _TLS, _PLAIN = Home.ANY, Home.TLS, Home.PLAIN
_LOGIN = "AUTH PLAIN AGFsaWNlAHMgZSBj"
_APOP = "APOP alice c4c9334bac560ecc979e58001b3e22fb"
_SASL = (mechanism, optional(initial_response))
_NUMBER = (optional(number),)
_TAG = (optional(language_tag),)
_WAIT, _GO = True, False

# fmt: off
RULES: Final = (
    #    command  example       arguments       secret            reply     AUTHOR. IDENTIF. TRANSACT. failed home  barrier  defined in
    Rule(User, "USER alice",    (word,),        _,                _LINE,    _I,     _I,      _,        _A,    _TLS, _WAIT, "RFC 1939 §7"),
    Rule(Pass, "PASS s e c",    (password,),    password,         _LINE,    _,      _T,      _,        _A,    _TLS, _WAIT, "RFC 1939 §7"),
    Rule(Apop, _APOP,           (word, digest), digest,           _LINE,    _T,     _T,      _,        _A,    _ANY, _WAIT, "RFC 1939 §7"),
    Rule(Auth, _LOGIN,          _SASL,          initial_response, _LINE,    _T,     _T,      _,        _A,    _ANY, _WAIT, "RFC 5034 §4"),
    Rule(Stls, "STLS",          (),             _,                _LINE,    _A,     _A,      _,        _,     _PLAIN, _WAIT, "RFC 2595 §4"),
    Rule(Utf8, "UTF8",          (),             _,                _LINE,    _A,     _I,      _,        _,     _ANY, _WAIT, "RFC 6856 §2, §2.1"),
    Rule(Lang, "LANG de",       _TAG,           _,                _EITHER,  _A,     _I,      _T,       _,     _ANY, _WAIT, "RFC 6856 §3"),
    Rule(Capa, "CAPA",          (),             _,                _LINES,   _A,     _I,      _T,       _,     _ANY, _GO,   "RFC 2449 §5"),
    Rule(Stat, "STAT",          (),             _,                _LINE,    _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(List, "LIST 1",        _NUMBER,        _,                _EITHER,  _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(Uidl, "UIDL 1",        _NUMBER,        _,                _EITHER,  _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §7"),
    Rule(Retr, "RETR 1",        (number,),      _,                _LINES,   _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(Top,  "TOP 1 10",      (number, count), _,               _LINES,   _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §7"),
    Rule(Dele, "DELE 1",        (number,),      _,                _LINE,    _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(Noop, "NOOP",          (),             _,                _LINE,    _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(Rset, "RSET",          (),             _,                _LINE,    _,      _,       _T,       _,     _ANY, _GO,   "RFC 1939 §5"),
    Rule(Quit, "QUIT",          (),             _,                _LINE,    _C,     _C,      _C,       _C,    _ANY, _WAIT, "RFC 1939 §4, §6"),
)
# fmt: on

RULE_OF: Final = MappingProxyType({rule.command: rule for rule in RULES})
"""The row of a command's class."""

RULE_BY_KEYWORD: Final = MappingProxyType({rule.keyword.encode(): rule for rule in RULES})
"""The row of a keyword (capitals, octets)."""

AFTER: Final = MappingProxyType(
    {state: {rule.command: to for rule in RULES if (to := rule.after(state)) is not None} for state in State}
)
"""Per state, the commands that are valid in it and where their +OK leads."""
