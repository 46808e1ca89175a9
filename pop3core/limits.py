"""Every limit of the protocol: its name with its unit, its value, where it comes from.

Limits of the daemon (connections, times, addresses) are its configuration's; here is what the engines themselves
refuse to exceed. All of them can be set for one connection by handing it another `Limits`, but
for `REPLY_OCTETS_MAX`, which no client can know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_LIMITS", "REPLY_OCTETS_MAX", "Limits"]

REPLY_OCTETS_MAX: Final = 512
"""A line the server sends outside message content, CRLF included (RFC 2449 §4)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost. Octets count the line's CRLF unless said otherwise."""

    command_octets_max: int = 255
    """A command line, CRLF included (RFC 2449 §4). A server takes a token in AUTH up to `sasl_octets_max`."""

    sasl_octets_max: int = 12 * 1024
    """A client's answer in a SASL exchange, CRLF included (RFC 5034 §4; RFC 4954 §4.4 needs 12,288)."""

    line_octets_max: int = 64 * 1024
    """What the server takes while looking for the end of an over-long command before it closes the connection."""

    foreign_reply_octets_max: int = 16 * 1024
    """A status line, list line or challenge the client takes. RFC 2449 §4 says 512; real greetings, CAPA lists and
    challenges (RFC 5034 §4) are longer."""

    greeting_octets_max: int = 8 * 1024
    """The client's patience with a first line that does not end: it may not be talking to a POP3 server."""

    output_octets: int = 64 * 1024
    """Once this much output waits, it is handed to the driver before anything else is done."""

    content_octets_max: int = 64 * 1024
    """The largest piece of message content a driver may answer with, so that neighbours get their turn."""

    list_piece_octets: int = 16 * 1024
    """About how much of a LIST or UIDL is made at a time."""

    turn_commands: int = 1_000_000_000
    """Commands that the server executes for one event, before it says `MoreWork`; 2 KiB of a LIST count like one. 16
    take some 0.3 ms. So many as this never come: a driver that does not know the event never meets it."""

    bad_commands_max: int = 20
    """Commands refused for their form or state before the connection is closed."""

    auth_failures_max: int = 3
    """Credentials checked and refused before the connection is closed."""

    window_commands: int = 64
    """Commands the client keeps under way when the server announced PIPELINING (RFC 2449 §6.6); 1 otherwise."""

    queue_commands_max: int = 10_000
    """Commands that may wait in the client for their turn."""

    list_items_max: int = 10_000_000
    """Lines the client takes in one LIST or UIDL answer."""

    capabilities_max: int = 1_000
    """Lines the client takes in one CAPA or LANG answer; it keeps them."""

    capabilities_octets_max: int = 64 * 1024
    """Octets of such lines together: a hundred times what the longest real ones have."""


DEFAULT_LIMITS = Limits()
"""What a connection keeps to unless it is told otherwise."""
