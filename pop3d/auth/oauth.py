"""OAuth 2 bearer tokens (RFC 6750), as OAUTHBEARER and XOAUTH2 bring them.

A token is checked here by its signature, with keys that the issuer publishes (a JSON Web Key Set), or by the issuer
itself, which is asked about each token (introspection). Then who made it, for whom, until when, for what and for which
user. Whatever is wrong with a token is one refusal to the client; the log says more, and never shows a token.

Signatures are of public keys only: with a shared secret, or none at all, whoever reads the keys could make tokens.

Keys are kept for a while. A key that is not known is asked for again, but not often, so that invented ones cost
nothing. As long as keys, or the issuer's word, cannot be had, logins are refused for now, not for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key, KeySet, import_key
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int

from pop3core.answers import NoSecret, PlainSecret, ScramSecret
from pop3core.events import Credential, Token, Verified
from pop3core.sasl.base import SecretKind
from pop3d.auth import (
    Account,
    Authenticator,
    AuthError,
    AuthUnavailable,
    KeepsSecrets,
    KnowsLimits,
    KnowsSpellings,
    KnowsUsers,
    check_user_name,
)
from pop3d.auth.http_client import HttpClient
from pop3d.auth.names import AS_IS, UserNames, spelled
from pop3d.auth.user_limits import UserLimits
from pop3d.config import OAuth

__all__ = ["ALGORITHMS", "OAuthTokens", "oauth_tokens"]

log = logging.getLogger("pop3d.oauth")

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
"""By which a token may be signed."""

_KEYS_AGE_MAX: Final = 3600.0  # seconds after which keys are asked for again: a withdrawn one is believed no longer
_KEYS_AGE_MIN: Final = 60.0  # seconds before keys are asked for again because of one that is not known
_RETRY: Final = 5.0  # seconds before a server that did not answer is asked for keys again
_RSA_BITS_MIN: Final = 2048
_FILE_OCTETS_MAX: Final = 256 * 1024

# Whatever joserfc may do with octets from outside: its own errors, and those of what they are made of.
_MALFORMED: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class _RefusedToken(Exception):
    """A token is not good; the text says why, and repeats nothing of it."""


class _Algorithms(JWSRegistry):
    """Ours and no others; and a header that is not known is no fault, unless it is critical (RFC 7515 §4.1.11)."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


_REGISTRY: Final = _Algorithms(algorithms=ALGORITHMS, strict_check_header=False)


# --- keys ---


class _Keys(Protocol):
    async def current(self) -> KeySet:
        """All keys. Raises `AuthUnavailable`."""
        ...

    async def newer(self) -> KeySet | None:
        """The keys again, because one was missing; None when they are as new as can be. Raises `AuthUnavailable`."""
        ...

    async def reload(self) -> None:
        """Read them again. Raises `AuthError`, and goes on with what it had."""
        ...

    def close(self) -> None: ...


class _FileKeys:
    """Keys in a file, read at the start and when told to. Raises `AuthError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = self._read()

    def _read(self) -> KeySet:
        try:
            return _key_set(json.loads(_octets_of(self._path)))
        except (ValueError, RecursionError) as fault:
            why = str(fault) if isinstance(fault, _NoKeys) else "not JSON"
            raise AuthError(f"`jwks` of [auth.oauth], {self._path}: {why}") from None

    async def current(self) -> KeySet:
        return self._keys

    async def newer(self) -> KeySet | None:
        return None

    async def reload(self) -> None:
        self._keys = await asyncio.to_thread(self._read)

    def close(self) -> None:
        pass


class _ServedKeys:
    """Keys at a URL, asked for when they are first needed. ``clock``: monotonic seconds."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url, self._clock = url, clock
        self._asker = HttpClient(url)
        self._one = asyncio.Lock()  # many logins wait for one answer
        self._keys: KeySet | None = None
        self._asked = self._failed = float("-inf")
        self._fault = ""

    async def current(self) -> KeySet:
        return await self._no_older_than(_KEYS_AGE_MAX)

    async def newer(self) -> KeySet | None:
        before = self._keys
        keys = await self._no_older_than(_KEYS_AGE_MIN)
        return None if keys is before else keys

    async def _no_older_than(self, seconds: float) -> KeySet:
        if (keys := self._kept(seconds)) is not None:
            return keys
        async with self._one:
            # somebody else may have asked while we waited
            if (keys := self._kept(seconds)) is not None:
                return keys
            if self._clock() - self._failed < _RETRY:
                raise AuthUnavailable(self._fault)
            return await self._ask()

    def _kept(self, seconds: float) -> KeySet | None:
        return self._keys if self._clock() - self._asked < seconds else None

    async def _ask(self) -> KeySet:
        try:
            answer = await self._asker.ask()
            self._keys = _key_set(answer)
        except (AuthUnavailable, _NoKeys) as fault:
            self._failed, self._fault = self._clock(), f"no keys to check tokens with: {fault}"
            raise AuthUnavailable(self._fault) from None
        self._asked = self._clock()
        return self._keys

    async def reload(self) -> None:
        try:
            async with self._one:
                await self._ask()
        except AuthUnavailable as fault:
            raise AuthError(str(fault)) from None

    def close(self) -> None:
        self._asker.close()


class _NoKeys(ValueError):
    """There is no key to be used; one line."""


def _key_set(found: Any) -> KeySet:
    """The keys that signatures can be checked with; others are passed over (RFC 7517 §5). Raises `_NoKeys`."""
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise _NoKeys('no key set: an object with "keys"')
    keys = [key for entry in entries if (key := _key(entry)) is not None]
    if not keys:
        raise _NoKeys(f"no key for {', '.join(ALGORITHMS)} in it")
    return KeySet(keys)


def _key(entry: Any) -> Key | None:
    try:
        # never a shared secret ("oct")
        if entry["kty"] not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
            return None
        if entry["kty"] == "RSA" and base64_to_int(entry["n"]).bit_length() < _RSA_BITS_MIN:
            log.warning("a key of less than %d bits is not believed", _RSA_BITS_MIN)
            return None
        return import_key(entry)
    except _MALFORMED:
        return None


# --- tokens ---


class _Checks(Protocol):
    async def claims(self, token: bytes) -> dict[str, Any]:
        """What a token says, believed to come from its issuer. Raises `_RefusedToken` and `AuthUnavailable`."""
        ...

    async def reload(self) -> None:
        """Read the sources again. Raises `AuthError`, and goes on with what it had."""
        ...

    def close(self) -> None: ...


class _BySignature:
    """Tokens are JSON Web Tokens, signed with one of ``keys``."""

    def __init__(self, keys: _Keys) -> None:
        self._keys = keys

    async def claims(self, token: bytes) -> dict[str, Any]:
        try:
            return self._decoded(token, await self._keys.current())
        except InvalidKeyIdError:
            keys = await self._keys.newer()
        try:
            if keys is not None:
                return self._decoded(token, keys)
        except InvalidKeyIdError:
            pass
        raise _RefusedToken("it is signed with a key that is not known")

    def _decoded(self, token: bytes, keys: KeySet) -> dict[str, Any]:
        try:
            return jwt.decode(token, keys, registry=_REGISTRY).claims
        except InvalidKeyIdError:
            raise
        except _MALFORMED as fault:
            # not the text, which may repeat the token's own
            why = fault.error if isinstance(fault, JoseError) else "malformed"
            raise _RefusedToken(f"its signature cannot be believed ({why})") from None

    async def reload(self) -> None:
        await self._keys.reload()

    def close(self) -> None:
        self._keys.close()


class _ByIntrospection:
    """The issuer is asked about each token (RFC 7662). Raises `AuthError` for a secret that cannot be read."""

    def __init__(self, url: str, client_id: str, secret: Path) -> None:
        self._client_id, self._path = client_id, secret
        self._asker = HttpClient(url)
        self._asker.identify(client_id, self._secret())

    def _secret(self) -> str:
        try:
            secret = _octets_of(self._path).decode("utf-8").strip()
        except UnicodeDecodeError:
            secret = ""
        if not secret:
            raise AuthError(f"`client_secret_file` of [auth.oauth], {self._path}: empty, or not UTF-8")
        return secret

    async def claims(self, token: bytes) -> dict[str, Any]:
        said = await self._asker.ask({"token": token.decode("ascii"), "token_type_hint": "access_token"})
        if said.get("active") is not True:
            raise _RefusedToken("its issuer does not know it, or no longer")
        return said

    async def reload(self) -> None:
        self._asker.identify(self._client_id, await asyncio.to_thread(self._secret))

    def close(self) -> None:
        self._asker.close()


def _octets_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(_FILE_OCTETS_MAX + 1)
    except OSError as fault:
        raise AuthError(f"[auth.oauth]: {path}: {fault.strerror}; name a readable file") from None
    if len(octets) > _FILE_OCTETS_MAX:
        raise AuthError(f"[auth.oauth]: {path}: larger than {_FILE_OCTETS_MAX} octets")
    return octets


# --- users ---


class OAuthTokens:
    """See `pop3d.auth.Authenticator` and `pop3d.auth.KeepsSecrets`. Made by `oauth_tokens`.

    ``others``: who checks other credentials, and must know the user of a token; None: every user of the issuer has a
    mailbox, and there are no others. ``names``: what is made of the claim; None: nothing else.
    """

    def __init__(
        self, config: OAuth, checks: _Checks, others: Authenticator | None, names: UserNames | None = None
    ) -> None:
        self._config, self._checks, self.others = config, checks, others
        self._names = names or AS_IS

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`."""
        if not isinstance(credential, Token):
            return await self.others.authenticate(credential, source) if self.others is not None else None
        try:
            claims = await self._checks.claims(credential.token)
            self._check(claims)
            return await self._account(self._user_of(claims), credential, source)
        except _RefusedToken as fault:
            log.info("token of %r refused: %s", credential.username[:64], fault)
            return None

    def _check(self, claims: dict[str, Any]) -> None:
        config = self._config
        # A token that is signed says all of this itself. An issuer that is asked has seen to the rest (RFC 7662 §2.2).
        signed = config.jwks is not None
        issuer: jwt.ClaimsOption = {"essential": signed}
        if config.issuer is not None:
            issuer["value"] = config.issuer
        wanted = jwt.JWTClaimsRegistry(
            leeway=config.leeway_seconds,
            exp={"essential": signed},
            iss=issuer,
            aud={"essential": True, "value": config.audience} if config.audience is not None else {},
        )
        try:
            wanted.validate(claims)
        except ClaimError as fault:
            raise _RefusedToken(f"{fault.error} ({fault.claim})") from None
        except _MALFORMED:
            raise _RefusedToken("its claims are malformed") from None
        if config.scope is not None and config.scope not in _scopes(claims):
            raise _RefusedToken("it is not for the scope that is asked for")

    def _user_of(self, claims: dict[str, Any]) -> str:
        claim = self._config.user_claim
        name = claims.get(claim)
        if not isinstance(name, str):
            raise _RefusedToken(f"it has no claim {claim!r}")
        # with many issuers anybody may give himself anybody's address, as long as it is not verified
        if claim == "email" and claims.get("email_verified") not in (True, "true"):
            raise _RefusedToken("its claim 'email' is not said to be verified ('email_verified')")
        return self._names(name)

    async def _account(self, name: str, token: Token, source: str) -> Account:
        if token.username and self._names.key(token.username) != self._names.key(name):
            raise _RefusedToken("it is of another user")
        try:
            check_user_name(name)
        except ValueError as fault:
            raise _RefusedToken(str(fault)) from None
        if self.others is None:
            return Account(name)
        account = await self.others.authenticate(Verified(name, "", token.mechanism), source)
        if account is None:
            raise _RefusedToken("its user has no mailbox here")
        return account

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret | PlainSecret | NoSecret:
        """See `pop3d.auth.KeepsSecrets.secret`."""
        if isinstance(self.others, KeepsSecrets):
            return await self.others.secret(username, kind, server_nonce)
        return NoSecret(server_nonce=server_nonce)

    async def account(self, name: str) -> Account | None:
        """See `pop3d.auth.KnowsUsers`: the others say."""
        if not isinstance(self.others, KnowsUsers):
            raise AuthUnavailable("who there is, the issuer of tokens cannot say")
        return await self.others.account(name)

    def account_name(self, username: str) -> str:
        """See `pop3d.auth.KnowsSpellings`."""
        return self.others.account_name(username) if isinstance(self.others, KnowsSpellings) else spelled(username)

    def limits_of_users(self) -> Collection[UserLimits]:
        """See `pop3d.auth.KnowsLimits`."""
        return self.others.limits_of_users() if isinstance(self.others, KnowsLimits) else ()

    async def trouble(self) -> str | None:
        """See `pop3d.auth.TellsTrouble`. Of the other users; the issuer is asked when there is a token."""
        ask = getattr(self.others, "trouble", None)
        return None if ask is None else await ask()

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""
        try:
            await self._checks.reload()
        finally:  # a fault of one does not keep the others from what is new
            if self.others is not None:
                await self.others.reload()

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        if self.others is not None:
            await self.others.close()
        self._checks.close()


def _scopes(claims: dict[str, Any]) -> list[Any]:
    found = claims.get("scope", claims.get("scp", ""))  # RFC 8693 §4.2; "scp" is what Entra and others call it
    return found.split(" ") if isinstance(found, str) else found if isinstance(found, list) else []


def oauth_tokens(
    config: OAuth,
    others: Authenticator | None,
    *,
    names: UserNames | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> OAuthTokens:
    """Tokens as configured, beside ``others``. Raises `AuthError` for a file that is not usable.

    ``names``: what is made of the claim; ``clock``: monotonic seconds, for the age of keys.
    """
    if config.introspection is not None:
        assert config.client_id is not None
        assert config.client_secret_file is not None
        return OAuthTokens(
            config, _ByIntrospection(config.introspection, config.client_id, config.client_secret_file), others, names
        )
    assert config.jwks is not None
    keys = _ServedKeys(config.jwks, clock) if "://" in config.jwks else _FileKeys(Path(config.jwks))
    return OAuthTokens(config, _BySignature(keys), others, names)
