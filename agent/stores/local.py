"""The embedded store: one SQLite file, one table per measurement, columns from the catalogue.

Written by the agent alone and read by any process, at the same time (WAL mode).
Source: sqlite.org, "Write-Ahead Logging", "UPSERT".
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from agent.clock import Clock, SystemClock
from agent.lineprotocol import Point, parse_line, stored_tag
from agent.stores.store import (
    Rejected,
    Row,
    Select,
    StoreRefused,
    StoreUnreachable,
    Windows,
    any_of,
)
from probes.catalogue import CATALOGUE, COMMON_TAGS, Database, Kind, Measurement
from probes.sample import Value

BUSY_SECONDS = 5.0
RETENTION_EVERY_SECONDS = 3600.0
TableRow = list[Value | None]
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LocalStore:
    """A file that keeps measurements for some days and jobs for ever.

    Opened when it is first used, so that a store that cannot be opened is tried again.
    """

    def __init__(self, path: Path, retention_days: float, clock: Clock | None = None) -> None:
        self._path = path
        self._retention_ms = retention_days * 86_400_000
        self._clock = clock or SystemClock()
        self._may_write = True
        self._connection: sqlite3.Connection | None = None
        self._upserts = {each.name: upsert_statement(each) for each in CATALOGUE.values()}
        self._expired_at = float("-inf")

    @classmethod
    def read_only(cls, path: Path) -> "LocalStore":
        """Return a store that needs no right to write, not even in the file's folder."""
        store = cls(path, 0.0)
        store._may_write = False
        return store

    def write(self, database: Database, lines: bytes) -> None:
        """Write lines in one transaction; of the same tags and time, fields are merged.

        Fields that the catalogue does not know are left out: another version left its spool.

        Raises:
            StoreUnreachable: the file is locked, or the disk is full.
            StoreRefused: the file is broken (keep=True), or has no room for some points
                (keep=False), and all others are written.

        """
        tables, rejected = _tables(lines)
        with self._using() as connection:
            with connection:
                for name, rows in tables.items():
                    connection.executemany(self._upserts[name], rows)
            self._expire(connection)
        if rejected:
            raise StoreRefused(rejected[0].words, keep=False, rejected=rejected)

    def rows(self, select: Select) -> Sequence[Row]:
        """Return the rows that match, oldest first.

        Raises:
            StoreUnreachable: the file is not there, or locked.
            StoreRefused: the file is broken.

        """
        measurement = CATALOGUE[select.measurement]
        if not set(select.where) <= set(tag_names(measurement)):
            return []
        query, values = select_statement(select)
        return self._found(select.measurement, "time_ms", query, values)[::-1]

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Return a field over time, see `Windows`.

        Raises:
            StoreUnreachable: the file is not there, or locked.
            StoreRefused: the file is broken.

        """
        query, values = windows_statement(asked)
        found = self._found(asked.measurement, asked.field, query, values)
        return [row for row in found if "mean" in row or "count" in row]

    def prepare(self) -> None:
        """Make the file and its tables if they are not there.

        Raises:
            StoreUnreachable: it cannot be made.
            StoreRefused: the file is broken.

        """
        with self._using():
            pass

    def close(self) -> None:
        """Close the file."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _found(
        self, measurement: str, column: str, query: str, values: Sequence[str | int]
    ) -> list[Row]:
        with self._using() as connection:
            if column not in _columns(connection, measurement):
                return []  # a file that was made before this was known
            cursor = connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [_row(names, row) for row in cursor]

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; after an error it is opened anew."""
        try:
            self._connection = self._connection or self._opened()
            yield self._connection
        except (OSError, sqlite3.Error) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                remedy = f"stop the agent, move {self._path} away, and start it again"
                raise StoreRefused(f"{self._path}: {error}; {remedy}", keep=True) from error
            raise StoreUnreachable(f"{self._path}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._may_write:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        # one thread at a time uses a store, but it need not be the thread that closes it
        connection = sqlite3.connect(
            self._uri(), uri=True, timeout=BUSY_SECONDS, check_same_thread=False
        )
        if self._may_write:
            try:
                self._build(connection)
            except sqlite3.Error:
                connection.close()
                raise
        return connection

    def _uri(self) -> str:
        location = f"file:{quote(str(self._path.absolute()))}"
        if self._may_write:
            return location
        log = self._path.with_name(self._path.name + "-wal")
        if log.exists() or os.access(self._path.parent, os.W_OK):
            return f"{location}?mode=ro"
        # no agent is writing, and we could not make the log's index that SQLite asks for
        return f"{location}?mode=ro&immutable=1"

    def _build(self, connection: sqlite3.Connection) -> None:
        """Make what is missing: tables, and columns that the catalogue got since."""
        connection.execute("PRAGMA journal_mode = WAL")
        # WAL with NORMAL survives a killed agent; a power cut may lose the last moments
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for measurement in CATALOGUE.values():
                _build_table(connection, measurement)

    def _expire(self, connection: sqlite3.Connection) -> None:
        """Delete old measurements, once an hour; jobs are kept."""
        if self._clock.monotonic() - self._expired_at < RETENTION_EVERY_SECONDS:
            return
        self._expired_at = self._clock.monotonic()
        oldest_ms = int(self._clock.time() * 1000 - self._retention_ms)
        with connection:
            for measurement in CATALOGUE.values():
                if measurement.database is Database.METRICS:
                    statement = f"DELETE FROM {_name(measurement.name)} WHERE time_ms < ?"  # noqa: S608
                    connection.execute(statement, (oldest_ms,))


def _tables(lines: bytes) -> tuple[dict[str, list[TableRow]], list[Rejected]]:
    """Return the rows to write by measurement, and the lines that are none."""
    tables: dict[str, list[TableRow]] = defaultdict(list)
    rejected = []
    for line in lines.removesuffix(b"\n").split(b"\n"):
        try:
            point = parse_line(line.decode())
            row = table_row(point)
        except ValueError as error:
            rejected.append(Rejected(str(error), line + b"\n"))
        else:
            tables[point.measurement].append(row)
    return tables, rejected


def tag_names(measurement: Measurement) -> tuple[str, ...]:
    """Return all tags of a measurement."""
    return (*COMMON_TAGS, *measurement.tags)


def table_row(point: Point) -> TableRow:
    """Return a point's row: time, tags, fields.

    Raises:
        ValueError: the catalogue knows not its measurement, a tag, or any of its fields.

    """
    measurement = CATALOGUE.get(point.measurement)
    if measurement is None:
        raise ValueError(f"this version's catalogue has no measurement {point.measurement!r}")
    tags = dict(point.tags)
    if unknown := tags.keys() - set(tag_names(measurement)):
        raise ValueError(f"{point.measurement} has no tag {min(unknown)!r} in this version")
    values = [_fitting(point, name) for name in measurement.fields]
    if all(value is None for value in values):
        raise ValueError(f"{point.measurement} has no field {min(point.fields)!r} in this version")
    texts = [tags.get(name, "") for name in tag_names(measurement)]
    return [float(point.time_ms), *texts, *values]


def _fitting(point: Point, name: str) -> Value | None:
    value = point.fields.get(name)
    is_text = CATALOGUE[point.measurement].fields[name].kind is Kind.TEXT
    return value if isinstance(value, str) == is_text else None


def upsert_statement(measurement: Measurement) -> str:
    """Return the statement that writes a row, or merges it into the one of its tags and time."""
    key = [_name(name) for name in ("time_ms", *tag_names(measurement))]
    fields = [_name(name) for name in measurement.fields]
    merged = ", ".join(f"{name} = COALESCE(excluded.{name}, {name})" for name in fields)
    marks = ", ".join("?" * (len(key) + len(fields)))
    return (
        f"INSERT INTO {_name(measurement.name)} ({', '.join(key + fields)}) VALUES ({marks}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {merged}"
    )


def select_statement(select: Select) -> tuple[str, list[str | int]]:
    """Return the query, newest first so that a limit keeps the newest, and its values."""
    conditions, values = _conditions(select.where)
    for condition, bound in (("time_ms >= ?", select.since_ms), ("time_ms <= ?", select.until_ms)):
        if bound is not None:
            conditions.append(condition)
            values.append(bound)
    where = " AND ".join(conditions) or "TRUE"
    query = f"SELECT * FROM {_name(select.measurement)} WHERE {where} ORDER BY time_ms DESC LIMIT ?"  # noqa: S608
    return query, [*values, -1 if select.newest is None else select.newest]


def windows_statement(asked: Windows) -> tuple[str, list[str | int]]:
    """Return the query for a field over time, and its values.

    Source: sqlite.org, "Window Functions".
    """
    field, by = _name(asked.field), [_name(name) for name in asked.by]
    wanted, tags = _conditions(asked.where)
    times = (f"time_ms {asked.first} ?", "time_ms <= ?")
    where = " AND ".join([*times, f"{field} IS NOT NULL", *wanted])
    values: list[str | int] = [asked.since_ms, asked.until_ms, *tags]
    source = f"{_name(asked.measurement)} WHERE {where}"
    if asked.kind is Kind.GAUGE:
        shown = f"AVG({field}) AS mean, MIN({field}) AS low, MAX({field}) AS high"
    elif asked.kind is Kind.COUNTER:
        shown = "1000.0 * SUM(CASE WHEN grown >= 0 THEN grown END) / SUM(passed) AS mean"
        source = f"({_steps(asked, source)})"
    else:
        shown = "1.0 * COUNT(*) AS count"
        source += f" AND {field} = ?"
        values.append(asked.text)
    end = f"((time_ms - 1) / {asked.every_ms} + 1) * {asked.every_ms}"
    columns = ", ".join([*by, f"{end} AS time_ms", shown])
    grouped = ", ".join([*by, end])
    return f"SELECT {columns} FROM {source} GROUP BY {grouped} ORDER BY {grouped}", values  # noqa: S608


def _steps(asked: Windows, source: str) -> str:
    """Return the query for what a counter grew by since the sample before, and for how long."""
    series = ", ".join(_name(tag) for tag in tag_names(CATALOGUE[asked.measurement]))
    field = _name(asked.field)
    grown = f"{field} - LAG({field}) OVER series AS grown"
    passed = "time_ms - LAG(time_ms) OVER series AS passed"
    window = f"WINDOW series AS (PARTITION BY {series} ORDER BY time_ms)"
    return f"SELECT *, {grown}, {passed} FROM {source} {window}"  # noqa: S608


def _conditions(where: Mapping[str, str | Sequence[str]]) -> tuple[list[str], list[str | int]]:
    """Return a condition for each tag, and the values that stand in them."""
    wanted = {_name(tag): [*map(stored_tag, any_of(value))] for tag, value in where.items()}
    conditions = [f"{tag} IN ({', '.join('?' * len(values))})" for tag, values in wanted.items()]
    return conditions, [value for values in wanted.values() for value in values]


def _build_table(connection: sqlite3.Connection, measurement: Measurement) -> None:
    table = _name(measurement.name)
    tags, fields = tag_names(measurement), measurement.fields.values()
    columns = dict.fromkeys(tags, "TEXT NOT NULL DEFAULT ''")
    columns |= {field.name: "TEXT" if field.kind is Kind.TEXT else "REAL" for field in fields}
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (time_ms INTEGER NOT NULL)")
    for name in columns.keys() - _columns(connection, measurement.name):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {_name(name)} {columns[name]}")
    # time first: a node reads its own rows of a time span, and old ones are deleted by time
    key = ["time_ms", *tags]
    index = f"{measurement.name}_points"
    if _indexed(connection, index) != key:
        connection.execute(f"DROP INDEX IF EXISTS {_name(index)}")
        names = ", ".join(_name(name) for name in key)
        connection.execute(f"CREATE UNIQUE INDEX {_name(index)} ON {table} ({names})")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({_name(table)})")}


def _indexed(connection: sqlite3.Connection, index: str) -> list[str]:
    return [row[2] for row in connection.execute(f"PRAGMA index_info({_name(index)})")]


def _row(names: Sequence[str], values: Sequence[Value | None]) -> Row:
    row = {
        name: value for name, value in zip(names, values, strict=True) if value not in (None, "")
    }
    row["time_ms"] = float(row["time_ms"])
    return row


def _name(name: str) -> str:
    """Return a name of the catalogue as SQL wants it."""
    return f'"{name}"'
