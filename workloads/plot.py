"""Draw a roofline in characters: FLOP/s over FLOP/byte, both logarithmic. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from workloads.roofline import Ceilings, scaled

WIDTH = 72
HEIGHT = 16
MARGIN = 13  # "100 GFLOP/s |"
LEAST_DECADES = 2.0
FEW_DECADES = 2.5


@dataclass(frozen=True, slots=True)
class Roof:
    """A flat roof and the slope that leads up to it."""

    name: str
    flops_per_second: float
    bytes_per_second: float

    def over(self, intensity: float) -> float:
        """Return the FLOP/s that can be had at most at an intensity in FLOP/byte."""
        return min(self.flops_per_second, self.bytes_per_second * intensity)

    @property
    def ridge(self) -> float:
        """The intensity in FLOP/byte at which slope and flat roof meet."""
        return self.flops_per_second / self.bytes_per_second


@dataclass(frozen=True, slots=True)
class Point:
    """What a phase reached."""

    name: str
    intensity: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic scale of `cells` cells from 10**low to 10**high."""

    low: float
    high: float
    cells: int

    def cell(self, value: float) -> int:
        """Return the cell nearest to a value."""
        return round((math.log10(value) - self.low) / (self.high - self.low) * (self.cells - 1))

    def value(self, cell: int) -> float:
        """Return the value in the middle of a cell."""
        exponent = self.low + cell / (self.cells - 1) * (self.high - self.low)
        return float(10.0**exponent)

    def marks(self) -> list[float]:
        """Return round numbers on the scale: powers of ten; with 2 and 5 between where few are."""
        steps = (1, 2, 5) if self.high - self.low < FEW_DECADES else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        numbers = [step * 10.0**power for power in powers for step in steps]
        return [number for number in numbers if self.low <= math.log10(number) <= self.high]


def roofs_of(ceilings: Ceilings) -> list[Roof]:
    """Return a roof per dtype over the fastest memory kernel; none where either is unknown."""
    memory = max(ceilings.bytes_per_second or 0.0, ceilings.read_bytes_per_second or 0.0)
    flat = ceilings.flops_per_second.items() if memory else ()
    return [Roof(dtype, flops, memory) for dtype, flops in flat]


def draw(
    roofs: Sequence[Roof], points: Sequence[Point], width: int = WIDTH, height: int = HEIGHT
) -> str:
    """Return the plot, at most `width` x `height` characters, and below it a legend of the points.

    Points are letters in the order given; where two fall on one cell, the later moves right.
    What is not positive and finite is left out; without any roof the plot is empty.
    """
    over = [roof for roof in roofs if _drawable(roof.flops_per_second, roof.bytes_per_second)]
    under = [point for point in points if _drawable(point.intensity, point.flops_per_second)]
    if not over:
        return ""
    across, up = axes(over, under, width - MARGIN, height - 2)
    cells = {cell: mark for roof in over for cell, mark in _roof_cells(roof, across, up)}
    cells |= _point_cells(under, across, up)
    rows = [_row(row, cells, across, up) for row in reversed(range(up.cells))]
    legend = [_legend(letter, point) for letter, point in zip(_letters(), under, strict=False)]
    return "\n".join([*rows, *_scale(across), *legend])


def _drawable(*values: float) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def axes(
    roofs: Sequence[Roof], points: Sequence[Point], columns: int, rows: int
) -> tuple[Axis, Axis]:
    """Return scales that hold every ridge and point, with a little flat roof to the right."""
    intensities = [math.log10(roof.ridge) for roof in roofs]
    intensities += [math.log10(point.intensity) for point in points]
    left, right = min(intensities) - 0.5, max(intensities) + 0.5
    left = min(left, right - LEAST_DECADES)
    heights = [math.log10(roof.flops_per_second) for roof in roofs]
    heights += [math.log10(point.flops_per_second) for point in points]
    heights += [math.log10(roof.over(10**left)) for roof in roofs]
    return Axis(left, right, columns), Axis(min(heights) - 0.1, max(heights) + 0.1, rows)


def _roof_cells(roof: Roof, across: Axis, up: Axis) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield cells of the slope and of the flat roof, which ends in its name."""
    name = f" {roof.name}"
    for column in range(across.cells):
        intensity = across.value(column)
        letter = column - (across.cells - len(name))
        flat = name[letter] if letter >= 0 else "-"
        yield (up.cell(roof.over(intensity)), column), "/" if intensity < roof.ridge else flat


def _point_cells(points: Sequence[Point], across: Axis, up: Axis) -> dict[tuple[int, int], str]:
    cells: dict[tuple[int, int], str] = {}
    for letter, point in zip(_letters(), points, strict=False):
        row, column = up.cell(point.flops_per_second), across.cell(point.intensity)
        while (row, column) in cells:
            column += 1
        cells[row, min(column, across.cells - 1)] = letter
    return cells


def _letters() -> Iterator[str]:
    yield from ascii_uppercase
    while True:
        yield "*"


def _row(row: int, cells: Mapping[tuple[int, int], str], across: Axis, up: Axis) -> str:
    labels = [scaled(mark, "FLOP/s") for mark in up.marks() if up.cell(mark) == row]
    label = next((text for text in labels if len(text) <= MARGIN - 2), "")
    line = "".join(cells.get((row, column), " ") for column in range(across.cells))
    return f"{label:>{MARGIN - 2}} |{line}".rstrip()


def _scale(across: Axis) -> list[str]:
    """Return the line below the plot, and the numbers below that."""
    line, numbers = ["-"] * across.cells, [" "] * across.cells
    for mark in across.marks():
        place, text = across.cell(mark), f"{mark:g}"
        line[place] = "+"
        if place + len(text) <= across.cells:
            numbers[place : place + len(text)] = text
    below = "".join(numbers).rstrip()
    return [f"{'':{MARGIN - 2}} +{''.join(line)}", f"{'FLOP/byte':>{MARGIN - 2}}  {below}"]


def _legend(letter: str, point: Point) -> str:
    reached = scaled(point.flops_per_second, "FLOP/s")
    return f"{letter} {point.name}: {point.intensity:.3g} FLOP/byte, {reached}"
