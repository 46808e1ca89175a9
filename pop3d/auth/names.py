"""How a name that a client says becomes the one that limits go by."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["spelled"]

_OCTETS_MAX: Final = 255  # of a user's name: see `pop3d.auth.check_user_name`


def spelled(name: str) -> str:
    """The same for all spellings of a name that could be one account's: in other case, with blanks, in wide letters.

    For limits only: that two accounts may have the same spelling here makes them share a limit, no more.
    """
    if len(name.encode("utf-8", "surrogateescape")) > _OCTETS_MAX:
        return name  # nobody's, and to normalize it could take long
    return unicodedata.normalize("NFKC", name).strip().casefold()
