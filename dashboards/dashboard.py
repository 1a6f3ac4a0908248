"""A dashboard: its variables, annotations and rows of panels, and their place on the page.

Written as Grafana's classic model; Grafana 11 and later load it and bring it to their own version.
Source: @grafana/schema, `Dashboard`; grafana.com/docs, "Dashboard JSON model".
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from dashboards.expression import Expression
from dashboards.panel import FULL, Panel
from dashboards.query import Query
from probes.catalogue import Database

SCHEMA_VERSION = 41
TAG = "rooflight"

DATASOURCES = {Database.METRICS: "rooflight", Database.JOBS: "rooflight-jobs"}
"""Database -> uid of its data source, as provisioned; alert rules know no variables and use it."""

SOURCE_VARIABLES = {Database.METRICS: "datasource", Database.JOBS: "jobs_datasource"}
"""Database -> variable that names its data source, for sites that have several."""

REDUCERS = {"last": "lastNotNull", "sum": "sum", "max": "max", "min": "min"}
"""Our word for how values are folded -> Grafana's."""

PAGES = {
    "cluster": "Cluster",
    "job": "Job",
    "node": "Node",
    "gpu-fleet": "GPU fleet",
    "phases": "Reference phases",
    "agents": "Agents",
}
"""The dashboards: last part of the uid -> title."""

SAME_CLUSTER = "&".join(
    f"${{{name}:queryparam}}" for name in (*SOURCE_VARIABLES.values(), "cluster")
)


def address(page: str, *parameters: str) -> str:
    """Return the address of one of the dashboards, for links between them."""
    return "&".join([f"/d/{TAG}-{page}/{page}?{SAME_CLUSTER}", *parameters])


@dataclass(frozen=True, slots=True)
class Variable:
    """What is chosen at the top of a dashboard.

    Attributes:
        query: gives the values to choose from; without it and without choices, a text is typed.
        multi: whether several may be chosen, and all of them at first.
        choices: fixed values to choose from, the first at first.
        hidden: whether it is there for queries only.

    """

    name: str
    label: str
    description: str
    query: Query | None = None
    multi: bool = False
    choices: Sequence[str] = ()
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """Marks on the panels over time.

    Attributes:
        measurement: where the query reads; Grafana puts it before the names of columns.
        text: column that is shown.
        tags: columns that are shown as tags.
        until: column with the end in milliseconds since 1970; "" for marks of a moment.

    """

    name: str
    measurement: str
    query: Query
    color: str
    text: str
    tags: Sequence[str]
    until: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right."""

    title: str
    panels: Sequence[Panel]


class Placed(NamedTuple):
    """A heading or panel with its number and place on the page."""

    number: int
    item: Row | Panel
    place: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page.

    Attributes:
        page: last part of the uid, which is fixed for links and alert rules.
        since: where its time begins when it is opened.

    """

    page: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable]
    annotations: Sequence[Annotation] = ()
    since: str = "now-6h"

    @property
    def uid(self) -> str:
        """The uid."""
        return f"{TAG}-{self.page}"

    @property
    def title(self) -> str:
        """The title."""
        return PAGES[self.page]

    def panels(self) -> Iterator[tuple[int, Panel]]:
        """Yield each panel with its number."""
        for number, item, _ in self.placed():
            if isinstance(item, Panel):
                yield number, item

    def placed(self) -> Iterator[Placed]:
        """Yield headings and panels with their places: left to right, then down."""
        numbers, top = count(1), 0
        for row in self.rows:
            yield Placed(next(numbers), row, _place(0, top, FULL, 1))
            top += 1
            left = height = 0
            for panel in row.panels:
                if left + panel.width > FULL:
                    top, left, height = top + height, 0, 0
                yield Placed(next(numbers), panel, _place(left, top, panel.width, panel.height))
                left, height = left + panel.width, max(height, panel.height)
            top += height

    def model(self) -> dict[str, object]:
        """Return the dashboard as Grafana stores it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "timezone": "browser",
            "time": {"from": self.since, "to": "now"},
            "refresh": "1m",
            "templating": {"list": [*_datasources(), *map(_variable, self.variables)]},
            "annotations": {"list": [_annotation(each) for each in self.annotations]},
            "links": [_link(page, title) for page, title in PAGES.items() if page != self.page],
            "panels": [_item(each) for each in self.placed()],
        }


def datasource(database: Database) -> dict[str, str]:
    """Return a panel's reference to the data source of a database."""
    return {"type": "influxdb", "uid": f"${{{SOURCE_VARIABLES[database]}}}"}


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _item(placed: Placed) -> dict[str, object]:
    common = {"id": placed.number, "gridPos": placed.place, "title": placed.item.title}
    if isinstance(placed.item, Row):
        return {**common, "type": "row", "collapsed": False, "panels": []}
    return {**common, **_panel(placed.item)}


def _panel(panel: Panel) -> dict[str, object]:
    return {
        "type": panel.kind,
        "description": panel.description,
        "datasource": _datasource_of(panel),
        "targets": [
            _target(query, letter, hide=_feeds_expression(panel, index))
            for index, (letter, query) in enumerate(
                zip(string.ascii_uppercase, panel.queries, strict=False)
            )
        ],
        "maxDataPoints": panel.points,
        "fieldConfig": {
            "defaults": {"noValue": panel.empty, **panel.defaults},
            "overrides": list(panel.overrides),
        },
        "options": panel.options,
        "transformations": _transformations(panel),
    }


def _transformations(panel: Panel) -> list[dict[str, object]]:
    if panel.key:
        return _joined(panel.key)
    return _folded(panel) if panel.fold else []


def _folded(panel: Panel) -> list[dict[str, object]]:
    """Return what makes one row of those that agree in all columns that are not folded."""
    columns = [name for query in panel.queries if isinstance(query, Query) for name in query.units]
    by: dict[str, object] = {
        name: {"operation": "groupby", "aggregations": []}
        for name in columns
        if name not in panel.fold
    }
    reducers = {name: REDUCERS[how] for name, how in panel.fold.items()}
    folded = {
        name: {"operation": "aggregate", "aggregations": [reducer]}
        for name, reducer in reducers.items()
    }
    names = {f"{name} ({reducer})": name for name, reducer in reducers.items()}
    rename = {"renameByName": names, "excludeByName": {}, "indexByName": {}}
    return [
        {"id": "groupBy", "options": {"fields": {**by, **folded}}},
        {"id": "organize", "options": rename},
    ]


def _joined(key: str) -> list[dict[str, object]]:
    """Return what joins tables by the columns that they share, and drops rows without `key`."""
    known = {"fieldName": key, "config": {"id": "isNotNull", "options": {}}}
    wanted = {"type": "include", "match": "all", "filters": [known]}
    return [
        {"id": "filterFieldsByName", "options": {"exclude": {"names": ["Time"]}}},
        {"id": "merge", "options": {}},
        {"id": "filterByValue", "options": wanted},
    ]


def _feeds_expression(panel: Panel, index: int) -> bool:
    """Tell whether a query is there for an expression: only the last of those is shown."""
    computed = any(isinstance(query, Expression) for query in panel.queries)
    return computed and index < len(panel.queries) - 1


def _datasource_of(panel: Panel) -> Mapping[str, str]:
    databases = {query.database for query in panel.queries if isinstance(query, Query)}
    if len(databases) == 1:
        return datasource(databases.pop())
    return {"type": "datasource", "uid": "-- Mixed --"}


def _target(query: Query | Expression, letter: str, *, hide: bool) -> dict[str, object]:
    if isinstance(query, Expression):
        return {**query.model(letter), "hide": hide}
    return {
        "refId": letter,
        "datasource": datasource(query.database),
        "rawQuery": True,
        "query": query.text,
        "alias": query.legend,
        "resultFormat": "table" if query.table else "time_series",
        "hide": hide,
    }


def _datasources() -> Iterator[dict[str, object]]:
    labels = {Database.METRICS: "Metrics", Database.JOBS: "Jobs"}
    for database, name in SOURCE_VARIABLES.items():
        uid = DATASOURCES[database]
        yield {
            "name": name,
            "label": labels[database],
            "description": f"InfluxDB data source of rooflight's {database.value}",
            "type": "datasource",
            "query": "influxdb",
            "regex": "",
            "hide": 0,
            "refresh": 1,
            "multi": False,
            "includeAll": False,
            "current": {"text": uid, "value": uid},
            "options": [],
        }


def _variable(variable: Variable) -> dict[str, object]:
    model: dict[str, object] = {
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "hide": 2 if variable.hidden else 0,
        "skipUrlSync": False,
    }
    if variable.query:
        return model | _queried(variable, variable.query)
    if variable.choices:
        return model | _chosen(variable.choices)
    typed = {"text": "", "value": ""}
    return model | {"type": "textbox", "query": "", "current": typed, "options": []}


def _queried(variable: Variable, query: Query) -> dict[str, object]:
    everything = {"text": ["All"], "value": ["$__all"]}
    return {
        "type": "query",
        "datasource": datasource(query.database),
        "query": {"refId": variable.name, "query": query.text},
        "regex": "",
        "refresh": 2,  # whenever the time range changes
        "sort": 7,  # natural, ascending: node2 before node10
        "multi": variable.multi,
        "includeAll": variable.multi,
        "current": everything if variable.multi else {"text": "", "value": ""},
        "options": [],
    }


def _chosen(choices: Sequence[str]) -> dict[str, object]:
    options = [{"text": each, "value": each, "selected": each == choices[0]} for each in choices]
    return {
        "type": "custom",
        "query": ",".join(choices),
        "multi": False,
        "includeAll": False,
        "current": {"text": choices[0], "value": choices[0]},
        "options": options,
    }


def _annotation(annotation: Annotation) -> dict[str, object]:
    """Return the annotation.

    Grafana finds the column with the end by its whole name, measurement included, and the others
    by a part of theirs. Source: influxdb/response_parser.ts, `transformAnnotationResponse`.
    """
    until = f"{annotation.measurement}.{annotation.until}" if annotation.until else ""
    return {
        "name": annotation.name,
        "enable": True,
        "iconColor": annotation.color,
        "datasource": datasource(annotation.query.database),
        "target": {
            "refId": annotation.name,
            "query": annotation.query.text,
            "queryType": "tags",
            "fromAnnotations": True,
            "textColumn": annotation.text,
            "tagsColumn": ",".join(annotation.tags),
            "timeEndColumn": until,
            "titleColumn": "",
            "name": annotation.name,
        },
    }


def _link(page: str, title: str) -> dict[str, object]:
    return {
        "type": "link",
        "title": title,
        "url": address(page),
        "keepTime": True,
        "includeVars": False,
        "targetBlank": False,
        "asDropdown": False,
        "icon": "dashboard",
        "tags": [],
        "tooltip": "",
    }
