"""The chart of the README: one panel for each comparison that asks for one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benches.comparison import Comparison, Panel
from benches.measured import Measured
from benches.peers import SERVER_KEYS
from benches.units import format_ratio, format_seconds

# Legible on GitHub's light and dark grounds alike, as the chart's own ground is transparent.
_OURS: Final = "#2f81f7"
_OTHERS: Final = "#8b949e"
_TEXT: Final = "#727d88"

_COLUMNS: Final = 2
_WIDTH_INCHES: Final = 9.2
_SLOT_INCHES: Final = 0.29
_LEGEND: Final = (
    "Shorter bars are better.  2×: twice as fast as the first grey bar, so half its time; below 1× it is slower."
)
_LEGEND_INCHES: Final = 0.35
# Across a panel, whose width is 1: names end where bars begin, and the longest bar leaves room for its figures.
_BARS_START: Final = 0.4
_LONGEST_BAR: Final = 0.31
_GAP: Final = 0.012
# Down a panel, in slots of one bar each.
_TITLE_SLOT: Final = -2.0
_SUBTITLE_SLOT: Final = -1.15
_TOP_SLOT: Final = -2.8
_BOTTOM_SLOTS: Final = 0.6

_STYLE: Final[dict[Any, Any]] = {
    # Text stays text: small, searchable, and drawn in the reader's own font.
    "svg.fonttype": "none",
    # Identical figures give an identical file.
    "svg.hashsalt": "server-keys",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
}
_READERS_FONTS: Final = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


def draw_chart(comparisons: Sequence[Comparison], measured: Mapping[str, Measured], path: Path) -> None:
    """Write the chart as SVG."""
    shown = [
        (comparison, panel, measured[comparison.title])
        for comparison in comparisons
        if (panel := comparison.panel) and comparison.title in measured
    ]
    rows = -(-len(shown) // _COLUMNS)
    slots = max(len(panel.contestants) for _, panel, _ in shown) - _TOP_SLOT + _BOTTOM_SLOTS
    with mpl.rc_context(_STYLE):
        height = rows * slots * _SLOT_INCHES + _LEGEND_INCHES
        figure = Figure(figsize=(_WIDTH_INCHES, height))
        figure.text(0.01, 0.5 * _LEGEND_INCHES / height, _LEGEND, va="center", color=_TEXT, size=8.5)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False)
        figure.subplots_adjust(left=0.01, right=0.99, bottom=_LEGEND_INCHES / height, top=1, wspace=0.05, hspace=0)
        for axes in grid.flat:
            axes.set(xlim=(0, 1), ylim=(slots + _TOP_SLOT, _TOP_SLOT))
            axes.axis("off")
        for axes, (comparison, panel, figures) in zip(grid.flat, shown, strict=False):
            _draw_panel(axes, comparison, panel, figures)
        figure.savefig(path, transparent=True, metadata={"Date": None})
    path.write_text(path.read_text().replace("'DejaVu Sans'", _READERS_FONTS))


def _draw_panel(axes: Axes, comparison: Comparison, panel: Panel, measured: Measured) -> None:
    axes.text(0, _TITLE_SLOT, panel.title, va="center", color=_TEXT, weight="bold", size=11)
    axes.text(0, _SUBTITLE_SLOT, panel.subtitle, va="center", color=_TEXT, size=8.5)
    times = {
        contestant: measured.time(contestant, panel.fraction).value
        for contestant in panel.contestants
        if contestant in measured.samples
    }
    for slot, (contestant, time) in enumerate(times.items()):
        ours = contestant.startswith(SERVER_KEYS.name)
        bar = _LONGEST_BAR * time / max(times.values())
        axes.barh(slot, bar, left=_BARS_START, height=0.66, color=_OURS if ours else _OTHERS)
        figures = format_seconds(time)
        if ours and (speedup := comparison.speedup(measured, contestant)):
            figures += f"  ·  {format_ratio(speedup.value)}"
        text_color = _OURS if ours else _TEXT
        axes.text(_BARS_START - _GAP, slot, contestant, ha="right", va="center", color=text_color)
        axes.text(_BARS_START + bar + _GAP, slot, figures, ha="left", va="center", color=text_color)
