"""Whose an address is: the user who has the name, or a part of it.

The names that are tried, in this order; the first that a user has gets the mail:

1. the whole address;
2. of a domain in ``local_domains``, what stands before it: users there have no domain;
3. and 4. the same without what stands behind the first ``recipient_delimiter``.

Each is looked up as a login would look it up (`pop3d.auth.names`). Who may not log in still gets mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pop3d.auth import Account, KnowsUsers
from pop3d.auth.names import UserNames
from pop3d.config import Lmtp
from pop3d.lmtp.grammar import MailPath

__all__ = ["Addressees"]


@dataclass(frozen=True, slots=True)
class Addressees:
    """``names``: of `auth.usernames`."""

    users: KnowsUsers
    names: UserNames
    config: Lmtp

    async def account(self, path: MailPath) -> Account | None:
        """Who gets mail to that address; None: nobody. Raises `pop3d.auth.AuthUnavailable`."""
        for name in dict.fromkeys(map(self.names, self._candidates(path))):
            if (account := await self.users.account(name)) is not None:
                return account
        return None

    def _candidates(self, path: MailPath) -> Iterator[str]:
        # a local part with an "@" in it is cut nowhere: what is left would be another user's name
        locals_ = [path.local]
        if delimiters := self.config.recipient_delimiter:
            base = re.split(f"[{re.escape(delimiters)}]", path.local, maxsplit=1)[0]
            if base and base != path.local and "@" not in path.local:
                locals_.append(base)
        without_domain = path.domain.lower() in self.config.local_domains and "@" not in path.local
        for local in locals_:
            yield f"{local}@{path.domain}" if path.domain else local
            if without_domain:
                yield local
