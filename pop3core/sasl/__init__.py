"""SASL mechanisms, both sides, as generators: the one place where a straight line is the clearest text.

A server's mechanism yields what it wants next: a `Challenge` to be sent, whose answer it is given; or a `SecretWanted`,
for which it is given what the driver knows. It returns what was learned: a credential. A client's mechanism yields its
answers and is given challenges; its first answer, unless None, may be sent as the initial response.

Mechanisms see octets: base64, ``+``, ``*`` and ``=`` are the engines' (RFC 5034 §4). They draw no random numbers:
nonces are given to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pop3core.sasl import external, login, oauth, plain, scram
from pop3core.sasl.base import SaslError, ServerSteps, Tls

__all__ = ["MECHANISMS", "TOKEN_LINES", "Mechanism", "SaslError"]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism as a server offers it."""

    name: str
    steps: Callable[[Tls], ServerSteps]

    plaintext: bool = False
    """The secret crosses the network as it is: for connections with TLS only, unless relaxed."""

    channel_binding: bool = False
    """It works only where the channel has a binding."""

    identity: bool = False
    """It works only where TLS has proved who the client is."""

    token: bool = False
    """What proves the client is a token, of hundreds of octets."""

    failure: bytes | None = None
    """A challenge that tells of a refusal before the -ERR does (RFC 7628 §3.2.3)."""


MECHANISMS: Final = MappingProxyType(
    {
        mechanism.name: mechanism
        for mechanism in (
            Mechanism("SCRAM-SHA-256-PLUS", scram.plus_server, channel_binding=True),
            Mechanism("SCRAM-SHA-256", scram.server),
            Mechanism("OAUTHBEARER", oauth.bearer_server, plaintext=True, token=True, failure=oauth.FAILURE),
            Mechanism("XOAUTH2", oauth.xoauth2_server, plaintext=True, token=True, failure=oauth.XFAILURE),
            Mechanism("EXTERNAL", external.server, identity=True),
            Mechanism("PLAIN", plain.server, plaintext=True),
            Mechanism("LOGIN", login.server, plaintext=True),
        )
    }
)
"""All mechanisms by name, the strongest first."""

TOKEN_LINES: Final = tuple(f"AUTH {name} ".encode() for name, mechanism in MECHANISMS.items() if mechanism.token)
"""How an AUTH line begins that may be as long as an answer.

RFC 5034 §4 has a client keep it to the length of a command, and send the token behind a challenge. mpop and neomutt, as
to the servers of large providers, send it at once.
"""
