"""How a panel shows one of its fields: its defaults, and the overrides that fit the field's name.

Source: grafana/grafana, packages/grafana-data/src/field/fieldOverrides.ts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from dashboards.draw.colors import DEFAULT_STEPS, Theme, stepped
from dashboards.draw.formats import formatted
from dashboards.frames import Cell, Frame
from dashboards.panel import Json, Panel, Steps

CellKind = Literal["auto", "color-text", "gauge"]


@dataclass(frozen=True, slots=True)
class Look:
    """What is set for one field; Grafana's names of settings, ours of attributes.

    Attributes:
        unit: Grafana's name of the unit.
        least: value of an empty bar, or bottom of the axis.
        most: value of a full bar, or top of the axis.
        steps: thresholds, in order.
        fixed: name of the field's own colour; "" for none.
        words: word -> name of its colour.
        cell: how a table draws its cells.
        linked: whether a cell leads somewhere.
        hidden: whether a table leaves it out.
        shown: how a chart of two axes shows it, `points` or `lines`.
        missing: what stands for a value that is not there.

    """

    unit: str = ""
    least: float | None = None
    most: float | None = None
    steps: Steps = DEFAULT_STEPS
    fixed: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    cell: CellKind = "auto"
    linked: bool = False
    hidden: bool = False
    shown: str = ""
    missing: str = ""

    def text(self, cell: Cell, now_ms: float) -> str:
        """Return a value as words."""
        if cell is None:
            return self.missing
        if isinstance(cell, str | bool):
            return str(cell)
        return formatted(cell, self.unit, now_ms)

    def color(self, cell: Cell, theme: Theme) -> str:
        """Return the colour of a value: of its word, of its threshold, or the field's own."""
        if isinstance(cell, str):
            return theme.color(self.words.get(cell, self.fixed or "text"))
        if self.fixed:
            return theme.color(self.fixed)
        if not isinstance(cell, float | int):
            return theme.text
        return theme.color(stepped(float(cell), self.steps))


def look_of(panel: Panel, name: str) -> Look:
    """Return how the panel shows the field of this name; of a series, its legend."""
    settings: dict[str, object] = {"noValue": panel.empty}
    settings |= _flat(panel.defaults)
    for override in panel.overrides:
        if _fits(cast(Json, override["matcher"]), name):
            properties = cast(Sequence[Json], override["properties"])
            settings |= {str(each["id"]): each["value"] for each in properties}
    return _look(settings)


def series_name(panel: Panel, frame: Frame) -> str:
    """Return what a series is called on the panel."""
    wanted = str(panel.defaults.get("displayName", ""))
    label = re.compile(r"\$\{__field\.labels\.(\w+)\}")
    named = label.sub(lambda match: frame.labels.get(match[1], ""), wanted)
    return " ".join((named or frame.name).split())


def last_known(cells: Iterable[Cell]) -> Cell:
    """Return the last value that is known."""
    known = [cell for cell in cells if cell is not None]
    return known[-1] if known else None


def _flat(defaults: Json) -> Mapping[str, object]:
    """Return the settings under the names that overrides use: `custom.hidden`."""
    custom = cast(Json, defaults.get("custom", {}))
    own = {f"custom.{name}": value for name, value in custom.items()}
    return {**{name: value for name, value in defaults.items() if name != "custom"}, **own}


def _fits(matcher: Json, name: str) -> bool:
    wanted = str(matcher["options"])
    if matcher["id"] == "byRegexp":
        return re.search(wanted.strip("/"), name) is not None
    return wanted == name


def _look(settings: Mapping[str, object]) -> Look:
    color = cast(Json, settings.get("color", {}))
    cell = cast(Json, settings.get("custom.cellOptions", {}))
    return Look(
        unit=str(settings.get("unit", "")),
        least=_number(settings.get("min")),
        most=_number(settings.get("max")),
        steps=_steps(settings),
        fixed=str(color.get("fixedColor", "")),
        words=_words(settings),
        cell=cast(CellKind, cell.get("type", "auto")),
        linked="links" in settings,
        hidden=bool(settings.get("custom.hidden")),
        shown=str(settings.get("custom.show", "")),
        missing=str(settings.get("noValue", "")),
    )


def number(setting: object) -> float:
    """Return a setting that is a number.

    Raises:
        TypeError: it is none.

    """
    if not isinstance(setting, float | int):
        raise TypeError(f"{setting!r} is no number")
    return float(setting)


def _number(setting: object) -> float | None:
    return None if setting is None else number(setting)


def _steps(settings: Mapping[str, object]) -> Steps:
    thresholds = cast(Json, settings.get("thresholds", {}))
    steps = cast(Sequence[Json], thresholds.get("steps", ()))
    found = [(_number(step["value"]), str(step["color"])) for step in steps]
    return tuple(found) or DEFAULT_STEPS


def _words(settings: Mapping[str, object]) -> Mapping[str, str]:
    mappings = cast(Sequence[Json], settings.get("mappings", ()))
    return {
        word: str(shown["color"])
        for mapping in mappings
        for word, shown in cast(Mapping[str, Json], mapping["options"]).items()
    }
