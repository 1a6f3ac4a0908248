"""A whole dashboard as one picture."""

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from dashboards.dashboard import Annotation, Dashboard, Row
from dashboards.draw.bands import heatmap, timeline
from dashboards.draw.colors import DARK, Theme
from dashboards.draw.formats import moment
from dashboards.draw.graphs import timeseries
from dashboards.draw.roofline import roofline
from dashboards.draw.scene import Scene, Shown, scene_of
from dashboards.draw.sheet import (
    NORMAL,
    SMALL,
    TITLE,
    WIDTH,
    Box,
    Plate,
    Sheet,
    fitted,
    width_of,
)
from dashboards.draw.small import small
from dashboards.draw.words import bars, empty, stat, table
from dashboards.expand import View, expand
from dashboards.frames import Ask, frames_of, opened
from dashboards.panel import FULL

CELL, GAP, MARGIN, HEADER = 30, 8, 16, 96
"""Grafana's grid in pixels: height of a unit, between panels, around the page; and its top."""

TITLE_ROOM, PADDING = 32.0, 10.0

Drawer = Callable[[Plate, Shown, Scene], None]

DRAWERS: Mapping[str, Drawer] = {
    "bargauge": bars,
    "heatmap": heatmap,
    "stat": stat,
    "state-timeline": timeline,
    "table": table,
    "timeseries": timeseries,
    "xychart": roofline,
}
"""Grafana's panel type -> what draws it."""


@dataclass(frozen=True)
class Picture:
    """A drawn dashboard.

    Attributes:
        figure: everything on it; what belongs to a panel has the panel's title as its gid,
            and the rest none.
        drawn: the panels, in order.

    """

    figure: Figure
    drawn: Sequence[Shown]

    def save(self, path: Path) -> None:
        """Write it as a PNG with a palette."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        with Image.open(buffer) as image:
            small(image).save(path, optimize=True)


def draw(
    dashboard: Dashboard,
    view: View,
    ask: Ask,
    *,
    rows: Collection[str] = (),
    only_filled: bool = False,
    theme: Theme = DARK,
) -> Picture:
    """Draw a dashboard as somebody sees it who opens it with this view.

    Args:
        dashboard: what to draw.
        view: the time shown, and what is chosen; the rest is chosen as Grafana does at first.
        ask: runs queries.
        rows: titles of the rows to draw; all if none is named.
        only_filled: leave out panels without an answer, and rows without any panel; the panels
            beside them become wider.
        theme: colours of the page.

    """
    view = opened(dashboard, view, ask)
    chosen = [row for row in dashboard.rows if not rows or row.title in rows]
    shown = [[Shown(each, frames_of(each, view, ask)) for each in row.panels] for row in chosen]
    if only_filled:
        shown = [_filled(row) for row in shown]
    laid = [
        Row(row.title, [each.panel for each in panels])
        for row, panels in zip(chosen, shown, strict=True)
        if panels
    ]
    return _drawn(
        replace(dashboard, rows=laid),
        [each for row in shown for each in row],
        scene_of(dashboard, view, ask),
        theme,
    )


def _drawn(dashboard: Dashboard, shown: Sequence[Shown], scene: Scene, theme: Theme) -> Picture:
    """Draw the panels, in order, where the dashboard places them."""
    placed = list(dashboard.placed())
    bottom = max((box_of(each.place).bottom for each in placed), default=HEADER)
    sheet = Sheet.new(bottom + MARGIN, theme)
    _header(sheet, dashboard, scene)
    answers = iter(shown)
    for each in placed:
        title = expand(each.item.title, scene.view)
        if isinstance(each.item, Row):
            _heading(sheet.plate(box_of(each.place), ""), title)
        else:
            _panel(sheet.plate(box_of(each.place), title), next(answers), scene)
    return Picture(sheet.figure, shown)


def box_of(place: Mapping[str, int]) -> Box:
    """Return where a place of Grafana's grid is on the page."""
    across, down = (WIDTH - 2 * MARGIN + GAP) / FULL, CELL + GAP
    return Box(
        MARGIN + place["x"] * across,
        HEADER + place["y"] * down,
        place["w"] * across - GAP,
        place["h"] * down - GAP,
    )


def _filled(row: Sequence[Shown]) -> list[Shown]:
    """Return the panels with answers, those of a line widened to fill it."""
    kept = [each for each in row if each.filled]
    return [wide for line in _lines(kept) for wide in _widened(line)]


def _lines(row: Sequence[Shown]) -> Iterator[list[Shown]]:
    line: list[Shown] = []
    for each in row:
        if sum(other.panel.width for other in line) + each.panel.width > FULL:
            yield line
            line = []
        line.append(each)
    if line:
        yield line


def _widened(line: Sequence[Shown]) -> Iterator[Shown]:
    used = sum(each.panel.width for each in line)
    left = FULL
    for each in line[:-1]:
        wide = each.panel.width * FULL // used
        left -= wide
        yield replace(each, panel=each.panel.sized(wide))
    yield replace(line[-1], panel=line[-1].panel.sized(left))


def _header(sheet: Sheet, dashboard: Dashboard, scene: Scene) -> None:
    """Write the title, what is chosen, and the time shown."""
    plate = sheet.plate(Box(MARGIN, 0, WIDTH - 2 * MARGIN, HEADER), "")
    plate.text(MARGIN, 28, dashboard.title, size=20)
    since, until = (moment(each) for each in (scene.view.since_ms, scene.view.until_ms))
    words = f"{since} to {until} UTC"
    plate.text(WIDTH - MARGIN, 28, words, color=sheet.theme.faint, side="right")
    left = float(MARGIN)
    for variable in dashboard.variables:
        if not variable.hidden:
            chosen = scene.view.variables.get(variable.name, "")
            text = chosen if isinstance(chosen, str) else " + ".join(chosen)
            left = _choice(plate, left, variable.label, fitted(text or "none", NORMAL, 260))
    for annotation in dashboard.annotations:
        left = _marked(plate, left, annotation, scene)


def _choice(plate: Plate, left: float, label: str, text: str) -> float:
    """Draw a variable and its value, and return where the next one begins."""
    theme, top, high = plate.theme, 50.0, 28.0
    first, second = (width_of(words, NORMAL) + 16 for words in (label, text))
    plate.fill(Box(left, top, first + second, high), theme.panel, edge=theme.border, rounded=2)
    plate.text(left + 8, top + high / 2, label, color=theme.faint)
    plate.text(left + first + 4, top + high / 2, text)
    return left + first + second + 12


def _marked(plate: Plate, left: float, annotation: Annotation, scene: Scene) -> float:
    """Say what the marks on the panels are, and return where the next one begins."""
    middle, theme = 64.0, plate.theme
    texts = dict.fromkeys(mark.text for mark in scene.marks if mark.name == annotation.name)
    words = f"{annotation.name}: {', '.join(texts) or 'none'}"
    words = fitted(words, SMALL, WIDTH - MARGIN - left - 22)
    plate.text(left + 4, middle, "▲", size=SMALL, color=theme.color(annotation.color))
    plate.text(left + 20, middle, words, size=SMALL, color=theme.faint)
    return left + 20 + width_of(words, SMALL) + 12


def _heading(plate: Plate, title: str) -> None:
    middle = plate.box.top + plate.box.height / 2
    plate.text(plate.box.left, middle, title, size=TITLE + 1, bold=True)


def _panel(plate: Plate, shown: Shown, scene: Scene) -> None:
    theme, box = plate.theme, plate.box
    plate.fill(box, theme.panel, edge=theme.border, rounded=3)
    title = fitted(plate.name, TITLE, box.width - 2 * PADDING)
    plate.text(box.left + PADDING, box.top + TITLE_ROOM / 2, title, size=TITLE)
    inner = plate.part(box.within(PADDING, TITLE_ROOM, PADDING, PADDING))
    if shown.filled:
        DRAWERS[shown.panel.kind](inner, shown, scene)
    else:
        empty(inner, shown.panel)
