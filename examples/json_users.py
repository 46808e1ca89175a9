"""An authenticator for pop3d: users of a JSON file, who log in by name or by any of their addresses.

[auth]                                    in pop3d.toml; PYTHONPATH=examples pop3d serve
backend = "json_users:JsonUsers"
[auth.options]
file = "users.json"

{"alice": {"secret": "{ARGON2ID}$argon2id$...", "addresses": ["alice@example.org", "info@example.org"]}}

`pop3d user add alice --users FILE` makes such secrets. docs/plugins.md goes through it.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pop3core.events import Credential, Password, Verified
from pop3d.auth import Account, AuthError, check_user_name
from pop3d.auth.hashing import Hashing
from pop3d.auth.passwords import ARGON2ID, DUMMY, Secret, UnknownScheme, parse_secret
from pop3d.plugins import OptionsError

NOBODY = Secret(ARGON2ID, DUMMY)


class JsonUsers:
    """See `pop3d.auth.Authenticator`, and `pop3d.auth.KnowsUsers` for `pop3d deliver`."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        if {*options} != {"file"} or not isinstance(options["file"], str):
            raise OptionsError({"file": 'name the file of users, such as "users.json", and nothing else'})
        self._path = folder / options["file"]
        self._users = read(self._path)
        self._hashing = Hashing()

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`."""
        if not isinstance(credential, Password | Verified) or credential.authzid:
            return None  # other kinds, and whoever wants to act as somebody else
        account, secret = self._users.get(credential.username, (None, NOBODY))
        # beside the event loop, as many at a time as there are cores; also for nobody, so that the time tells nothing
        if isinstance(credential, Password) and not await self._hashing.matches(secret, (credential.secret,), source):
            return None
        return account

    async def account(self, name: str) -> Account | None:
        """See `pop3d.auth.KnowsUsers.account`."""
        return self._users.get(name, (None, NOBODY))[0]

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""
        self._users = await asyncio.to_thread(read, self._path)

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        self._hashing.close()


def read(path: Path) -> dict[str, tuple[Account, Secret]]:
    """Users by all their names. Raises `AuthError`, in which no secret stands."""
    users: dict[str, tuple[Account, Secret]] = {}
    name = ""
    try:
        for name, user in json.loads(path.read_bytes()).items():
            check_user_name(name)
            secret = parse_secret(user["secret"])
            if secret.scheme != ARGON2ID:
                raise UnknownScheme("a secret that is not {ARGON2ID}")  # or the time would tell it from nobody's
            for one in (name, *user.get("addresses", ())):
                if one in users:
                    raise ValueError(f"{one!r} is also {users[one][0].name!r}")
                users[one] = Account(name), secret
    except OSError as fault:
        raise AuthError(f"{path}: {fault.strerror}; name a readable file") from None
    except json.JSONDecodeError as fault:
        raise AuthError(f"{path}: no JSON at line {fault.lineno}; mend it") from None
    except (AttributeError, KeyError, TypeError):
        remedy = 'say {"name": {"secret": "{ARGON2ID}...", "addresses": [...]}}'
        raise AuthError(f"{path}: something is missing or of another kind after {name!r}; {remedy}") from None
    except ValueError as fault:
        raise AuthError(f"{path}: user {name!r}: {fault}; mend it") from None
    return users
