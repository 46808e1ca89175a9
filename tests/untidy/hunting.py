"""Runs of a machine: so many, from a seed, until a fault is found."""

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.untidy.kinds import Fault
from tests.untidy.machine import Machine

STEPS = 30
"""Of one run, at most."""


def hunt(machine: type[Machine], number: int, runs: int, *, shrink: bool = True) -> None:
    """Try some runs from the seed ``number``. Raises the first `Fault`, with the steps that lead to it in its notes.

    One that depends on the machine's other work, an inode number that is given again, say, comes as Hypothesis's
    `FlakyFailure`, a group that holds it.
    """
    how = settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(machine), settings=how)


def narrowed(
    machine: type[Machine], kinds: tuple[type[Fault], ...], steps: str, options: dict[str, bool] | None = None
) -> type[Machine]:
    """A machine that tells only faults of these kinds, takes only these steps, and has these options."""
    limits = {"kinds": kinds, "steps": frozenset(steps.split()), "options": options, "runs": 0, "taken": 0}
    return type(machine.__name__, (machine,), limits)
