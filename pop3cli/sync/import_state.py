"""What other programs remember of a mailbox: mpop, getmail (5 and 6) and fetchmail, as their files have it.

- mpop's ``uidls_file``: a line " COUNT HOST USER", then a unique-id a line; lists of several accounts.
- getmail's ``oldmail-HOST-PORT-USER``: unique-id, NUL, seconds of the Unix epoch; a file for each account.
- fetchmail's ``.fetchids``: "USER@HOST UNIQUE-ID" a line, of all accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.errors import BadState, SettingFault, UsageFault

__all__ = ["PROGRAMS", "remembered"]

_OCTETS_MAX: Final = 512 * 1024 * 1024
"""Of another program's file."""

_Line = tuple[str | None, str, int]  # whose it is, None in a file of one account; unique-id; seconds, 0 when unknown


def remembered(program: str, path: Path, account: Account) -> dict[str, int]:
    """Unique-id to when it was fetched (seconds of the Unix epoch, 0 when unknown), of one account.

    Raises `UsageFault` for another program, `SettingFault` for a file that cannot be read or knows another account
    only, `BadState` for one that has another form.
    """
    read = _READERS.get(program)
    if read is None:
        raise UsageFault(f"--import-state {program}", "no program known", f"it is one of {', '.join(PROGRAMS)}")
    what = f"--import-state {path}"
    try:
        if path.stat().st_size > _OCTETS_MAX:
            raise BadState(what, "too large")
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        lines = list(read(text))
    except OSError as fault:
        raise SettingFault(what, f"cannot be read: {fault.strerror or fault}") from None
    except ValueError:
        raise BadState(what, f"not as {program} writes it") from None
    ours = f"{account.user}@{account.host}".lower()
    found = {uid: when for whose, uid, when in lines if whose is None or whose.lower() == ours}
    others = sorted({whose for whose, *_ in lines if whose is not None})
    if not found and others:
        raise SettingFault(what, f"nothing of {ours} in it, but of {', '.join(others[:5])}", "use the same host name")
    for uid in found:
        if not uid or not uid.isascii() or not uid.isprintable() or " " in uid:
            raise BadState(what, f"not as {program} writes it")
    return found


def _mpop(text: str) -> Iterator[_Line]:
    whose, left = "", 0
    for line in text.splitlines():
        if line.startswith("#") and not left:
            continue
        if line.startswith(" "):
            if left:
                raise ValueError("a list is shorter than it says")
            count, host, user = line[1:].split(" ", 2)
            whose, left = f"{user}@{host}", int(count)
        elif left:
            left -= 1
            yield whose, line, 0
        elif line:
            raise ValueError("a line of no list")
    if left:
        raise ValueError("a list is shorter than it says")


def _getmail(text: str) -> Iterator[_Line]:
    for line in text.splitlines():
        uid, nul, when = line.partition("\0")
        if not nul:
            raise ValueError("a line without a time")
        yield None, uid, int(when)


def _fetchmail(text: str) -> Iterator[_Line]:
    for line in text.splitlines():
        whose, _, uid = line.rpartition(" ")
        if "@" not in whose:
            raise ValueError("a line without an account")
        yield whose, uid, 0


_READERS: Final[dict[str, Callable[[str], Iterator[_Line]]]] = {
    "mpop": _mpop,
    "getmail": _getmail,
    "fetchmail": _fetchmail,
}

PROGRAMS: Final = tuple(_READERS)
"""Programs whose memory can be taken over."""
