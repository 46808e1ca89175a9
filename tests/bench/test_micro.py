"""The benchmarks do the work that they say they measure."""

import pytest

from tests.bench.micro import BENCHMARKS, Benchmark


@pytest.mark.parametrize("benchmark_", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_each_benchmark_runs(benchmark_: Benchmark) -> None:
    assert benchmark_.ours()() > 0
    if benchmark_.other is not None and (step := benchmark_.other()) is not None:
        assert step() > 0
