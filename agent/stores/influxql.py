"""InfluxQL: the one query language of InfluxDB 1.x, 2.x and 3.x. No network here."""

import msgspec

from agent.lineprotocol import stored_tag
from agent.stores.store import Row, Select


def influxql(select: Select) -> str:
    """Return the query: newest first, so that a limit keeps the newest.

    Source: InfluxData, "InfluxQL reference", Literals and Identifiers.
    """
    conditions = [
        f"{identifier(name)} = {literal(stored_tag(value))}" for name, value in select.where.items()
    ]
    if select.since_ms is not None:
        conditions.append(f"time >= {select.since_ms}ms")
    if select.until_ms is not None:
        conditions.append(f"time <= {select.until_ms}ms")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = "" if select.newest is None else f" LIMIT {select.newest}"
    source = identifier(select.measurement)
    return f"SELECT * FROM {source}{where} ORDER BY time DESC{limit}"  # noqa: S608 - quoted


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
