"""Panels: one function for each kind that is used, and what they have in common.

Only types that Grafana itself ships and still loads. Source: @grafana/schema, and the panels'
`panelcfg.cue` in grafana/grafana.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dashboards.expression import Expression
from dashboards.query import Query
from dashboards.units import SHARE

Json = Mapping[str, object]
Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value on which colour; the first from None on."""

Stacking = Literal["none", "normal", "percent"]

FULL, HALF, THIRD, SIXTH = 24, 12, 8, 4
"""Widths, of 24 columns."""

MOST_POINTS = 300
POINTS_PER_COLUMN = 15
NESTED_POINTS = 48
"""Points of a series over the whole time: what a panel can show, and a day of 64 nodes can bear."""

GAP_MS = 300_000
"""Lines are drawn over a gap of less: an agent that samples more slowly is not silent."""

BOUND_COLORS = {
    "compute": "blue",
    "memory": "orange",
    "link": "purple",
    "io": "yellow",
    "latency": "red",
    "balanced": "green",
    "idle": "#8e8e8e",
    "unknown": "#5a5a5a",
}
"""One colour for each bound, on every panel."""

_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}


def high_is_bad(warning: float, bad: float) -> Steps:
    """Return green, orange from `warning` on, red from `bad` on."""
    return ((None, "green"), (warning, "orange"), (bad, "red"))


def low_is_bad(warning: float, good: float) -> Steps:
    """Return red, orange from `warning` on, green from `good` on."""
    return ((None, "red"), (warning, "orange"), (good, "green"))


@dataclass(frozen=True, slots=True)
class Column:
    """How a table shows one column.

    Attributes:
        unit: Grafana's; "" for what the catalogue says.
        link: address that a cell leads to.
        hidden: there for links only.
        most: a bar from 0 to this stands in the cell; 0 for none.
        steps: thresholds that colour the cell.
        colors: word -> colour.

    """

    unit: str = ""
    link: str = ""
    hidden: bool = False
    most: float = 0.0
    steps: Steps = ()
    colors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; everything but its place on the page.

    Attributes:
        title: what it shows.
        description: what that is and when to worry, for a user.
        kind: Grafana's panel type.
        queries: what it asks, A first.
        empty: what it says in place of a graph when there is no answer: which hardware or what
            work would be needed.
        width: of 24 columns.
        height: in units of 30 pixels.
        defaults: `fieldConfig.defaults`.
        overrides: `fieldConfig.overrides`.
        options: the panel type's own.
        key: of a table with several queries, whose rows are joined by the columns that they share:
            the column that a row must have to be shown.
        fold: of a table whose rows with the same values in all other columns become one: how each
            of these columns is folded, `last`, `sum`, `max` or `min`.

    """

    title: str
    description: str
    kind: str
    queries: tuple[Query | Expression, ...]
    empty: str
    width: int = HALF
    height: int = 8
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    options: Json = field(default_factory=dict)
    key: str = ""
    fold: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """How many points of a series it asks for."""
        nested = any(isinstance(query, Query) and query.nested for query in self.queries)
        return NESTED_POINTS if nested else min(MOST_POINTS, POINTS_PER_COLUMN * self.width)

    def sized(self, width: int, height: int = 0) -> "Panel":
        """Return the panel in another size."""
        return replace(self, width=width, height=height or self.height)


def timeseries(
    title: str,
    description: str,
    *queries: Query,
    empty: str,
    unit: str = "",
    steps: Steps = (),
    stacking: Stacking = "none",
    points: bool = False,
    most: float | None = None,
    colors: Mapping[str, str] | None = None,
) -> Panel:
    """Return lines over time, or points; `most` is the top of the axis."""
    custom = {
        "drawStyle": "points" if points else "line",
        "lineWidth": 1,
        "pointSize": 6 if points else 4,
        "showPoints": "always" if points else "auto",
        "spanNulls": GAP_MS,
        "fillOpacity": 0 if stacking == "none" else 40,
        "stacking": {"mode": stacking, "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    look = {"custom": custom, "color": {"mode": "palette-classic"}}
    return Panel(
        title,
        description,
        "timeseries",
        queries,
        empty,
        defaults={**_values(queries, unit, steps, most), "min": 0, **look},
        overrides=_colored(colors or {}),
        options={"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def stat(
    title: str,
    description: str,
    *queries: Query,
    empty: str,
    unit: str = "",
    steps: Steps = (),
    colors: Mapping[str, str] | None = None,
) -> Panel:
    """Return one number, or one word, large."""
    options = {
        # numbers and words, but not the time that they are of
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "/^(?!Time$)/", "values": False},
        "colorMode": "value" if steps or colors else "none",
        "graphMode": "none",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    defaults = {**_values(queries, unit, steps), **_words(colors or {})}
    return Panel(title, description, "stat", queries, empty, SIXTH, 4, defaults, options=options)


def table(
    title: str,
    description: str,
    *queries: Query,
    empty: str,
    columns: Mapping[str, Column] | None = None,
    sort: str = "",
    descending: bool = True,
    time: bool = False,
    key: str = "",
    fold: Mapping[str, str] | None = None,
) -> Panel:
    """Return rows, sorted by the column `sort`; `time` shows the time of the rows.

    `columns` says how columns look; units are taken from the queries. For `key` and `fold` see
    `Panel`.
    """
    looks = {**(columns or {}), **({} if time else {"Time": Column(hidden=True)})}
    units = {name: unit for query in queries for name, unit in query.units.items() if unit}
    names = dict.fromkeys([*units, *looks])
    # a cell without a value must not say what the panel says without rows
    overrides = [_override("/.*/", {"noValue": "-"}, by="byRegexp")]
    overrides += [_column(name, looks.get(name, Column()), units.get(name, "")) for name in names]
    order = [{"displayName": sort, "desc": descending}] if sort else []
    return Panel(
        title,
        description,
        "table",
        queries,
        empty,
        FULL,
        8,
        {"custom": {"align": "auto", "filterable": True}},
        overrides,
        {"showHeader": True, "cellHeight": "sm", "sortBy": order},
        key,
        fold or {},
    )


def heatmap(
    title: str,
    description: str,
    query: Query,
    *,
    empty: str,
    fill: str = "",
    scheme: str = "",
    unit: str = "",
    least: float = 0.0,
    most: float = 1.0,
) -> Panel:
    """Return a row for each series, coloured by its value: where in a cluster, and when.

    `fill` is a colour that is the fainter the lower a value; `scheme` has a colour for each. Those
    of one hue are no good for "none": on a dark page Grafana turns them round, and 0 is darkest.
    """
    mode = {"mode": "opacity" if fill else "scheme", "scheme": scheme or "Oranges"}
    color = {**mode, "scale": "linear", "steps": 64, "min": least, "max": most}
    options = {
        "calculate": False,
        "cellGap": 0,
        "color": {**color, "reverse": False, "fill": fill or "green", "exponent": 0.5},
        "rowsFrame": {"layout": "auto"},
        "yAxis": {"axisPlacement": "left", "reverse": True},
        "cellValues": {"unit": unit or query.units["value"]},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
        "legend": {"show": True},
        "showValue": "never",
        "filterValues": {},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    }
    return Panel(title, description, "heatmap", (query,), empty, FULL, 9, options=options)


def timeline(title: str, description: str, query: Query, *, empty: str) -> Panel:
    """Return a band for each series, coloured by its word: which bound when."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.9,
        "perPage": 20,
        "alignValue": "left",
        "legend": _LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 80, "lineWidth": 0, "spanNulls": GAP_MS}
    defaults = {"custom": custom, **_words(BOUND_COLORS)}
    return Panel(
        title, description, "state-timeline", (query,), empty, FULL, 8, defaults, options=options
    )


def bars(
    title: str,
    description: str,
    *queries: Query | Expression,
    empty: str,
    unit: str = "",
    steps: Steps = (),
    most: float | None = None,
    colors: Mapping[str, str] | None = None,
    name: str = "",
) -> Panel:
    """Return a bar for each series, of its value for the whole time.

    `most` is a full bar; `name` is made of labels, where the series come from an expression.
    """
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "basic",
        "orientation": "horizontal",
        "valueMode": "color",
        "showUnfilled": True,
        "namePlacement": "left",
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 40,
        "legend": {**_LEGEND, "showLegend": False},
    }
    asked = [query for query in queries if isinstance(query, Query)]
    defaults = {**_values(asked, unit, steps, most), "min": 0}
    if not steps:  # else Grafana's own: red from 80 on, whatever that is
        defaults["color"] = {"mode": "fixed", "fixedColor": "blue"}
    if name:
        defaults["displayName"] = name
    overrides = _colored(colors or {})
    return Panel(
        title,
        description,
        "bargauge",
        queries,
        empty,
        defaults=defaults,
        overrides=overrides,
        options=options,
    )


def roofline(
    title: str,
    description: str,
    *queries: Query,
    empty: str,
    across: str,
    unit: str,
    lines: Sequence[str],
) -> Panel:
    """Return points under roofs, both axes logarithmic.

    The first column of each query is the horizontal axis, and the same in all. `across` is its
    unit and `unit` that of the vertical axis; `lines` are the columns that are drawn as lines.
    """
    first = next(iter(queries[0].units))
    custom = {
        "show": "points",
        "pointSize": {"fixed": 9},
        "pointShape": "circle",
        "pointStrokeWidth": 1,
        "fillOpacity": 60,
        "lineWidth": 2,
        "scaleDistribution": {"type": "log", "log": 10},
    }
    overrides = [_override(first, {"unit": across, "custom.axisLabel": first})]
    overrides += [_override(line, {"custom.show": "lines"}) for line in lines]
    options = {
        "mapping": "auto",
        "series": [{}],
        "legend": _LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {"unit": unit, "custom": custom}
    return Panel(
        title, description, "xychart", queries, empty, HALF, 12, defaults, overrides, options
    )


def _values(
    queries: Sequence[Query], unit: str, steps: Steps, most: float | None = None
) -> dict[str, object]:
    """Return the unit that the queries share, thresholds, and the top of a ratio."""
    units = {query.units.get("value", "") for query in queries}
    shared = unit or (units.pop() if len(units) == 1 else "")
    found: dict[str, object] = {"unit": shared} if shared else {}
    top = 1 if most is None and shared == SHARE else most
    if top:
        found["max"] = top
    return found | (_thresholds(steps) if steps else {})


def _thresholds(steps: Steps) -> dict[str, object]:
    colors = [{"value": value, "color": color} for value, color in steps]
    return {
        "thresholds": {"mode": "absolute", "steps": colors},
        "color": {"mode": "thresholds"},
    }


def _words(colors: Mapping[str, str]) -> dict[str, object]:
    """Return value mappings that give words their colours."""
    options = {
        word: {"color": color, "index": index} for index, (word, color) in enumerate(colors.items())
    }
    return {"mappings": [{"type": "value", "options": options}]} if options else {}


def _colored(colors: Mapping[str, str]) -> list[Json]:
    """Return overrides that give series their colours by name."""
    return [
        _override(name, {"color": {"mode": "fixed", "fixedColor": color}})
        for name, color in colors.items()
    ]


def _column(name: str, look: Column, unit: str) -> Json:
    properties: dict[str, object] = {"unit": look.unit or unit} if look.unit or unit else {}
    if look.hidden:
        properties["custom.hidden"] = True
    if look.link:
        properties["links"] = [{"title": f"Open {name}", "url": look.link}]
    if look.most:
        gauge = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        properties |= {"custom.cellOptions": gauge, "min": 0, "max": look.most}
    elif look.steps or look.colors:
        properties["custom.cellOptions"] = {"type": "color-text"}
    if look.steps:
        properties |= _thresholds(look.steps)
    return _override(name, properties | _words(look.colors))


def _override(name: str, properties: Json, by: str = "byName") -> Json:
    return {
        "matcher": {"id": by, "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }
