"""The mutator makes the mistakes that it should, and what is explained is still there."""

from pathlib import Path

from tests import mutation

SOURCE = '''"""A module."""

ROWS = (
    Row(One, 1, True),
    Row(Two, 2, False),
)


def decide(limit: int, names: list[str]) -> bool:
    """Text is left alone: 5 < 6."""
    assert limit > 0
    if limit >= 10 and not names:
        names.clear()
    return limit == 3
'''


def test_mistakes_of_a_small_module() -> None:
    found = {(mutant.line, mutant.mutation) for mutant in mutation.mutants("small", SOURCE)}
    for expected in (
        (4, "One -> Two"),
        (4, "True -> False"),
        (12, "limit >= 10 -> (limit > 10)"),
        (12, "10 -> (11)"),
        (12, "limit >= 10 and not names -> (limit >= 10 or not names)"),
        (12, "not names -> (names)"),
        (13, "names.clear() -> pass"),
        (14, "limit == 3 -> (limit != 3)"),
        (14, "return limit == 3 -> return None"),
    ):
        assert expected in found, sorted(found)
    assert not [line for line, _ in found if line in (1, 9, 10, 11)]
    for mutant in mutation.mutants("small", SOURCE):
        assert mutant.source != SOURCE
        compile(mutant.source, "small", "exec")


def test_what_is_explained_is_still_there() -> None:
    root = Path(mutation.ROOT) / "pop3core"
    modules = {module for module, _, _ in mutation.EQUIVALENT}
    keys = {
        mutant.key for module in modules for mutant in mutation.mutants(module, (root / f"{module}.py").read_text())
    }
    assert mutation.EQUIVALENT.keys() <= keys, mutation.EQUIVALENT.keys() - keys
    assert all(mutation.EQUIVALENT.values())
