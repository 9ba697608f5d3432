"""The report: targets first, then a table for each comparison, in Markdown."""

from collections.abc import Callable, Mapping, Sequence

from benches.comparison import Comparison, Target
from benches.criterion import CoreBenchmark
from benches.measured import Estimate, Measured, NotMeasuredError
from benches.sharing import PERIOD_S, CallsToWorkers
from benches.units import format_ratio, format_seconds


def render_report(
    comparisons: Sequence[Comparison],
    measured: Mapping[str, Measured],
    core: Sequence[CoreBenchmark],
    calls: Sequence[CallsToWorkers],
    *,
    machine: str,
    chart_name: str,
    repetitions: int,
) -> str:
    """The whole of RESULTS.md."""
    sections = [
        "# Benchmarks",
        "One run of `make bench`, which writes this file.",
        machine,
        (
            f"The contestants took turns, {repetitions} times over. A figure is the median of its {repetitions} "
            "repetitions, in parentheses the least and the greatest of them; a ratio compares times of one repetition."
        ),
        f"![Chart of the figures below]({chart_name})",
        "## Targets",
        render_targets(comparisons, measured),
    ]
    for comparison in comparisons:
        sections += [f"## {comparison.title}", comparison.description]
        sections.append(render_comparison(comparison, measured.get(comparison.title, Measured())))
    sections += [
        "## Calls to several workers",
        (
            f"uvicorn runs so many workers, whose keys are replaced every {PERIOD_S:g} s. Clients call for 5 s, each "
            "time over a new connection. Our client keeps the key for as long as the server says, and tries again "
            "after a refusal (422). The simplest one fetches the key for each call, and takes a refusal for an answer. "
            "The last column says how soon after its making a key is at the last worker, which is long before it is "
            "published: the median, the least and the greatest time."
        ),
        render_calls(calls),
        "## The core without Python",
        "Criterion's medians, in parentheses their 95% confidence intervals.",
        _table(["", "time"], [[f"`{benchmark.name}`", _spread(benchmark.time)] for benchmark in core]),
    ]
    return "\n\n".join(sections) + "\n"


def render_targets(comparisons: Sequence[Comparison], measured: Mapping[str, Measured]) -> str:
    """A table of what was to be reached, and what was."""
    return _table(
        ["target", "measured", "met"],
        [
            _target_row(target, measured.get(comparison.title, Measured()))
            for comparison in comparisons
            for target in comparison.targets
        ],
    )


def render_comparison(comparison: Comparison, measured: Measured) -> str:
    """A table of one comparison's contestants, their times and their ratios."""
    return _table(
        ["", *comparison.quantiles, comparison.speedup_title],
        [
            [
                contestant,
                *(
                    _spread(measured.time(contestant, fraction), comparison.format_value)
                    for fraction in comparison.quantiles.values()
                ),
                _speedup_cell(comparison.speedup(measured, contestant)),
            ]
            for contestant in measured.samples
        ],
    )


def render_calls(calls: Sequence[CallsToWorkers]) -> str:
    """A table of what became of calls to several workers."""
    return _table(
        ["", "our client failed", "422s it got", "the simplest client failed", "a key at the last worker"],
        [
            [
                each.name,
                f"{len(each.ours.failed)} of {each.ours.calls:,}",
                str(each.ours.refusals),
                f"{len(each.others.failed)} of {each.others.calls:,}",
                _spread(each.arrival) if each.arrival else "",
            ]
            for each in calls
        ],
    )


def _target_row(target: Target, measured: Measured) -> list[str]:
    try:
        figure = target.figure(measured)
    except NotMeasuredError as error:
        return [target.goal, f"not measured: {error}", ""]
    low, high = target.format_value(figure.low), target.format_value(figure.high)
    return [
        target.goal,
        f"**{target.format_value(figure.value)}** ({low} – {high})",
        "yes" if target.is_met(figure) else "**no**",
    ]


def _speedup_cell(speedup: Estimate | None) -> str:
    if speedup is None:
        return ""
    return f"**{format_ratio(speedup.value)}** ({format_ratio(speedup.low)} – {format_ratio(speedup.high)})"


def _spread(figure: Estimate, format_value: Callable[[float], str] = format_seconds) -> str:
    return f"{format_value(figure.value)} ({format_value(figure.low)} – {format_value(figure.high)})"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source lines up, too: it is printed as it is."""
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [titles, rule, *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
