"""Round numbers for axes, and where values lie on them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from agent.inspect.units import show, show_seconds

MOST_STEPS = 4
"""So many numbers fit beside a figure that is as high as a few lines of text."""

_SECONDS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400),
)
_DECIMAL = tuple(step * 10.0**power for power in range(-2, 19) for step in (1, 2, 5))
_BINARY = tuple(2.0**power for power in range(61))


class Scale(NamedTuple):
    """A linear scale from 0 to `top`, with a mark at each of `marks`."""

    top: float
    marks: Sequence[float]

    def share(self, value: float) -> float:
        """Return how far up a value is: 0 to 1."""
        return min(1.0, max(0.0, value / self.top))


def scale(highest: float, unit: str) -> Scale:
    """Return a scale that holds values up to `highest`; shares always reach from 0 to 1."""
    if unit == "ratio":
        return Scale(1.0, (0.0, 0.5, 1.0))
    if not (math.isfinite(highest) and highest > 0):
        return Scale(1.0, (0.0, 1.0))
    step = _step(highest, _BINARY if unit == "B" else _DECIMAL)
    steps = math.ceil(highest / step)
    return Scale(steps * step, [number * step for number in range(steps + 1)])


def mark_words(value: float, unit: str) -> str:
    """Return the words beside a mark: "50%", "2 GiB", "0"."""
    if value == 0:
        return "0"
    if unit == "ratio":
        return f"{value:.0%}"
    number, _, prefixed = show(value, unit).partition(" ")
    return f"{float(number):g} {prefixed}"


def time_marks(seconds: float, most: int = MOST_STEPS) -> list[float]:
    """Return round moments within a job's time, in seconds from its start."""
    step = _step(seconds, _SECONDS, most)
    return [number * step for number in range(math.floor(seconds / step) + 1)]


def time_words(seconds: float) -> str:
    """Return a moment as a mark on an axis: "0", "10 s", "4:00:00"."""
    if seconds == 0:
        return "0"
    return f"{seconds:g} s" if seconds < 60 else show_seconds(seconds)


def _step(highest: float, steps: Sequence[float], most: int = MOST_STEPS) -> float:
    """Return the shortest step of which a few reach the highest value, or multiples of the last."""
    for step in steps:
        if highest <= step * most:
            return step
    return steps[-1] * math.ceil(highest / most / steps[-1])
