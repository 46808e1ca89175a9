"""POP3 without I/O: a command parser, a validator and a state machine that emits replies; both sides.

Start at `pop3core.server.ServerConnection` and `pop3core.client.ClientConnection`; the protocol itself is
`pop3core.table`. Nothing here opens a socket, reads a clock or draws a random number.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pop3core.client import ClientConfig, ClientConnection
    from pop3core.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
    from pop3core.limits import Limits
    from pop3core.maildrop import Listing
    from pop3core.server import ServerConfig, ServerConnection
    from pop3core.table import RULES, State

__all__ = [
    "RULES",
    "ClientConfig",
    "ClientConnection",
    "Limits",
    "Listing",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerConfig",
    "ServerConnection",
    "State",
]


def __getattr__(name: str) -> object:
    # imported when it is asked for: a program that begins often needs one half, or only a module of it
    match name:
        case "ClientConfig" | "ClientConnection":
            from pop3core import client

            return getattr(client, name)
        case "LocalProtocolError" | "ProtocolError" | "RemoteProtocolError":
            from pop3core import errors

            return getattr(errors, name)
        case "Limits":
            from pop3core import limits

            return getattr(limits, name)
        case "Listing":
            from pop3core import maildrop

            return getattr(maildrop, name)
        case "ServerConfig" | "ServerConnection":
            from pop3core import server

            return getattr(server, name)
        case "RULES" | "State":
            from pop3core import table

            return getattr(table, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
