"""Panels with a row for each series: words or values as colours over time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from dashboards.draw import axis
from dashboards.draw.fields import look_of, number, series_name
from dashboards.draw.graphs import AXIS_HEIGHT, BESIDE, ROOM_ABOVE, draw_marks, style, time_axis
from dashboards.draw.legend import Entry, draw_legend, height_of
from dashboards.draw.scene import Scene, Shown
from dashboards.draw.sheet import SMALL, Box, Plate, fitted, width_of
from dashboards.frames import Frame
from dashboards.panel import Json

WIDEST_NAME = 160.0
SCALE_WIDTH, SCALE_HEIGHT, SCALE_ROOM = 200.0, 10.0, 22.0


class Span(NamedTuple):
    """A time in which a series had one word."""

    since_ms: float
    until_ms: float
    word: str


def timeline(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw a band for each series, coloured by its words."""
    look = look_of(shown.panel, "")
    frames = [frame for frame in shown.frames if frame.values()]
    custom = cast(Json, shown.panel.defaults["custom"])
    gap_ms, high_share = number(custom["spanNulls"]), number(shown.panel.options["rowHeight"])
    spans = [list(_spans(frame, scene.view.until_ms, gap_ms)) for frame in frames]
    seen = {span.word for each in spans for span in each}
    words = [*(word for word in look.words if word in seen), *sorted(seen - set(look.words))]
    entries = [Entry(word, look.color(word, plate.theme)) for word in words]
    high = height_of(entries, plate.box.width)
    box = plate.box
    draw_legend(plate, Box(box.left, box.bottom - high, box.width, high), entries)
    axes = _rows(plate, box.within(bottom=high), _names(shown, frames), scene)
    for row, each in enumerate(spans):
        axes.broken_barh(
            [(span.since_ms, span.until_ms - span.since_ms) for span in each],
            (row + (1 - high_share) / 2, high_share),
            facecolors=[look.color(span.word, plate.theme) for span in each],
            alpha=number(custom["fillOpacity"]) / 100,
            linewidth=0,
        )
    draw_marks(axes, plate, scene.marks)


def _spans(frame: Frame, until_ms: float, gap_ms: float) -> Iterator[Span]:
    """Yield the times between changes; a word holds until the next, or until a long silence."""
    known = [
        (float(at), str(word))
        for at, word in zip(frame.columns["Time"], frame.columns["Value"], strict=True)
        if isinstance(at, float | int) and word is not None
    ]
    ends = [at for at, _ in known[1:]] + [until_ms]
    begun: float | None = None
    for (at, word), end, (_, following) in zip(known, ends, [*known[1:], (0, "")], strict=True):
        begun = at if begun is None else begun
        silent = end - at > gap_ms
        if following != word or silent:
            yield Span(begun, at if silent else end, word)
            begun = None


def _names(shown: Shown, frames: Sequence[Frame]) -> list[str]:
    return [series_name(shown.panel, frame) for frame in frames]


def _rows(plate: Plate, place: Box, names: Sequence[str], scene: Scene) -> Axes:
    """Return axes of time with a named row for each series, the first on top."""
    wide = min(max(width_of(name, SMALL) for name in names), WIDEST_NAME)
    inner = place.within(wide + BESIDE, ROOM_ABOVE, BESIDE, AXIS_HEIGHT)
    axes = plate.axes(inner)
    axes.set_xlim(scene.view.since_ms, scene.view.until_ms)
    axes.set_ylim(len(names), 0)
    marks = [row + 0.5 for row in range(len(names))]
    axes.set_yticks(marks, [fitted(name, SMALL, WIDEST_NAME) for name in names])
    time_axis(axes, inner.width, scene)
    style(axes, plate)
    return axes


def heatmap(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw a row for each series, coloured by its values, and the scale of the colours."""
    frames = sorted((frame for frame in shown.frames if frame.values()), key=lambda each: each.name)
    color = cast(Json, shown.panel.options["color"])
    box = plate.box
    axes = _rows(plate, box.within(bottom=SCALE_ROOM), _names(shown, frames), scene)
    least, most = number(color["min"]), number(color["max"])
    scheme = _scheme(plate, color)
    times, values = _cells(frames)
    axes.pcolormesh(
        times, range(len(frames) + 1), values, cmap=scheme, vmin=least, vmax=most, linewidth=0
    )
    draw_marks(axes, plate, scene.marks)
    place = Box(box.left, box.bottom - SCALE_ROOM, box.width, SCALE_ROOM)
    _scale(plate, place, shown, (least, most))


def _scheme(plate: Plate, color: Json) -> Colormap:
    """Return the colours that a heatmap's options ask for."""
    if color["mode"] == "scheme":
        return plate.theme.scheme(str(color["scheme"]))
    curved = color.get("scale") == "exponential"
    exponent = number(color["exponent"]) if curved else 1.0
    return plate.theme.shades(str(color["fill"]), exponent)


def _cells(frames: Sequence[Frame]) -> tuple[list[float], NDArray[numpy.float64]]:
    """Return the edges of the intervals, and (series, intervals) values; NaN where none is."""
    times = sorted({number(at) for frame in frames for at in frame.columns["Time"]})
    places = {at: index for index, at in enumerate(times)}
    values = numpy.full((len(frames), len(times)), numpy.nan)
    for row, frame in enumerate(frames):
        for at, value in zip(frame.columns["Time"], frame.columns["Value"], strict=True):
            if isinstance(value, float | int):
                values[row, places[number(at)]] = value
    step = min((after - before for before, after in pairwise(times)), default=1.0)
    return [*times, times[-1] + step], values


def _scale(plate: Plate, place: Box, shown: Shown, ends: tuple[float, float]) -> None:
    """Draw the colours from the least to the most value, with both beside them."""
    unit = str(cast(Json, shown.panel.options["cellValues"])["unit"])
    low, high = (axis.label(end, unit) for end in ends)
    color = cast(Json, shown.panel.options["color"])
    middle = place.top + place.height / 2
    left = place.left + width_of(low, SMALL) + BESIDE
    axes = plate.axes(Box(left, middle - SCALE_HEIGHT / 2, SCALE_WIDTH, SCALE_HEIGHT))
    scheme = _scheme(plate, color)
    axes.imshow(numpy.linspace(0, 1, int(number(color["steps"])))[None], scheme, aspect="auto")
    axes.set_axis_off()
    plate.text(place.left, middle, low, size=SMALL, color=plate.theme.faint)
    right = left + SCALE_WIDTH + BESIDE
    plate.text(right, middle, high, size=SMALL, color=plate.theme.faint)
