"""Find out from the store why a query has no answer, step by step from the most general cause."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dashboards.causes import (
    FITS,
    PLACES,
    Cause,
    Kind,
    absent,
    conditions_of,
    early,
    few,
    heaviest,
    late,
    place_of,
    root,
    without,
)
from dashboards.expand import View, expand
from dashboards.frames import Ask
from dashboards.panel import MOST_POINTS
from dashboards.query import Query
from probes.catalogue import CATALOGUE, COMMON_TAGS, Field

MILLISECONDS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that has no answer.

    Attributes:
        empty: what its panel says then; "" where it is of no panel.
        points: how many points it asks for.
        variables: the queries of the variables that it may name.

    """

    query: Query
    view: View
    empty: str = ""
    points: int = MOST_POINTS
    variables: Mapping[str, Query] = field(default_factory=dict)

    @property
    def measurement(self) -> str:
        """What it reads."""
        return str(re.findall(r'FROM "(\w+)"', self.query.text)[0])

    @property
    def fields(self) -> list[Field]:
        """The fields that it names."""
        known = CATALOGUE[self.measurement].fields.values()
        return [each for each in known if f'"{each.name}"' in self.query.text]

    @property
    def inner(self) -> list[str]:
        """The conditions on what it reads."""
        return next(iter(conditions_of(self.query)), [])

    @property
    def outer(self) -> list[str]:
        """The conditions on what it computes."""
        known = conditions_of(self.query)
        return [each for clause in known for each in clause if each not in known[0]]

    def expanded(self, conditions: Iterable[str]) -> str:
        """Return conditions as the store gets them."""
        return " AND ".join(expand(each, self.view) for each in conditions)

    @property
    def earliest_ms(self) -> int:
        """The lower limit of its time in milliseconds since 1970; 0 without one."""
        limit = r"time >=? (?:(\d+)ms|now\(\))(?: - (\d+)([mhd]))?"
        match = re.search(limit, expand(self.query.text, self.view))
        if match is None:
            return 0
        since = int(match[1] or self.view.until_ms)
        return since - int(match[2] or 0) * MILLISECONDS[match[3] or "m"]


@dataclass(frozen=True, slots=True)
class Explainer:
    """Asks one store about one cluster."""

    ask: Ask
    cluster: str

    def why(self, asked: Sequence[Asked]) -> Cause:
        """Return why none of some queries has an answer; all are of the same panel."""
        return heaviest([self._why(each) for each in asked], asked[0].empty)

    def _why(self, asked: Asked) -> Cause:
        steps = (
            self._absent,
            self._unchosen,
            self._absent_here,
            self._unfit,
            self._without_field,
            self._few,
        )
        for step in steps:
            if found := step(asked):
                return found
        found = FITS.get(next(iter(asked.outer), ""))
        return found or _unexplained(asked)

    def _absent(self, asked: Asked) -> Cause | None:
        """Return a cause if no agent of the cluster has ever sent such a thing."""
        here = f"\"cluster\" = '{self.cluster}'"
        found = root(asked.measurement, lambda name: self._edge(name, "*", here) is None)
        return absent(found) if found else None

    def _unchosen(self, asked: Asked) -> Cause | None:
        """Return a cause if a variable has no value: it is that of the variable's own query."""
        for name in re.findall(r"\$\{?(\w+)", asked.query.text):
            if asked.view.variables.get(name, "-") in ("", ()) and name in asked.variables:
                return self._why(replace(asked, query=asked.variables[name], empty=""))
        return None

    def _absent_here(self, asked: Asked) -> Cause | None:
        """Return a cause if there is none on the chosen nodes, or of the chosen job."""
        found = root(asked.measurement, lambda name: self._newest_here(asked, name) is None)
        if not found:
            return None
        conditions = list(_places(asked, found))
        if self._edge(found, "*", asked.expanded(conditions)) is not None:
            return early()
        return absent(found, place_of(conditions, asked.view))

    def _unfit(self, asked: Asked) -> Cause | None:
        """Return a cause if nothing fits one of the other conditions."""
        conditions = [each for each in asked.inner if each in PLACES]
        for each in asked.inner:
            if each not in PLACES:
                conditions.append(each)
                if self._newest(asked, "*", conditions) is None:
                    return FITS.get(each)
        return None

    def _without_field(self, asked: Asked) -> Cause | None:
        """Return a cause if a field is not there, or if all of them are older than the time."""
        known = {each: self._newest(asked, f'"{each.name}"', asked.inner) for each in asked.fields}
        times = [time for time in known.values() if time is not None]
        if not known:
            times = [self._newest(asked, "*", asked.inner) or 0.0]
        if times and max(times) < asked.earliest_ms:
            return self._late(asked, max(times))
        for each, newest in known.items():
            if newest is None:
                return self._without(asked, each)
        return None

    def _late(self, asked: Asked, newest_ms: float) -> Cause:
        """Return the cause of what is older than the time: the agent's silence, if it is silent."""

        def is_late(name: str) -> bool:
            return (self._newest_here(asked, name) or 0.0) < asked.earliest_ms

        found = root(asked.measurement, is_late)
        if found and found != asked.measurement:
            return late(found, self._newest_here(asked, found) or 0.0, asked.view)
        return late(asked.measurement, newest_ms, asked.view, asked.empty)

    def _without(self, asked: Asked, lacking: Field) -> Cause:
        name = lacking.name
        ever = self._edge(asked.measurement, f'"{name}"', f"\"cluster\" = '{self.cluster}'")
        place = "" if ever is None else place_of(asked.inner, asked.view)
        return without(asked.measurement, name, lacking.meaning, asked.empty, place)

    def _few(self, asked: Asked) -> Cause | None:
        """Return a cause if too few samples of a counter are there for a rate."""
        if "derivative" not in asked.query.text:
            return None
        wanted = f'"{asked.fields[0].name}"'
        here = f"{asked.expanded(asked.inner)} AND time >= {asked.earliest_ms}ms"
        newest = self._newest(asked, wanted, asked.inner)
        oldest = self._edge(asked.measurement, wanted, here, "ASC")
        if newest is None or oldest is None:
            return None
        return few(asked.view, asked.points, oldest, newest)

    def _newest_here(self, asked: Asked, measurement: str) -> float | None:
        """Return when something of a measurement was last seen where the query looks."""
        return self._newest(asked, "*", list(_places(asked, measurement)), measurement)

    def _newest(
        self, asked: Asked, wanted: str, conditions: Sequence[str], measurement: str = ""
    ) -> float | None:
        here = f"{asked.expanded(conditions)} AND time <= {asked.view.until_ms}ms"
        return self._edge(measurement or asked.measurement, wanted, here)

    def _edge(self, measurement: str, wanted: str, where: str, order: str = "DESC") -> float | None:
        """Return the time of the newest point, or the oldest, in milliseconds since 1970."""
        query = f'SELECT {wanted} FROM "{measurement}" WHERE {where}'  # noqa: S608
        series = self.ask(CATALOGUE[measurement].database, f"{query} ORDER BY time {order} LIMIT 1")
        return float(series[0].values[0][0] or 0.0) if series else None


def _places(asked: Asked, measurement: str) -> Iterator[str]:
    """Yield the conditions on what was chosen that a measurement has tags for."""
    tags = {*COMMON_TAGS, *CATALOGUE[measurement].tags}
    for each in asked.inner:
        if each in PLACES and each.split('"')[1] in tags:
            yield each


def _unexplained(asked: Asked) -> Cause:
    words = "No reason was found: this may be a fault of the dashboards."
    return Cause(words, Kind.WORRY, f"nothing fits {asked.expanded(asked.inner)}")
