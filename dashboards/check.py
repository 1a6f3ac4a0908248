"""Hold every query of every dashboard and alert rule against a running store.

What a panel shows is asked as Grafana would ask it, and a panel without data is explained: by what
no agent has reported, by the time that is looked at, or by conditions that nothing fits.
"""

import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from dashboards.alerts import Rule
from dashboards.causes import Cause
from dashboards.dashboard import Dashboard
from dashboards.expand import View
from dashboards.explain import Asked, Explainer
from dashboards.expression import Expression
from dashboards.frames import Ask, Frame, evaluate, frames_of, opened, query_frames, values_of
from dashboards.panel import Panel
from dashboards.query import Query

Mark = Literal["ok", "empty", "bad"]
Thing = Literal["panel", "variable", "annotation", "alert", "dashboard"]


class Refused(Exception):
    """The store did not take a query; the message carries its words."""


class Line(NamedTuple):
    """What was found of a panel, variable, annotation or alert rule.

    Attributes:
        mark: "empty" where there is nothing, "bad" where the store refused.
        where: dashboard, and what of it.
        words: how much there is, why there is nothing, or the store's own words.
        seconds: how long the store took.
        cause: why it is empty.

    """

    mark: Mark
    where: str
    words: str
    thing: Thing = "panel"
    seconds: float = 0.0
    cause: Cause | None = None


def empty(where: str, cause: Cause, thing: Thing = "panel", seconds: float = 0.0) -> Line:
    """Return the line of something that is empty."""
    return Line("empty", where, str(cause), thing, seconds, cause)


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
            yield Line("bad", f"{dashboard.title} / variables", str(refused), "variable")
            return
        known = {each.name: each.query for each in dashboard.variables if each.query}
        for name, query in known.items():
            where = f"{dashboard.title} / variable {name}"
            values = partial(values_of, query, view, self.ask)
            asked = [Asked(query, view, variables=known)]
            yield self._line(where, "variable", "value", values, asked)
        for annotation in dashboard.annotations:
            where = f"{dashboard.title} / annotation {annotation.name}"
            marks = partial(self._answer, annotation.query, view)
            asked = [Asked(annotation.query, view, variables=known)]
            yield self._line(where, "annotation", "mark", marks, asked)
        for _, panel in dashboard.panels():
            yield self._panel(dashboard, panel, view, known)

    def rule(self, rule: Rule, now_ms: int) -> Line:
        """Return what a rule would say now."""
        where, begun = f"alert {rule.title}", time.perf_counter()
        try:
            verdicts = self._verdicts(rule, now_ms)
            seconds = time.perf_counter() - begun
            if not verdicts:
                view = View(now_ms - 1000 * rule.seconds, now_ms)
                return empty(where, self._why([Asked(rule.query, view)]), "alert", seconds)
        except Refused as refused:
            return Line("bad", where, str(refused), "alert")
        firing = [frame.name for frame in verdicts if frame.values() == [1.0]]
        words = f"would fire for {', '.join(firing)}" if firing else "quiet"
        return Line("ok", where, f"{words}; {len(verdicts)} watched", "alert", seconds)

    def _verdicts(self, rule: Rule, now_ms: int) -> list[Frame]:
        """Return a frame for each thing that a rule watches: 1 where it would fire."""
        answers: dict[str, list[Frame]] = {}
        for letter, (query, seconds) in zip(string.ascii_uppercase, rule.steps(), strict=False):
            if isinstance(query, Expression):
                answers[letter] = evaluate(query, answers)
            else:
                view = View(now_ms - 1000 * seconds, now_ms)
                answers[letter] = query_frames(query, view, self.ask)
        return answers[letter]

    def _panel(
        self, dashboard: Dashboard, panel: Panel, view: View, variables: Mapping[str, Query]
    ) -> Line:
        queries = [query for query in panel.queries if isinstance(query, Query)]
        noun = "row" if any(query.table for query in queries) else "series"
        where = f"{dashboard.title} / {panel.title}"
        asked = [Asked(query, view, panel.empty, panel.points, variables) for query in queries]
        return self._line(where, "panel", noun, partial(self._shown, panel, view), asked)

    def _line(
        self,
        where: str,
        thing: Thing,
        noun: str,
        find: Callable[[], Sequence[object]],
        asked: Sequence[Asked],
    ) -> Line:
        begun = time.perf_counter()
        try:
            found = len(find())
            seconds = time.perf_counter() - begun
            if found:
                return Line("ok", where, counted(found, noun), thing, seconds)
            return empty(where, self._why(asked), thing, seconds)
        except Refused as refused:
            return Line("bad", where, str(refused), thing)

    def _why(self, asked: Sequence[Asked]) -> Cause:
        """Return why there is nothing, from those of several queries that have no answer."""
        silent = [each for each in asked if not self._answer(each.query, each.view, each.points)]
        return Explainer(self.ask, self.cluster).why(silent or asked)

    def _shown(self, panel: Panel, view: View) -> list[object]:
        """Return the rows and series that a panel shows."""
        return [thing for frame in frames_of(panel, view, self.ask) for thing in _things(frame)]

    def _answer(self, query: Query, view: View, points: int = 0) -> list[object]:
        """Return the rows and series that a query gives."""
        frames = query_frames(query, view, self.ask, *([points] if points else []))
        return [thing for frame in frames for thing in _things(frame)]


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: 1 row, 2 rows."""
    return f"{number} {noun}" if number == 1 or noun.endswith("s") else f"{number} {noun}s"


def _things(frame: Frame) -> list[object]:
    """Return the rows of a table, or a series that has values."""
    if frame.is_series:
        return [frame] if frame.values() else []
    return [row for row in frame.rows() if set(row) - {"Time"}]
