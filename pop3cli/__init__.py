"""A POP3 client: the command ``pop3cli``, and the asyncio library beneath it. Begin at `Client`."""

from pop3cli.accounts import Account, parse_account
from pop3cli.client import Client, Message, Reconnect
from pop3cli.errors import MailError
from pop3cli.exit_status import ExitStatus
from pop3cli.session import Session
from pop3cli.tls import client_context

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
