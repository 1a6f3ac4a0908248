"""The embedded store: one SQLite file, one table per measurement, columns from the catalogue.

Written by the agent alone and read by any process, at the same time (WAL mode).
Source: sqlite.org, "Write-Ahead Logging", "UPSERT".
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from agent.clock import Clock, SystemClock
from agent.lineprotocol import Point, parse_line, stored_tag
from agent.stores.store import Row, Select, StoreRefused, StoreUnreachable
from probes.catalogue import CATALOGUE, COMMON_TAGS, Database, Kind, Measurement
from probes.sample import Value

BUSY_SECONDS = 5.0
RETENTION_EVERY_SECONDS = 3600.0
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LocalStore:
    """A file that keeps measurements for some days and jobs for ever.

    Opened when it is first used, so that a store that cannot be opened is tried again.

    Attributes:
        skipped: points or fields not written because the catalogue does not know them (a spool
            that another version left).

    """

    def __init__(self, path: Path, retention_days: float, clock: Clock | None = None) -> None:
        self.skipped = 0
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

        Raises:
            StoreUnreachable: the file is locked, or the disk is full.
            StoreRefused: the file is broken (keep=True).

        """
        tables = self._tables(lines)
        with self._using() as connection:
            with connection:
                for name, rows in tables.items():
                    connection.executemany(self._upserts[name], rows)
            self._expire(connection)

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
        with self._using() as connection:
            if not _columns(connection, select.measurement):
                return []  # a file that was made before this measurement was known
            cursor = connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [_row(names, row) for row in cursor][::-1]

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

    def _tables(self, lines: bytes) -> dict[str, list[list[Value | None]]]:
        """Return the rows to write by measurement."""
        tables: dict[str, list[list[Value | None]]] = defaultdict(list)
        for line in lines.decode(errors="replace").split("\n"):
            if not line:
                continue
            try:
                point = parse_line(line)
            except ValueError:
                self.skipped += 1
                continue
            row, left_out = table_row(point)
            self.skipped += left_out
            if row:
                tables[point.measurement].append(row)
        return tables

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


def tag_names(measurement: Measurement) -> tuple[str, ...]:
    """Return all tags of a measurement."""
    return (*COMMON_TAGS, *measurement.tags)


def table_row(point: Point) -> tuple[list[Value | None] | None, int]:
    """Return a point's row (time, tags, fields) and how many of its fields are left out.

    The row is None, and counts as one, if measurement, a tag or every field is unknown.
    """
    measurement = CATALOGUE.get(point.measurement)
    tags = dict(point.tags)
    if measurement is None or not set(tags) <= set(tag_names(measurement)):
        return None, 1
    values = [_fitting(point, name) for name in measurement.fields]
    known = sum(value is not None for value in values)
    if known == 0:
        return None, 1
    texts = [tags.get(name, "") for name in tag_names(measurement)]
    return [float(point.time_ms), *texts, *values], len(point.fields) - known


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
    conditions = [f"{_name(name)} = ?" for name in select.where]
    values: list[str | int] = [stored_tag(value) for value in select.where.values()]
    for condition, bound in (("time_ms >= ?", select.since_ms), ("time_ms <= ?", select.until_ms)):
        if bound is not None:
            conditions.append(condition)
            values.append(bound)
    where = " AND ".join(conditions) or "TRUE"
    query = f"SELECT * FROM {_name(select.measurement)} WHERE {where} ORDER BY time_ms DESC LIMIT ?"  # noqa: S608
    return query, [*values, -1 if select.newest is None else select.newest]


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
