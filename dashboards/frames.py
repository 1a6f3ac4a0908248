"""What a panel shows: its queries asked, the answers as Grafana's frames, joined and computed.

    view = opened(dashboard, View(since_ms, until_ms, {"cluster": "demo"}), ask)
    for _, panel in dashboard.panels():
        frames = frames_of(panel, view, ask)

One code for `rooflight dashboards check`, the tests and whoever draws the panels otherwise.
Source: grafana/grafana, pkg/tsdb/influxdb/influxql/buffered/response_parser.go, pkg/expr, and
packages/grafana-data/src/transformations/transformers/merge.ts.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import NamedTuple

from dashboards.dashboard import Dashboard, Variable
from dashboards.expand import Chosen, View, expand
from dashboards.expression import Expression
from dashboards.panel import MOST_POINTS, Panel
from dashboards.query import Query
from probes.catalogue import Database

Cell = float | str | bool | None


class Series(NamedTuple):
    """One series of InfluxDB's answer, times in milliseconds since 1970."""

    tags: Mapping[str, str]
    columns: Sequence[str]
    values: Sequence[Sequence[Cell]]


Ask = Callable[[Database, str], Sequence[Series]]
"""Runs an expanded query on one of the two databases."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A table, or one series as a table with the columns Time and Value.

    Attributes:
        name: legend of a series; "" of a table.
        labels: tags of a series.
        columns: values by column name, all of the same length.

    """

    name: str
    labels: Mapping[str, str]
    columns: Mapping[str, Sequence[Cell]]

    @property
    def is_series(self) -> bool:
        """Whether this is a series, and not a table."""
        return set(self.columns) <= {"Time", "Value"}

    def rows(self) -> list[dict[str, Cell]]:
        """Return the rows; what is not known is absent."""
        names = list(self.columns)
        return [
            {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
            for cells in zip(*self.columns.values(), strict=True)
        ]

    def values(self) -> list[Cell]:
        """Return what is known of anything but the time."""
        return [
            cell
            for name, cells in self.columns.items()
            for cell in cells
            if name != "Time" and cell is not None
        ]


def frames_of(panel: Panel, view: View, ask: Ask) -> list[Frame]:
    """Return what the panel shows: a frame for each series, or for each table."""
    answers: dict[str, list[Frame]] = {}
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        if isinstance(query, Expression):
            answers[letter] = evaluate(query, answers)
        else:
            answers[letter] = query_frames(query, view, ask, panel.points)
    computed = any(isinstance(query, Expression) for query in panel.queries)
    letters = list(answers)[-1:] if computed else list(answers)
    frames = [frame for letter in letters for frame in answers[letter]]
    if panel.key:
        return joined(frames, panel.key)
    return [folded(frame, panel.fold) for frame in frames] if panel.fold else frames


def opened(dashboard: Dashboard, view: View, ask: Ask) -> View:
    """Return the view with a value for every variable, as Grafana chooses them at first.

    What `view` has chosen already stays.
    """
    chosen = dict(view.variables)
    for variable in dashboard.variables:
        if variable.name not in chosen:
            here = replace(view, variables=chosen)
            chosen[variable.name] = _first(variable, here, ask)
    return replace(view, variables=chosen)


def _first(variable: Variable, view: View, ask: Ask) -> Chosen:
    if variable.query is None:
        return next(iter(variable.choices), "")
    values = values_of(variable.query, view, ask)
    return tuple(values) if variable.multi else next(iter(values), "")


def values_of(query: Query, view: View, ask: Ask) -> list[str]:
    """Return the values of a variable's query, in order."""
    series = ask(query.database, expand(query.text, view))
    return sorted({str(row[-1]) for each in series for row in each.values})


def query_frames(query: Query, view: View, ask: Ask, points: int = MOST_POINTS) -> list[Frame]:
    """Return the answer to one query of a panel that asks for so many points."""
    series = ask(query.database, expand(query.text, view, points))
    if query.table:
        return [_table(series)] if series else []
    return [_as_series(each, query) for each in series]


def evaluate(expression: Expression, answers: Mapping[str, list[Frame]]) -> list[Frame]:
    """Return the result of an expression over earlier answers."""
    if expression.kind == "math":
        dividend, divisor = re.findall(r"\$([A-Z])", expression.of)
        return list(_quotients(answers[dividend], answers[divisor]))
    step = _passed if expression.kind == "threshold" else _reduced
    numbers = [(frame, step(expression, frame)) for frame in answers[expression.of]]
    return [_number(frame.labels, value) for frame, value in numbers if value is not None]


def joined(frames: Sequence[Frame], key: str) -> list[Frame]:
    """Return one table: rows that agree in the columns that all tables have become one."""
    if not frames:
        return []
    names = dict.fromkeys(name for frame in frames for name in frame.columns if name != "Time")
    shared = [name for name in names if all(name in frame.columns for frame in frames)]
    rows: dict[tuple[Cell, ...], dict[str, Cell]] = {}
    for row in (row for frame in frames for row in frame.rows()):
        rows.setdefault(tuple(row.get(name) for name in shared), {}).update(row)
    kept = [row for row in rows.values() if key in row]
    return [Frame("", {}, {name: [row.get(name) for row in kept] for name in names})]


def folded(frame: Frame, fold: Mapping[str, str]) -> Frame:
    """Return the table with one row for those that agree in all columns that are not folded."""
    names = [name for name in frame.columns if name != "Time"]
    groups: dict[tuple[Cell, ...], list[dict[str, Cell]]] = {}
    for row in frame.rows():
        groups.setdefault(tuple(row.get(name) for name in names if name not in fold), []).append(
            row
        )
    rows = [
        {
            name: _fold(fold.get(name, "last"), [row[name] for row in group if name in row])
            for name in names
        }
        for group in groups.values()
    ]
    return Frame("", {}, {name: [row[name] for row in rows] for name in names})


def _fold(how: str, cells: Sequence[Cell]) -> Cell:
    numbers = [cell for cell in cells if isinstance(cell, float)]
    if how == "last" or not numbers:
        return cells[-1] if cells else None
    folds: Mapping[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}
    return folds[how](numbers)


def _as_series(series: Series, query: Query) -> Frame:
    name = re.sub(r"\$tag_(\w+)", lambda match: series.tags.get(match[1], match[0]), query.legend)
    times, values = ([row[column] for row in series.values] for column in (0, -1))
    return Frame(name, series.tags, {"Time": times, "Value": values})


def _table(series: Sequence[Series]) -> Frame:
    names = ["Time", *series[0].tags, *series[0].columns[1:]]
    rows = [
        [values[0], *each.tags.values(), *values[1:]] for each in series for values in each.values
    ]
    return Frame("", {}, {name: [row[i] for row in rows] for i, name in enumerate(names)})


def _number(labels: Mapping[str, str], value: float) -> Frame:
    return Frame(" ".join(labels.values()), labels, {"Value": [value]})


def _reduced(expression: Expression, frame: Frame) -> float | None:
    known = [value for value in frame.values() if isinstance(value, float | int)]
    reducers: Mapping[str, Callable[[list[float]], float]] = {
        "last": lambda values: values[-1],
        "min": min,
        "max": max,
        "mean": fmean,
        "sum": sum,
    }
    return float(reducers[expression.reducer](known)) if known else None


def _passed(expression: Expression, frame: Frame) -> float | None:
    value = _reduced(expression, frame)
    if value is None:
        return None
    return float(value > expression.limit if expression.above else value < expression.limit)


def _quotients(dividends: Sequence[Frame], divisors: Sequence[Frame]) -> Iterator[Frame]:
    """Yield each number over the one whose labels are among its own."""
    for dividend, divisor in product(dividends, divisors):
        if divisor.labels.items() <= dividend.labels.items():
            over, under = dividend.columns["Value"][0], divisor.columns["Value"][0]
            if isinstance(over, float) and isinstance(under, float) and under:
                yield _number(dividend.labels, over / under)
