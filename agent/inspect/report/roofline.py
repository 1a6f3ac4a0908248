"""The roofline: FLOP/s over FLOP/byte, both logarithmic, with roofs measured in this job."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from agent.inspect.model import Ceiling, JobReport, Phase
from agent.inspect.report.drawing import (
    Place,
    at,
    bounds_key,
    drawing,
    grid,
    key,
    labels,
    legend_line,
    lines,
    mark,
    path,
)
from agent.inspect.report.markup import Markup, element, join, text
from agent.inspect.report.spans import bound_of
from agent.inspect.series import Fraction, Timelines
from agent.inspect.units import show
from agent.inspect.words import phase_name
from workloads.kinds import MATMUL, MIXED_KINDS, READ
from workloads.plot import Axis, Point, Roof, axes
from workloads.roofline import Bound

HEIGHT = 340
CELLS = 10_001
"""Fineness of the axes: more than a screen has pixels."""

NARROW = 300
"""Pixels across on a telephone: badges that do not cover each other there never do."""

BADGE = 18
"""Pixels from the middle of a badge to the next."""

MOST_DOTS = 300
MOST_MEANS = 12
"""More than this are not told apart by numbers."""

BUSY_FROM = 0.05
"""A window in which a GPU reached less of both roofs says nothing of what held it back."""


class Reached(NamedTuple):
    """What a phase, or a GPU, reached, and the words that tell it."""

    point: Point
    bound: Bound
    words: str


class Slope(NamedTuple):
    """A memory roof: bytes per second, and its name."""

    per_second: float
    words: str


class Roofline(NamedTuple):
    """All that is drawn.

    Attributes:
        roofs: every flat roof with every slope.
        slopes: memory roofs, steepest first.
        flats: compute roofs by their words.
        reached: what is numbered.
        dots: what is drawn small.

    """

    roofs: Sequence[Roof]
    slopes: Sequence[Slope]
    flats: Mapping[str, float]
    reached: Sequence[Reached]
    dots: Sequence[Reached] = ()


def of_phases(report: JobReport) -> Roofline | None:
    """Return the phases under the ceilings of this job; None if there is nothing to draw."""
    phases = [phase for phase in report.phases if _drawable(phase)]
    dtypes = {phase.dtype for phase in phases}
    flats = {
        f"{dtype} {show(rate, 'FLOP/s')}": rate
        for dtype in sorted(dtypes)
        if (rate := _highest(report.ceilings, (MATMUL,), dtype))
    }
    slopes = _slopes(report.ceilings)
    roofs = [Roof(name, flat, slope.per_second) for name, flat in flats.items() for slope in slopes]
    if not phases or not roofs:
        return None
    return Roofline(roofs, slopes, flats, [_phase_reached(phase) for phase in phases])


def of_gpus(timelines: Timelines) -> Roofline | None:
    """Return GPUs under their roofs as counters show them: both roofs are 1, and so is the ridge.

    The quotient of the shares of the two roofs is intensity over the ridge. A GPU has a mean for
    each bound: one mean of a prefill and a decode would be neither.
    """
    found = _windows(timelines)
    if not found:
        return None
    apart = len({(name, bound) for name, bound, _ in found}) <= MOST_MEANS
    groups: dict[tuple[str, Bound], list[Fraction]] = {}
    for name, bound, fraction in found:
        groups.setdefault((name if apart else "GPUs", bound), []).append(fraction)
    reached = [
        _mean_reached(name, bound, fractions, len(found))
        for (name, bound), fractions in groups.items()
    ]
    dots = [
        Reached(_gpu_point(name, each.compute, each.memory), bound, f"{name}: {bound.value}")
        for name, bound, each in found[:: -(-len(found) // MOST_DOTS)]
    ]
    roofs = [Roof("compute", 1.0, 1.0)]
    return Roofline(roofs, [Slope(1.0, "memory roof")], {"compute roof": 1.0}, reached, dots)


def _windows(timelines: Timelines) -> list[tuple[str, Bound, Fraction]]:
    """Return GPU, bound and fractions of each window in which a GPU was busy."""
    found = []
    for name, fractions in timelines.roofs.items():
        bounds = timelines.bounds.get(name, {})
        for each in fractions:
            shares = bounds.get(each.end_ms, {})
            under = max(shares, key=shares.__getitem__, default=Bound.UNKNOWN)
            busy = under is not Bound.IDLE and max(each.compute, each.memory) >= BUSY_FROM
            if busy and each.compute > 0 and each.memory > 0:
                found.append((name, under, each))
    return found


def _mean_reached(name: str, bound: Bound, fractions: Sequence[Fraction], busy: int) -> Reached:
    compute = fmean(each.compute for each in fractions)
    memory = fmean(each.memory for each in fractions)
    shares = f"{compute:.0%} of the compute roof, {memory:.0%} of the memory roof"
    words = f"{bound.value}, {shares}, for {len(fractions) / busy:.0%} of the busy time"
    return Reached(_gpu_point(name, compute, memory), bound, words)


def _gpu_point(name: str, compute: float, memory: float) -> Point:
    return Point(name, compute / memory, compute)


def figure(title: str, roofline: Roofline, across_words: str, up_unit: str) -> Markup:
    """Return the figure with its legend, in which each number is told in words."""
    points = [each.point for each in (*roofline.reached, *roofline.dots)]
    across, up = axes(roofline.roofs, points, CELLS, CELLS)
    summary = "; ".join(
        f"{number}: {each.point.name}, {each.words}"
        for number, each in enumerate(roofline.reached, 1)
    )
    drawn = drawing(
        f"Roofline with {', '.join(roofline.flats)} and {_slope_words(roofline)}. {summary}",
        HEIGHT,
        grid(
            (_share(across, each) for each in across.marks()),
            (_share(up, each) for each in up.marks()),
        ),
        labels(_marks(across, ""), _marks(up, up_unit)),
        lines(*_roof_lines(roofline, across, up)),
        *_roof_names(roofline, up),
        *(_dot(each, across, up) for each in roofline.dots),
        *_numbered(roofline.reached, across, up),
        class_="roofline",
    )
    bounds = [each.bound for each in (*roofline.reached, *roofline.dots)]
    return element(
        "figure",
        element("figcaption", element("b", title)),
        drawn,
        _slope_key(roofline),
        element("p", across_words, class_="axis"),
        bounds_key(bounds),
        _legend(roofline.reached),
    )


def _drawable(phase: Phase) -> bool:
    numbers = phase.intensity_flops_per_byte, phase.flops_per_second
    return all(number is not None and math.isfinite(number) and number > 0 for number in numbers)


def _phase_reached(phase: Phase) -> Reached:
    intensity, rate = phase.intensity_flops_per_byte or 0.0, phase.flops_per_second or 0.0
    shares = [
        f"{ratio:.0%} of {roof}"
        for roof, ratio in (("compute", phase.compute_ratio), ("memory", phase.memory_ratio))
        if ratio is not None
    ]
    words = f"{intensity:.3g} FLOP/byte, {show(rate, 'FLOP/s')}"
    name = phase_name(phase)
    under = bound_of(phase.bound)
    return Reached(Point(name, intensity, rate), under, ", ".join([words, *shares, under.value]))


def _slopes(ceilings: Iterable[Ceiling]) -> list[Slope]:
    """Return the memory roofs that labels are made with: mixed traffic, and reading alone."""
    known = list(ceilings)
    found = [
        Slope(rate, f"{words} {show(rate, 'B/s')}")
        for words, kinds in (("memory", MIXED_KINDS), ("reading memory", (READ,)))
        if (rate := _highest(known, kinds))
    ]
    return sorted(found, reverse=True)


def _highest(ceilings: Iterable[Ceiling], kinds: Sequence[str], dtype: str = "") -> float:
    rates = (
        each.flops_per_second or each.bytes_per_second or 0.0
        for each in ceilings
        if each.kind in kinds and dtype in ("", each.dtype)
    )
    return max(rates, default=0.0)


def _share(axis: Axis, value: float) -> float:
    return axis.cell(value) / (axis.cells - 1)


def _place(point: Point, across: Axis, up: Axis) -> Place:
    return Place(_share(across, point.intensity), _share(up, point.flops_per_second))


def _marks(axis: Axis, unit: str) -> list[tuple[float, str]]:
    """Return round numbers with their places; without a unit, as they are."""
    return [
        (_share(axis, value), f"{value:g}" if not unit else _rate_words(value, unit))
        for value in axis.marks()
    ]


def _rate_words(value: float, unit: str) -> str:
    if unit == "ratio":
        return f"{value:.0%}" if value >= 0.01 else f"{value:.1%}"
    number, _, prefix = show(value, "").partition(" ")
    return f"{float(number):g} {prefix}".rstrip()


def _roof_lines(roofline: Roofline, across: Axis, up: Axis) -> list[Markup]:
    """Return each slope up to the highest flat roof, and each flat roof from the first ridge."""
    left, right = across.value(0), across.value(across.cells - 1)
    steepest, highest = roofline.slopes[0].per_second, max(roofline.flats.values())
    drawn = []
    for number, slope in enumerate(roofline.slopes):
        ends = [(x, x * slope.per_second) for x in (left, highest / slope.per_second)]
        drawn.append(_straight(ends, across, up, "roof" if not number else "roof second"))
    for flat in roofline.flats.values():
        drawn.append(_straight([(flat / steepest, flat), (right, flat)], across, up, "roof"))
    return drawn


def _straight(ends: Iterable[tuple[float, float]], across: Axis, up: Axis, class_: str) -> Markup:
    return path([[_place(Point("", *end), across, up) for end in ends]], class_)


def _roof_names(roofline: Roofline, up: Axis) -> list[Markup]:
    """Return the names of flat roofs, above their right ends."""
    return [
        at(
            Place(1.0, _share(up, flat)),
            element("text", words, y="-5", text_anchor="end", class_="name"),
        )
        for words, flat in roofline.flats.items()
    ]


def _slope_key(roofline: Roofline) -> Markup:
    """Return the names of slopes, which on a telephone have no room beside their lines."""
    swatches = (legend_line("roof"), legend_line("roof second"))
    named = zip(swatches, roofline.slopes, strict=False)
    return key(*(join(swatch, text(slope.words)) for swatch, slope in named))


def _slope_words(roofline: Roofline) -> str:
    return " and ".join(slope.words for slope in roofline.slopes)


def _dot(each: Reached, across: Axis, up: Axis) -> Markup:
    return at(_place(each.point, across, up), mark(each.bound, "mark dot"), words=each.words)


def _numbered(reached: Sequence[Reached], across: Axis, up: Axis) -> list[Markup]:
    """Return the marks, and then their numbers, none of which covers another."""
    places = [_place(each.point, across, up) for each in reached]
    taken = [(NARROW * place.across, HEIGHT * (1 - place.up)) for place in places]
    marks, badges = [], []
    for number, (each, place) in enumerate(zip(reached, places, strict=True), 1):
        words = f"{each.point.name}: {each.words}"
        marks.append(at(place, mark(each.bound), words=words))
        x, y = _free(NARROW * place.across, HEIGHT * (1 - place.up), taken)
        taken.append((x, y))
        dx, dy = x - NARROW * place.across, y - HEIGHT * (1 - place.up)
        leader = element("path", d=f"M0,0L{dx:.0f},{dy:.0f}", class_="leader")
        letter = element("text", str(number), x=dx, y=dy, dy="0.35em", class_="badge")
        badges.append(at(place, leader, letter))
    return [*badges, *marks]


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the nearest place around a mark for its number that nothing else has."""
    rings = (
        (x + BADGE * ring * math.cos(angle), y + BADGE * ring * math.sin(angle))
        for ring in range(1, 12)
        for angle in (math.pi * step / 8 for step in (-4, 4, -2, 2, -6, 6, 0, 8, -3, 3, -5, 5))
    )
    for place in rings:
        inside = 8 < place[0] < NARROW - 8 and 8 < place[1] < HEIGHT - 8
        if inside and all(math.dist(place, other) >= BADGE * 0.9 for other in taken):
            return place
    return x, y - BADGE


def _legend(reached: Sequence[Reached]) -> Markup:
    items = [element("li", element("b", each.point.name), f": {each.words}") for each in reached]
    return element("ol", join(*items), class_="legend")
