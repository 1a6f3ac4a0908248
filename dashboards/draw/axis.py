"""Where an axis has its marks, and what stands beside them."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from dashboards.draw.formats import formatted
from dashboards.draw.sheet import SMALL, width_of

_TIME_STEPS_SECONDS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600),
    *(43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000),
)
_BETWEEN = 22.0
"""Pixels between the labels of an axis."""

_DAY_SECONDS = 86_400
_BINARY_UNITS = ("bytes",)


def steps(most: float, unit: str, wanted: int) -> list[float]:
    """Return round numbers from 0 to `most`, about as many as wanted."""
    step = _binary_step(most / wanted) if unit in _BINARY_UNITS else _step(most / wanted)
    return [number * step for number in range(math.floor(most / step + 1e-9) + 1)]


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 and 10, times a power of ten, that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= least * (1 - 1e-9))


def _binary_step(least: float) -> float:
    """Return a step that is round in the unit that bytes are shown in."""
    power = 1024.0 ** max(0, math.floor(math.log(least, 1024)))
    share = least / power
    return power * (2.0 ** math.ceil(math.log2(share) - 1e-9) if share > 1 else 1.0)


def label(value: float, unit: str) -> str:
    """Return what stands beside a mark: no more digits than it takes."""
    exact = _leading(formatted(value, unit, decimals=6))
    texts = [formatted(value, unit, decimals=decimals) for decimals in range(4)]
    return next((text for text in texts if _leading(text) == exact), formatted(value, unit))


def _leading(text: str) -> float:
    """Return the number that a text begins with."""
    match = re.match(r"-?[\d.]+", text)
    return float(match[0]) if match else 0.0


def decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around positive numbers."""
    first = math.floor(math.log10(min(values)) + 1e-9)
    last = max(math.ceil(math.log10(max(values)) - 1e-9), first + 1)
    return [10.0**power for power in range(first, last + 1)]


def moments(since_ms: float, until_ms: float, pixels: float) -> tuple[list[float], list[str]]:
    """Return round moments in the time shown, as many as have room, and their labels in UTC.

    None is so near the end that its label would stand out beyond it.
    """
    per_ms = pixels / (until_ms - since_ms)
    seconds = (until_ms - since_ms) / 1000
    for step in _TIME_STEPS_SECONDS:
        wide = width_of(f"{datetime.fromtimestamp(0, UTC):{_pattern(step, seconds)}}", SMALL)
        if step * 1000 * per_ms >= wide + _BETWEEN:
            break
    step_ms = step * 1000
    first, last = (
        math.ceil(since_ms / step_ms),
        math.floor((until_ms - wide / 2 / per_ms) / step_ms),
    )
    found = [float(step_ms * number) for number in range(first, last + 1)]
    pattern = _pattern(step, seconds)
    return found, [f"{datetime.fromtimestamp(each / 1000, UTC):{pattern}}" for each in found]


def _pattern(step: float, seconds: float) -> str:
    if step >= _DAY_SECONDS:
        return "%m-%d"
    if seconds > _DAY_SECONDS:
        return "%m-%d %H:%M"
    return "%H:%M" if step % 60 == 0 else "%H:%M:%S"
