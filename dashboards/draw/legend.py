"""The legend below a graph: as many lines as have room, and how many series are left out."""

from collections.abc import Sequence
from typing import NamedTuple

from dashboards.draw.sheet import SMALL, Box, Plate, fitted, width_of

LINE = 18.0
"""Height of a line of the legend, in pixels."""

DASH, GAP, BETWEEN = 14.0, 6.0, 16.0
MOST_LINES = 3
LONGEST = 360.0


class Entry(NamedTuple):
    """A series in the legend."""

    name: str
    color: str


def lines_of(entries: Sequence[Entry], width: float) -> list[list[Entry]]:
    """Return the entries in the lines that they take."""
    lines: list[list[Entry]] = []
    used = 0.0
    for entry in entries:
        wide = _width(entry)
        if not lines or used + wide > width:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += wide + BETWEEN
    return lines


def height_of(entries: Sequence[Entry], width: float) -> float:
    """Return how high the legend is."""
    return LINE * min(len(lines_of(entries, width)), MOST_LINES)


def draw_legend(plate: Plate, box: Box, entries: Sequence[Entry]) -> None:
    """Draw the legend from the top of the box on."""
    lines = lines_of(entries, box.width)
    kept = lines[:MOST_LINES]
    left_out = sum(map(len, lines[MOST_LINES:]))
    for index, line in enumerate(kept):
        left, middle = box.left, box.top + LINE * (index + 0.5)
        last = index == len(kept) - 1
        for entry in line[: -1 if last and left_out else None]:
            _draw(plate, left, middle, entry)
            left += _width(entry) + BETWEEN
        if last and left_out:
            words = f"and {left_out + 1} more"
            plate.text(left, middle, words, size=SMALL, color=plate.theme.faint)


def _width(entry: Entry) -> float:
    return DASH + GAP + min(width_of(entry.name, SMALL), LONGEST)


def _draw(plate: Plate, left: float, middle: float, entry: Entry) -> None:
    plate.line((left, left + DASH), (middle, middle), entry.color, 3.5)
    name = fitted(entry.name, SMALL, LONGEST)
    plate.text(left + DASH + GAP, middle, name, size=SMALL, color=plate.theme.faint)
