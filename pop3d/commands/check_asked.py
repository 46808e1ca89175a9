"""`pop3d check`, where somebody else is asked: the issuer of tokens, PAM, or a database."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pop3d.accounts import dovecot_users, postgres_users
from pop3d.assembly import by_pam, postgres_store, with_tokens
from pop3d.auth import Authenticator, AuthError
from pop3d.commands.finding import CheckFinding, fault, mode_faults, warning
from pop3d.config import Config, OAuth, Pam

if TYPE_CHECKING:
    from pop3d.auth.postgres import PostgresUsers
    from pop3d.stores.postgres.store import PostgresStore

__all__ = ["as_user", "databases", "dovecot", "pam", "tokens"]

PAM_PLACES: Final = tuple(map(Path, ("/etc/pam.d", "/usr/local/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")))
"""Where services of PAM are, the first that is there; systems without such folders have /etc/pam.conf instead."""

_INCLUDE: Final = re.compile(r"^(?:@include|\S+\s+(?:include|substack))\s+([\w.-]+)", re.MULTILINE)
_UNIX: Final = re.compile(r"^-?auth\s.*\bpam_unix\.so\b", re.MULTILINE)
_SERVICE_OCTETS_MAX: Final = 64 * 1024
_SECONDS_MAX: Final = 20


def tokens(oauth: OAuth) -> Iterator[CheckFinding]:
    """Whether what tokens are checked with can be had."""
    if oauth.client_secret_file is not None:
        yield from mode_faults(oauth.client_secret_file, "our secret for introspection")

    async def ask(authenticator: Authenticator) -> None:
        try:
            await authenticator.reload()  # which asks for keys
        finally:
            await authenticator.close()

    try:
        asyncio.run(ask(with_tokens(oauth, None)))
    except AuthError as found:
        yield CheckFinding(True, str(found))


def pam(settings: Pam) -> Iterator[CheckFinding]:
    """Whether PAM can be asked at all."""
    try:
        by_pam(settings)
    except AuthError as found:
        yield CheckFinding(True, str(found))
    if _file(settings.service) is None and any(place.is_dir() for place in PAM_PLACES):
        what = 'there is no such service of PAM, which then asks its service "other"; that refuses everybody as a rule'
        yield fault(PAM_PLACES[0] / settings.service, what, "write it, or name another in `auth.pam.service`")


def as_user(settings: Pam) -> Iterator[CheckFinding]:
    """As whoever serves: whether the processes that ask PAM can run, and can do what the service wants."""
    try:
        from pop3d.auth.pam import WORKER
    except ModuleNotFoundError:
        return  # of an extra, which was told already
    try:
        asked = [sys.executable, "-P", str(WORKER), settings.service]
        done = subprocess.run(  # noqa: S603  # our own program
            asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS_MAX
        )
        works = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    if not works:
        what = "`user` cannot run it with what is installed there, so PAM cannot be asked"
        yield fault(sys.executable, what, "install where that user can read, such as /opt, and not in root's home")
    service = _file(settings.service)
    if service is None:
        return
    try:
        text = _text(service)
        text += "".join(_text(one) for name in _INCLUDE.findall(text) if (one := _file(name)) is not None)
    except OSError as found:
        yield fault(service, f"`user` cannot read it: {found.strerror}", f"chmod a+r {service}, as is usual there")
        return
    if os.geteuid() != 0 and _UNIX.search(text):
        what = "pam_unix lets an ordinary user check no password but his own, so others cannot log in by it"
        yield warning(service, what, 'use a module that asks a server, such as pam_sss, or pam_exec, or user = "root"')


def dovecot(config: Config) -> list[CheckFinding]:
    """As whoever serves: whether Dovecot can be asked, and offers what the configuration does."""

    async def ask() -> list[CheckFinding]:
        users = dovecot_users(config)
        try:
            found = users.troubles(config.auth.mechanisms)
            return [CheckFinding(True, f"[auth.dovecot]: {text}") async for text in found]
        finally:
            await users.close()

    return asyncio.run(ask())


def databases(config: Config) -> Iterator[CheckFinding]:
    """Whether they are there, with what is looked for in them."""

    async def trouble_of(database: PostgresUsers | PostgresStore) -> str | None:
        try:
            return await database.trouble()
        finally:
            await database.close()

    if config.auth.postgres is not None and (trouble := asyncio.run(trouble_of(postgres_users(config)))):
        yield fault("[auth.postgres]", *_asked(trouble, "look at `query`, and whether the role may read"))
    if config.store.postgres is not None and (trouble := asyncio.run(trouble_of(postgres_store(config)))):
        yield fault("[store.postgres]", *_asked(trouble, "the tables are in examples/postgres/schema.sql"))


def _asked(trouble: str, remedy: str) -> tuple[str, str]:
    """What is wrong with a database, and what to do."""
    # libpq asks that of whoever reads it
    trouble = trouble.removesuffix("Is the server running on that host and accepting TCP/IP connections?")
    trouble = trouble.removesuffix("Is the server running locally and accepting connections on that socket?").rstrip()
    connects = not trouble.startswith(("connection ", "no answer"))
    return trouble, remedy if connects else "start the database, or mend `conninfo`"


def _file(service: str) -> Path | None:
    return next((path for place in PAM_PLACES if (path := place / service).exists()), None)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SERVICE_OCTETS_MAX).decode("utf-8", "replace")
