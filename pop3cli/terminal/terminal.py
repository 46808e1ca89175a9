"""All that reaches the terminal goes through `Terminal`.

It knows what is on the other end: colours, widths and progress bars are for terminals only, and a pipe gets plain text
that nothing was cut from. Foreign text is made harmless here, and never read as markup. Whatever keeps output from
being written is an `OutputFailed`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TextIO

from pop3cli.errors import OutputFailed
from pop3cli.sanitize import sanitized, sanitized_lines

if TYPE_CHECKING:  # rich is slow to import, and plain output does without
    from rich.console import Console
    from rich.text import Text

    from pop3cli.terminal.progress import Meter
    from pop3cli.terminal.tables import Column, Table

__all__ = ["ContentPrinter", "Terminal"]

_THEME: Final = {
    "ok": "green",
    "err": "red",
    "error": "bold red",
    "warning": "yellow",
    "title": "bold underline",
    "label": "cyan",
    "number": "cyan",
    "strong": "bold",
    "faint": "dim",
    "quoted": "green",
}
_WRAPPED_MAX: Final = 200_000  # characters of text broken between words; more is left to the terminal


class Terminal:
    """Standard output and standard error, for one run. ``color``: wanted, where it can be shown."""

    def __init__(self, *, color: bool = True, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout or sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed (">&-") is as good as null
        self._stderr = stderr or sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        if isinstance(self._stdout, io.TextIOWrapper):
            self._stdout.reconfigure(errors="replace")  # a locale without a character is no reason to show nothing
        self._color = color and not os.environ.get("NO_COLOR")
        self.is_terminal = self._stdout.isatty()
        """Output is read by a person, as it comes."""

    @cached_property
    def _out(self) -> Console:
        return _console(self._stdout, self._color)

    @cached_property
    def _err(self) -> Console:
        return _console(self._stderr, self._color)

    @property
    def can_ask(self) -> bool:
        """There is somebody to ask."""
        return sys.stdin is not None and sys.stdin.isatty()

    @property
    def colored(self) -> bool:
        """Output is shown in colour."""
        return self._out.color_system is not None

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._out.width

    def can_show(self, text: str) -> bool:
        """Output's encoding has all the characters of ``text``."""
        try:
            text.encode(self._stdout.encoding or "utf-8")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    # --- lines ---

    def line(self, *pieces: str | tuple[str, str], aside: bool = False) -> None:
        """One line of texts, or of texts with their styles. ``aside``: on standard error."""
        stream = self._stderr if aside else self._stdout
        if not stream.isatty():
            with self.writing():
                stream.write(
                    "".join(sanitized(piece if isinstance(piece, str) else piece[0]) for piece in pieces) + "\n"
                )
            return
        self._print(self._err if aside else self._out, _assembled(pieces), soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark, on standard error."""
        self.line((text, "faint"), aside=True)

    def error(self, *texts: str) -> None:
        """One line that says what failed, and what to do."""
        with contextlib.suppress(OutputFailed):  # nowhere left to say it
            self.line(("pop3cli: ", "error"), "; ".join(texts), aside=True)

    def wire(self, who: str, line: str) -> None:
        """A line of a connection, on standard error, by who said it: "C", "S", or "-" for neither."""
        with contextlib.suppress(OutputFailed):
            style = {"C": "label", "S": "ok" if line.startswith("+") else "err" if line.startswith("-ERR") else ""}
            self.line((f"{who}: " if who != "-" else "-- ", "faint"), (line, style.get(who, "faint")), aside=True)

    def trace(self) -> None:
        """The traceback of the exception under way."""
        with contextlib.suppress(OSError):
            self._stderr.write(sanitized_lines(traceback.format_exc()))

    def body(self, text: str) -> None:
        """Text of many lines, foreign; on a terminal it is broken between words, and quotations stand out."""
        text = sanitized_lines(text).rstrip("\n")
        if not self.is_terminal or len(text) > _WRAPPED_MAX:  # rich takes a minute for what is shown at once
            self.write(text + "\n")
            return
        from rich.text import Text

        shown = Text("\n").join(Text(line, style="quoted" if line.startswith(">") else "") for line in text.split("\n"))
        self._print(self._out, shown)

    def table(self, columns: Sequence[Column], *, aside: bool = False) -> Table:
        """A table whose rows are shown as they come."""
        from pop3cli.terminal.tables import Table

        console = self._err if aside else self._out
        width = console.width if console.is_terminal else None
        return Table(columns, width, lambda row: self._print(console, row, soft_wrap=True))

    def ask(self, question: str) -> str | None:
        """What a person answers, in small letters; None at the end of input."""
        from rich.text import Text

        self._print(self._err, Text(sanitized_lines(question)), end="", soft_wrap=True)
        try:
            return input().strip().lower()
        except EOFError:
            self.line(aside=True)
            return None

    # --- for programs ---

    def json(self, value: Any) -> None:
        """A value as one line of JSON, all ASCII."""
        self.write(json.dumps(value) + "\n")

    @contextlib.contextmanager
    def json_array(self) -> Iterator[Callable[[Any], None]]:
        """An array whose elements are written as they come, a line for each."""
        separator = "[\n"

        def add(value: Any) -> None:
            nonlocal separator
            self.write(separator + json.dumps(value))
            separator = ",\n"

        yield add
        self.write("[]\n" if separator == "[\n" else "\n]\n")

    def write(self, text: str) -> None:
        """Text of our own, as it is."""
        with self.writing():
            self._stdout.write(text)

    def octets(self, data: bytes) -> None:
        """Exact octets. Not for a terminal: see `ContentPrinter`."""
        with self.writing():
            self._stdout.flush()
            self._stdout.buffer.write(data)

    def flush(self) -> None:
        """Make sure that all is written."""
        with self.writing():
            self._stdout.flush()

    # --- long work ---

    @contextlib.contextmanager
    def progress(self, label: str, total: int, *, octets: bool = True, alone: bool = False) -> Iterator[Meter]:
        """A bar on standard error while a block works on ``total`` octets, or things. On a terminal, if it lasts.

        ``alone``: the block writes nothing meanwhile.
        """
        from pop3cli.terminal.progress import Meter

        # where output runs over the same terminal, that is progress enough
        shown = self._stderr.isatty() and not (self.is_terminal and not octets and not alone)
        meter = Meter(label, total, octets, self._err if shown else None)
        try:
            yield meter
        finally:
            meter.stop()

    # --- writing ---

    def _print(self, console: Console, text: Text, *, end: str = "\n", soft_wrap: bool = False) -> None:
        with self.writing():
            if soft_wrap:
                console.print(text, end=end, soft_wrap=True)
            else:
                console.print(text, end=end, overflow="fold")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A block that writes to standard output by itself; what keeps it from that is an `OutputFailed`."""
        try:
            yield
        except OSError as fault:
            self._give_up_stdout()
            raise OutputFailed("standard output", fault) from fault

    def _give_up_stdout(self) -> None:
        # what is still buffered would fail again when Python ends, and spoil the exit status
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stdout.fileno())
            os.close(null)


def _console(stream: TextIO, color: bool) -> Console:
    from rich.console import Console
    from rich.theme import Theme

    class PlainEnd(Console):
        def on_broken_pipe(self) -> None:
            """Leave the pipe's end to `Terminal`, and not to rich, which would exit."""
            raise BrokenPipeError

    terminal = stream.isatty()
    return PlainEnd(
        file=stream,
        theme=Theme(_THEME),
        # not rich's own guess, which FORCE_COLOR and others can turn: colour is for terminals only
        force_terminal=terminal,
        color_system="auto" if terminal and color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _assembled(pieces: Sequence[str | tuple[str, str]]) -> Text:
    from rich.text import Text

    text = Text()
    for piece in pieces:
        content, style = (piece, "") if isinstance(piece, str) else piece
        text.append(sanitized(content), style=style)
    return text


# --- content ---


class ContentPrinter:
    """Shows a message's octets on a terminal, piece by piece, as harmless text; memory is one piece."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # a CR whose LF may come with the next piece
        self._at_line_start = True

    def feed(self, data: bytes) -> None:
        """The next piece."""
        self._show(self._decoder.decode(data))

    def end(self) -> None:
        """No more comes; the line under way is ended."""
        self._show(self._decoder.decode(b"", True), final=True)
        if not self._at_line_start:
            self._terminal.write("\n")

    def _show(self, text: str, *, final: bool = False) -> None:
        text, self._held = self._held + text, ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        if text:
            self._at_line_start = text.endswith(("\n", "\r"))
            self._terminal.write(sanitized_lines(text))
