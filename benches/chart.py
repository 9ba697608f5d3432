"""The chart of the README: one panel for each comparison that asks for one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benches.comparison import Comparison, Panel
from benches.measured import Measured, NotMeasuredError
from benches.units import format_ratio, format_seconds

# Legible on GitHub's light and dark grounds alike, as the chart's own ground is transparent.
_OURS: Final = "#2f81f7"
_OTHERS: Final = "#8b949e"
_TEXT: Final = "#768390"
_STRONG_TEXT: Final = "#2f81f7"

_COLUMNS: Final = 2
_STYLE: Final[dict[Any, Any]] = {
    # Text stays text: small, searchable, and drawn in the reader's own font.
    "svg.fonttype": "none",
    # Identical figures give an identical file.
    "svg.hashsalt": "server-keys",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
}
_READERS_FONTS: Final = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


def draw_chart(comparisons: Sequence[Comparison], measured: Mapping[str, Measured], path: Path) -> None:
    """Write the chart as SVG."""
    shown = [(comparison, panel) for comparison in comparisons if (panel := comparison.panel)]
    rows = -(-len(shown) // _COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.15 * rows))
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06, hspace=0.08)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, (comparison, panel) in zip(grid.flat, shown, strict=False):
            _draw_panel(axes, comparison, panel, measured.get(comparison.title, Measured()))
        figure.savefig(path, transparent=True, metadata={"Date": None})
    path.write_text(path.read_text().replace("'DejaVu Sans'", _READERS_FONTS))


def _draw_panel(axes: Axes, comparison: Comparison, panel: Panel, measured: Measured) -> None:
    times = {}
    for contestant in panel.contestants:
        try:
            times[contestant] = measured.time(contestant, panel.fraction).value
        except NotMeasuredError:
            continue
    longest = max(times.values(), default=1)
    for row, (contestant, time) in enumerate(times.items()):
        ours = contestant.startswith("server_keys")
        axes.barh(row, time, height=0.62, color=_OURS if ours else _OTHERS)
        axes.text(-0.02 * longest, row, contestant, ha="right", va="center", color=_STRONG_TEXT if ours else _TEXT)
        label = format_seconds(time)
        speedup = comparison.speedup(measured, contestant)
        if ours and speedup:
            label += f"  ({format_ratio(speedup.value)})"
        axes.text(time + 0.02 * longest, row, label, ha="left", va="center", color=_STRONG_TEXT if ours else _TEXT)
    axes.set_xlim(-0.62 * longest, 1.32 * longest)
    axes.set_ylim(len(times) - 0.4, -1.75)
    axes.text(-0.62 * longest, -1.35, panel.title, ha="left", va="center", color=_TEXT, weight="bold", size=11)
    axes.text(-0.62 * longest, -0.78, panel.subtitle, ha="left", va="center", color=_TEXT, size=8.5)
