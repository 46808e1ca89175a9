"""How a command's run begins and ends.

Whatever goes wrong ends in `run_work`: one line on standard error, an exit status that says what it was, and a
traceback only for who asks with ``--debug``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeAlias

import typer

from pop3cli.accounts.url import Account
from pop3cli.errors import MailError, OutputFailed
from pop3cli.exit_status import ExitStatus
from pop3cli.options import Options, error_text
from pop3cli.terminal.terminal import Terminal

__all__ = ["LazyModule", "Work", "on_account_of", "run_work", "warn"]


class LazyModule:
    """A module of ours, imported when the first of its names is asked for: most runs need few."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(f"pop3cli.{self._name}"), name)


Work: TypeAlias = Callable[[Account, Options, Terminal], ExitStatus]
"""What a command does."""


def on_account_of(ctx: typer.Context, text: str, work: Work, *, user_required: bool = True) -> int:
    """Do a command's work on the account that ``text`` names, with its settings."""

    def on_account(terminal: Terminal) -> ExitStatus:
        warn(ctx.obj, terminal)
        from pop3cli.accounts.registry import find

        account, settings = find(text, ctx.obj.settings, user_required=user_required)
        return work(account, replace(ctx.obj, settings=settings), terminal)

    return run_work(ctx.obj, on_account)


def warn(options: Options, terminal: Terminal) -> None:
    """Say what is not safe about the options that were given."""
    if options.settings.insecure:  # RFC 8314 §5.2
        terminal.error("--insecure: the server is NOT verified: whoever answers in its place reads password and mail")


def run_work(options: Options, work: Callable[[Terminal], ExitStatus]) -> int:
    """Do a command's work; its exit status. Whatever failed is one line on standard error."""
    terminal = Terminal(color=options.color)
    # asyncio's remarks on connections that go are no one's help: what they mean is told as an error of ours
    logging.getLogger("asyncio").setLevel(logging.WARNING if options.debug else logging.CRITICAL)
    try:
        status = work(terminal)
        terminal.flush()
        return status
    except (Exception, KeyboardInterrupt) as fault:
        return _failed(fault, options, terminal)


def _failed(fault: BaseException, options: Options, terminal: Terminal) -> ExitStatus:
    with contextlib.suppress(OutputFailed):
        terminal.flush()  # what came before the error is shown before it
    if options.debug:
        terminal.trace()
    match fault:
        case OutputFailed(quiet=True):
            return fault.status
        case MailError():
            terminal.error(error_text(fault))
            return fault.status
        case KeyboardInterrupt():
            terminal.error("interrupted")
            return ExitStatus.INTERRUPTED
        case _:
            what = f"{type(fault).__name__}: {fault}"
            terminal.error(f"a bug of ours: {what}", "please report it, with what --debug shows")
            return ExitStatus.SOFTWARE
