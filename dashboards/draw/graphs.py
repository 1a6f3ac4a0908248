"""Panels of lines, areas or points over time, and what all panels with axes share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

from matplotlib.axes import Axes

from dashboards.draw import axis
from dashboards.draw.fields import Look, look_of, number, series_name
from dashboards.draw.legend import Entry, draw_legend, height_of
from dashboards.draw.scene import Mark, Scene, Shown
from dashboards.draw.sheet import POINTS_PER_PIXEL, SMALL, Box, Plate, font, width_of
from dashboards.frames import Frame
from dashboards.panel import Json

AXIS_HEIGHT, ROOM_ABOVE, BESIDE = 24.0, 8.0, 8.0
PIXELS_PER_TICK = 44.0
HEADROOM = 1.08
"""How much higher than its highest value an axis goes that nobody gave a top."""

THICKER = 1.6
"""Lines and points are drawn so much thicker than on a screen: pictures are shown smaller."""

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """One series as it is drawn."""

    name: str
    color: str
    points: Points


def timeseries(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw lines, areas or points over the time shown."""
    panel = shown.panel
    custom = cast(Json, panel.defaults["custom"])
    mode = cast(Json, custom["stacking"])["mode"]
    lines = _lines(plate, shown)
    bases = _stacked(lines, percent=mode == "percent") if mode != "none" else []
    tops = [top for _, top in bases] or [line.points for line in lines]
    look = look_of(panel, "")
    unit = "percentunit" if mode == "percent" else look.unit
    most = 1.0 if mode == "percent" else look.most
    entries = [Entry(line.name, line.color) for line in lines]
    place = framed(plate, entries)
    highest = max((value for points in tops for _, value in points), default=0.0)
    axes = _over_time(plate, place, most or highest * HEADROOM or 1.0, unit, scene)
    for line, points in zip(lines, tops, strict=True):
        _draw(axes, points, line.color, custom)
    for line, (base, top) in zip(lines, bases, strict=False):
        _, low = columns(base)
        alpha = number(custom["fillOpacity"]) / 100
        axes.fill_between(*columns(top), low, color=line.color, alpha=alpha, linewidth=0)
    if cast(Json, custom["thresholdsStyle"])["mode"] != "off":
        _thresholds(axes, look, plate)


def _lines(plate: Plate, shown: Shown) -> list[Line]:
    found = []
    for index, frame in enumerate(shown.frames):
        name = series_name(shown.panel, frame)
        fixed = look_of(shown.panel, name).fixed
        color = plate.theme.color(fixed) if fixed else plate.theme.series(index)
        found.append(Line(name, color, _known(frame)))
    return [line for line in found if line.points]


def _known(frame: Frame) -> Points:
    """Return the values that are known, by their time."""
    times, values = frame.columns["Time"], frame.columns["Value"]
    return [
        (float(at), float(value))
        for at, value in zip(times, values, strict=True)
        if isinstance(at, float | int) and isinstance(value, float | int)
    ]


def _stacked(lines: Sequence[Line], *, percent: bool) -> list[tuple[Points, Points]]:
    """Return lower and upper edge of each series, one standing on the other."""
    known = [dict(line.points) for line in lines]
    moments = sorted({at for points in known for at in points})
    totals = {at: sum(points.get(at, 0.0) for points in known) for at in moments}
    kept = [at for at in moments if totals[at] > 0 or not percent]
    sums = dict.fromkeys(kept, 0.0)
    edges: list[tuple[Points, Points]] = []
    for points in known:
        base = list(sums.items())
        for at in kept:
            sums[at] += points.get(at, 0.0) / (totals[at] if percent else 1.0)
        edges.append((base, list(sums.items())))
    return edges


def framed(plate: Plate, entries: Sequence[Entry]) -> Box:
    """Draw the legend, and return what is left for the graph."""
    box = plate.box
    high = height_of(entries, box.width)
    draw_legend(plate, Box(box.left, box.bottom - high, box.width, high), entries)
    return box.within(bottom=high)


def _over_time(plate: Plate, place: Box, top: float, unit: str, scene: Scene) -> Axes:
    """Return axes of time and of a unit, with their grid and the scene's marks."""
    wanted = max(2, round((place.height - AXIS_HEIGHT) / PIXELS_PER_TICK))
    heights = axis.steps(top, unit, wanted)
    texts = [axis.label(height, unit) for height in heights]
    wide = max(width_of(text, SMALL) for text in texts) + BESIDE
    inner = place.within(wide, ROOM_ABOVE, BESIDE, AXIS_HEIGHT)
    axes = plate.axes(inner)
    axes.set_xlim(scene.view.since_ms, scene.view.until_ms)
    axes.set_ylim(0, top)
    axes.set_yticks(heights, texts)
    time_axis(axes, inner.width, scene)
    style(axes, plate)
    axes.grid(visible=True, color=plate.theme.grid, linewidth=0.72)
    draw_marks(axes, plate, scene.marks)
    return axes


def time_axis(axes: Axes, width: float, scene: Scene) -> None:
    """Mark round moments below the axes."""
    view = scene.view
    axes.set_xticks(*axis.moments(view.since_ms, view.until_ms, width))


def style(axes: Axes, plate: Plate) -> None:
    """Give axes the page's letters and colours, and no frame."""
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4, colors=plate.theme.faint)
    axes.tick_params(axis="x", pad=6)
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set_fontproperties(font(SMALL))
        text.set_parse_math(False)
    for side in axes.spines.values():
        side.set_visible(False)


def draw_marks(axes: Axes, plate: Plate, marks: Sequence[Mark]) -> None:
    """Draw annotations: a dashed line for a moment, a shade for a time."""
    for mark in marks:
        color = plate.theme.color(mark.color)
        if mark.until_ms is not None:
            axes.axvspan(mark.since_ms, mark.until_ms, color=color, alpha=0.12, linewidth=0)
        axes.axvline(mark.since_ms, color=color, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.8)
        # where the pointer would bring up its words
        axes.plot(
            [mark.since_ms],
            [0],
            marker="^",
            markersize=5,
            color=color,
            clip_on=False,
            transform=axes.get_xaxis_transform(),
        )


def _draw(axes: Axes, points: Points, color: str, custom: Json) -> None:
    """Draw points, or a line; of that, what stands alone between gaps is a point."""
    dots = custom["drawStyle"] == "points"
    size = number(custom["pointSize"]) * POINTS_PER_PIXEL
    for part in _parts(points, number(custom["spanNulls"])):
        axes.plot(
            *columns(part),
            color=color,
            linestyle="" if dots else "-",
            linewidth=number(custom["lineWidth"]) * THICKER * POINTS_PER_PIXEL,
            marker="o" if dots or len(part) == 1 else "",
            markersize=size * THICKER,
            clip_on=not dots,
        )


def _parts(points: Points, gap_ms: float) -> list[list[tuple[float, float]]]:
    """Return the points in groups between which nothing was heard for so long."""
    parts = [list(points[:1])]
    for before, after in pairwise(points):
        if after[0] - before[0] > gap_ms:
            parts.append([])
        parts[-1].append(after)
    return [part for part in parts if part]


def columns(points: Points) -> tuple[list[float], list[float]]:
    """Return the horizontal and the vertical places of points."""
    return [across for across, _ in points], [up for _, up in points]


def _thresholds(axes: Axes, look: Look, plate: Plate) -> None:
    _, top = axes.get_ylim()
    for limit, color in look.steps:
        if limit is not None and limit <= top:
            named = plate.theme.color(color)
            axes.axhline(limit, color=named, linewidth=1, linestyle=(0, (6, 4)), alpha=0.8)
