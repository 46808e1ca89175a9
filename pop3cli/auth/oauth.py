"""Tokens of OAuth 2: got once by a person, renewed by themselves from then on.

A person logs in elsewhere: with a code on any other device (RFC 8628), or in a browser on this machine, which hands the
answer to a port of loopback (RFC 8252, with the proof of RFC 7636). Which of both, the provider decides: Google lets no
device read mail. What comes of it is an access token, good for an hour or so, and a refresh token that renews it.

All endpoints are https. A provider that is a URL is asked for them (RFC 8414), and must call itself by that URL.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from pop3cli.errors import LoginRefused, MailError, ServerBroken, ServerDown, SettingFault, TimedOut
from pop3cli.net.https import Answer, check_url, request
from pop3cli.net.tls import Dial

__all__ = [
    "PRESETS",
    "OAuthClient",
    "Prompt",
    "Provider",
    "Tokens",
    "browser_login",
    "device_login",
    "provider_of",
    "renewed",
]

_LIFETIME_MAX: Final = 1800
"""Seconds a person has for logging in, whatever the provider says."""

_INTERVAL: Final = 5
"""Seconds between questions where the provider says nothing, and what it adds by slow_down (RFC 8628 §3.2, §3.5)."""

_INTERVAL_MAX: Final = 60
_EARLY: Final = 120
"""Seconds before its end at which a token is renewed: it must last for the login."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*")  # RFC 6750 §2.1
_SECRET: Final = re.compile(r"[\x20-\x7e]{1,8192}")  # RFC 6749, appendix A.17


@dataclass(frozen=True, slots=True)
class Provider:
    """Where tokens come from. ``device``, ``authorization``: URLs, empty where that way is not open."""

    name: str
    token: str
    device: str = ""
    authorization: str = ""
    scope: str = ""
    wants_secret: bool = False


PRESETS: Final = {
    "microsoft": Provider(
        "microsoft",
        "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
        "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        "https://outlook.office.com/POP.AccessAsUser.All offline_access",
    ),
    # no device endpoint: Google's refuses the scope of mail
    "google": Provider(
        "google",
        "https://oauth2.googleapis.com/token",
        "",
        "https://accounts.google.com/o/oauth2/v2/auth",
        "https://mail.google.com/",
        wants_secret=True,
    ),
}
"""Providers by name."""


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """Who asks: an application registered with the provider. ``secret``: empty for none; for an application that
    everybody has it is no real secret, but treated as one.
    """

    id: str
    scope: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What was got. ``expires``: by this machine's clock, seconds since 1970; None when nobody said."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    expires: float | None = None

    def good_at(self, now: float) -> bool:
        """The access token can be used."""
        return self.expires is None or now < self.expires - _EARLY


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person is to do: open ``url``, and enter ``code`` there, unless that is empty."""

    url: str
    code: str = ""


Tell = Callable[[Prompt], None]
Wait = Callable[[float], Awaitable[None]]


async def provider_of(name: str, *, dial: Dial | None = None) -> Provider:
    """A provider by the name of a preset, or by its issuer's URL, which is asked. Raises `MailError`."""
    if name in PRESETS:
        return PRESETS[name]
    try:
        parts = check_url(name)
    except ValueError as fault:
        raise SettingFault(f"`oauth` {name[:100]}", str(fault), f"{' or '.join(PRESETS)} or https://...") from None
    issuer = name.rstrip("/")
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    asked = (f"{issuer}/.well-known/openid-configuration", f"{root}/.well-known/oauth-authorization-server{path}")
    for url in asked:
        answer = await request(url, dial=dial)
        if answer.status == 200:
            return _provider(issuer, answer.json())
    raise ServerBroken(f"the provider {issuer}", "it does not describe itself (RFC 8414)", "is it the issuer's URL?")


def _provider(issuer: str, found: dict[str, Any]) -> Provider:
    what = f"the provider {issuer}"
    # RFC 8414 §3.3: else one provider could speak for another
    if str(found.get("issuer", "")).rstrip("/") != issuer:
        raise ServerBroken(what, "it calls itself otherwise", "give the issuer's own URL")
    urls = {key: found.get(f"{key}_endpoint", "") for key in ("token", "device_authorization", "authorization")}
    for key, url in urls.items():
        if not url and key != "token":
            continue
        try:
            check_url(str(url))
        except ValueError as fault:
            raise ServerBroken(what, f"its {key}_endpoint is {fault}") from None
    return Provider(issuer, urls["token"], urls["device_authorization"], urls["authorization"], "offline_access")


# --- a code on another device (RFC 8628) ---


async def device_login(
    provider: Provider, client: OAuthClient, tell: Tell, *, dial: Dial | None = None, wait: Wait = asyncio.sleep
) -> Tokens:
    """Let a person log in with a code on another device. Ends when they have, have refused, or time is up.

    ``wait``: how to let seconds pass. Raises `LoginRefused`, `ServerBroken`, `ServerDown`, `TimedOut`.
    """
    answer = await request(provider.device, _form(client, {"scope": client.scope}), dial=dial)
    said = answer.json()
    if answer.status != 200:
        raise _refused(provider, answer)
    device, prompt = _text(provider, said, "device_code"), _prompt(provider, said)
    interval = _seconds(said.get("interval"), _INTERVAL, _INTERVAL_MAX)
    lifetime = _seconds(said.get("expires_in"), _LIFETIME_MAX, _LIFETIME_MAX)
    tell(prompt)
    waited = 0.0
    while waited < lifetime:
        await wait(interval)
        waited += interval
        try:
            answer = await request(provider.token, _form(client, _device_form(device)), dial=dial)
        except (ServerDown, TimedOut):  # RFC 8628 §3.5: the network may come back
            interval = min(interval + _INTERVAL, _INTERVAL_MAX)
            continue
        if answer.status == 200:
            return _tokens(provider, answer)
        match answer.json().get("error"):
            case "authorization_pending":
                pass
            case "slow_down":
                interval = min(interval + _INTERVAL, _INTERVAL_MAX)
            case _:
                raise _refused(provider, answer)
    raise TimedOut(f"the login with {provider.name}", f"nobody logged in within {lifetime:.0f} s", "try again")


def _device_form(code: str) -> dict[str, str]:
    return {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code}


def _prompt(provider: Provider, said: dict[str, Any]) -> Prompt:
    url = said.get("verification_uri") or said.get("verification_url") or ""
    try:
        check_url(str(url))
    except ValueError as fault:
        raise ServerBroken(f"the provider {provider.name}", f"the address to log in at is {fault}") from None
    return Prompt(str(url), _text(provider, said, "user_code")[:100])


# --- a browser on this machine (RFC 8252) ---

_REQUEST_MAX: Final = 16 * 1024
_REQUEST_SECONDS: Final = 10.0
_PAGE: Final = "<!doctype html><title>pop3cli</title><p>{}. You can close this page."


async def browser_login(
    provider: Provider, client: OAuthClient, tell: Tell, *, dial: Dial | None = None, seconds: float = _LIFETIME_MAX
) -> Tokens:
    """Let a person log in with a browser on this machine. Raises as `device_login` does."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    answered: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                line = await reader.readline()
                while (await reader.readline()).strip():  # the rest is of no interest, but reading it is good manners
                    pass
                found = _redirected(line, state)
                page = _PAGE.format("Not what was asked for" if found is None else "Thank you")
                status = "404 Not Found" if found is None else "200 OK"
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n{page}".encode())
                await writer.drain()
                if found is not None and not answered.done():
                    answered.set_result(found)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_REQUEST_MAX)
    try:
        own = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tell(Prompt(_authorization(provider, client, own, state, verifier)))
        try:
            async with asyncio.timeout(seconds):
                found = await answered
        except TimeoutError:
            why = f"nobody logged in within {seconds:.0f} s"
            raise TimedOut(f"the login with {provider.name}", why, "try again") from None
    finally:
        server.close()
    if "code" not in found:
        raise _no(provider, found.get("error", "no code"))
    more = {"grant_type": "authorization_code", "code": found["code"], "redirect_uri": own, "code_verifier": verifier}
    answer = await request(provider.token, _form(client, more), dial=dial)
    if answer.status != 200:
        raise _refused(provider, answer)
    return _tokens(provider, answer)


def _authorization(provider: Provider, client: OAuthClient, own: str, state: str, verifier: str) -> str:
    """The address that a person opens."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()  # RFC 7636 §4.2
    query = {
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": own,
        "scope": client.scope,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
        "code_challenge_method": "S256",
        "access_type": "offline",  # Google's word for a refresh token
        "prompt": "consent",
    }
    joint = "&" if urlsplit(provider.authorization).query else "?"
    return f"{provider.authorization}{joint}{urlencode(query)}"


def _redirected(line: bytes, state: str) -> dict[str, str] | None:
    """What the provider's redirect says; None for any other request, such as one that somebody else's page made."""
    words = line.decode("ascii", "replace").split()
    if len(words) != 3 or words[0] != "GET":
        return None
    target = urlsplit(words[1])
    found = {key: values[0] for key, values in parse_qs(target.query, max_num_fields=20).items()}
    if target.path != "/" or not hmac.compare_digest(found.get("state", "").encode(), state.encode()):
        return None
    return found


# --- renewing ---


async def renewed(provider: Provider, client: OAuthClient, tokens: Tokens, *, dial: Dial | None = None) -> Tokens:
    """New tokens for old ones (RFC 6749 §6). Raises `LoginRefused` when a person has to log in again, else as above."""
    if not tokens.refresh:
        raise _no(provider, "the token has ended, and there is none to renew it")
    more = {"grant_type": "refresh_token", "refresh_token": tokens.refresh}
    answer = await request(provider.token, _form(client, more), dial=dial)
    if answer.status != 200:
        raise _refused(provider, answer)
    fresh = _tokens(provider, answer)
    return fresh if fresh.refresh else replace(fresh, refresh=tokens.refresh)


# --- what all have in common ---


def _form(client: OAuthClient, more: dict[str, str]) -> dict[str, str]:
    form = {"client_id": client.id, **more}
    return {**form, "client_secret": client.secret} if client.secret else form


def _tokens(provider: Provider, answer: Answer) -> Tokens:
    said = answer.json()
    access, refresh = said.get("access_token"), said.get("refresh_token") or ""
    if not isinstance(access, str) or _TOKEN.fullmatch(access) is None:
        raise ServerBroken(f"the provider {provider.name}", "what it gave is no token")
    if not isinstance(refresh, str) or (refresh and _SECRET.fullmatch(refresh) is None):
        raise ServerBroken(f"the provider {provider.name}", "what it gave is no refresh token")
    lasts = said.get("expires_in")
    expires = None if lasts is None else time.time() + _seconds(lasts, 0, 10 * 365 * 86400)
    return Tokens(access, refresh, expires)


def _seconds(value: Any, default: float, most: float) -> float:
    """Seconds as a provider says them, a number or the text of one."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max(seconds, 1.0), most) if seconds == seconds else default


def _text(provider: Provider, said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or _SECRET.fullmatch(value) is None:
        raise ServerBroken(f"the provider {provider.name}", f"its answer has no {key}")
    return value


def _refused(provider: Provider, answer: Answer) -> MailError:
    if answer.status >= 500:
        return ServerDown(f"the provider {provider.name}", f"it has a trouble ({answer.status})", "try again")
    said = answer.json()
    error, description = str(said.get("error", answer.status)), str(said.get("error_description", ""))
    return _no(provider, f"{error}: {description.splitlines()[0]}"[:300] if description else error[:100])


def _no(provider: Provider, why: str) -> LoginRefused:
    what = f"the provider {provider.name} gives no token"
    return LoginRefused(what, why, "log in anew: pop3cli account login NAME", code=None, text=why)
