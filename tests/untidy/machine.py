"""What every part of the state machine of an untidy Maildir stands on: its rules, its world, and our process."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pop3d.stores import StoreError
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.untidy.kinds import Crashed, Fault, Leaked
from tests.untidy.process import Killed, OurProcess, open_below
from tests.untidy.session import IdBook, Session
from tests.untidy.world import World

T = TypeVar("T")

WHICH = st.integers(0, 11)  # see `pick`
FLAGS = st.sampled_from(["S", "", "RS", "F"])
PLACES = st.one_of(st.none(), FLAGS)  # new/, or cur/ with flags
KILLS = st.one_of(st.none(), st.integers(1, 8))


def step(needs: Callable[[Any], bool] = lambda _: True, **strategies: Any) -> Callable[[Any], Any]:
    """A rule that can be left out (`Machine.steps`), and whose faults can be passed over (`Machine.kinds`)."""

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def run(self: "Machine", **drawn: Any) -> None:
            self.run_step(function, drawn)

        def possible(self: "Machine") -> bool:
            # never `over`: it would make the choice of rules depend on more than the choices made before
            return (self.steps is None or function.__name__ in self.steps) and needs(self)

        return precondition(possible)(rule(**strategies)(run))

    return decorate


def pick(items: list[T], names_of: Callable[[T], set[str]], focus: str, which: int) -> T:
    """One of ``items``: for even numbers one with the unique part in ``focus``, if there is any.

    What goes wrong does so where steps meet on the same few files.
    """
    chosen = [item for item in items if focus in names_of(item)] if which % 2 == 0 else []
    chosen = chosen or items
    return chosen[which // 2 % len(chosen)]


class Machine(RuleBasedStateMachine):
    """Class attributes narrow a machine down, to hunt for one thing."""

    steps: ClassVar[frozenset[str] | None] = None
    """Names of the steps that are taken; None: all."""
    kinds: ClassVar[tuple[type[Fault], ...]] = (Fault,)
    """Faults that are told; a run that meets another one ends quietly."""
    options: ClassVar[dict[str, bool] | None] = None
    """Fixed options: ``mark_seen``, ``deleted``, ``at_rest``; None: any."""
    runs: ClassVar[int] = 0
    taken: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.over = False
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.session: Session | None = None
        self.ids = IdBook()

    @initialize(mark_seen=st.booleans(), deleted=st.booleans(), at_rest=st.booleans(), messages=st.integers(1, 3))
    def start(self, mark_seen: bool, deleted: bool, at_rest: bool, messages: int) -> None:
        fixed = self.options or {}
        self.deleted = fixed.get("deleted", deleted)
        self.process = OurProcess(at_rest=fixed.get("at_rest", at_rest))
        kept = f"{self.world.base}/deleted/{{user}}" if self.deleted else ""
        self.store_options = MaildirOptions(mark_seen=fixed.get("mark_seen", mark_seen), deleted=kept)
        self.stores = [self.new_store(), self.new_store()]
        for _ in range(messages):
            self.world.arrive("plain", None)

    def new_store(self) -> MaildirStore:
        """One more process on the same state."""
        return MaildirStore(f"{self.world.mail}/{{user}}", Path(self.world.state), self.store_options)

    def run_step(self, function: Callable[..., None], drawn: dict[str, Any]) -> None:
        """Run a step, unless a fault was met that is not asked for."""
        if self.over:
            return
        type(self).taken += 1
        try:
            function(self, **drawn)
        except Fault as fault:
            self.over = True
            if isinstance(fault, self.kinds):
                raise

    def finish(self) -> None:
        """The last step."""

    def teardown(self) -> None:
        try:
            self.run_step(type(self).finish, {})
        finally:
            if self.session is not None:
                self.loop.run_until_complete(self.session.drop.close())
            self.loop.close()
            self.world.close()

    # --- our process ---

    def ours(self, work: Coroutine[Any, Any, T] | Callable[[], T], kill: int | None = None) -> T:
        """Do something as pop3d. Raises what it raises, and `Crashed` for what no caller expects."""
        try:
            with self.process.running(kill):
                return self.loop.run_until_complete(work) if isinstance(work, Coroutine) else work()
        except (StoreError, OSError, Killed):
            raise
        except Exception as bug:
            raise Crashed(f"{type(bug).__name__}: {bug}") from bug

    def died(self) -> None:
        """The process is dead: what it held is free, and others are started."""
        if self.session is not None:
            session, self.session = self.session, None
            try:
                with self.process.running(1):
                    self.loop.run_until_complete(session.drop.close())
            except (Killed, OSError, StoreError):
                pass
        for descriptor in open_below(self.world.base):
            os.close(descriptor)
        self.stores = [self.new_store(), self.new_store()]

    @contextlib.contextmanager
    def another_process(self) -> Iterator[None]:
        """A program beside the daemon: whatever it has opened is closed when it ends."""
        before = open_below(self.world.base)
        try:
            yield
        finally:
            for descriptor in set(open_below(self.world.base)) - set(before):
                os.close(descriptor)

    def check_closed(self) -> None:
        """No descriptor of a session stays open."""
        if found := open_below(self.world.base):
            raise Leaked(f"descriptors {found} are still open")
