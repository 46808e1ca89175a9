"""Where a link leads, told beside its text unless the text says exactly that: that is how people are caught.

Nothing that whoever wrote the mail chooses decides what is told, but equality: a text that is a part of the target, or
looks like it, hides nothing. The target is read as browsers read it (blanks and line ends taken out, ``\\`` as ``/``,
any number of slashes behind the scheme), and where its spelling could deceive (a name before ``@``, ``%``, other
scripts, punycode) the host that is really asked stands behind it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urljoin

__all__ = ["beside"]

_SHOWN_MAX: Final = 2000  # characters of a target: a table with longer ones has lines that no terminal can show
_HOST_MAX: Final = 253  # characters of a host's name, as DNS has it
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WITH_HOST: Final = frozenset(("http", "https", "ftp", "ws", "wss"))
_SLASHES: Final = "/\\"
_UNFIT: Final = re.compile(r'[\s<>"\x00-\x1f\x7f]')
_EDGE: Final = "".join(map(chr, range(0x21)))


def beside(href: str | None, text: str, base: str | None = None) -> str:
    """What is shown behind a link's text: `` <target>``, or nothing where the text is the target or there is no text.

    ``href``: the attribute as it stands in the page; ``base``: that of the page's ``<base>``, likewise.
    """
    text = " ".join(text.split())
    target = _cleaned(href or "")
    if not text or not target or target.startswith("#"):
        return ""
    if base is not None and not _SCHEME.match(target):
        target = _joined(_cleaned(base), target)
    place = _Place.of(target)
    if not place.deceives and place == _Place.of(text, like=place):
        return ""
    shown = _UNFIT.sub(lambda found: quote(found[0], safe=""), target[:_SHOWN_MAX])
    shown += "..." if len(target) > _SHOWN_MAX else ""
    return f" <{shown}> (leads to {place.host})" if place.deceives and place.host else f" <{shown}>"


def _cleaned(url: str) -> str:
    """As browsers clean it."""
    return re.sub(r"[\t\r\n]", "", url.strip(_EDGE))


def _joined(base: str, target: str) -> str:
    try:
        return urljoin(base, target.replace("\\", "/"))
    except ValueError:  # a base that is no URL
        return target


@dataclass(frozen=True, slots=True)
class _Place:
    """What a target comes to. ``deceives``: its spelling does not show ``host`` plainly; no part of equality."""

    scheme: str
    host: str
    rest: str
    deceives: bool = False

    @classmethod
    def of(cls, url: str, like: _Place | None = None) -> _Place:
        """A URL's; ``like``: what a text means that leaves the scheme out."""
        found = _SCHEME.match(url)
        scheme, behind = (found[1].lower(), url[found.end() :]) if found else ("", url)
        if like is not None and (not found or (like.scheme in _WITH_HOST and scheme not in _WITH_HOST)):
            scheme, behind = like.scheme, url  # "bank.example", or "bank.example:8443"
        elif scheme not in _WITH_HOST and not (not scheme and behind[:1] in _SLASHES and behind[1:2] in _SLASHES):
            return cls(scheme, "", behind)
        if scheme and scheme not in _WITH_HOST:
            return cls(scheme, "", behind)
        behind = behind.lstrip(_SLASHES)
        authority = re.split(r"[/\\?#]", behind, maxsplit=1)[0]
        rest = behind[len(authority) :]
        _, at, host = authority.rpartition("@")
        odd = bool(at) or rest.startswith("\\") or "%" in host or not host.isascii() or "xn--" in host.lower()
        return cls(scheme, _asked(host), "" if rest == "/" else rest, odd)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Place):
            return NotImplemented
        return (self.scheme, self.host, self.rest) == (other.scheme, other.host, other.rest)

    __hash__ = None  # type: ignore[assignment]


def _asked(host: str) -> str:
    """The host that is asked for in the end, in ASCII; of a longer one the end, which says whose it is."""
    host = host[-_HOST_MAX:]
    if "%" in host:
        host = unquote(host)
    if host.isascii():
        return host.lower()
    labels = re.split(r"[.\u3002\uff0e\uff61]", unicodedata.normalize("NFKC", host).lower())
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)
