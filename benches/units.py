"""Figures as people read them."""

import math


def format_seconds(seconds: float) -> str:
    """Three significant digits, in the unit that leaves at least one before the point."""
    if seconds < 0:
        return f"−{format_seconds(-seconds)}"
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 0.9995:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds * 1e9)} ns"


def format_ratio(ratio: float) -> str:
    return f"{_three_digits(ratio)}×"


def format_bytes(count: int) -> str:
    """Whole mebibytes or kibibytes where they are whole."""
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"


def format_mebibytes(count: float) -> str:
    """Three significant digits."""
    return f"−{format_mebibytes(-count)}" if count < 0 else f"{_three_digits(count / 1024**2)} MiB"


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(rounded)) if rounded else 0
    return f"{rounded:.{max(decimals, 0)}f}"
