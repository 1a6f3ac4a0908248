"""Expand a query as Grafana does: the dashboard's variables in the browser, macros in the server.

Source: grafana/grafana, influxdb/datasource.ts (`interpolateQueryExpr`), pkg/tsdb/influxdb/models/
query.go (`Build`), packages/grafana-data rangeutil (`roundInterval`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from dashboards.panel import MOST_POINTS

Chosen = str | tuple[str, ...]
"""The value of a variable: a text, or, where several may be chosen, all that are."""

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")
_STARTS_AS_NUMBER = re.compile(r"\s*[+-]?(\d|\.\d|Infinity)")  # parseFloat of JavaScript
_IN_REGEX = r"[=!]~\s*/[^/]*\$(?:\{%s\}|%s\b)[^/]*/"

_ROUND_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800)
_ROUND_HOURS = (1, 2, 3, 6, 12, 24)
_STEPS_MS = (
    *(10, 20, 50, 100, 200, 500),
    *(seconds * 1000 for seconds in _ROUND_SECONDS),
    *(hours * 3_600_000 for hours in _ROUND_HOURS),
)


@dataclass(frozen=True, slots=True)
class View:
    """What somebody looks at.

    Attributes:
        since_ms: begin of the time shown, milliseconds since 1970.
        until_ms: its end.
        variables: what is chosen at the top of the dashboard.
        least_interval_ms: the data source's shortest interval: that of the agents.

    """

    since_ms: int
    until_ms: int
    variables: Mapping[str, Chosen] = field(default_factory=dict)
    least_interval_ms: int = 10_000

    def interval_ms(self, points: int) -> int:
        """Return the macro $__interval: a round number that gives about so many points."""
        return max(self.least_interval_ms, rounded((self.until_ms - self.since_ms) / points))


def rounded(interval_ms: float) -> int:
    """Return the round interval that is nearest; halfway between two goes up."""
    for step, following in pairwise(_STEPS_MS):
        if interval_ms < (step + following) / 2:
            return step
    return _STEPS_MS[-1]


def expand(text: str, view: View, points: int = MOST_POINTS) -> str:
    """Return the query that InfluxDB gets for a panel that asks for so many points."""
    built_in = {"__from": str(view.since_ms), "__to": str(view.until_ms)}
    known: dict[str, Chosen] = {**view.variables, **built_in}

    def replaced(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return interpolated(name, known[name], text) if name in known else match[0]

    query = _VARIABLE.sub(replaced, text)
    times = f"time >= {view.since_ms}ms and time <= {view.until_ms}ms"
    query = query.replace("$timeFilter", times)
    return query.replace("$__interval", duration(view.interval_ms(points)))


def interpolated(name: str, chosen: Chosen, text: str) -> str:
    """Return what stands for a variable in a query: several values become a pattern."""
    if isinstance(chosen, tuple):
        return f"({'|'.join(map(escaped, chosen))})"
    in_regex = re.search(_IN_REGEX % (name, name), text)
    return escaped(chosen) if in_regex and not _STARTS_AS_NUMBER.match(chosen) else chosen


def escaped(value: str) -> str:
    """Return a text as a regular expression that matches it alone."""
    return _SPECIAL.sub(r"\\\g<0>", value)


def duration(milliseconds: int) -> str:
    """Return a duration as InfluxQL writes it, in the largest unit that fits."""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
