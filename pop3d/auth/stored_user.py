"""A user whose password is stored somewhere, in a file or in a database."""

from __future__ import annotations

from dataclasses import dataclass, field

from pop3d.auth import Account
from pop3d.auth.extra_fields import ExtraFields
from pop3d.auth.schemes import Secret

__all__ = ["StoredUser"]


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user as stored. ``fields``: which fields of a line behind the secret are filled in, by their names.

    ``secret``: None when it cannot be used, for which ``fault`` is the reason: nobody logs in as this user, by no
    mechanism, and trying costs what an unknown user costs. ``extra``: what restricts the user.
    """

    name: str
    secret: Secret | None
    home: str | None
    fields: tuple[str, ...] = ()
    extra: ExtraFields = field(default_factory=ExtraFields)
    fault: str = ""

    @property
    def account(self) -> Account:
        """Who that is, with what may forbid a login."""
        forbidden = self.fault or self.extra.forbidden
        return Account(self.name, self.home, self.extra.networks, forbidden, self.extra.limits)
