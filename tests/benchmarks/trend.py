"""Does a series grow? Its slope, and how far to trust it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BLOCKS = 20
"""Parts that a series is cut into: within a part neighbours resemble each other."""

STUDENT = 2.10
"""Student's t for 95 % and 18 degrees of freedom: that many are left of 20 parts."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per hour, and half the width of its 95 % interval.

    Attributes:
        slope: units per hour.
        noise: the true slope lies within so much of it, 19 times of 20.

    """

    slope: float
    noise: float

    @property
    def flat(self) -> bool:
        """Whether no growth can be told from the noise."""
        return abs(self.slope) <= self.noise


def trend(hours: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the trend of a series, least squares through the means of its parts.

    Measurements of one process are no independent draws: a page that was touched stays. Means over
    long parts nearly are. Source: Law and Kelton, "Simulation Modeling and Analysis", batch means.
    """
    xs, ys = means(hours, BLOCKS), means(values, BLOCKS)
    middle = statistics.fmean(xs)
    spread = sum((x - middle) ** 2 for x in xs)
    fit = statistics.linear_regression(xs, ys)
    residual = sum((y - fit.slope * x - fit.intercept) ** 2 for x, y in zip(xs, ys, strict=True))
    return Trend(fit.slope, STUDENT * math.sqrt(residual / (len(xs) - 2) / spread))


def drift(hours: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the trend of a series whose changes stay, as those of memory: a page stays touched.

    A line through such a series takes two chance steps for a slope. Here the steps over parts of
    the time are the draws: their mean is the slope, their spread the noise, so that a few pages at
    odd times are no growth yet. Source: Granger and Newbold, "Spurious Regressions in
    Econometrics", 1974.
    """
    edges = [part * (len(values) - 1) // BLOCKS for part in range(BLOCKS + 1)]
    steps = [values[end] - values[begin] for begin, end in pairwise(edges)]
    part = (hours[-1] - hours[0]) / BLOCKS
    noise = STUDENT * statistics.stdev(steps) / math.sqrt(BLOCKS)
    return Trend(statistics.fmean(steps) / part, noise / part)


def means(values: Sequence[float], parts: int) -> list[float]:
    """Return the means of so many parts of a series, of as many as it has values at most."""
    edges = [len(values) * part // parts for part in range(parts + 1)]
    return [statistics.fmean(values[begin:end]) for begin, end in pairwise(edges) if end > begin]
