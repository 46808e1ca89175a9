"""From the real Dovecot and Courier to pop3d: every message keeps its unique-id, its size and its content."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import courier, dovecot
from tests.interop.moving import FORMATS, Result, courier_cases, dovecot_cases, results


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that Dovecot's user reaches; another run of pytest closes the folders above `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def wrong(found: list[Result]) -> list[str]:
    return [f"{one.case.name}: {one.before} became {one.moved}, then {one.lost}" for one in found if one.wrong]


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
def test_from_dovecot(place: Path) -> None:
    found = results(place, list(dovecot_cases(place)))
    assert wrong(found) == []
    assert len(found) > len(FORMATS)


@pytest.mark.skipif(courier.missing() is not None, reason=str(courier.missing()))
def test_from_courier(place: Path) -> None:
    found = results(place, list(courier_cases()))
    assert wrong(found) == []
    assert all(any(uid.startswith(b"UID") for uid, _, _ in one.before) for one in found)
