"""Users whose passwords are stored somewhere: what a file and a database have in common.

Passwords are checked where `pop3d.auth.hashing` says. An unknown user costs a check as well, of the usual kind: against
a secret of the scheme and parameters that most users have. A user whose scheme needs an extra that is not installed
cannot log in, and costs the same.

SCRAM needs a verifier: stored as such, or made from a plain secret that SASLprep does not refuse. What an unknown
user's would be is made up from a secret of ours, as `pop3d.auth.invented` says: the same for a name for ever, and such
as a known user's.
"""

from __future__ import annotations

import abc
import os
from collections import Counter
from collections.abc import Iterable

from pop3core.answers import NoSecret, PlainSecret, ScramSecret
from pop3core.events import Credential, Password, ProofFailed, Verified
from pop3core.sasl.base import SecretKind
from pop3d.auth import Account, CannotServe
from pop3d.auth.hashing import Hashing, variants
from pop3d.auth.invented import USUAL, InventedUsers, Shape
from pop3d.auth.names import AS_IS, UserNames, spelled
from pop3d.auth.passwords import DUMMY, Verifier, cost_of, lacks_extra, serves, verifier_of
from pop3d.auth.schemes import ARGON2ID, PLAIN, SCHEMES, Secret
from pop3d.auth.stored_user import StoredUser

__all__ = ["SecretTally", "StoredPasswords"]


class StoredPasswords(abc.ABC):
    """See `pop3d.auth.Authenticator` and `pop3d.auth.KeepsSecrets`. Derive, and write `find` and `reload`.

    ``salts``: what salts are made from, where there is none; should be the same for ever. None: new ones each time.
    ``latin1_passwords``: a password matches in UTF-8 as well as in Latin-1, whichever was sent and stored.
    ``names``: what made the names that it is asked for; one that nobody has is looked for by its key, too. None: a name
    must be the user's own to the letter.
    """

    def __init__(
        self, salts: bytes | None = None, *, latin1_passwords: bool = False, names: UserNames | None = None
    ) -> None:
        self._names = names or AS_IS
        self._invented = InventedUsers(salts or os.urandom(32))
        self._latin1 = latin1_passwords
        self._dummy = Secret(ARGON2ID, DUMMY)
        self._hashing = Hashing()

    @abc.abstractmethod
    async def find(self, name: str) -> StoredUser | None:
        """The user of that name. Raises `pop3d.auth.AuthUnavailable` when that cannot be known now."""

    async def lookup(self, name: str) -> StoredUser | None:
        """The user whom a login by ``name`` finds. Raises as `find` does."""
        user = await self.find(name)
        if user is None and (key := self._names.key(name)) != name:
            user = await self.find(key)
        return user

    @abc.abstractmethod
    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""

    async def account(self, name: str) -> Account | None:
        """A user by name, to whom mail is delivered; None when there is no such. Raises as `find` does."""
        user = await self.lookup(name)
        return None if user is None else user.account

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`. To act as somebody else is refused."""
        if not isinstance(credential, Password | Verified | ProofFailed):
            return None
        user = await self.lookup(credential.username)
        if isinstance(credential, ProofFailed):
            return None
        if isinstance(credential, Password) and not await self._matches(user, credential.secret, source):
            return None
        if user is None or not await self._is(credential.authzid, credential.username, user):
            return None
        self._logged_in(user)
        return user.account

    async def _is(self, authzid: str, username: str, user: StoredUser) -> bool:
        """Whether ``authzid`` is nobody else; ``username`` has found the user."""
        if authzid in ("", username, user.name):
            return True
        other = await self.lookup(authzid)
        return other is not None and other.name == user.name

    def account_name(self, username: str) -> str:
        """See `pop3d.auth.KnowsSpellings`."""
        return spelled(username)

    def _logged_in(self, user: StoredUser) -> None:  # noqa: B027  # most have nothing to do
        """A user has logged in: who cannot read all users learns from it what is usual."""

    def _learn(self, tally: SecretTally) -> None:
        """What the site's users have is what unknown ones shall look like."""
        self._dummy = tally.usual()
        self._invented.learn(tally.shapes)

    async def _matches(self, user: StoredUser | None, password: bytes, source: str) -> bool:
        passwords = variants(password, latin1=self._latin1)
        secret = user.secret if user is not None else None
        if secret is None or lacks_extra(secret.scheme):
            await self._hashing.matches(self._dummy, passwords, source)
            return False
        return await self._hashing.matches(secret, passwords, source)

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret | PlainSecret | NoSecret:
        """See `pop3d.auth.KeepsSecrets.secret`."""
        user = await self.lookup(username)
        stored = user.secret if user is not None else None
        served = stored is not None and serves(stored, kind)
        plain = stored.value.encode() if stored is not None and served and stored.scheme == PLAIN else None
        key = self._names.key(username)  # as one user has one salt by all spellings, so has an unknown one
        salt = self._invented.salt(key)
        iterations, octets = self._invented.shape(key)
        lacking = NoSecret if stored is None else CannotServe
        absent = lacking(self._invented.salt(key, octets), iterations, server_nonce)
        if kind == "APOP":
            return PlainSecret(plain) if plain is not None else absent
        # always made, whatever is stored, so that the time does not tell
        made = await self._hashing.in_a_thread(Verifier.made, plain or b"nobody", salt, USUAL[0])
        if stored is None or not served:
            return absent
        if plain is None:
            made = verifier_of(stored.value)
        return ScramSecret(made.salt, made.iterations, made.stored_key, made.server_key, server_nonce)

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        self._hashing.close()


class SecretTally:
    """How often users have which kind of secret. ``shapes``: what SCRAM tells of them."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self.shapes: Counter[Shape] = Counter()
        self._kinds: dict[tuple[str, str], Secret] = {}
        self._count: Counter[tuple[str, str]] = Counter()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """One more user has it."""
        if (shape := _shape(secret)) is not None:
            self.shapes[shape] += 1
        if not lacks_extra(secret.scheme):
            self._count[cost := cost_of(secret)] += 1
            self._kinds.setdefault(cost, secret)

    def usual(self) -> Secret:
        """One that costs what most of them do; the slower one where there are as many of both."""
        count = self._count
        if not count:
            return Secret(ARGON2ID, DUMMY)
        return self._kinds[max(count, key=lambda cost: (count[cost], -SCHEMES.index(cost[0])))]


def _shape(secret: Secret) -> Shape | None:
    """What SCRAM tells of a user with this secret; None where it cannot be used."""
    if not serves(secret, "SCRAM-SHA-256"):
        return None
    if secret.scheme == PLAIN:
        return USUAL
    kept = verifier_of(secret.value)
    return kept.iterations, len(kept.salt)
