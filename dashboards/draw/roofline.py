"""Panels of points under roofs, over two logarithmic axes."""

from collections.abc import Mapping, Sequence
from typing import cast

from matplotlib.axes import Axes

from dashboards.draw import axis
from dashboards.draw.fields import look_of, number
from dashboards.draw.graphs import (
    AXIS_HEIGHT,
    BESIDE,
    ROOM_ABOVE,
    THICKER,
    Points,
    columns,
    framed,
    style,
)
from dashboards.draw.legend import Entry
from dashboards.draw.scene import Scene, Shown
from dashboards.draw.sheet import POINTS_PER_PIXEL, SCALE, SMALL, Box, Plate, width_of
from dashboards.draw.words import empty
from dashboards.frames import Frame
from dashboards.panel import Json

NAME_GAP, NAME_HEIGHT = 9 * SCALE, 15 * SCALE
NAMED_POINTS = 12
"""Points of a roofline are named where there are so few."""


def roofline(plate: Plate, shown: Shown, _: Scene) -> None:
    """Draw points and lines over two logarithmic axes."""
    across, pairs = _pairs(shown)
    colors = {name: plate.theme.series(index) for index, name in enumerate(pairs)}
    place = framed(plate, [Entry(name, color) for name, color in colors.items()])
    values = [point for points, _ in pairs.values() for point in points]
    if not values:  # nothing has a place on logarithmic axes
        empty(plate, shown.panel)
        return
    custom = cast(Json, shown.panel.defaults["custom"])
    axes = _logarithmic(plate, place, shown, across, values)
    for name, (points, names) in pairs.items():
        if look_of(shown.panel, name).shown == "lines":
            wide = number(custom["lineWidth"]) * POINTS_PER_PIXEL * THICKER
            axes.plot(*columns(points), color=colors[name], linewidth=wide)
        else:
            _scatter(axes, points, colors[name], custom)
            _name_points(axes, plate, points, names)


def _pairs(shown: Shown) -> tuple[str, Mapping[str, tuple[Points, Sequence[str]]]]:
    """Return the horizontal field, and the points and their names of each vertical one."""
    found: dict[str, tuple[Points, Sequence[str]]] = {}
    across = ""
    for frame in (each for each in shown.frames if each.values()):
        rows = frame.rows()
        numbers = [name for name in frame.columns if name != "Time" and _is_number(frame, name)]
        words = [name for name in frame.columns if name != "Time" and name not in numbers]
        across, *others = numbers
        for name in others:
            kept = [row for row in rows if _positive(row.get(across)) and _positive(row.get(name))]
            points = [(cast(float, row[across]), cast(float, row[name])) for row in kept]
            found[name] = points, [str(row[words[0]]) for row in kept if words]
    return across, found


def _is_number(frame: Frame, name: str) -> bool:
    return any(isinstance(cell, float | int) for cell in frame.columns[name])


def _positive(cell: object) -> bool:
    return isinstance(cell, float | int) and cell > 0


def _logarithmic(plate: Plate, place: Box, shown: Shown, across: str, values: Points) -> Axes:
    """Return axes with a mark at each power of ten around the values."""
    rights, ups = (axis.decades(column) for column in columns(values))
    below, beside = look_of(shown.panel, across).unit, look_of(shown.panel, "").unit
    texts = [axis.label(up, beside) for up in ups]
    wide = max(width_of(text, SMALL) for text in texts) + BESIDE
    labels = [axis.label(right, below) for right in rights]
    after = width_of(labels[-1], SMALL) / 2
    inner = place.within(wide, ROOM_ABOVE, after, AXIS_HEIGHT + SMALL + 4)
    axes = plate.axes(inner)
    axes.set(xscale="log", yscale="log", xlim=(rights[0], rights[-1]), ylim=(ups[0], ups[-1]))
    axes.minorticks_off()
    axes.set_xticks(rights, labels)
    axes.set_yticks(ups, texts)
    style(axes, plate)
    axes.grid(visible=True, color=plate.theme.grid, linewidth=0.72)
    middle = inner.bottom + AXIS_HEIGHT + SMALL / 2
    center = inner.left + inner.width / 2
    plate.text(center, middle, across, size=SMALL, color=plate.theme.faint, side="center")
    return axes


def _scatter(axes: Axes, points: Points, color: str, custom: Json) -> None:
    size = number(cast(Json, custom["pointSize"])["fixed"])
    axes.plot(
        *columns(points),
        color=color,
        linestyle="",
        marker="o",
        markersize=size * POINTS_PER_PIXEL,
        alpha=number(custom["fillOpacity"]) / 100,
        zorder=3,
        clip_on=False,
    )


def _name_points(axes: Axes, plate: Plate, points: Points, names: Sequence[str]) -> None:
    """Write beside a few points what the pointer would bring up: the first column of words."""
    if len(names) > NAMED_POINTS:
        return
    places = [(float(left), float(up)) for left, up in axes.transData.transform(points)]
    taken: list[tuple[float, float, float]] = []
    for (across, up), name in sorted(zip(places, names, strict=True), key=lambda pair: -pair[0][1]):
        wide = width_of(name, SMALL) * SCALE
        near = [left for left, other in places if abs(other - up) < NAME_HEIGHT]
        left = max(each for each in near if across <= each <= across + wide) + NAME_GAP
        if left + wide > plate.box.right * SCALE:
            left = min(each for each in near if across - wide <= each <= across) - NAME_GAP - wide
        # from top to bottom, each below those in its way
        for begin, end, middle in taken:
            if left < end and begin < left + wide and up > middle - NAME_HEIGHT:
                up = middle - NAME_HEIGHT
        taken.append((left, left + wide, up))
        plate.text(left / SCALE, plate.sheet.height - up / SCALE, name, size=SMALL, edged=True)
