"""``pop3cli shell``: the protocol, spoken by a person, or by a script through a pipe.

What can be typed is the engine's table: `pop3core.syntax` reads a line by it, a wrong one is answered here and never
sent, and ``help`` shows it. To these come ``open``, ``help``, ``explain``, and ``raw`` for what nothing checks. What
the server says is shown as it says it, made harmless.

A person and a pipe differ in what an end means. At a terminal, a command that fails is only told; Ctrl-C ends the
command at hand, and with it the connection, for the rest of a reply cannot be called back; Ctrl-D asks what to do with
what is marked. From a pipe, the exit status is that of the first thing that failed, and an end without ``quit`` commits
nothing and says so. In both, ``quit`` commits, and a server that goes away ends the shell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pop3cli.accounts.registry import find
from pop3cli.accounts.url import Account, Settings
from pop3cli.auth.login import MECHANISMS, LoginPlan, way_to, with_secret
from pop3cli.auth.passwords import prompt_password
from pop3cli.errors import MailError, NotConnected, UsageFault, refusal, text_of
from pop3cli.exit_status import ExitStatus
from pop3cli.mailbox.visit import Visit
from pop3cli.options import Options, error_text
from pop3cli.shell.explain import explained
from pop3cli.shell.line_editor import Lines, lines_of_a_person
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import ContentPrinter, Terminal
from pop3core.commands import Auth, Command, Dele, Pass, Quit, Rset, Stls, User
from pop3core.events import (
    CapabilityItem,
    ContentEnded,
    ContentReceived,
    LanguageItem,
    ListEnded,
    ListItem,
    Replied,
    StatItem,
    UidItem,
)
from pop3core.syntax import BadCommand, parse
from pop3core.table import RULE_OF, RULES, State

__all__ = ["Shell"]

_OURS: Final = {
    "explain": "what the last reply means, by its RFC",
    "help": "all commands",
    "open": "connect to a named account, or pop3s://[user@]host[:port]",
    "raw": "say a line as it is, unchecked",
}
_REMARK_MAX: Final = 80  # characters of a remark beside a completion
_KNOWN_MAX: Final = 1000  # messages whose numbers are completed
_RULES: Final = {rule.keyword.lower(): rule for rule in RULES}


class _Ended(Exception):
    """The shell is to end with this status."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__(status)
        self.status = status


class Shell:
    """One run of the shell."""

    def __init__(self, options: Options, terminal: Terminal) -> None:
        self._options = options
        self._terminal = terminal
        self._asking = terminal.can_ask
        self._lines: Lines = (
            lines_of_a_person(self._complete, colored=terminal.colored, drawn=terminal.is_terminal)
            if self._asking
            else _Piped()
        )
        self._visit = Visit(options.new_trace())
        self._known: dict[int, str] = {}  # messages that were seen, with a remark
        self._marked: set[int] = set()
        self._last: tuple[Replied, State] | None = None
        self._account: Account | None = None
        self._entrance: tuple[LoginPlan, Settings] | None = None  # as opened, without a secret
        self._failed = ExitStatus.OK  # the first failure's, from a pipe

    def run(self, account: str | None) -> ExitStatus:
        """Read and do commands to the end; the exit status. ``account``: to begin with, a name or a URL."""
        with self._visit:
            if account is not None:
                self._open(account)
            elif self._asking:
                self._terminal.note("not connected; open pop3s://user@host connects, help shows all commands")
            try:
                while True:
                    self._step()
            except _Ended as end:
                return end.status

    def _step(self) -> None:
        """One line, and what it asks for."""
        try:
            line = self._lines.next(self._prompt())
        except KeyboardInterrupt:
            if not self._asking:
                raise
            self._terminal.line()
            return
        connected = self._visit.session.connected
        try:
            if line is None:
                self._end_of_input()
            elif line:
                self._do(line)
        except KeyboardInterrupt:
            if not self._asking:
                raise
            self._interrupted(connected)
        except MailError as fault:
            if connected and not self._visit.session.connected:
                raise  # the server is gone, and with it what was marked: not a thing to go on after
            self._tell(fault)

    def _tell(self, fault: MailError) -> None:
        self._terminal.flush()
        self._terminal.error(error_text(fault))
        self._note_failure(fault.status)

    def _note_failure(self, status: ExitStatus) -> None:
        if not self._asking and self._failed is ExitStatus.OK:
            self._failed = status

    def _prompt(self) -> str:
        session = self._visit.session
        if not session.connected or self._account is None:
            return "not connected> "
        if session.state is not State.TRANSACTION:
            return f"{self._account.host}, not logged in> "
        marked = f", {session.marked} marked" if session.marked else ""
        return f"{self._account.name}{marked}> "

    # --- what can be typed ---

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word.lower():
            case "help":
                self._help()
            case "explain":
                self._explain()
            case "raw":
                self._raw(rest)
            case "auth":
                self._auth(rest)
            case "open":
                if not rest.strip():
                    raise UsageFault("open", "usage: open ACCOUNT, a name or pop3s://[user@]host[:port]")
                self._open(rest.strip())
            case "quit" if not self._visit.session.connected:
                raise _Ended(self._failed)
            case _:
                self._say(self._read(word, rest, line))

    def _read(self, word: str, rest: str, line: str) -> Command:
        """The command that was typed, by the table."""
        is_pass = word.lower() == "pass"
        if is_pass and not rest and self._asking:
            self._require_connection("PASS")
            return Pass(prompt_password("Password: "))
        try:
            # RFC 1939 §7 PASS: blanks are part of a password, at its end too
            command = parse((line if is_pass else line.rstrip()).encode("utf-8", "surrogateescape"))
        except BadCommand as fault:
            # a word that is none of ours may be a password that was typed too early
            known = word.lower() in _RULES
            raise UsageFault(word if known else "this line", str(fault), "" if known else "see help") from None
        if isinstance(command, Stls):
            raise UsageFault(word, "not spoken in the shell", "open pop3://HOST, which begins with it")
        return command

    def _complete(self, line: str) -> Iterator[tuple[str, str]]:
        """What the word at the end of ``line`` may be: a command that is valid now, or a message that was seen."""
        word, blank, rest = line.partition(" ")
        state = self._visit.session.state
        if not blank:
            found = {name: rule.usage for name, rule in _RULES.items() if rule.after(state) is not None} | _OURS
            yield from sorted(found.items())
        elif word.lower() in _RULES and not rest.count(" "):
            first = next(iter(_RULES[word.lower()].arguments), None)
            if first is not None and "msg" in first.usage:
                there = ((number, remark) for number, remark in self._known.items() if number not in self._marked)
                yield from ((str(number), remark) for number, remark in there)

    def _see(self, number: int, remark: str) -> None:
        if len(self._known) < _KNOWN_MAX or number in self._known:
            self._known[number] = remark[:_REMARK_MAX]

    def _explain(self) -> None:
        if self._last is None:
            raise UsageFault("explain", "the server has not answered anything yet")
        for title, text in explained(*self._last):
            self._terminal.line((f"{title:<13} ", "label"), text)

    def _raw(self, line: str) -> None:
        self._require_connection("raw")
        if not line:
            raise UsageFault("raw", "usage: raw LINE")
        self._visit.do(self._say_raw(line.encode("utf-8", "surrogateescape")))

    async def _say_raw(self, line: bytes) -> None:
        printer = ContentPrinter(self._terminal)
        try:
            async for piece in self._visit.session.raw(line):
                printer.feed(piece)
        finally:
            printer.end()

    def _open(self, text: str) -> None:
        session = self._visit.session
        account, settings = find(text, self._options.settings, user_required=False)
        entrance = way_to(account, settings)
        prepared = entrance if account.user is None else with_secret(entrance, settings)
        self._known, self._marked, self._last = {}, set(), None
        greeting = self._visit.do(entrance.connect(session))
        self._account, self._entrance = account, (entrance, settings)
        self._status_line(greeting.ok, greeting.code, greeting.text)
        if account.user is not None:
            self._log_in(prepared)

    def _auth(self, text: str) -> None:
        """Log in by a mechanism that is named: an exchange of several lines, which nobody could type."""
        self._require_connection("AUTH")
        known = [name for name in MECHANISMS if name != "USER"]
        mechanism = text.strip().upper()
        if mechanism not in known:
            raise UsageFault("auth", "usage: auth MECHANISM", f"one of {', '.join(known).lower()}")
        account = self._account
        assert account is not None and self._entrance is not None
        if account.user is None and mechanism != "EXTERNAL":
            raise UsageFault("auth", "who logs in is not known", "open pop3s://user@host, or say user NAME before")
        entrance, settings = self._entrance
        self._log_in(with_secret(replace(entrance, account=account, auth=mechanism), settings))

    def _log_in(self, entrance: LoginPlan) -> None:
        session = self._visit.session
        before = session.state
        mechanism, text = self._visit.do(entrance.log_in(session))
        self._last = Replied(Pass(b"") if mechanism == "USER" else Auth(mechanism), True, None, text), before
        self._status_line(True, None, text)

    def _say(self, command: Command) -> None:
        """Say a command to the server, and show its answer."""
        self._require_connection(command.keyword)
        said = self._visit.do(self._exchange(command))
        if isinstance(command, User) and said.ok and self._account is not None:
            self._account = replace(self._account, user=command.name)
        status = ExitStatus.OK if said.ok else refusal("", said).status
        self._note_failure(status)
        if said.ok and isinstance(command, Dele):
            self._marked.add(command.number)
        elif said.ok and isinstance(command, Rset):
            self._marked.clear()
        if isinstance(command, Quit):
            raise _Ended(self._failed or status)

    def _require_connection(self, keyword: str) -> None:
        if not self._visit.session.connected:
            raise NotConnected(keyword, "not connected to a server", "open pop3s://user@host first")

    # --- what the server says ---

    async def _exchange(self, command: Command) -> Replied:
        """Say a command and show all of the answer, as it comes; its status line."""
        status, before = Replied(command, False, None, ""), self._visit.session.state
        lines = RULE_OF[type(command)].has_lines(command)
        printer = ContentPrinter(self._terminal)
        async for said in self._visit.session.exchange(command):
            match said:
                case Replied():
                    status = said
                    self._last = (said, before)
                    self._status_line(said.ok, said.code, text_of(said))
                case ListItem(number, octets) if lines:
                    self._see(number, f"{octets} octets")
                    self._terminal.line((str(number), "number"), f" {octets}")
                case UidItem(number, uid) if lines:
                    self._see(number, uid)
                    self._terminal.line((str(number), "number"), f" {uid}")
                case CapabilityItem(line):
                    self._terminal.line(line)
                case LanguageItem(tag, name):
                    self._terminal.line((tag, "strong"), f" {name}")
                case ContentReceived(data):
                    printer.feed(data)
                case ContentEnded():
                    printer.end()
                    self._terminal.line((".", "faint"))
                case ListEnded() if lines:
                    self._terminal.line((".", "faint"))
                case StatItem(messages, _):
                    for number in range(1, min(messages, _KNOWN_MAX) + 1):
                        self._known.setdefault(number, "")
                case _:
                    pass  # the single answers of STAT, LIST n and UIDL n stand in their status line
        return status

    def _status_line(self, ok: bool, code: str | None, text: str) -> None:
        words = [f"[{code}]"] if code else []
        self._terminal.line(("+OK" if ok else "-ERR", "ok" if ok else "err"), *(f" {w}" for w in (*words, text) if w))

    def _help(self) -> None:
        table = self._terminal.table(
            (Column("Command", 14, "strong"), Column("Valid in", 42, share=1), Column("Defined in", 17, "faint"))
        )
        table.row("open URL", "not connected (pop3s://[user@]host[:port])", "")
        for rule in RULES:
            states = [state.value for state in State if rule.after(state) is not None]
            table.row(rule.usage.replace(rule.keyword, rule.keyword.lower()), ", ".join(states), rule.rfc)
        for word in ("explain", "help", "raw LINE"):
            table.row(word, _OURS[word.partition(" ")[0]], "")

    # --- how it ends ---

    def _interrupted(self, connected: bool) -> None:
        """Ctrl-C in a command: the rest of a reply cannot be called back, so the connection is dropped."""
        self._terminal.line()
        session = self._visit.session
        if session.busy:
            self._visit.do(session.close())
        if connected and not session.connected:
            self._terminal.note("interrupted: the connection is dropped, and nothing that was marked is deleted")

    def _end_of_input(self) -> None:
        session = self._visit.session
        if self._asking and session.state is State.TRANSACTION:
            self._ask_how_to_end()
            return
        if session.marked:
            self._terminal.flush()
            self._terminal.error(f"input ended without quit: {session.marked} marked message(s) are not deleted")
            self._note_failure(ExitStatus.SOME_FAILED)
        raise _Ended(self._failed)

    def _ask_how_to_end(self) -> None:
        marked = self._visit.session.marked
        what = "1 message is marked" if marked == 1 else f"{marked or 'no'} messages are marked"
        answer = self._terminal.ask(f"\n{what}: [c]ommit and quit, [l]eave without deleting, or [s]tay? ")
        match answer:
            case "c" | "commit":
                self._say(Quit())
            case "l" | "leave" | None:  # None: Ctrl-D once more
                raise _Ended(ExitStatus.OK)
            case _:
                pass


# --- where lines come from ---

_LINE_MAX: Final = 64 * 1024  # octets of a script's line; the engine takes 255


class _Piped:
    """Lines of a script."""

    def next(self, prompt: str) -> str | None:
        """The next line without its end; None at the end of input."""
        line = sys.stdin.buffer.readline(_LINE_MAX)
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape").lstrip() if line else None
