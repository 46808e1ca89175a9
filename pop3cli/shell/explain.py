"""What a reply means, by the table of the engine and the RFCs that define response codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pop3core.commands import Command, Quit
from pop3core.events import Replied
from pop3core.table import RULE_OF, Home, State

__all__ = ["explained"]

_CODES: Final = {
    "IN-USE": "RFC 2449 §8.1.2: the login was right, and another session has the mailbox open; try again later",
    "LOGIN-DELAY": "RFC 2449 §8.1.1: the last login is not long enough ago; try again later",
    "SYS/TEMP": "RFC 3206 §4: a trouble of the server's that passes; try again later",
    "SYS/PERM": "RFC 3206 §4: a trouble of the server's that somebody has to mend",
    "AUTH": "RFC 3206 §5: user name, password or proof are wrong, and asking for them again may help",
    "UTF8": "RFC 6856 §5: the mailbox or message wants UTF8 to be said first",
}
_AFTER: Final = {
    State.AUTHORIZATION: "the login begins anew",
    State.IDENTIFIED: "PASS is awaited",
    State.TRANSACTION: "the mailbox is open, and locked for this session",
    State.CLOSED: "the connection ends; only QUIT in TRANSACTION deletes what is marked",
}


def explained(said: Replied, before: State) -> Iterator[tuple[str, str]]:
    """Pairs of a title and what to know, for the reply that was said to a command in the state ``before``.

    Codes that are foreign text are never repeated.
    """
    command: Command = said.command
    rule = RULE_OF[type(command)]
    states = " and ".join(state.value for state in State if rule.after(state) is not None)
    where = "" if rule.home is Home.ANY else f", on {rule.home.value}"
    yield rule.keyword, f"{rule.usage} ({rule.rfc}), valid in {states}{where}"
    if said.ok:
        lines = "lines follow, ended by a dot alone" if rule.has_lines(command) else "one line, and nothing behind it"
        after = rule.after(before)
        moved = "" if after is None or after is before else f"; {_AFTER[after]}"
        yield "+OK", f"done: {lines}{moved} (RFC 1939 §3)"
    else:
        moved = "" if rule.failed is None or rule.failed is before else f"; {_AFTER[rule.failed]}"
        what = "the session ends, and not all that was marked is deleted (RFC 1939 §6)"
        yield "-ERR", what if isinstance(command, Quit) else f"refused, and nothing was done{moved} (RFC 1939 §3)"
    code = said.code
    while code:
        if code in _CODES:
            yield f"[{code}]", _CODES[code]
            return
        code = code.rpartition("/")[0]
    if said.code:
        yield "code", "none that we know: clients ignore it (RFC 2449 §8)"
