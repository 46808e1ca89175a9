"""What is wrong with a configuration, in the words of who writes it: a line for each fault, with what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["described", "toml_fault"]

_TABLES_OF_MANY: Final = ("listen", "tls.sni")
_SAMPLES: Final = {
    "listen.trusted_proxies": '["192.0.2.1/32"]',
    "auth.trusted_networks": '["192.0.2.1/32"]',
    "tls.sni.hosts": '["mail.example.org"]',
    "auth.mechanisms": '["plain"]',
}
_FORMS: Final = {
    "auth.default_domain": 'a domain without "@", such as "example.org"',
    "auth.pam.service": 'the name of a file in /etc/pam.d, such as "pop3", without its folder',
    "listen.mode": 'permissions of a file as octal digits, such as "0660"',
    "lmtp.recipient_delimiter": 'characters that may stand in an address, such as "+"',
    "lmtp.local_domains": 'domains without "@", such as ["example.org"]',
    "auth.backend": 'a name, such as "file", or where a plug-in is, as "package.module:Class"',
    "store.backend": 'a name, such as "maildir", or where a plug-in is, as "package.module:Class"',
}
"""What is wanted, where a pattern says it to programs only."""

_OF_TOML: Final = (  # words of `tomllib`; what is wrong, where those do not say it to everybody; what to do
    ("Invalid value", "", 'text stands in double quotes, and `true` and `false` are in lower case: key = "text"'),
    ("Illegal character", "a quotation mark is not closed", "close it in the same line"),
    ("Cannot overwrite a value", "this key stands there a second time", "remove one of them"),
    ("twice", "this table stands there a second time", "put the keys of both together"),
    ("Unescaped", "", "double each backslash, or use single quotes: 'C:\\folder'"),
    ("Expected '=' after a key", "there is no = behind the key", 'write key = "text"'),
    ("at the end of a table declaration", "a bracket is not closed", "write [table]"),
    ("at the end of an array declaration", "a bracket is not closed", "write [[table]]"),
    ("Unclosed array", "the bracket of a list is not closed", "write [1, 2]"),
    ("Invalid statement", "", 'a line is key = "text", [table] or # remark'),
)
"""What to do, by the words of `tomllib`."""


def described(fault: ValidationError, *above: str, of: type[BaseModel] | None = None) -> list[str]:
    """The faults of a table, a line each. ``above``: the table's name; ``of``: of the whole file, what it may have."""
    errors = [error for error in fault.errors() if not _is_a_consequence(error, fault)]
    unknown = [".".join(_keys(error, above)) for error in errors if error["type"] == "extra_forbidden"]
    meant = {close for key in unknown if of is not None and (close := _closest(key, of))}
    lines = (
        _described(error, above, of)
        for error in errors
        if error["type"] != "missing" or ".".join(_keys(error, above)) not in meant  # told by its other spelling
    )
    return list(dict.fromkeys(lines))


def toml_fault(fault: ValueError, octets: bytes) -> str:
    """One line for a file that is no TOML: where, what, what to do."""
    if isinstance(fault, UnicodeDecodeError):
        if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "not TOML: it is UTF-16; save it as UTF-8"
        line = octets[: fault.start].count(b"\n") + 1
        return f"not TOML: line {line} has an octet that is not UTF-8; save the file as UTF-8"
    text, _, where = str(fault).partition(" (at ")
    known = (one for one in _OF_TOML if one[0] in text)
    _, what, remedy = next(known, ("", "", "mend that line"))
    place = f"{where.removesuffix(')')}: " if where else ""
    return f"not TOML: {place}{what or text[:1].lower() + text[1:]}; {remedy}"


def _is_a_consequence(error: Any, fault: ValidationError) -> bool:
    """A list that is too short because what is in it is faulty."""
    if error["type"] != "too_short" or not error["input"]:
        return False
    return any(other["loc"][: len(error["loc"])] == error["loc"] for other in fault.errors() if other is not error)


def _keys(error: Any, above: Iterable[str]) -> list[str]:
    return [*above, *(part for part in error["loc"] if isinstance(part, str))]


def _described(error: Any, above: tuple[str, ...], of: type[BaseModel] | None) -> str:
    """A fault as one line."""
    name = ".".join(_keys(error, above))
    if error["type"] == "extra_forbidden":
        return f"unknown key `{name}`{'; remove it' if of is None else _remedy_for_unknown(name, of)}"
    if error["type"] == "missing":
        if name == "listen":
            return "`listen` is missing; at least one [[listen]] is needed"
        table, _, key = name.rpartition(".")
        return f"`{name}` is missing; add {key} = ... to {_bracketed(table)}" if table else f"`{name}` is missing"
    text = _text(name, error)
    return f"`{name}`: {text}" if name else text


def _text(name: str, error: Any) -> str:
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "tuple_type" if name in _TABLES_OF_MANY:
            return f"write [[{name}]], with two brackets: there may be several"
        case "tuple_type":
            return f"it is a list; write it in brackets: {_SAMPLES.get(name, '[...]')}"
        case "too_short" if name in _TABLES_OF_MANY:
            return f"at least one [[{name}]] is needed"
        case "too_short":
            return "the list is empty; name at least one"
        case "model_type":
            return f"it is a table; write {_bracketed(name)} with its keys below"
        case "string_type" | "path_type":
            return f"text is wanted; write it in double quotes{_quoted(error['input'])}"
        case "string_too_short":
            return "it is empty; fill it in or remove it"
        case "string_too_long":
            return f"it has more than {context['max_length']} characters"
        case "string_pattern_mismatch":
            return f"{_FORMS.get(name, 'it has characters that are not allowed')}"
        case "literal_error":
            return _none_of(error["input"], context["expected"])
        case "greater_than_equal":
            return f"it is too small; take at least {context['ge']}"
        case "greater_than":
            return f"it is too small; take more than {context['gt']}"
        case "less_than_equal":
            return f"it is too large; take at most {context['le']}"
        case "int_from_float":
            return "a whole number is wanted"
        case "value_error":
            text = str(context["error"])
            return text[:1].lower() + text[1:]
    text = str(error["msg"])
    return text[:1].lower() + text[1:]


def _quoted(value: object) -> str:
    return f": {json.dumps(str(value))}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _none_of(value: object, expected: str) -> str:
    """``expected``: as pydantic lists the values."""
    known = re.findall(r"'([^']*)'", expected)
    listed = ", ".join(json.dumps(one) for one in known)
    if not isinstance(value, str):
        what = "it stands without quotes" if str(value) in known else "text is wanted"
        return f"{what}; there are {listed}"
    return f"there is no {json.dumps(value[:64])}; there are {listed}{_did_you_mean(value.lower(), known)}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {json.dumps(close[0])}?" if close else ""


# --- unknown keys ---


def _remedy_for_unknown(name: str, of: type[BaseModel]) -> str:
    tables = dict(_tables(of))
    table, _, key = name.rpartition(".")
    if close := _closest(name, of):
        return f"; did you mean `{close.rpartition('.')[2]}`?"
    if key in tables:
        return f"; it is a table: write {_bracketed(key)}"
    if homes := [home for home, model in tables.items() if key in model.model_fields]:
        places = " or ".join(f"below {_bracketed(home)}" if home else "above the first table" for home in homes)
        return f"; its place is {places}"
    known = tables.get(table)
    return f"; {_bracketed(table) if table else 'the file'} has {', '.join(known.model_fields)}" if known else ""


def _closest(name: str, of: type[BaseModel]) -> str | None:
    """The key of the same table that is spelled most like it."""
    table, dot, key = name.rpartition(".")
    model = dict(_tables(of)).get(table)
    close = difflib.get_close_matches(key, model.model_fields if model is not None else (), n=1)
    return f"{table}{dot}{close[0]}" if close else None


def _tables(model: type[BaseModel], *above: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each table by its name, the whole file by an empty one."""
    yield ".".join(above), model
    for name, field in model.model_fields.items():
        if (inner := _model_in(field.annotation)) is not None:
            yield from _tables(inner, *above, name)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)


def _bracketed(table: str) -> str:
    return f"[[{table}]]" if table in _TABLES_OF_MANY else f"[{table}]"
