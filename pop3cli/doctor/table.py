"""All examinations, on one screen, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pop3cli.doctor import announced, behaviour, content, deleting
from pop3cli.doctor.findings import Finding
from pop3cli.doctor.server_under_test import ServerUnderTest

__all__ = ["EXAMINATIONS", "Examination"]


@dataclass(frozen=True, slots=True)
class Examination:
    """``id``: its name, that stays; ``rfc``: who asks for it; ``destructive``: made only when allowed."""

    id: str
    rfc: str
    run: Callable[[ServerUnderTest], Awaitable[Finding]]
    destructive: bool = False

    @property
    def asks(self) -> str:
        """What the RFC asks, as one sentence: the function's own."""
        return " ".join((self.run.__doc__ or "").split()).rstrip(".").replace("``", "")


# fmt: off
EXAMINATIONS: Final = (
    Examination("greeting",       "RFC 1939 §4, RFC 2449 §4",  behaviour.greeting),
    Examination("capa-form",      "RFC 2449 §3, §5",           announced.capa_form),
    Examination("capa-states",    "RFC 2449 §6",               announced.capa_states),
    Examination("capa-user",      "RFC 2449 §6.2",             announced.user),
    Examination("capa-sasl",      "RFC 5034 §3, §4",           announced.sasl),
    Examination("capa-stls",      "RFC 2595 §4",               announced.stls),
    Examination("stls-injection", "RFC 2595 §4",               behaviour.stls_injection),
    Examination("capa-utf8",      "RFC 6856 §2",               announced.utf8),
    Examination("capa-lang",      "RFC 6856 §3",               announced.lang),
    Examination("capa-top",       "RFC 2449 §6.1",             announced.top),
    Examination("capa-uidl",      "RFC 2449 §6.8",             announced.uidl),
    Examination("expire",         "RFC 2449 §6.7",             announced.expire),
    Examination("login-delay",    "RFC 2449 §6.5",             announced.login_delay),
    Examination("stat",           "RFC 1939 §5",               content.stat_sum),
    Examination("list",           "RFC 1939 §5",               content.list_one),
    Examination("size",           "RFC 1939 §11",              content.retr_size),
    Examination("dot-stuffing",   "RFC 1939 §3",               content.dot_stuffing),
    Examination("top-head",       "RFC 1939 §7",               content.top_head),
    Examination("top-lines",      "RFC 1939 §7",               content.top_some),
    Examination("top-all",        "RFC 1939 §7",               content.top_all),
    Examination("uidl-form",      "RFC 1939 §7",               content.uidl_form),
    Examination("uidl-stable",    "RFC 1939 §7",               content.uidl_stable),
    Examination("case",           "RFC 1939 §3",               behaviour.any_case),
    Examination("unknown",        "RFC 1939 §3",               behaviour.unknown),
    Examination("state",          "RFC 1939 §3, §4",           behaviour.state),
    Examination("arguments",      "RFC 1939 §3, §5",           behaviour.arguments),
    Examination("pipelining",     "RFC 2449 §6.6",             behaviour.pipelining),
    Examination("lock",           "RFC 1939 §4, RFC 2449 §8.1.2", behaviour.lock),
    Examination("line-full",      "RFC 2449 §4",               behaviour.line_full),
    Examination("line-long",      "RFC 2449 §4",               behaviour.line_long),
    Examination("line-endless",   "RFC 2449 §4",               behaviour.line_endless),
    Examination("quit",           "RFC 1939 §4, §6",           behaviour.quit_ends),
    Examination("quit-keeps",     "RFC 1939 §6",               behaviour.quit_keeps),
    Examination("resp-codes",     "RFC 2449 §6.4, §8",         announced.resp_codes),
    Examination("dele-rset",      "RFC 1939 §5",               deleting.dele_rset, destructive=True),
    Examination("dele-drop",      "RFC 1939 §6",               deleting.dele_drop, destructive=True),
    Examination("dele-quit",      "RFC 1939 §6",               deleting.dele_quit, destructive=True),
    Examination("reply-form",     "RFC 1939 §3, RFC 2449 §4",  behaviour.reply_form),
)
# fmt: on
