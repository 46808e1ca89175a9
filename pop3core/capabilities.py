"""What CAPA lists (RFC 2449 §6), from what the connection can really do; and reading such a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Capabilities", "server_capabilities"]


def server_capabilities(
    *,
    passwords: bool,
    mechanisms: Sequence[str] = (),
    stls: bool = False,
    utf8: bool = False,
    languages: bool = False,
    expire: str = "",
    login_delay: str = "",
) -> tuple[str, ...]:
    """The lines a server announces: a name each (RFC 2449 §5: a command's own; RFC 2449 §9: none begins
    with X), and behind single spaces its arguments (RFC 2449 §3).

    ``passwords``: USER and PASS are valid on this connection as it is now; ``mechanisms``: those of AUTH likewise;
    ``stls``: STLS may be said; ``utf8``, ``languages``: UTF8 and LANG are offered; ``expire``, ``login_delay``: the
    argument of that capability, empty for none.
    """
    lines = (
        # RFC 2449 §6.2 USER: announced exactly when it would be accepted, so not in clear text where that is refused
        passwords and "USER",
        bool(mechanisms) and f"SASL {' '.join(mechanisms)}",  # RFC 2449 §6.3, RFC 5034 §3: as things are
        stls and "STLS",  # RFC 2595 §4: it is there, and permitted in this state
        "TOP",  # RFC 2449 §6.1
        "UIDL",  # RFC 2449 §6.8
        "RESP-CODES",  # RFC 2449 §8
        "AUTH-RESP-CODE",  # RFC 3206 §5, §6
        "PIPELINING",
        expire and f"EXPIRE {expire}",  # RFC 2449 §6.7
        login_delay and f"LOGIN-DELAY {login_delay}",  # RFC 2449 §6.5
        utf8 and "UTF8 USER",  # RFC 6856 §2, §2.2 USER: names and passwords may be UTF-8
        languages and "LANG",  # RFC 6856 §3
        "IMPLEMENTATION pop3core",
    )
    return tuple(line for line in lines if line)


class Capabilities(Mapping[str, tuple[str, ...]]):
    """What a server announced: capability names (capitals) with their arguments.

    ``"PIPELINING" in capabilities``; ``capabilities["SASL"] == ("PLAIN",)``. Raises KeyError for what is not there.
    """

    __slots__ = ("_arguments",)

    def __init__(self, lines: Iterable[str] = ()) -> None:
        words = (line.split() for line in lines)
        # RFC 2449 §5: names are case-insensitive. A blank line announces nothing.
        self._arguments = {name.upper(): tuple(rest) for name, *rest in filter(None, words)}

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def __repr__(self) -> str:
        return f"Capabilities({[' '.join((name, *rest)) for name, rest in self.items()]})"
