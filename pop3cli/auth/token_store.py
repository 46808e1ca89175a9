"""Where tokens are kept between runs: the keyring, or a file of mode 0600 for each account.

They stand with the account's URL and the provider, and are used for nothing else: an account that was changed wants a
new login. Renewing happens behind a lock, since many providers take a refresh token once: of two runs that begin at the
same time one renews, and the other reads what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pop3cli.accounts.url import Account, Settings
from pop3cli.auth.oauth import OAuthClient, Provider, Tokens, renewed
from pop3cli.auth.passwords import forget_in_keyring, from_keyring, store_in_keyring
from pop3cli.errors import LoginRefused, OutputFailed, SettingFault
from pop3cli.files import keep_out_of_others, make_folder, state_folder, whole_file
from pop3cli.net.tls import Dial

__all__ = ["StoredTokens", "access_token", "forget", "keep"]

_OCTETS_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """Tokens, and what they are for: the account's URL."""

    url: str
    provider: Provider
    client: OAuthClient
    tokens: Tokens


def keep(name: str, settings: Settings, kept: StoredTokens) -> None:
    """Keep what a login brought. Raises `SettingFault`, `OutputFailed`."""
    with _locked(name):
        _write(name, settings, kept)


def forget(name: str, settings: Settings) -> None:
    """Remove the tokens of an account, if there are any. Raises `SettingFault`, `OutputFailed`."""
    if settings.keyring:
        forget_in_keyring(_key(name))
    for path in (_path(name), _path(name).with_suffix(".lock")):
        try:
            path.unlink(missing_ok=True)
        except OSError as fault:
            raise OutputFailed(str(path), fault) from fault


def access_token(account: Account, settings: Settings, *, dial: Dial | None = None) -> bytes:
    """The account's token, renewed when it is about to end. Waits for the network; not for an event loop.

    Raises `LoginRefused` when a person has to log in, and what `pop3cli.auth.oauth.renewed` raises.
    """
    name = settings.title or ""
    with _locked(name):
        kept = _read(name, settings)
        if kept is None or kept.url != account.url or kept.provider.name != settings.oauth:
            why = "nobody has logged in yet"
            raise LoginRefused(f"account {name}", why, f"pop3cli account login {name}", code=None, text=why)
        tokens = kept.tokens
        if not tokens.good_at(time.time()):
            tokens = asyncio.run(renewed(kept.provider, kept.client, tokens, dial=dial))
            # before it is used: the old refresh token may be worth nothing now
            _write(name, settings, StoredTokens(kept.url, kept.provider, kept.client, tokens))
        return tokens.access.encode("ascii")


# --- files ---


def _path(name: str) -> Path:
    return state_folder() / "tokens" / f"{name}.json"


def _key(name: str) -> str:
    return f"oauth:{name}"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    path = _path(name).with_suffix(".lock")
    keep_out_of_others(path.parent)
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise OutputFailed(str(path), fault) from fault
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # whoever holds it waits for one request, which is bounded
        yield
    finally:
        os.close(descriptor)


def _write(name: str, settings: Settings, kept: StoredTokens) -> None:
    text = json.dumps(
        {
            "url": kept.url,
            "provider": {key: getattr(kept.provider, key) for key in ("name", "token")},
            "client": {"id": kept.client.id, "scope": kept.client.scope, "secret": kept.client.secret},
            "tokens": {key: getattr(kept.tokens, key) for key in ("access", "refresh", "expires")},
        }
    )
    if settings.keyring:
        store_in_keyring(_key(name), text)
        return
    with whole_file(_path(name), mode=0o600) as stream:
        stream.write(text.encode("ascii"))


def _read(name: str, settings: Settings) -> StoredTokens | None:
    text = from_keyring(_key(name)) if settings.keyring else _read_file(_path(name))
    if text is None:
        return None
    try:
        found = json.loads(text)
        tokens = Tokens(**found["tokens"])
        return StoredTokens(found["url"], Provider(**found["provider"]), OAuthClient(**found["client"]), tokens)
    except (ValueError, KeyError, TypeError):
        return None  # not what we wrote: a login makes it anew


def _read_file(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(_OCTETS_MAX)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise SettingFault(str(path), f"cannot be read: {fault.strerror or fault}") from None
    if status.st_uid not in (os.geteuid(), 0):
        raise SettingFault(str(path), "it belongs to another user, who knows what is in it", "log in again as yourself")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SettingFault(str(path), "others may read it, and it opens a mailbox", f"chmod 600 {path}")
    return content.decode("utf-8", "replace")
