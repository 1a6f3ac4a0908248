"""Hold every query of every dashboard and alert rule against a running store.

What a panel shows is asked as Grafana would ask it, and a panel without data is explained: by what
no agent has reported, by the time that is looked at, or by conditions that nothing fits.
"""

import re
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from dashboards.alerts import Rule
from dashboards.dashboard import Dashboard
from dashboards.expand import View, expand
from dashboards.expression import Expression
from dashboards.frames import Ask, Frame, evaluate, frames_of, opened, query_frames, values_of
from dashboards.panel import Panel
from dashboards.query import Query
from probes.catalogue import CATALOGUE, Measurement

MILLISECONDS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}

Mark = Literal["ok", "empty", "bad"]


class Refused(Exception):
    """The store did not take a query; the message carries its words."""


class Line(NamedTuple):
    """What was found of a panel, variable, annotation or alert rule.

    Attributes:
        mark: "empty" where `words` say why there is nothing, "bad" where the store refused.
        where: dashboard, and what of it.
        words: how much there is, or why there is nothing.
        seconds: how long the store took.

    """

    mark: Mark
    where: str
    words: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checker:
    """Asks one store about one cluster."""

    ask: Ask
    cluster: str

    def dashboard(self, dashboard: Dashboard, view: View) -> Iterator[Line]:
        """Yield a line for each variable, annotation and panel."""
        try:
            view = opened(dashboard, view, self.ask)
        except Refused as refused:
            yield Line("bad", f"{dashboard.title} / variables", str(refused))
            return
        for variable in dashboard.variables:
            if variable.query:
                where = f"{dashboard.title} / variable {variable.name}"
                values = partial(values_of, variable.query, view, self.ask)
                yield self._line(where, "values", values, [variable.query], view)
        for annotation in dashboard.annotations:
            where = f"{dashboard.title} / annotation {annotation.name}"
            marks = partial(self._marks, annotation.query, view)
            yield self._line(where, "marks", marks, [annotation.query], view)
        for _, panel in dashboard.panels():
            yield self._panel(dashboard, panel, view)

    def rule(self, rule: Rule, now_ms: int) -> Line:
        """Return what a rule would say now."""
        answers: dict[str, list[Frame]] = {}
        begun = time.perf_counter()
        try:
            for letter, (query, seconds) in zip(string.ascii_uppercase, rule.steps(), strict=False):
                if isinstance(query, Expression):
                    answers[letter] = evaluate(query, answers)
                else:
                    view = View(now_ms - 1000 * seconds, now_ms)
                    answers[letter] = query_frames(query, view, self.ask)
        except Refused as refused:
            return Line("bad", f"alert {rule.title}", str(refused))
        verdicts = answers[letter]
        firing = [frame.name for frame in verdicts if frame.values() == [1.0]]
        words = f"{len(verdicts)} watched, would fire for {', '.join(firing) or 'none'}"
        if not verdicts:
            words = self._why_empty(rule.query, View(now_ms - 1000 * rule.seconds, now_ms))
        mark: Mark = "ok" if verdicts else "empty"
        return Line(mark, f"alert {rule.title}", words, time.perf_counter() - begun)

    def _panel(self, dashboard: Dashboard, panel: Panel, view: View) -> Line:
        queries = [query for query in panel.queries if isinstance(query, Query)]
        noun = "rows" if any(query.table for query in queries) else "series"
        where = f"{dashboard.title} / {panel.title}"
        return self._line(where, noun, partial(self._shown, panel, view), queries, view)

    def _line(
        self,
        where: str,
        noun: str,
        find: Callable[[], Sequence[object]],
        queries: Sequence[Query],
        view: View,
    ) -> Line:
        begun = time.perf_counter()
        try:
            found = len(find())
            seconds = time.perf_counter() - begun
            if found:
                return Line("ok", where, f"{found} {noun}", seconds)
            return Line("empty", where, self._why_empty(queries[0], view), seconds)
        except Refused as refused:
            return Line("bad", where, str(refused))

    def _shown(self, panel: Panel, view: View) -> list[object]:
        """Return the rows and series that a panel shows."""
        return [thing for frame in frames_of(panel, view, self.ask) for thing in _things(frame)]

    def _marks(self, query: Query, view: View) -> list[object]:
        return [thing for frame in query_frames(query, view, self.ask) for thing in _things(frame)]

    def _why_empty(self, query: Query, view: View) -> str:
        """Return why a query has no answer."""
        for name in re.findall(r"\$\{?(\w+)", query.text):
            if view.variables.get(name, "-") in ("", ()):
                return f"there is nothing to choose for ${name}"
        measurement = CATALOGUE[re.findall(r'FROM "(\w+)"', query.text)[0]]
        here, of_cluster = _conditions(query, view), f"\"cluster\" = '{self.cluster}'"
        fields = [field for field in measurement.fields.values() if f'"{field.name}"' in query.text]
        if self._newest(measurement, "*", of_cluster) is None:
            return f"nothing of {measurement.name} is in the store: {measurement.meaning}"
        for name, meaning in [(field.name, field.meaning) for field in fields] or [("*", "")]:
            newest = self._newest(measurement, _quoted(name), here)
            if newest is None:
                known = self._newest(measurement, _quoted(name), of_cluster) is not None
                where = f"where {here}" if known else "in the store"
                what = "nothing" if name == "*" else f"no {name}"
                return f"{measurement.name} has {what} {where}: {meaning}".removesuffix(": ")
            if newest < _earliest(expand(query.text, view)):
                ago = (view.until_ms - newest) / 1000
                return f"the newest {name} is {ago:.0f} s before the end of this time"
        few = "derivative" in query.text
        return "too few samples in this time for a rate" if few else f"nothing fits where {here}"

    def _newest(self, measurement: Measurement, wanted: str, where: str) -> float | None:
        """Return the time of the newest point of a field in milliseconds since 1970."""
        query = f'SELECT {wanted} FROM "{measurement.name}" WHERE {where}'  # noqa: S608
        series = self.ask(measurement.database, f"{query} ORDER BY time DESC LIMIT 1")
        return float(series[0].values[0][0] or 0.0) if series else None


def _quoted(name: str) -> str:
    return name if name == "*" else f'"{name}"'


def _conditions(query: Query, view: View) -> str:
    """Return the conditions of a query but for its time."""
    found = re.search(r"WHERE (.*?)(?: AND (?:\$timeFilter|time )|$)", query.text)
    return expand(found[1], view) if found else ""


def _earliest(query: str) -> int:
    """Return the lower limit of a query's time in milliseconds since 1970; 0 without one."""
    match = re.search(r"time >=? (\d+)ms(?: - (\d+)([mhd]))?", query)
    if match is None:
        return 0
    return int(match[1]) - int(match[2] or 0) * MILLISECONDS[match[3] or "m"]


def _things(frame: Frame) -> list[object]:
    """Return the rows of a table, or a series that has values."""
    if frame.is_series:
        return [frame] if frame.values() else []
    return [row for row in frame.rows() if set(row) - {"Time"}]
