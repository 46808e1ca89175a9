"""How what a client, a sender or an administrator says becomes the name that a user is found by.

Only the letters A to Z change, to a to z. No rule of Unicode takes part (a dotless i, a Kelvin sign and a full-width
letter stay what they are), so two users whose names differ in anything but the case of ASCII letters are never one.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pop3d.config import Auth

__all__ = ["AS_IS", "UserNames", "spelled"]

_OCTETS_MAX: Final = 255  # of a user's name: see `pop3d.auth.check_user_name`
_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True, slots=True)
class UserNames:
    """``auth.usernames`` and ``auth.default_domain``. Call it with a name as it was said."""

    rule: Literal["as-is", "lower-domain", "lower"] = "lower-domain"
    default_domain: str = ""

    @classmethod
    def of(cls, auth: Auth) -> UserNames:
        """As configured."""
        return cls(auth.usernames, auth.default_domain)

    def __call__(self, said: str) -> str:
        """The name that a user is looked for by. To apply it twice changes nothing more.

        A domain (RFC 5321 §2.4: it has no case) is what stands behind the last ``@``.
        """
        local, at, domain = said.rpartition("@")
        if not at and self.default_domain and said:
            local, at, domain = said, "@", self.default_domain
        if self.rule == "lower":
            return _lower(f"{local}{at}{domain}")
        if not at or self.rule == "as-is":
            return f"{local}{at}{domain}"
        return f"{local}@{_lower(domain)}"

    def key(self, said: str) -> str:
        """The same for all names that may find one user; to be looked for where nobody has the name itself."""
        name = self(said)
        return name if self.rule == "as-is" else _lower(name)


AS_IS: Final = UserNames("as-is")
"""A name is what was said."""


def _lower(name: str) -> str:
    return name.lower() if name.isascii() else name.translate(_LOWER)


def spelled(name: str) -> str:
    """The same for all spellings of a name that could be one account's: in other case, with blanks, in wide letters.

    For limits only: that two accounts may have the same spelling here makes them share a limit, no more.
    """
    if len(name.encode("utf-8", "surrogateescape")) > _OCTETS_MAX:
        return name  # nobody's, and to normalize it could take long
    return unicodedata.normalize("NFKC", name).strip().casefold()
