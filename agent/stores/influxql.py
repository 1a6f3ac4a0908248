"""InfluxQL: the one query language of InfluxDB 1.x, 2.x and 3.x. No network here."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent.lineprotocol import stored_tag
from agent.stores.store import Row, Select, Windows, any_of
from probes.catalogue import CATALOGUE, Kind

_SHIFT_MS = 1
"""InfluxDB's windows hold their begin and ours their end: ours begin a millisecond later."""


def influxql(select: Select) -> str:
    """Return the query: newest first, so that a limit keeps the newest.

    Source: InfluxData, "InfluxQL reference", Literals and Identifiers.
    """
    conditions = _conditions(select.where)
    if select.since_ms is not None:
        conditions.append(f"time >= {select.since_ms}ms")
    if select.until_ms is not None:
        conditions.append(f"time <= {select.until_ms}ms")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = "" if select.newest is None else f" LIMIT {select.newest}"
    source = identifier(select.measurement)
    return f"SELECT * FROM {source}{where} ORDER BY time DESC{limit}"  # noqa: S608 - quoted


def windows_influxql(asked: Windows) -> list[str]:
    """Return the queries for a field over time: two for a counter, what it grew by and how long.

    Both in one subquery take four times as long (1.6.7).
    Source: InfluxData, "InfluxQL reference", GROUP BY time intervals and subqueries.
    """
    source, field = identifier(asked.measurement), identifier(asked.field)
    if asked.kind is Kind.COUNTER:
        return [
            _windows(
                asked, "sum(step) AS grown", _steps(asked, f"non_negative_difference({field})")
            ),
            _windows(asked, "sum(step) AS passed", _steps(asked, f"elapsed({field}, 1ms)")),
        ]
    if asked.kind is Kind.GAUGE:
        values = f"mean({field}) AS mean, min({field}) AS low, max({field}) AS high"
        return [_windows(asked, values, source, _where(asked))]
    said = f"{_where(asked)} AND {field} = {literal(asked.text)}"
    return [_windows(asked, f"count({field}) AS count", source, said)]


def _steps(asked: Windows, step: str) -> str:
    """Return the subquery for steps from sample to sample, each series by itself.

    A tag that has one value only is left out: it would cost twenty times the time (1.6.7).
    """
    tags = ("host", *CATALOGUE[asked.measurement].tags)
    apart = [tag for tag in tags if tag in asked.by or len(asked.where.get(tag, ())) != 1]
    grouped = ", ".join(map(identifier, apart))
    source = f"FROM {identifier(asked.measurement)} WHERE {_where(asked)} GROUP BY {grouped}"
    return f"(SELECT {step} AS step {source})"


def _windows(asked: Windows, values: str, source: str, where: str = "") -> str:
    windows = f"time({asked.every_ms}ms, {_SHIFT_MS}ms)"
    grouped = ", ".join([windows, *map(identifier, asked.by)])
    where = where or _times(asked)
    return f"SELECT {values} FROM {source} WHERE {where} GROUP BY {grouped} fill(none)"  # noqa: S608


def _where(asked: Windows) -> str:
    return " AND ".join([_times(asked), *_conditions(asked.where)])


def _times(asked: Windows) -> str:
    return f"time {asked.first} {asked.since_ms}ms AND time <= {asked.until_ms}ms"


def _conditions(where: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Return a condition for each tag: its value, or one of its values in parentheses."""
    found = []
    for name, wanted in where.items():
        parts = [f"{identifier(name)} = {literal(stored_tag(each))}" for each in any_of(wanted)]
        found.append(parts[0] if isinstance(wanted, str) else f"({' OR '.join(parts)})")
    return found


def identifier(name: str) -> str:
    """Return a name in double quotes."""
    return _quoted(name, '"')


def literal(text: str) -> str:
    """Return a text in single quotes."""
    return _quoted(text, "'")


def _quoted(text: str, mark: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(mark, f"\\{mark}").replace("\n", "\\n")
    return f"{mark}{escaped}{mark}"


class _Series(msgspec.Struct):
    columns: list[str]
    tags: dict[str, str] = {}
    values: list[list[float | str | bool | None]] = []


class _Result(msgspec.Struct):
    series: list[_Series] = []
    error: str = ""


class Answer(msgspec.Struct):
    """What `/query` returns."""

    results: list[_Result] = []
    error: str = ""

    def complaint(self) -> str:
        """Return what the server had against the query, or nothing."""
        errors = [self.error, *(result.error for result in self.results)]
        return "; ".join(filter(None, errors))


def parse_rows(answer: Answer) -> list[Row]:
    """Return the rows of a query that was sorted newest first, oldest first."""
    rows: list[Row] = []
    for result in answer.results:
        for series in result.series:
            names = ["time_ms" if name == "time" else name for name in series.columns]
            for values in reversed(series.values):
                pairs = zip(names, values, strict=True)
                rows.append({name: value for name, value in pairs if value is not None})
    return rows


def parse_windows(answers: Iterable[Answer], every_ms: int) -> list[Row]:
    """Return the rows of the queries for a field over time."""
    rows: dict[tuple[object, ...], Row] = {}
    results = (result for answer in answers for result in answer.results)
    for series in (series for result in results for series in result.series):
        tags = {name: value for name, value in series.tags.items() if value}
        for values in series.values:
            pairs = zip(series.columns, values, strict=True)
            found: Row = {name: float(value) for name, value in pairs if value is not None}
            end_ms = float(found.pop("time")) - _SHIFT_MS + every_ms
            row = rows.setdefault((*tags.items(), end_ms), {**tags, "time_ms": end_ms})
            row.update(found)
    return [row for row in map(_with_rate, rows.values()) if "mean" in row or "count" in row]


def _with_rate(row: Row) -> Row:
    """Return the row, that of a counter with its growth per second, if it is known."""
    grown, passed = row.pop("grown", None), row.pop("passed", None)
    if isinstance(grown, float) and isinstance(passed, float) and passed > 0:
        row["mean"] = 1000.0 * grown / passed
    return row
