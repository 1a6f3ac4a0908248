"""InfluxQL for panels, made from names that the catalogue knows.

Expressions are written with bare names, `mean(utilization_ratio)`. A name that the measurement does
not have is an error when the dashboard is built; InfluxDB would answer it with nothing. Only what
InfluxDB 1.x, 2.x and 3.x all serve is used (see `lint`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dashboards.units import unit_of
from probes.catalogue import CATALOGUE, COMMON_TAGS, Database

IN_RANGE = "$timeFilter"
"""Grafana's macro: the dashboard's time range."""

UNTIL = "time <= ${__to}ms"
"""For rows at the start of what they tell of: a job may have begun before the dashboard's range."""

CLUSTER = "\"cluster\" = '$cluster'"

_WORD = re.compile(r"(?<![\w'\"$.])[a-z][a-z0-9_]*\b(?!['\"(])")


@dataclass(frozen=True, slots=True)
class Query:
    """One question to InfluxDB, with Grafana's macros and the dashboard's variables in it.

    Attributes:
        text: InfluxQL.
        database: which of the two databases it goes to.
        legend: name of each series, with `$tag_host` for a tag's value; "" in tables.
        table: whether the rows are wanted as a table.
        units: Grafana's unit of each column; of a series, under "value".
        nested: whether every interval is computed from a subquery's rows, which InfluxDB does
            slowly: a panel then asks for fewer intervals.

    """

    text: str
    database: Database = Database.METRICS
    legend: str = ""
    table: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    nested: bool = False


def over_time(
    measurement: str,
    expression: str,
    by: str = "",
    *,
    per: str = "",
    outer: str = "sum(value)",
    where: str = CLUSTER,
    legend: str = "",
) -> Query:
    """Return a series of an expression for each value of the tags in `by`.

    With `per`, the expression is taken for each value of those tags, and `outer` of all of them.
    """
    group = ["time($__interval)", *_tags(measurement, by)]
    inner = ["time($__interval)", *_tags(measurement, f"{by} {per}")]
    conditions = f"{where} AND {IN_RANGE}"
    if per:
        source = f"({_select(measurement, expression, conditions, inner, 'fill(none)')})"
        text = _from(source, _of_value(outer), IN_RANGE, group)
    else:
        text = _select(measurement, expression, conditions, group, named=False)
    text, columns = f"{text} fill(null)", {"value": expression}
    return replace(_query(measurement, text, columns, legend or _legend(by)), nested=bool(per))


def rate(
    measurement: str,
    counter: str,
    by: str = "",
    *,
    per: str = "",
    where: str = CLUSTER,
    legend: str = "",
) -> Query:
    """Return what a counter grew by per second, for each value of the tags in `by`.

    The first reading of each interval is taken: the last would make the newest interval, which
    has only begun, look too low.
    """
    expression = f"non_negative_derivative(first({counter}), 1s)"
    return over_time(measurement, expression, by, per=per, where=where, legend=legend)


def value(
    measurement: str,
    expression: str,
    by: str = "",
    *,
    per: str = "",
    outer: str = "sum(value)",
    where: str = CLUSTER,
    time: str = IN_RANGE,
    legend: str = "",
) -> Query:
    """Return one number for the whole time, for each value of the tags in `by`; see `over_time`."""
    conditions = f"{where} AND {time}"
    if per:
        inner = _select(measurement, expression, conditions, _tags(measurement, f"{by} {per}"))
        text = _from(f"({inner})", _of_value(outer), time, _tags(measurement, by))
    else:
        text = _select(measurement, expression, conditions, _tags(measurement, by), named=False)
    return _query(measurement, text, {"value": expression}, legend or _legend(by))


def rows(
    measurement: str,
    columns: Mapping[str, str],
    by: str = "",
    *,
    where: str = CLUSTER,
    time: str = IN_RANGE,
    newest: int = 0,
) -> Query:
    """Return rows with the given columns (title -> expression) and one for each tag in `by`.

    With `newest`, only so many of the newest rows of each value of the tags in `by`.
    """
    text = _columns(measurement, columns, f"{where} AND {time}", _tags(measurement, by))
    end = f" ORDER BY time DESC LIMIT {newest}" if newest else ""
    return _query(measurement, text + end, columns, "", table=True)


def points(
    measurement: str, columns: Mapping[str, str], by: str, *, where: str, only: str
) -> Query:
    """Return a row for each interval of the time shown and each tag in `by`, if it fits `only`."""
    tags = _tags(measurement, by)
    group = ["time($__interval)", *tags]
    inner = _columns(measurement, columns, f"{where} AND {IN_RANGE}", group)
    titles = ", ".join(f'"{title}"' for title in columns)
    text = _from(f"({inner} fill(none))", titles, f"{only} AND {IN_RANGE}", tags)
    return replace(_query(measurement, text, columns, "", table=True), nested=True)


def union(
    measurement: str,
    variants: Sequence[Mapping[str, str]],
    *,
    of: Mapping[str, str] | None = None,
    where: str,
    time: str = IN_RANGE,
) -> Query:
    """Return the rows of several selections with the same columns, one after the other.

    With `of` (name -> expression) the selections are made of rows with these names, and not of the
    measurement's: `max(speed) * 2` of a quotient called speed.
    """
    conditions = f"{where} AND {time}"
    if of:
        source = f"({_columns(measurement, of, conditions, [])})"
        inner = [_from(source, _titled(measurement, of, each), time, []) for each in variants]
    else:
        inner = [_columns(measurement, each, conditions, []) for each in variants]
    titles = ", ".join(f'"{title}"' for title in variants[0])
    text = _from(", ".join(f"({each})" for each in inner), titles, time, [])
    return _query(measurement, text, variants[0], "", table=True)


def tag_values(measurement: str, tag: str, where: str = "") -> Query:
    """Return the values that a tag has."""
    condition = f" WHERE {where}" if where else ""
    text = (
        f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = {_tags(measurement, tag)[0]}{condition}'
    )
    return Query(text, CATALOGUE[measurement].database)


def values(measurement: str, field: str, tag: str, *, where: str = CLUSTER, time: str) -> Query:
    """Return the values of a tag under which a field was seen in some time."""
    inner = _select(measurement, f"last({field})", f"{where} AND {time}", _tags(measurement, tag))
    text = _from(f"({inner})", _tags(measurement, tag)[0], time, [])
    return Query(text, CATALOGUE[measurement].database)


def _select(
    measurement: str,
    expression: str,
    where: str,
    group: list[str],
    fill: str = "",
    *,
    named: bool = True,
) -> str:
    wanted = _quoted(measurement, _names(measurement), expression) + (
        ' AS "value"' if named else ""
    )
    text = _from(f'"{measurement}"', wanted, where, group)
    return f"{text} {fill}".rstrip()


def _columns(measurement: str, columns: Mapping[str, str], where: str, group: list[str]) -> str:
    return _from(
        f'"{measurement}"', _titled(measurement, _names(measurement), columns), where, group
    )


def _titled(source: str, known: Collection[str], columns: Mapping[str, str]) -> str:
    wanted = ((title, _quoted(source, known, each)) for title, each in columns.items())
    return ", ".join(f'{each} AS "{title}"' for title, each in wanted)


def _from(source: str, wanted: str, where: str, group: list[str]) -> str:
    grouped = f" GROUP BY {', '.join(group)}" if group else ""
    return f"SELECT {wanted} FROM {source} WHERE {where}{grouped}"  # noqa: S608 - names are checked


def _query(
    measurement: str, text: str, columns: Mapping[str, str], legend: str, *, table: bool = False
) -> Query:
    known = CATALOGUE[measurement]
    units = {title: unit_of(known, expression) for title, expression in columns.items()}
    return Query(text, known.database, legend, table, units)


def _of_value(expression: str) -> str:
    return expression.replace("value", '"value"')


def _names(measurement: str) -> set[str]:
    return {*CATALOGUE[measurement].fields, *_all_tags(measurement)}


def _quoted(source: str, known: Collection[str], expression: str) -> str:
    """Return the expression with the names that its source has in double quotes.

    Raises:
        ValueError: it has a name that is not known.

    """
    unknown = set(_WORD.findall(expression)) - set(known)
    if unknown:
        raise ValueError(f"{source} has no {', '.join(sorted(unknown))}: {expression}")
    return _WORD.sub(r'"\g<0>"', expression)


def _tags(measurement: str, by: str) -> list[str]:
    unknown = set(by.split()) - set(_all_tags(measurement))
    if unknown:
        raise ValueError(f"{measurement} has no tag {', '.join(sorted(unknown))}")
    return [f'"{tag}"' for tag in by.split()]


def _all_tags(measurement: str) -> tuple[str, ...]:
    return (*COMMON_TAGS, *CATALOGUE[measurement].tags)


def _legend(by: str) -> str:
    """Return a name made of tags: `$tag_host GPU $tag_gpu`."""
    return " ".join(f"GPU $tag_{tag}" if tag == "gpu" else f"$tag_{tag}" for tag in by.split())
