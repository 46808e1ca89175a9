"""All users of a file by name, whichever way a name is spelled.

A user is called as the file spells the name: mailbox and lock go by that, and nothing moves when `auth.usernames`
changes. Names are only compared as `pop3d.auth.names.UserNames` says.
"""

from __future__ import annotations

from collections.abc import Iterable

from pop3d.auth.names import UserNames

__all__ = ["NameIndex"]


class NameIndex:
    """Of ``users``, by what they are called. ``clashes``: those whose different spellings are one name, by that name.
    Nobody is found by it: whichever of them it gave, the other's mail could go there.
    """

    __slots__ = ("_aliases", "_by_name", "clashes")

    def __init__(self, users: Iterable[str], names: UserNames) -> None:
        self._by_name: dict[str, str] = {}
        self._aliases: dict[str, str | None] = {}  # of names with capitals in them; None: of several
        self.clashes: dict[str, list[str]] = {}
        for user in users:
            name = names(user)
            if (other := self._by_name.setdefault(name, user)) != user:
                self.clashes.setdefault(name, [other]).append(user)
            elif (key := names.key(name)) != name:
                self._aliases[key] = None if key in self._aliases else user
        for name in self.clashes:
            del self._by_name[name]
            if (key := names.key(name)) != name:
                self._aliases[key] = None

    def find(self, name: str) -> str | None:
        """Who has that name, as `UserNames` gave it; or who alone has it but for the case of letters."""
        user = self._by_name.get(name)
        if user is None and name not in self.clashes:
            user = self._aliases.get(name)
        return user

    def clear(self) -> None:
        """Forget all, one by one: who drops a hundred thousand at once holds the interpreter."""
        for names in (self._by_name, self._aliases):
            while names:
                names.popitem()

    def __len__(self) -> int:
        return len(self._by_name)
