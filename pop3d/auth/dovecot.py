"""Users as Dovecot knows them: asked at its authentication socket, so all of its passdbs and schemes serve here too.

Dovecot says whether a password, or a token, is right, what the user is called, and where a login is forbidden;
penalties for guesses are ours, and its own are switched off for what we ask. Homes, and who there is, come from its
userdb, by another socket.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

from pop3core.events import Credential, Password, Token
from pop3d.auth import Account, AuthUnavailable, check_user_name
from pop3d.auth.dovecot_socket import LINE_OCTETS_MAX, DovecotReply, DovecotSocket, escaped
from pop3d.auth.fair_queue import FairQueue

__all__ = ["DovecotUsers", "asked_by"]

log = logging.getLogger("pop3d.dovecot")

_TOGETHER: Final = 256  # logins that Dovecot is asked about; a wrong password is one for some 2 s, which Dovecot waits
_NAME_OCTETS_MAX: Final = 255  # as `check_user_name` has it
_PASSWORD_OCTETS_MAX: Final = 1024  # as for passwords of a users file
_WORDS_OCTETS_MAX: Final = 512  # of a question, without what the client said

_TEMPORARY: Final = frozenset({"temp_fail", "auth_mech_invalid", "auth_mech_ssl_required", "invalid_base64"})
_OLD_CODES: Final = {"temp": "temp_fail", "authz": "authz_fail", "user_disabled": "", "pass_expired": ""}
"""Fields of FAIL that were codes of their own before Dovecot 2.3, and what they are called now; the same if empty."""


def asked_by(mechanism: str) -> str:
    """The mechanism of Dovecot that serves one of ours, as it announces it."""
    return mechanism.upper() if mechanism in ("oauthbearer", "xoauth2") else "PLAIN"


class DovecotUsers:
    """See `pop3d.auth.Authenticator`. Connects with the first question.

    ``socket``: of clients (auth-client). ``userdb``: of userdb lookups (auth-userdb); None: nobody's home is known, nor
    who there is. ``homes``: a login needs one. ``seconds_max``: for one login.
    """

    def __init__(self, socket: Path, userdb: Path | None = None, *, homes: bool = False, seconds_max: float) -> None:
        self._clients = DovecotSocket(socket, seconds_max=seconds_max)
        self._userdb = DovecotSocket(userdb, master=True, seconds_max=seconds_max) if userdb is not None else None
        self._homes, self._seconds_max = homes, seconds_max
        self._turns = FairQueue(_TOGETHER)

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`. To act as somebody else is refused.

        Dovecot hears of the address that ``source`` was made of, for its allow_nets.
        """
        asked = _question(credential)
        if asked is None:
            return None
        mechanism, response, continued = asked
        fields = [mechanism.encode(), b"service=pop3", b"secured", b"no-penalty"]
        address = str(getattr(source, "address", source))
        if _is_address(address):
            fields.append(b"rip=" + escaped(address.encode()))
        fields.append(b"resp=" + base64.b64encode(response))  # the last one: what follows is ignored
        if sum(map(len, fields)) > LINE_OCTETS_MAX - _WORDS_OCTETS_MAX:
            return None
        async with self._turns.turn(source):
            if mechanism not in await self._clients.mechanisms():
                raise AuthUnavailable(f"Dovecot does not offer {mechanism}: add it to its `auth_mechanisms`")
            reply = await self._clients.ask("AUTH", *fields, continued=continued)
        return await self._understood(reply, credential.username)

    async def _understood(self, reply: DovecotReply, asked: str) -> Account | None:
        if reply.word == "FAIL":
            code = reply.fields.get("code") or _old_code(reply.fields)
            if code in _TEMPORARY:
                raise AuthUnavailable(f"Dovecot cannot tell ({code}): its own log says why")
            if why := " ".join(part for part in (code, reply.fields.get("reason", "")) if part):
                log.info("Dovecot refused %r: %s", asked[:64], why[:200])
            return None
        if reply.word != "OK":
            raise AuthUnavailable(f"Dovecot answers {reply.word} to a login")
        name = _name(reply.fields.get("user", ""))
        forbidden = _forbidden(reply.fields)
        if forbidden or not self._homes:
            return Account(name, forbidden=forbidden)
        account = await self.account(name)
        if account is None:
            raise AuthUnavailable(f"Dovecot lets {name!r} log in, and its userdb has no such user")
        return account

    async def account(self, name: str) -> Account | None:
        """See `pop3d.auth.KnowsUsers`, where there is a ``userdb``."""
        if self._userdb is None:
            raise AuthUnavailable("who there is, Dovecot's userdb says: set `userdb_socket` in [auth.dovecot]")
        try:
            check_user_name(name)
        except ValueError:
            return None
        asked = escaped(name.encode("utf-8", "surrogateescape"))
        reply = await self._userdb.ask("USER", asked, b"service=pop3")
        match reply.word:
            case "USER":
                return Account(_name(reply.first), reply.fields.get("home") or None)
            case "NOTFOUND":
                return None
            case _:
                reason = reply.fields.get("reason", "") or "its own log says why"
                raise AuthUnavailable(f"Dovecot's userdb cannot tell about {name!r}: {reason[:200]}")

    async def troubles(self, mechanisms: Iterable[str]) -> AsyncIterator[str]:
        """A line for all that is wrong with the sockets, and for each of our ``mechanisms`` that cannot work."""
        try:
            offered = await self._clients.mechanisms()
        except AuthUnavailable as fault:
            yield str(fault)
        else:
            for mechanism in dict.fromkeys(map(asked_by, mechanisms)):
                if mechanism not in offered:
                    has = ", ".join(sorted(offered)) or "nothing"
                    yield f"Dovecot offers {has} at its socket, and not {mechanism}; add it to its `auth_mechanisms`"
        if self._userdb is not None:
            try:
                await self._userdb.mechanisms()
            except AuthUnavailable as fault:
                yield str(fault)

    async def trouble(self) -> str | None:
        """See `pop3d.auth.TellsTrouble`."""
        return await anext(self.troubles(()), None)

    async def reload(self) -> None:
        """Dovecot is asked at each login; from now on as it is after a reload of its own."""
        self._clients.renew()
        if self._userdb is not None:
            self._userdb.renew()

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        await self._clients.close()
        if self._userdb is not None:
            await self._userdb.close()


def _question(credential: Credential) -> tuple[str, bytes, bytes | None] | None:
    """Mechanism, first response, and what is said to a challenge; None for what Dovecot need not be asked."""
    name = credential.username.encode("utf-8", "surrogateescape")
    if b"\0" in name or b"\x01" in name or len(name) > _NAME_OCTETS_MAX:
        return None
    match credential:
        case Password(username, authzid, secret):
            # LDAP servers let who has a name and no password in, as nobody
            if not name or not secret or b"\0" in secret or len(secret) > _PASSWORD_OCTETS_MAX:
                return None
            if authzid not in ("", username):
                return None
            return "PLAIN", b"\0" + name + b"\0" + secret, None
        case Token(_, "OAUTHBEARER", token):
            named = name.replace(b"=", b"=3D").replace(b",", b"=2C")
            # RFC 7628 §3.2.3: its word of a failure is a challenge, and ^A ends that
            return "OAUTHBEARER", b"n,a=%s,\x01auth=Bearer %s\x01\x01" % (named, token), b"AQ=="
        case Token(_, "XOAUTH2", token):
            return "XOAUTH2", b"user=%s\x01auth=Bearer %s\x01\x01" % (name, token), b""
        case _:
            return None


def _forbidden(fields: dict[str, str]) -> str:
    """Why Dovecot itself would not open this user's mailbox, though the password is right; empty: it would."""
    reason = fields.get("reason", "")
    if "nologin" in fields:
        return f"Dovecot says nologin{': ' if reason else ''}{reason[:100]}"
    if "proxy" in fields or "proxy_maybe" in fields:
        host = fields.get("host", "which it does not name")
        return f"Dovecot says proxy: the mailbox is on another server, {host[:100]}"
    return ""


def _old_code(fields: dict[str, str]) -> str:
    return next((new or old for old, new in _OLD_CODES.items() if old in fields), "")


def _name(name: str) -> str:
    """What Dovecot calls the user. Raises `AuthUnavailable` for what can be no part of a path."""
    try:
        check_user_name(name)
    except ValueError as fault:
        raise AuthUnavailable(f"Dovecot calls a user {name[:64]!r}: {fault}") from None
    return name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
