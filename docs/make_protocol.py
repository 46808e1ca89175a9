"""Makes the generated parts of `docs/protocol.md` from the engine's tables: `python docs/make_protocol.py`.

A test compares what is in the file with what this makes.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pop3core.limits import DEFAULT_LIMITS, Limits
from pop3core.replies import CODES
from pop3core.sasl import MECHANISMS
from pop3core.table import RULES, Home, Rule, State
from pop3core.texts import LANGUAGES

PAGE = Path(__file__).parent / "protocol.md"
OPEN = (State.AUTHORIZATION, State.IDENTIFIED, State.TRANSACTION)
HOMES = {Home.ANY: "", Home.PLAIN: "before TLS", Home.TLS: "behind TLS"}


def commands() -> str:
    """The table, as a table."""
    head = (
        "| command | secret | reply | "
        + " | ".join(state.value for state in OPEN)
        + " | -ERR leads to | where | defined in |"
    )
    return "\n".join([head, "|---" * 9 + "|", *map(_row, RULES)])


def _row(rule: Rule) -> str:
    cells = [after.value if (after := rule.after(state)) else "" for state in OPEN]
    failed = rule.failed.value if rule.failed else ""
    secret = f"`{rule.secret.name}`" if rule.secret else ""
    return (
        "| "
        + " | ".join([f"`{rule.usage}`", secret, rule.reply.value, *cells, failed, HOMES[rule.home], rule.rfc])
        + " |"
    )


def diagram() -> str:
    """The states and what leads from one to another."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> AUTHORIZATION: greeting"]
    for state in OPEN:
        by_target: dict[State, list[str]] = {}
        for rule in RULES:
            after = rule.after(state)
            if after is not None and after is not state:
                by_target.setdefault(after, []).append(f"{rule.keyword} +OK")
            if after is not None and rule.failed not in (None, state, after):
                by_target.setdefault(rule.failed, []).append(f"{rule.keyword} -ERR")
        lines += [f"    {state.value} --> {after.value}: {', '.join(words)}" for after, words in by_target.items()]
    return "\n".join([*lines, "    CLOSED --> [*]", "```"])


def limits() -> str:
    """Every limit, with its default and its reason."""
    text = Path(__file__).parent.parent.joinpath("pop3core/limits.py").read_text()
    rows = []
    for field in dataclasses.fields(Limits):
        found = re.search(rf'{field.name}: int = .*?\n    """(.*?)"""', text, re.DOTALL)
        assert found is not None
        rows.append(f"| `{field.name}` | {getattr(DEFAULT_LIMITS, field.name):,} | {' '.join(found[1].split())} |")
    return "\n".join(["| limit | default | what for |", "|---|---|---|", *rows])


def mechanisms() -> str:
    """The SASL mechanisms and where each can be used."""
    rows = []
    for mechanism in MECHANISMS.values():
        needs = [
            word
            for word, wanted in (
                ("TLS", mechanism.plaintext),
                ("a channel binding", mechanism.channel_binding),
                ("a client certificate", mechanism.identity),
            )
            if wanted
        ]
        rows.append(f"| {mechanism.name} | {', '.join(needs)} |")
    return "\n".join(["| mechanism | needs |", "|---|---|", *rows])


def codes() -> str:
    """The response codes."""
    return "\n".join(
        ["| code | defined in |", "|---|---|", *(f"| `[{code}]` | {rfc} |" for code, rfc in CODES.items())]
    )


def languages() -> str:
    """The languages of replies."""
    return ", ".join(f"`{tag}` {name}" for tag, name in LANGUAGES.items())


PARTS = {function.__name__: function for function in (commands, diagram, limits, mechanisms, codes, languages)}


def made(page: str) -> str:
    """The page with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
