"""A POP3 client: the command ``pop3cli``, and the asyncio library beneath it. Begin at `Client`.

Names are imported when they are asked for: the command line begins often, and needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pop3cli.accounts.url import Account, parse_account
    from pop3cli.errors import MailError
    from pop3cli.exit_status import ExitStatus
    from pop3cli.mailbox.client import Client, Message
    from pop3cli.mailbox.index import Reconnect
    from pop3cli.net.session import Session
    from pop3cli.net.tls import client_context

__all__ = [
    "Account",
    "Client",
    "ExitStatus",
    "MailError",
    "Message",
    "Reconnect",
    "Session",
    "client_context",
    "parse_account",
]

_HOMES = {
    "Account": "accounts.url",
    "Client": "mailbox.client",
    "ExitStatus": "exit_status",
    "MailError": "errors",
    "Message": "mailbox.client",
    "Reconnect": "mailbox.index",
    "Session": "net.session",
    "client_context": "net.tls",
    "parse_account": "accounts.url",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
