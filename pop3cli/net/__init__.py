"""One connection to one server: sockets, proxies, TLS and certificates, the engine's driver, a trace.

May touch errors and `pop3cli.sanitize` only. Part of the library: no account, no terminal.

`MailError` is what all of it raises: it stands here for `pop3d`, which speaks POP3 by this wing and knows no other.
"""

from pop3cli.errors import MailError

__all__ = ["MailError"]
