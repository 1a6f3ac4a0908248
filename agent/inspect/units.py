"""Numbers as people read them."""

import math
from collections.abc import Sequence

DAY_SECONDS = 86_400.0
LONG_SECONDS = 100 * 3600.0
"""From here on a duration is in days."""

_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def show(value: float, unit: str) -> str:
    """Return the value with three digits and the unit's usual prefix.

    Args:
        value: in base units.
        unit: "ratio" (shown as a percentage), "s", "count", "B" (prefixes of 1024), or any unit
            with prefixes of 1000 (FLOP, FLOP/s, B/s, W, J).

    """
    if unit == "ratio":
        return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"
    if unit == "count":
        return f"{value:.0f}"
    if unit == "s":
        return show_seconds(value)
    step, prefixes = (1024.0, _BINARY) if unit == "B" else (1000.0, _DECIMAL)
    index = 0
    while abs(value) >= step * 0.9995 and index < len(prefixes) - 1:
        value /= step
        index += 1
    return f"{_three_digits(value)} {prefixes[index]}{unit}"


def show_seconds(seconds: float) -> str:
    """Return a duration: "0.420 s", "37.2 s", "4:05", "26:03:11", "12.5 d"."""
    if seconds < 60:
        return f"{_three_digits(seconds)} s"
    if seconds >= LONG_SECONDS:
        return f"{_three_digits(seconds / DAY_SECONDS)} d"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def some(names: Sequence[str], most: int) -> str:
    """Return names with commas, and of more than `most` how many are left out."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")  # first: 0.9996 has as many decimals as 1.00
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{min(decimals, 4)}f}"
