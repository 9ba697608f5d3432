"""How a benchmark file describes what it measures.

A file `bench_*.py` holds benchmarks and a tuple `COMPARISONS`, which says how its figures are read: the report and the
chart know nothing else, so a further file needs no entry elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benches.measured import MEDIAN, Estimate, Measured, NotMeasuredError
from benches.units import format_ratio, format_seconds


@dataclass(frozen=True)
class Target:
    """What the project set out to reach. Reported, never enforced: a busy machine is no defect."""

    goal: str
    figure: Callable[[Measured], Estimate]
    at_least: float | None = None
    at_most: float | None = None
    format_value: Callable[[float], str] = format_ratio

    def is_met(self, figure: Estimate) -> bool:
        return (self.at_least is None or figure.value >= self.at_least) and (
            self.at_most is None or figure.value <= self.at_most
        )


@dataclass(frozen=True)
class Panel:
    """The part of the chart that shows a comparison."""

    title: str
    subtitle: str
    contestants: tuple[str, ...]
    fraction: float = MEDIAN


@dataclass(frozen=True)
class Comparison:
    """Contestants that do the same work in turn."""

    title: str
    description: str
    reference: str | Mapping[str, str]
    """The contestant whose speed the others' are measured by; or for each contestant its own."""
    speedup_title: str
    """What the column of ratios is called."""
    quantiles: Mapping[str, float] = field(default_factory=lambda: {"median": MEDIAN})
    """The columns of times: title to quantile."""
    speedup_fraction: float = MEDIAN
    """The quantile that the ratios compare."""
    format_value: Callable[[float], str] = format_seconds
    """How the samples are written: what is not a time has a unit of its own."""
    targets: tuple[Target, ...] = ()
    panel: Panel | None = None

    def speedup(self, measured: Measured, contestant: str) -> Estimate | None:
        """A contestant's speed against its reference; none for a reference itself and where there is none."""
        reference = self.reference if isinstance(self.reference, str) else self.reference.get(contestant)
        if reference is None or reference == contestant:
            return None
        try:
            return measured.speedup(contestant, reference, self.speedup_fraction)
        except NotMeasuredError:
            return None
