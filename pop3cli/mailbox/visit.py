"""A visit to a mailbox by plain code, one piece after the other.

A program that asks a person between the pieces runs them on an event loop of its own, so that Ctrl-C is then the
person's business and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from pop3cli.accounts.url import Account
from pop3cli.auth.login import prepare
from pop3cli.net.session import Session
from pop3cli.net.trace import Trace
from pop3cli.options import Options

__all__ = ["Visit", "logged_in"]

_T = TypeVar("_T")


class Visit:
    """A session and the loop it runs on; both end with the block. Without a QUIT the server then deletes nothing."""

    def __init__(self, trace: Trace | None = None) -> None:
        self._runner = asyncio.Runner()
        self.session = Session(trace=trace)

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self.session.close())

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end. Ctrl-C cancels it, and is raised here as KeyboardInterrupt."""
        return self._runner.run(work)


@contextmanager
def logged_in(account: Account, options: Options) -> Iterator[Visit]:
    """A visit that is logged in. What can be wrong on our side is found before a connection is made."""
    login_plan = prepare(account, options.settings)
    with Visit(options.new_trace()) as visit:
        visit.do(login_plan.connect(visit.session))
        visit.do(login_plan.log_in(visit.session))
        yield visit
