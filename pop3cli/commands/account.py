"""What ``pop3cli account`` does: named accounts are added, shown and removed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

from pop3cli.accounts import discovery, registry
from pop3cli.accounts.discovery import DiscoveredServer
from pop3cli.accounts.registry import NamedAccount
from pop3cli.accounts.url import Account, Settings, parse_account
from pop3cli.auth import token_store
from pop3cli.auth.login import way_to
from pop3cli.auth.oauth import PRESETS, OAuthClient, Prompt, browser_login, device_login, provider_of
from pop3cli.auth.passwords import client_secret, find_password, forget_in_keyring, store_in_keyring
from pop3cli.auth.token_store import StoredTokens
from pop3cli.errors import ServerBroken, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.net.connection import TIMEOUT
from pop3cli.net.https import check_url
from pop3cli.net.proxy import dial_by
from pop3cli.options import Options
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import Terminal

__all__ = ["OAuthOptions", "add", "login", "remove", "show", "show_servers"]

_PATHS: Final = ("cacert", "client_cert", "client_key")


@dataclass(frozen=True, slots=True)
class OAuthOptions:
    """What is said of tokens with ``account add``."""

    provider: str | None = None
    client_id: str | None = None
    scope: str | None = None


def add(
    name: str,
    url: str,
    options: Options,
    terminal: Terminal,
    *,
    keyring: bool,
    oauth: OAuthOptions = OAuthOptions(),
    discover: bool = False,
    yes: bool = False,
) -> ExitStatus:
    """Write an account into the book, and its password into the keyring.

    ``discover``: ``url`` is a mail address, whose server is to be found; ``yes``: nobody is asked about it.
    """
    account = _discovered(url, options, terminal, yes=yes) if discover else parse_account(url)
    settings = _with_oauth(options.settings, oauth)
    if settings.insecure:
        raise UsageFault("account add --insecure", "it is for one run only", "give --pin SHA256 instead")
    if keyring and settings.password_command is not None:
        raise UsageFault("account add --keyring", "does not go with --password-command")
    absolute = {key: path.absolute() for key in _PATHS if (path := getattr(settings, key)) is not None}
    settings = replace(settings, keyring=keyring, **absolute)
    way_to(account, settings)  # what would fail later is told now
    wants_password = keyring and settings.oauth is None
    password = find_password(account, None) if wants_password else b""
    # RFC 8314 §5.1: what was found is written down, and not looked for again at every connection
    registry.add(NamedAccount(name, account, settings))
    if wants_password:
        try:
            store_in_keyring(account.url, password.decode("utf-8", "surrogateescape"))
        except BaseException:
            registry.remove(name)
            raise
    if options.json:
        terminal.json(_as_json(NamedAccount(name, account, settings)))
    else:
        terminal.line((f"added {name}", "ok"), f": {account.url}", (f" ({registry.book_path()})", "faint"))
    if settings.oauth is not None:
        terminal.note(f"now log in: pop3cli account login {name}")
    return ExitStatus.OK


def show_servers(address: str, options: Options, terminal: Terminal) -> ExitStatus:
    """Which servers a mail address may have its mailbox on."""
    found = _look(address, options)
    if options.json:
        keys = ("source", "confirmed", "oauth")
        terminal.json([{"url": one.account.url, **{key: getattr(one, key) for key in keys}} for one in found])
        return ExitStatus.OK
    for one in found:
        doubt = "" if one.confirmed else "; the domain itself does not confirm it"
        terminal.line((one.account.url, "strong"), (f"  ({one.source}{doubt})", "faint"))
    if found[0].oauth:
        terminal.note("it takes tokens only: account add --oauth")
    return ExitStatus.OK


def _look(address: str, options: Options) -> list[DiscoveredServer]:
    proxy = options.settings.proxy
    dial = None if proxy is None else dial_by(proxy, options.settings.timeout or TIMEOUT)
    return asyncio.run(discovery.discover(address, dial=dial))


def _discovered(address: str, options: Options, terminal: Terminal, *, yes: bool) -> Account:
    best = _look(address, options)[0]
    what = f"{best.account.url} (named by {best.source})"
    if best.confirmed or yes:
        terminal.note(f"found {what}")
        return best.account
    # RFC 6186 §6, RFC 8314 §5.1: who can forge DNS would be sent the password
    if not terminal.can_ask:
        remedy = "give --yes if it is right, or the URL itself"
        raise UsageFault(
            f"account add: found {what}", "its domain does not confirm it, and nobody can be asked", remedy
        )
    if terminal.ask(f"Found {what}, which the domain itself does not confirm. Is that the server? [y/N] ") in (
        "y",
        "yes",
    ):
        return best.account
    raise UsageFault("account add", "not the right server", "give its URL")


def _with_oauth(settings: Settings, oauth: OAuthOptions) -> Settings:
    if oauth.provider is None:
        if oauth.client_id is not None or oauth.scope is not None:
            raise UsageFault("account add", "--client-id and --oauth-scope are for --oauth")
        return settings
    if oauth.client_id is None:
        remedy = "register an application with the provider, and give its --client-id"
        raise UsageFault("account add --oauth", "the provider wants to know which application asks", remedy)
    if settings.password_command is not None:
        raise UsageFault("account add --oauth", "does not go with --password-command")
    if oauth.provider not in PRESETS:
        try:
            check_url(oauth.provider)
        except ValueError as fault:
            known = ", ".join(PRESETS)
            raise UsageFault(f"--oauth {oauth.provider[:100]}", str(fault), f"{known} or https://...") from None
    return replace(settings, oauth=oauth.provider, oauth_client_id=oauth.client_id, oauth_scope=oauth.scope)


def login(name: str, options: Options, terminal: Terminal, *, browser: bool) -> ExitStatus:
    """Let a person log in with the account's provider, and keep the tokens."""
    account, settings = registry.find(name, options.settings)
    if settings.title is None or settings.oauth is None or settings.oauth_client_id is None:
        raise UsageFault(f"account {name}", "its login is not by OAuth", "give it with account add --oauth")
    dial = way_to(account, settings).dial
    preset = PRESETS.get(settings.oauth)
    secret = client_secret(ask=preset is not None and preset.wants_secret)

    def tell(prompt: Prompt) -> None:
        terminal.line(("Open ", ""), (prompt.url, "strong"), aside=True)
        if prompt.code:
            terminal.line("and enter the code ", (prompt.code, "strong"), aside=True)
        terminal.note("waiting for the login there; Ctrl-C gives up")

    async def work() -> StoredTokens:
        provider = await provider_of(str(settings.oauth), dial=dial)
        client = OAuthClient(str(settings.oauth_client_id), settings.oauth_scope or provider.scope, secret)
        if not (provider.device or provider.authorization):
            raise ServerBroken(f"the provider {provider.name}", "it has no way for a person to log in")
        by_device = provider.device and not (browser and provider.authorization)
        log_in = device_login if by_device else browser_login
        return StoredTokens(account.url, provider, client, await log_in(provider, client, tell, dial=dial))

    token_store.keep(name, settings, asyncio.run(work()))
    if options.json:
        terminal.json({"logged_in": name})
    else:
        terminal.line((f"logged in: {name}", "ok"))
    return ExitStatus.OK


def show(options: Options, terminal: Terminal) -> ExitStatus:
    """All named accounts: a table."""
    entries = [entry for _, entry in sorted(registry.read_book().items())]
    if options.json:
        terminal.json([_as_json(entry) for entry in entries])
        return ExitStatus.OK
    columns = (
        Column("Name", 16, "strong"),
        Column("URL", 40, share=2),
        Column("Server", 18),
        Column("Login", 30, share=1),
    )
    table = terminal.table(columns)
    for entry in entries:
        table.row(entry.name, entry.account.url, _trust(entry.settings), _login(entry.settings))
    if not entries:
        terminal.note("no account has a name yet: pop3cli account add NAME pop3s://user@host")
    return ExitStatus.OK


def remove(name: str, options: Options, terminal: Terminal) -> ExitStatus:
    """Forget an account, and its password in the keyring, unless another account has the same."""
    entry = registry.remove(name)
    shared = any(other.account == entry.account and other.settings.keyring for other in registry.read_book().values())
    if entry.settings.oauth is not None:
        token_store.forget(name, entry.settings)
    elif entry.settings.keyring and not shared:
        forget_in_keyring(entry.account.url)
    if options.json:
        terminal.json({"removed": name})
    else:
        terminal.line((f"removed {name}", "ok"))
    return ExitStatus.OK


def _trust(settings: Settings) -> str:
    """Why the server is trusted, in a word or two."""
    words = ["pinned"] if settings.pins else []
    if settings.cacert is not None:
        words.append("own authority")
    return ", ".join(words) or "authorities"


def _login(settings: Settings) -> str:
    """How one logs in, in a few words."""
    if settings.oauth is not None:
        return f"OAuth, {settings.oauth}" + (", keyring" if settings.keyring else "")
    words = [settings.auth.lower()] if settings.auth is not None else []
    if settings.client_cert is not None:
        words.append("client certificate")
    if settings.keyring:
        words.append("keyring")
    if settings.password_command is not None:
        words.append("password command")
    return ", ".join(words) or "password asked for"


def _as_json(entry: NamedAccount) -> dict[str, Any]:
    return {"name": entry.name, "url": entry.account.url, **registry.said(entry.settings)}
