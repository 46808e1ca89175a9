"""From an account to a session behind TLS."""

from __future__ import annotations

import ssl

from pop3cli.accounts.url import Account
from pop3cli.errors import CommandRefused, NoTls
from pop3cli.net.session import Session
from pop3cli.net.tls import Dial
from pop3core.events import Greeted

__all__ = ["connect"]


async def connect(
    session: Session, account: Account, tls: ssl.SSLContext, timeout: float, dial: Dial | None = None
) -> Greeted:
    """Connect to an account's server, and see to TLS, from the first octet or by STLS. Raises `MailError`."""
    implicit = not account.stls
    greeting = await session.connect(account.host, account.port, tls=tls, implicit=implicit, timeout=timeout, dial=dial)
    if account.stls:
        try:
            await session.starttls()
        except CommandRefused as fault:
            raise NoTls(account.server, f"no TLS by STLS ({fault})", "is it a pop3s:// server?") from None
    return greeting
