"""Fixtures for a real PostgreSQL."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgres import Cluster


@pytest.fixture(scope="module")
def cluster() -> "Iterator[Cluster]":
    from tests.postgres import Cluster  # needs an extra

    try:
        running = Cluster()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    yield running
    running.close()


@pytest.fixture
def database(cluster: "Cluster") -> str:
    """The conninfo of a new database with our tables."""
    return cluster.database()
