"""What one comparison measured: samples by contestant and repetition, and the figures made of them."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

MEDIAN: Final = 0.5
P99: Final = 0.99
MAXIMUM: Final = 1.0


class NotMeasuredError(LookupError):
    """A contestant did not run, for example because it needs more processors than there are."""


@dataclass(frozen=True)
class Estimate:
    """A figure and how far it moved from repetition to repetition."""

    value: float
    """The median of the repetitions."""
    low: float
    high: float

    @classmethod
    def of(cls, repetitions: Iterable[float]) -> "Estimate":
        figures = list(repetitions)
        return cls(statistics.median(figures), min(figures), max(figures))


def quantile(samples: Sequence[float], fraction: float) -> float:
    """The least sample that `fraction` of all samples do not exceed (nearest rank)."""
    return sorted(samples)[max(math.ceil(fraction * len(samples)) - 1, 0)]


@dataclass
class Measured:
    """The samples of one comparison, in seconds an operation.

    Contestants take turns: each repetition runs all of them once, so that what slows the machine down for a while slows
    down all of them, and a ratio is taken within a repetition.
    """

    samples: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Contestant to repetition to samples; contestants in the order in which they ran."""

    def add(self, contestant: str, repetition: int, samples: Iterable[float]) -> None:
        self.samples.setdefault(contestant, {}).setdefault(repetition, []).extend(samples)

    def time(self, contestant: str, fraction: float = MEDIAN) -> Estimate:
        """A quantile of a contestant's samples, in seconds.

        Raises:
            NotMeasuredError: the contestant did not run.
        """
        return Estimate.of(self._quantiles(contestant, fraction).values())

    def speedup(self, contestant: str, reference: str, fraction: float = MEDIAN) -> Estimate:
        """How many times as fast as `reference` a contestant is.

        Raises:
            NotMeasuredError: one of them did not run.
        """
        own, others = self._quantiles(contestant, fraction), self._quantiles(reference, fraction)
        return Estimate.of(others[repetition] / own[repetition] for repetition in own.keys() & others.keys())

    def _quantiles(self, contestant: str, fraction: float) -> dict[int, float]:
        if contestant not in self.samples:
            raise NotMeasuredError(f"{contestant!r} was not measured, only {', '.join(self.samples) or 'nothing'}")
        return {repetition: quantile(samples, fraction) for repetition, samples in self.samples[contestant].items()}
