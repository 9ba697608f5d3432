"""Recording measurements through pytest-benchmark, and reading them back from its JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benches.comparison import Comparison
from benches.measured import Measured


class Measure:
    """One turn of one contestant."""

    def __init__(self, benchmark: BenchmarkFixture, repetition: int) -> None:
        self._benchmark = benchmark
        self._repetition = repetition

    def __call__(
        self,
        comparison: Comparison,
        contestant: str,
        run: Callable[[], object],
        *,
        operations: int = 1,
        rounds: int | None = None,
    ) -> None:
        """Time `run` again and again.

        Args:
            comparison: what the figure belongs to.
            contestant: whose figure it is.
            run: what is timed.
            operations: how many operations one run is: times are reported for one.
            rounds: how often `run` runs, once a round; as many rounds as fill `--benchmark-max-time` if omitted.
        """
        self._label(comparison, contestant, operations=operations)
        if rounds is None:
            self._benchmark(run)
        else:
            self._benchmark.pedantic(run, rounds=rounds)

    def samples(self, comparison: Comparison, contestant: str, collect: Callable[[], Sequence[float]]) -> None:
        """Record what `collect` returns instead of how long it takes: seconds, or what else the comparison counts."""
        self._label(comparison, contestant)
        self._benchmark.extra_info["samples"] = list(self._benchmark.pedantic(collect))

    def _label(self, comparison: Comparison, contestant: str, operations: int = 1) -> None:
        self._benchmark.group = comparison.title
        self._benchmark.extra_info |= {
            "contestant": contestant,
            "repetition": self._repetition,
            "operations": operations,
        }


def read_measured(path: Path) -> dict[str, Measured]:
    """Read pytest-benchmark's JSON: what was measured, by the comparison's title."""
    by_title: dict[str, Measured] = {}
    for entry in json.loads(path.read_text())["benchmarks"]:
        info = entry["extra_info"]
        samples = info.get("samples") or [duration / info["operations"] for duration in entry["stats"]["data"]]
        by_title.setdefault(entry["group"], Measured()).add(info["contestant"], info["repetition"], samples)
    return by_title
