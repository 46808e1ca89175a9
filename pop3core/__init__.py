"""POP3 without I/O: a command parser, a validator and a state machine that emits replies; both sides.

Start at `pop3core.server.ServerConnection` and `pop3core.client.ClientConnection`; the protocol itself is
`pop3core.table`. Nothing here opens a socket, reads a clock or draws a random number.
"""

from typing import TYPE_CHECKING

from pop3core.client import ClientConfig, ClientConnection
from pop3core.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from pop3core.limits import Limits
from pop3core.table import RULES, State

if TYPE_CHECKING:
    from pop3core.maildrop import Listing
    from pop3core.server import ServerConfig, ServerConnection

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
    # the server's half is imported when it is asked for: a client that begins often needs none of it
    if name == "Listing":
        from pop3core.maildrop import Listing

        return Listing
    if name in ("ServerConfig", "ServerConnection"):
        from pop3core.server import ServerConfig, ServerConnection

        return ServerConfig if name == "ServerConfig" else ServerConnection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
