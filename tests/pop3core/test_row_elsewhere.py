"""What a row of `pop3core/table.py` needs elsewhere. Each check says which command lacks what, and what to do."""

import ast
import inspect
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

import pytest

from pop3core import commands
from pop3core.capabilities import server_capabilities
from pop3core.server import ServerConnection
from pop3core.table import RULES, Rule, State
from pop3core.texts import _TEXTS
from tests.fuzz.__main__ import dictionary
from tests.pop3core import test_model
from tests.pop3core.play import server_in, transcripts
from tests.pop3core.test_syntax import BAD
from tests.test_rfc import RFCS

ENGINE = Path(commands.__file__).parent
OPEN = [State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION]
KEYWORDS = {rule.keyword for rule in RULES}
each = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.keyword)


def check(found: Collection[str], missing: str, surplus: str) -> None:
    """``found``: the keywords that there are. The texts say what to do for one that is missing, or is no row's."""
    faults = [missing.format(keyword=keyword) for keyword in sorted(KEYWORDS - set(found))]
    faults += [surplus.format(keyword=keyword) for keyword in sorted(set(found) - KEYWORDS)]
    assert not faults, "\n".join(faults)


# --- in pop3core ---


def test_each_command_has_a_handler() -> None:
    check(
        {command.keyword for command in ServerConnection._HANDLERS},
        "{keyword} has no handler: add one to ServerConnection._HANDLERS in pop3core/server.py",
        "{keyword} has a handler but no row: add one to RULES in pop3core/table.py, or remove the handler",
    )


def test_each_command_is_one_of_commands() -> None:
    check(
        {command.keyword for command in get_args(commands.Command)},
        "{keyword} is missing in the union Command at the end of pop3core/commands.py: add its class",
        "{keyword} is in the union Command of pop3core/commands.py: add a row to RULES in pop3core/table.py",
    )


@each
def test_each_command_is_public(rule: Rule) -> None:
    name = rule.command.__name__
    assert name in commands.__all__, f"{rule.keyword}: add {name!r} to __all__ of pop3core/commands.py"


SECRETS = {"string", "digest", "initial-response"}  # arguments that are a password, or prove to know one


@each
def test_no_secret_argument_is_shown(rule: Rule) -> None:
    for reader in rule.arguments:
        if reader.name in SECRETS:
            assert rule.secret is not None, (
                f"{rule.keyword}: transcripts and histories would show its argument {reader.name}: "
                "name it in the column `secret` of pop3core/table.py"
            )
            assert rule.secret.name == reader.name


# --- what is said can be said in each language ---

SPEAKING = {"_ok": 0, "_err": 0, "_bad_command": 0, "_without": 0, "translate": 1, "BadCommand": 0, "NoCredential": 0,
            "BadArgument": 0}  # fmt: skip
"""What says a text to a client, and which of its arguments that is."""


def texts(module: str) -> Iterator[tuple[str, int]]:
    """Each text that the module says to a client, with its line; what `write` functions say is for programmers."""
    tree = ast.parse((ENGINE / f"{module}.py").read_text())
    writers = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "write" in node.name]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(node in ast.walk(writer) for writer in writers):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        said = node.args[SPEAKING[name] :][:1] if name in SPEAKING else []
        for text in said:
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
                yield text.value, text.lineno


@pytest.mark.parametrize("module", ["server", "login", "syntax", "grammar"])
def test_each_text_is_translated(module: str) -> None:
    found = list(texts(module))
    assert found
    faults = [
        f"pop3core/{module}.py:{line}: {text!r} has no translation: add a row to _TEXTS in pop3core/texts.py"
        for text, line in found
        if text not in _TEXTS
    ]
    assert not faults, "\n".join(faults)


SAME = {
    "RETR": "a number and “octets”, made without a look at the language: it is said before each message",
    "UIDL": "with a number: a unique-id, and no words",
    "LANG": "it is answered in the language that it asks for",
}


@each
def test_each_reply_follows_lang(rule: Rule) -> None:
    for state in OPEN:
        said = {}
        for language in ("en", "de"):
            server = server_in(state)
            server.say(f"LANG {language}")
            said[language] = re.sub(r"[-+]OK|-ERR|\d+", "", server.say(rule.example).decode().partition("\r\n")[0])
        if said["en"].strip() and rule.keyword not in SAME:
            assert said["en"] != said["de"], (
                f"{rule.keyword} says{said['en']} in {state.value}, whatever LANG asked for: say it by self._ok or "
                "self._err, and translate it in _TEXTS of pop3core/texts.py; or say in SAME, above this test, why it "
                "is the same in each language"
            )


ANNOUNCED = {
    "USER": "USER", "PASS": "USER", "TOP": "TOP", "UIDL": "UIDL", "AUTH": "SASL", "STLS": "STLS", "LANG": "LANG",
    "UTF8": "UTF8", "APOP": "", "QUIT": "", "STAT": "", "LIST": "", "RETR": "", "DELE": "", "NOOP": "", "RSET": "",
    "CAPA": "",
}  # fmt: skip
"""By which capability CAPA announces a command; empty for what each server has, and for APOP: the greeting tells it."""


def test_each_command_is_announced() -> None:
    check(
        ANNOUNCED,
        "{keyword} is not announced (RFC 2449 §5): say in ANNOUNCED, above this test, by which capability CAPA tells "
        "of it, and add that to server_capabilities in pop3core/capabilities.py; or why by none",
        "{keyword} is in ANNOUNCED and has no row in pop3core/table.py",
    )
    told = server_capabilities(passwords=True, mechanisms=["PLAIN"], stls=True, utf8=True, languages=True)
    missing = {name for name in ANNOUNCED.values() if name} - {line.split()[0] for line in told}
    assert not missing, f"{missing}: add to server_capabilities in pop3core/capabilities.py"


# --- in tests and docs ---


def test_each_command_is_walked() -> None:
    said = set(re.findall(r"\b[A-Z][A-Z0-9]+\b", inspect.getsource(test_model.Walk)))
    missing = [
        f"{keyword} is said in no walk: add a rule to Walk in tests/pop3core/test_model.py"
        for keyword in KEYWORDS - said
    ]
    assert not missing, "\n".join(missing)


def test_each_command_is_in_the_fuzzers_dictionary() -> None:
    entries = re.findall(r'(?m)^"((?:[^"\\\n]|\\x[0-9a-f]{2})+)"$', dictionary())
    assert len(entries) == dictionary().count("\n"), "a line of dictionary() in tests/fuzz/__main__.py is no entry"
    check(
        {entry[:-1] for entry in entries if re.fullmatch("[A-Z0-9]+ ", entry)},
        "the fuzzer does not know {keyword}: add it to dictionary() in tests/fuzz/__main__.py",
        "the fuzzer knows {keyword}, which has no row in pop3core/table.py",
    )


def test_each_command_has_bad_lines() -> None:
    check(
        BAD,
        "{keyword} has no bad lines: add some to BAD in tests/pop3core/test_syntax.py, with each argument wrong once",
        "{keyword} has bad lines in BAD of tests/pop3core/test_syntax.py, and no row in pop3core/table.py",
    )


def test_each_command_is_said_in_a_dialogue() -> None:
    said = {line.split()[0].decode() for transcript in transcripts() for turn in transcript.turns
            for line in turn[0].upper().splitlines() if line.strip()}  # fmt: skip
    missing = [
        f"no dialogue says {keyword}: write one as its RFC does, in the form of those there, "
        "tests/pop3core/transcripts/rfc<number>-<§>-<name>.txt"
        for keyword in sorted(KEYWORDS - said)
    ]
    assert not missing, "\n".join(missing)


# --- its RFC ---

DEFINED = {
    # the headings of the RFCs themselves, read there and not in the table
    "RFC 1939 §4": {"QUIT"},
    "RFC 1939 §5": {"STAT", "LIST", "RETR", "DELE", "NOOP", "RSET"},
    "RFC 1939 §6": {"QUIT"},
    "RFC 1939 §7": {"TOP", "UIDL", "USER", "PASS", "APOP"},
    "RFC 2449 §5": {"CAPA"},
    "RFC 2595 §4": {"STLS"},
    "RFC 5034 §4": {"AUTH"},
    "RFC 6856 §2": {"UTF8"},
    "RFC 6856 §2.1": {"UTF8"},
    "RFC 6856 §3": {"LANG"},
}
"""Which commands a section of an RFC defines."""


def sections(text: str) -> set[str]:
    """``RFC 1939 §4, §6`` are two."""
    found = re.findall(r"(RFC \d+) ((?:§[\d.]*\d(?:, )?)+)", text)
    return {f"{rfc} {section}" for rfc, several in found for section in re.findall(r"§[\d.]*\d", several)}


@each
def test_each_citation_is_of_a_section_that_defines_the_command(rule: Rule) -> None:
    unread = {section for section in DEFINED if section.split()[1] not in RFCS}
    assert not unread, f"{unread}: DEFINED takes sections of the RFCs of tests/test_rfc.py alone"
    cited = sections(rule.rfc)
    assert cited, f"{rule.keyword}: the last column of pop3core/table.py cites no section, as “RFC 1939 §5” does"
    for section in cited:
        assert section in DEFINED, (
            f"{rule.keyword} cites {section}: read it, and if it defines {rule.keyword}, add it to DEFINED in "
            "tests/pop3core/test_row_elsewhere.py; if not, mend the last column of pop3core/table.py"
        )
        assert rule.keyword in DEFINED[section], (
            f"{rule.keyword} cites {section}, which defines {', '.join(sorted(DEFINED[section]))} and does not speak "
            f"of {rule.keyword}: mend the last column of pop3core/table.py"
        )
    defining = {section for section, keywords in DEFINED.items() if rule.keyword in keywords}
    assert cited == defining, f"{rule.keyword} is defined in {', '.join(sorted(defining - cited))} too: cite it"


@each
def test_each_command_cites_what_its_row_does(rule: Rule) -> None:
    said = sections(rule.command.__doc__ or "")
    assert said, f"{rule.command.__name__} in pop3core/commands.py: its docstring cites no section: ({rule.rfc})"
    assert said <= sections(rule.rfc), f"pop3core/commands.py: {rule.command.__name__} cites {said}, its row {rule.rfc}"


@each
def test_each_command_stands_in_the_changelog(rule: Rule) -> None:
    text = (ENGINE.parent / "CHANGELOG.md").read_text()
    what = f"{rule.keyword} stands nowhere in CHANGELOG.md: say there, below Added, what a user notices of it"
    assert re.search(rf"\b{rule.keyword}\b", text), what
