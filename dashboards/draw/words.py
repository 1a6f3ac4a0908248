"""Panels of numbers and words: one large, a table, a bar for each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from dashboards.draw.colors import faded
from dashboards.draw.fields import Look, last_known, look_of, number, series_name
from dashboards.draw.scene import Scene, Shown
from dashboards.draw.sheet import NORMAL, SMALL, Box, Plate, fitted, width_of, wrapped
from dashboards.frames import Cell, Frame
from dashboards.panel import Json, Panel
from dashboards.units import MOMENT

LARGEST, SMALLEST = 40.0, 16.0
ROW, PADDING, NARROWEST, GAUGE = 30.0, 10.0, 56.0, 84.0
BELOW_BAR = 8.0
LINK = "light-blue"


def stat(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw the last value of each series large, its name below where there are several."""
    known = [(name, cell) for name, cell in _last(shown) if cell is not None]
    colored = shown.panel.options["colorMode"] == "value"
    wide = plate.box.width / len(known)
    texts = [look_of(shown.panel, name).text(cell, scene.now_ms) for name, cell in known]
    size = min(_largest(text, wide - PADDING) for text in texts)
    for index, ((name, cell), text) in enumerate(zip(known, texts, strict=True)):
        look = look_of(shown.panel, name)
        color = look.color(cell, plate.theme) if colored else plate.theme.text
        center = plate.box.left + wide * (index + 0.5)
        _large(plate, center, text, color, size, name if len(known) > 1 else "")


def _largest(text: str, width: float) -> float:
    """Return the height of letters with which the words fill the width."""
    return max(SMALLEST, min(LARGEST, width / width_of(text, 100.0) * 100))


def _large(plate: Plate, center: float, text: str, color: str, size: float, name: str) -> None:
    middle = plate.box.top + plate.box.height / 2
    up = SMALL * 0.8 if name else 0.0
    plate.text(center, middle - up, text, size=size, color=color, side="center")
    if name:
        below = middle + size / 2 + 2
        plate.text(center, below, name, size=SMALL, color=plate.theme.faint, side="center")


class Column(NamedTuple):
    """A column of a table as it is drawn."""

    name: str
    look: Look
    cells: Sequence[Cell]
    texts: Sequence[str]
    right: bool
    width: float


def table(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw as many rows and columns as there is room for, and say what is left out."""
    frame = shown.frames[0]
    rows = _sorted(frame, shown.panel.options)
    columns = _widened(_columns(shown, frame, rows, scene), plate.box.width)
    fits = int((plate.box.height - ROW) / ROW)
    drawn = len(rows) if len(rows) <= fits else max(fits - 1, 0)
    left, top = plate.box.left, plate.box.top
    for column in columns:
        _heading(plate, Box(left, top, column.width, ROW), column)
        for row in range(drawn):
            _cell(plate, Box(left, top + ROW * (row + 1), column.width, ROW), column, row)
        left += column.width
    for row in range(drawn + 1):
        below = top + ROW * (row + 1)
        plate.line((plate.box.left, left), (below, below), plate.theme.border)
    wanted = len([name for name in frame.columns if not look_of(shown.panel, name).hidden])
    _left_out(plate, len(rows) - drawn, wanted - len(columns))


def _sorted(frame: Frame, options: Json) -> list[dict[str, Cell]]:
    """Return the rows in the panel's order, those without a value last."""
    rows = frame.rows()
    for order in reversed(cast(Sequence[Json], options["sortBy"])):
        name, descending = str(order["displayName"]), bool(order["desc"])
        known = [row for row in rows if name in row]
        # of one column, and so either all numbers or all words
        known.sort(key=lambda row: cast(float, row[name]), reverse=descending)
        rows = known + [row for row in rows if name not in row]
    return rows


def _columns(
    shown: Shown, frame: Frame, rows: Sequence[Mapping[str, Cell]], scene: Scene
) -> list[Column]:
    found = []
    for name in frame.columns:
        look = look_of(shown.panel, name)
        if name == "Time" and not look.unit:
            look = replace(look, unit=MOMENT)
        cells = [row.get(name) for row in rows]
        texts = [look.text(cell, scene.now_ms) for cell in cells]
        wide = max(width_of(text, NORMAL) for text in [name, *texts]) + 2 * PADDING
        wide += GAUGE if look.cell == "gauge" else 0.0
        numeric = look.unit or any(isinstance(cell, float | int) for cell in cells)
        if not look.hidden:
            right = bool(numeric) and name != "Time"
            found.append(Column(name, look, cells, texts, right, max(wide, NARROWEST)))
    return found


def _widened(columns: Sequence[Column], width: float) -> list[Column]:
    """Return the columns that fit, wider if there is room to spare; the last may be cut."""
    kept: list[Column] = []
    left = width
    for column in columns:
        if column.width > left:
            break
        kept.append(column)
        left -= column.width
    rest = columns[len(kept) :]
    if rest and left > 2 * NARROWEST and not rest[0].right:
        kept.append(rest[0]._replace(width=left))
        left = 0.0
    return [column._replace(width=column.width + left / len(kept)) for column in kept]


def _heading(plate: Plate, box: Box, column: Column) -> None:
    _words(plate, box, column.name, plate.theme.faint, right=column.right)


def _cell(plate: Plate, box: Box, column: Column, row: int) -> None:
    cell, text, look = column.cells[row], column.texts[row], column.look
    color = plate.theme.text
    if look.cell != "auto" and cell is not None:
        color = look.color(cell, plate.theme)
    elif look.linked and cell is not None:
        color = plate.theme.color(LINK)
    if look.cell == "gauge":
        _gauge(plate, box, look, cell, color)
    _words(plate, box, text, color, right=column.right)


def _words(plate: Plate, box: Box, text: str, color: str, *, right: bool) -> None:
    middle = box.top + box.height / 2
    shown = fitted(text, NORMAL, box.width - 2 * PADDING + 1)
    if right:
        plate.text(box.right - PADDING, middle, shown, color=color, side="right")
    else:
        plate.text(box.left + PADDING, middle, shown, color=color)


def _gauge(plate: Plate, box: Box, look: Look, cell: Cell, color: str) -> None:
    """Draw a bar in a cell, left of its number."""
    room = box.within(PADDING, 7, PADDING + 58, 7)
    _bar(plate, room, look, cell, color)


def _bar(plate: Plate, box: Box, look: Look, cell: Cell, color: str) -> None:
    plate.fill(box, plate.theme.track)
    least, most = look.least or 0.0, look.most or 1.0
    if isinstance(cell, float | int):
        share = min(max((cell - least) / (most - least), 0.0), 1.0)
        filled = box._replace(width=box.width * share)
        plate.fill(filled, faded(color, 0.35, plate.theme.panel))
        if share:
            plate.fill(Box(filled.right - 2, box.top, 2, box.height), color)


def _left_out(plate: Plate, rows: int, columns: int) -> None:
    """Say how many rows and columns one would have to scroll to."""
    parts = [
        f"{count} more {noun}{'s' if count > 1 else ''}"
        for count, noun in ((rows, "row"), (columns, "column"))
        if count
    ]
    if parts:
        words = f"{' and '.join(parts)}: scroll"
        middle = plate.box.bottom - SMALL / 2
        plate.text(
            plate.box.right, middle, words, size=SMALL, color=plate.theme.faint, side="right"
        )


def bars(plate: Plate, shown: Shown, scene: Scene) -> None:
    """Draw a bar for the last value of each series, its name on the left."""
    known = [(name, cell) for name, cell in _last(shown) if isinstance(cell, float | int)]
    highest = max(cell for _, cell in known)
    step = _step(plate.box.height, len(known), shown.panel.options)
    fits = int(plate.box.height / step)
    beside = min(max(width_of(name, NORMAL) for name, _ in known), plate.box.width / 2)
    looks = [_scaled(look_of(shown.panel, name), highest) for name, _ in known]
    texts = [look.text(cell, scene.now_ms) for look, (_, cell) in zip(looks, known, strict=True)]
    after = max(width_of(text, NORMAL) for text in texts) + PADDING
    for index, ((name, cell), look, text) in enumerate(zip(known, looks, texts, strict=True)):
        if index == fits:
            _left_out(plate, len(known) - fits, 0)
            break
        row = Box(plate.box.left, plate.box.top + step * index, plate.box.width, step)
        middle, color = row.top + step / 2, look.color(cell, plate.theme)
        plate.text(row.left, middle, fitted(name, NORMAL, beside))
        _bar(plate, row.within(beside + PADDING, 4, after, 4), look, cell, color)
        plate.text(row.right, middle, text, color=color, side="right")


def _last(shown: Shown) -> list[tuple[str, Cell]]:
    """Return the name and the last value of each series."""
    return [
        (series_name(shown.panel, frame), last_known(frame.columns["Value"]))
        for frame in shown.frames
    ]


def _step(height: float, rows: int, options: Json) -> float:
    """Return how high a bar and the space below it are."""
    most, least = (number(options[f"{end}VizHeight"]) + BELOW_BAR for end in ("max", "min"))
    return max(least, min(most, height / rows))


def _scaled(look: Look, highest: float) -> Look:
    """Return the look with a full bar: the largest of all values, if nothing else is said."""
    return look if look.most else replace(look, most=highest or 1.0)


def empty(plate: Plate, panel: Panel) -> None:
    """Write what the panel says in place of a graph."""
    lines = wrapped(panel.empty, NORMAL, plate.box.width - 2 * PADDING)
    center, step = plate.box.left + plate.box.width / 2, NORMAL * 1.5
    top = plate.box.top + plate.box.height / 2 - step * (len(lines) - 1) / 2
    for index, line in enumerate(lines):
        plate.text(center, top + step * index, line, color=plate.theme.faint, side="center")
