"""What CAPA lists (RFC 2449 §6), from what the connection can really do; and reading such a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Capabilities", "server_capabilities"]


def server_capabilities(*, passwords: bool) -> tuple[str, ...]:
    """The lines a server announces.

    ``passwords``: USER and PASS are valid on this connection as it is now.
    """
    # RFC 2449 §6.3 USER: announced exactly when it would be accepted, so not in clear text where that is refused
    user = ("USER",) if passwords else ()
    return (*user, "TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "IMPLEMENTATION pop3core")


class Capabilities(Mapping[str, tuple[str, ...]]):
    """What a server announced: capability names (capitals) with their arguments.

    ``"PIPELINING" in capabilities``; ``capabilities["SASL"] == ("PLAIN",)``. Raises KeyError for what is not there.
    """

    __slots__ = ("_arguments",)

    def __init__(self, lines: Iterable[str] = ()) -> None:
        words = (line.split() for line in lines)
        # RFC 2449 §3: names are case-insensitive. A blank line announces nothing.
        self._arguments = {name.upper(): tuple(rest) for name, *rest in filter(None, words)}

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def __repr__(self) -> str:
        return f"Capabilities({[' '.join((name, *rest)) for name, rest in self.items()]})"
