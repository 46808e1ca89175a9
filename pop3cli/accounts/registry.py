"""The book of named accounts: ``accounts.toml`` in the user's configuration directory.

One table per account: its URL, and what else is to hold for it (`Settings`), under names like theirs; a pin is good for
its own account, and goes with it (RFC 8314 §5.4). No secret stands in it; since it may hold commands that are run,
nobody else may write it. A change touches the table of its account alone: the user's comments and order stay. The file
is written whole, beside its place, and then put there; who writes holds a lock on the folder meanwhile, so that of two
changes none is lost.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pop3cli.accounts.url import Account, Settings, parse_account
from pop3cli.errors import OutputFailed, SettingFault, UsageFault
from pop3cli.files import config_folder, keep_out_of_others, make_folder, whole_file

__all__ = ["NamedAccount", "add", "book_path", "find", "read_book", "remove", "said"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OCTETS_MAX: Final = 1024 * 1024
"""Size of the book; a thousand accounts are a tenth of it."""

_HEAD: Final = "# Accounts of pop3cli, changed by `pop3cli account add` and `remove`, or by hand.\n"


@dataclass(frozen=True, slots=True)
class NamedAccount:
    """A named account."""

    name: str
    account: Account
    settings: Settings = field(default_factory=Settings)


def book_path() -> Path:
    """Where the book is: in `pop3cli.files.config_folder`."""
    return config_folder() / "accounts.toml"


def find(text: str, said: Settings, *, user_required: bool = True) -> tuple[Account, Settings]:
    """The account that a name or a URL means, and its settings; what was ``said`` for this run goes before them.

    Raises `UsageFault`, and `SettingFault` for what is wrong with the book.
    """
    if "://" in text:
        return parse_account(text, user_required=user_required), said
    if _NAME.fullmatch(text) is None:
        remedy = "give pop3s://user@host"
        if re.fullmatch(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+", text):
            remedy += f"; the server of an address is found by pop3cli discover {text}"
        raise UsageFault("account" if ":" in text else f"account {text!r}", "neither a URL nor a name", remedy)
    book = read_book()
    if text not in book:
        known = f"there are: {', '.join(sorted(book)[:20])}" if book else "none has been added yet"
        raise UsageFault(
            f"account {text}", f"no account of that name ({known})", f"add it: pop3cli account add {text} URL"
        )
    return book[text].account, replace(said.over(book[text].settings), title=text)


def said(settings: Settings) -> dict[str, str | float | bool | list[str]]:
    """Settings under their names in the book, those that say something."""
    found: dict[str, str | float | bool | list[str]] = {}
    for key, (attribute, _) in _KEYS.items():
        match getattr(settings, attribute):
            case None | () | False:
                pass
            case tuple() as several:
                found[key] = list(several)
            case Path() as path:
                found[key] = str(path)
            case value:
                found[key] = value
    return found


# --- changing ---


def add(entry: NamedAccount) -> None:
    """Write an account into the book. Raises `UsageFault` for a name that is taken or none, `SettingFault`,
    `OutputFailed`.
    """
    if _NAME.fullmatch(entry.name) is None:
        raise UsageFault(
            f"account {entry.name!r}", "not a name", "letters, digits and ._- , beginning with a letter or digit"
        )
    with _locked():
        text = _text_of_book()
        if entry.name in _entries(text):
            remedy = f"pop3cli account remove {entry.name} takes it away"
            raise UsageFault(f"account {entry.name}", "there is one of that name", remedy)
        _write(_with_table(text, entry))


def remove(name: str) -> NamedAccount:
    """Take an account out of the book; what it was. Raises `UsageFault` when there is none, and as `add` does."""
    if not book_path().exists():
        raise UsageFault(f"account {name}", "no account of that name")
    with _locked():
        text = _text_of_book()
        book = _entries(text)
        if name not in book:
            raise UsageFault(f"account {name}", "no account of that name", "pop3cli account list shows them")
        _write(_without_table(text, name))
        return book[name]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    folder = book_path().parent
    keep_out_of_others(folder)
    try:
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as fault:
        raise OutputFailed(str(folder), fault) from fault
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for the writing of one small file
        yield
    finally:
        os.close(descriptor)


def _with_table(text: str, entry: NamedAccount) -> str:
    """The file's text with an account's table at the end."""
    import tomlkit

    table = {"url": entry.account.url, **said(entry.settings)}
    for value in table.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and not part.isprintable():  # also what is no character: the file is UTF-8
                raise UsageFault("account add", f"{part!r} cannot be written into a file of settings")
    before = text if not text or text.endswith("\n") else f"{text}\n"
    return f"{before or _HEAD}\n{tomlkit.dumps({entry.name: table})}"


def _without_table(text: str, name: str) -> str:
    """The file's text without an account's table. Comments above it and below its last key stay.

    Raises `SettingFault`.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import Table, Whitespace

    try:
        document = tomlkit.parse(text)
    except TOMLKitError as fault:  # it is stricter than tomllib in places
        raise SettingFault(str(book_path()), f"not TOML: {fault}") from None
    place = [key is not None and key.key == name for key, _ in document.body].index(True)
    table = document[name]
    below = ""
    for key, item in reversed(table.value.body if isinstance(table, Table) else []):
        if key is not None:
            break
        below = item.as_string() + below
    document.remove(name)
    document.body[place] = (None, Whitespace(below))  # tomlkit takes it for a part of the table
    return tomlkit.dumps(document)


def _write(text: str) -> None:
    with whole_file(book_path(), mode=0o600) as stream:
        stream.write(text.encode())


# --- reading ---


def read_book() -> dict[str, NamedAccount]:
    """All named accounts; none where there is no book. Raises `SettingFault`."""
    return _entries(_text_of_book())


def _text_of_book() -> str:
    """The file's text; empty where there is no book. Raises `SettingFault`."""
    path = book_path()
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno())
            content = stream.read(_OCTETS_MAX + 1)
    except FileNotFoundError:
        return ""
    except OSError as fault:
        raise SettingFault(str(path), f"cannot be read: {fault.strerror or fault}") from None
    # it names commands that are run, and servers that passwords are sent to
    if mode.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or mode.st_uid not in (os.geteuid(), 0):
        raise SettingFault(str(path), "others may write it", f"chown it to yourself, and chmod 600 {path}")
    if len(content) > _OCTETS_MAX:
        raise SettingFault(str(path), f"larger than {_OCTETS_MAX} octets")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise SettingFault(str(path), f"not TOML: {fault}") from None


def _entries(text: str) -> dict[str, NamedAccount]:
    path = book_path()
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise SettingFault(str(path), f"not TOML: {fault}") from None
    return {name: _entry(name, table, path) for name, table in tables.items()}


def _entry(name: str, table: object, path: Path) -> NamedAccount:
    where = f"{path}, account {name}"
    if _NAME.fullmatch(name) is None or not isinstance(table, dict):
        raise SettingFault(where, "not a table with the name of an account")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "url":
            continue
        if key not in _KEYS:
            close = difflib.get_close_matches(key, ["url", *_KEYS], 1)
            raise SettingFault(where, f"unknown key {key!r}", f"did you mean {close[0]!r}?" if close else "")
        attribute, read = _KEYS[key]
        try:
            values[attribute] = read(value)
        except (TypeError, ValueError) as fault:
            raise SettingFault(where, f"{key}: {fault}") from None
    if not isinstance(table.get("url"), str):
        raise SettingFault(where, "no url", 'url = "pop3s://user@host"')
    try:
        account = parse_account(table["url"])
    except UsageFault as fault:
        raise SettingFault(where, str(fault)) from None
    return NamedAccount(name, account, Settings(**values))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is wanted")
    return value


def _file(value: object) -> Path:
    """A file; relative to the folder of the book."""
    return book_path().parent / Path(_text(value)).expanduser()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, value if isinstance(value, list) else [value]))


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value < 1e6:
        raise TypeError("seconds are wanted, 0.1 and more")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is wanted")
    return value


# each key of a table: the setting it is, and how it is read
_KEYS: Final[Mapping[str, tuple[str, Callable[[object], Any]]]] = {
    "cacert": ("cacert", _file),
    "pin": ("pins", _texts),
    "client_cert": ("client_cert", _file),
    "client_key": ("client_key", _file),
    "proxy": ("proxy", _text),
    "auth": ("auth", _text),
    "timeout": ("timeout", _seconds),
    "password_command": ("password_command", _text),
    "keyring": ("keyring", _flag),
    "oauth": ("oauth", _text),
    "oauth_client_id": ("oauth_client_id", _text),
    "oauth_scope": ("oauth_scope", _text),
}
