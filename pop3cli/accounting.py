"""What ``pop3cli account`` does: named accounts are added, shown and removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pop3cli import book
from pop3cli.accounts import Settings, parse_account
from pop3cli.book import Entry
from pop3cli.commands import Options
from pop3cli.credentials import find_password, forget_in_keyring, store_in_keyring
from pop3cli.entrance import way_to
from pop3cli.errors import UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.render import Column, Terminal

__all__ = ["add", "remove", "show"]

_PATHS: Final = ("cacert", "client_cert", "client_key")


def add(name: str, url: str, options: Options, terminal: Terminal, *, keyring: bool) -> ExitStatus:
    """Write an account into the book, and its password into the keyring."""
    account, settings = parse_account(url), options.settings
    if settings.insecure:
        raise UsageFault("account add --insecure", "it is for one run only", "give --pin SHA256 instead")
    if keyring and settings.password_command is not None:
        raise UsageFault("account add --keyring", "does not go with --password-command")
    absolute = {key: path.absolute() for key in _PATHS if (path := getattr(settings, key)) is not None}
    settings = replace(settings, keyring=keyring, **absolute)
    way_to(account, settings)  # what would fail later is told now
    password = find_password(account, None) if keyring else b""
    book.add(Entry(name, account, settings))
    if keyring:
        try:
            store_in_keyring(account.url, password.decode("utf-8", "surrogateescape"))
        except BaseException:
            book.remove(name)
            raise
    if options.json:
        terminal.json(_as_json(Entry(name, account, settings)))
    else:
        terminal.line((f"added {name}", "ok"), f": {account.url}", (f" ({book.book_path()})", "faint"))
    return ExitStatus.OK


def show(options: Options, terminal: Terminal) -> ExitStatus:
    """All named accounts: a table."""
    entries = [entry for _, entry in sorted(book.read_book().items())]
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
    entry = book.remove(name)
    shared = any(other.account == entry.account and other.settings.keyring for other in book.read_book().values())
    if entry.settings.keyring and not shared:
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
    words = [settings.auth.lower()] if settings.auth is not None else []
    if settings.client_cert is not None:
        words.append("client certificate")
    if settings.keyring:
        words.append("keyring")
    if settings.password_command is not None:
        words.append("password command")
    return ", ".join(words) or "password asked for"


def _as_json(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "url": entry.account.url, **book.said(entry.settings)}
