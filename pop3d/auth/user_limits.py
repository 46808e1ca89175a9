"""What holds for one user in place of what the configuration says for all, and how it is written down.

In the extra fields of a users file and in the columns of a query alike. Dovecot's quota rules are read as Dovecot
reads them (2.3 ``quota-util.c``, 2.4 ``quota_storage_size``). Where something cannot be read, what the configuration
says holds; but an ``expire`` that is no number of days is never, so that no mail goes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final

__all__ = ["LIMIT_COLUMNS", "NO_LIMITS", "UserLimits", "read_limit_columns", "read_user_limits"]

_DAYS_MAX: Final = 36_500  # a hundred years, as [store] has it
_SECONDS_MAX: Final = 86_400  # a day, as [limits] has it
_COUNT_MAX: Final = 2**62  # octets or messages: fits into any database's bigint
_UNITS: Final = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class UserLimits:
    """None: as configured. ``quota_octets``, ``quota_messages``: 0 for no limit. ``login_delay``: seconds between two
    logins. ``expire``: days that messages are kept at least; `math.inf` for ever. ``require_tls``: no login without it.
    """

    quota_octets: int | None = None
    quota_messages: int | None = None
    login_delay: int | None = None
    expire: float | None = None
    require_tls: bool = False


NO_LIMITS: Final = UserLimits()
"""All as configured."""


def read_user_limits(values: Mapping[str, str]) -> tuple[UserLimits, list[str]]:
    """Fields or columns by name, and what in them cannot be read, each in a few words. Other names are passed over."""
    found: dict[str, float] = {}
    faults: list[str] = []
    for name, read in _READ.items():
        if name in values:
            try:
                found |= read(values[name])
            except ValueError as fault:
                faults.append(f"{name}: {fault}")
                if name == "expire":
                    found["expire"] = math.inf
    if not found:
        return NO_LIMITS, faults
    return UserLimits(**{key: value for key, value in found.items() if key in _NAMES}), faults  # type: ignore[arg-type]


LIMIT_COLUMNS: Final[Mapping[str, str]] = {
    "quota_octets": "quota_octets",
    "quota_messages": "quota_messages",
    "login_delay": "login_delay",
    "expire_days": "expire",
    "require_tls": "require_tls",
}
"""Columns of a query, with the names of the fields that say the same."""


def read_limit_columns(row: Mapping[str, object]) -> tuple[UserLimits, list[str]]:
    """The limits in a row of a query, by `LIMIT_COLUMNS`, and what in them cannot be read. Null is as configured."""
    values = {}
    for column, name in LIMIT_COLUMNS.items():
        value = row.get(column)
        if value is None or (column == "require_tls" and not value):
            continue
        whole = isinstance(value, Decimal | float) and math.isfinite(value) and value == int(value)
        values[name] = str(int(value)) if whole else str(value)  # type: ignore[call-overload]
    return read_user_limits(values) if values else (NO_LIMITS, [])


_NAMES: Final = {field.name for field in fields(UserLimits)}


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ValueError(f"{text[:20]!r} is no number up to {most}")
    return int(text)


def _size(text: str, unit: int = 1) -> int:
    """Octets; ``unit``: of a number without one."""
    match = re.fullmatch(r"([0-9]{1,19})([BKMGT]?)(?:I?B)?", text.upper())
    if match is None:
        raise ValueError(f"{text[:20]!r} is no size such as 500M")
    octets = int(match[1]) * (_UNITS[match[2]] if match[2] else unit)
    if octets > _COUNT_MAX:
        raise ValueError(f"{text[:20]!r} is too large")
    return octets


def _octets(text: str) -> dict[str, float]:
    return {"quota_octets": _size(text)}


def _messages(text: str) -> dict[str, float]:
    return {"quota_messages": _number(text, _COUNT_MAX)}


def _days(text: str) -> dict[str, float]:
    if text.lower() == "never":
        return {"expire": math.inf}
    try:
        return {"expire": _number(text, _DAYS_MAX)}
    except ValueError as fault:
        raise ValueError(f"{fault}, nor never") from None


def _rule(text: str) -> dict[str, float]:
    """``*:storage=100M:messages=1000``; a rule for other folders than all is none for POP3."""
    mask, colon, limits = text.partition(":")
    if not colon:
        raise ValueError(f"{text[:40]!r} is no rule such as *:storage=100M")
    if mask not in ("*", "?"):
        return {}
    found: dict[str, float] = {}
    for one in limits.split(":"):
        name, _, value = one.partition("=")
        if name == "storage":
            found["quota_octets"] = _size(value, 1024)
        elif name == "bytes":
            found["quota_octets"] = _size(value)
        elif name == "messages":
            found["quota_messages"] = _size(value)
        elif one == "ignore":
            found |= {"quota_octets": 0, "quota_messages": 0}
        else:
            raise ValueError(f"{one[:40]!r} is no limit; there are storage, bytes and messages")
    return found


_READ: Final[Mapping[str, Callable[[str], dict[str, float]]]] = {  # ours stand behind Dovecot's, and so go before them
    "userdb_quota_rule": _rule,
    "userdb_quota_storage_size": _octets,
    "userdb_quota_message_count": _messages,
    "quota_octets": _octets,
    "quota_messages": _messages,
    "login_delay": lambda text: {"login_delay": _number(text, _SECONDS_MAX)},
    "expire": _days,
    "require_tls": lambda _: {"require_tls": True},
}
