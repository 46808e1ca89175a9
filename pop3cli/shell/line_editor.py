"""Where a person's lines come from: prompt_toolkit with the extra ``shell``, else readline, else plain input.

What is remembered is one list of lines without those that may hold a password. With the extra it outlives the run, in
the user's state folder, readable by nobody else. What can be completed is the engine's table: commands that are valid
now, and numbers of messages that were seen.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pop3cli.errors import SettingFault
from pop3cli.files import keep_out_of_others, make_folder, state_folder
from pop3core.secrecy import is_harmless

try:
    import readline
except ImportError:  # not every Python has it; lines are then typed without editing
    readline = None  # type: ignore[assignment]

__all__ = ["Completer", "Lines", "history_file", "is_secret", "lines_of_a_person"]

_HISTORY_MAX: Final = 256 * 1024  # octets of the history that are kept from one run to the next
_FITTING_MAX: Final = 200  # completions that are offered
_OURS: Final = frozenset(("explain", "help"))  # words of the shell that no server hears

Completer = Callable[[str], Iterable[tuple[str, str]]]
"""Given the line up to the cursor, all that the word under it may become, each with a remark."""


class Lines(Protocol):
    """Gives one line after the other."""

    def next(self, prompt: str) -> str | None:
        """The next line without its end; None at Ctrl-D, or the end of input."""
        ...


def lines_of_a_person(complete: Completer, *, colored: bool, drawn: bool = True) -> Lines:
    """The best there is here. ``drawn``: standard output is a terminal too, on which a prompt can be drawn anew."""
    if drawn:
        with contextlib.suppress(ImportError):
            return _Prompted(complete, colored=colored)
    return _Typed(complete, colored=colored)


def is_secret(line: str) -> bool:
    """Whether a line that was typed in the shell may hold a password, or what proves to know it."""
    word, _, rest = line.strip().partition(" ")
    match word.lower():
        case "raw":
            return is_secret(rest)
        case "open":
            return re.search(r":[^/@]*@", rest) is not None  # a password in a URL, which is refused
        case known if known in _OURS:
            return False
        case _:
            return not is_harmless(line.strip().encode("utf-8", "surrogatepass"))


def history_file() -> Path:
    """Where lines are kept."""
    return state_folder() / "history"


def _fitting(complete: Completer, line: str) -> Iterator[tuple[str, str]]:
    word = line.rpartition(" ")[2].lower()
    count = 0
    for candidate, remark in complete(line):
        if candidate.startswith(word):
            yield candidate, remark
            count += 1
            if count == _FITTING_MAX:
                return


# --- prompt_toolkit ---


class _Prompted:
    """By prompt_toolkit. Raises ImportError where it is not installed."""

    def __init__(self, complete: Completer, *, colored: bool) -> None:
        kit: Any = importlib.import_module("prompt_toolkit")
        completion: Any = importlib.import_module("prompt_toolkit.completion")
        self._styled: Any = importlib.import_module("prompt_toolkit.formatted_text").FormattedText
        self._style = "bold ansicyan" if colored else ""

        class FromTable(completion.Completer):  # type: ignore[misc]
            def get_completions(self, document: Any, _event: Any) -> Iterator[Any]:
                before: str = document.text_before_cursor.lstrip()
                begun = len(before.rpartition(" ")[2])
                for candidate, remark in _fitting(complete, before):
                    yield completion.Completion(
                        f"{candidate} ", start_position=-begun, display=candidate, display_meta=remark
                    )

        self._session: Any = kit.PromptSession(
            completer=FromTable(), complete_while_typing=False, history=_history(), enable_open_in_editor=False
        )

    def next(self, prompt: str) -> str | None:
        try:
            return str(self._session.prompt(self._styled([(self._style, prompt)]))).lstrip()
        except EOFError:
            return None


def _history() -> Any:
    history: Any = importlib.import_module("prompt_toolkit.history")
    kept = _kept(history_file())
    base: Any = history.InMemoryHistory if kept is None else history.FileHistory

    class WithoutSecrets(base):  # type: ignore[misc]
        def append_string(self, string: str) -> None:
            if not is_secret(string):
                super().append_string(string)

    return WithoutSecrets() if kept is None else WithoutSecrets(str(kept))


def _kept(path: Path) -> Path | None:
    """The file, there, ours alone and not too long; None where there can be none."""
    with contextlib.suppress(OSError, SettingFault):
        keep_out_of_others(path.parent)
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b") as stream:
            os.fchmod(descriptor, 0o600)
            if os.fstat(descriptor).st_size > _HISTORY_MAX:
                stream.seek(-_HISTORY_MAX // 2, os.SEEK_END)
                _, _, last = stream.read().partition(b"\n\n")  # an entry begins behind an empty line
                stream.seek(0)
                stream.truncate()
                stream.write(last)
        return path
    return None


# --- without it ---


class _Typed:
    """By readline, where Python has it."""

    def __init__(self, complete: Completer, *, colored: bool) -> None:
        self._style = ("\001\033[1;36m\002", "\001\033[0m\002") if colored and readline else ("", "")
        self._complete = complete
        self._found: Sequence[str] = ()
        if readline:
            readline.set_auto_history(False)
            readline.set_completer_delims(" ")
            readline.set_completer(self._candidate)
            readline.parse_and_bind("tab: complete")

    def next(self, prompt: str) -> str | None:
        begin, end = self._style
        try:
            line = input(f"{begin}{prompt}{end}").lstrip()
        except EOFError:
            return None
        if readline and line and not is_secret(line):
            readline.add_history(line)
        return line

    def _candidate(self, _begun: str, index: int) -> str | None:
        """What readline asks for, one candidate after the other."""
        assert readline is not None
        if index == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()].lstrip()
            self._found = [f"{word} " for word, _ in _fitting(self._complete, line)]
        return self._found[index] if index < len(self._found) else None
