"""The witness: a record of every tick that is kept beside the spool, and by other code.

It stands between loop and spool. Before it hands a tick on, it writes down the tick's lines; when
the spool says that it has them, that the tick is finished. Each agent has a file of its own, so
only the end of a file can be torn.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from probes.catalogue import Database

_BEGUN = re.compile(rb"begun (\d+) (\w+) (\d+)\n")
_FINISHED = re.compile(rb"finished (\d+)\n")


class Sink(Protocol):
    """Where finished ticks go: the spool."""

    def append(self, database: Database, lines: bytes) -> None:
        """Take whole lines."""


class WitnessedSink:
    """Hands ticks to a sink, and writes down what happened."""

    def __init__(self, sink: Sink, path: Path) -> None:
        self._sink = sink
        self._number = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL)

    def append(self, database: Database, lines: bytes) -> None:
        """Take whole lines."""
        self._number += 1
        os.write(
            self._file, b"begun %d %s %d\n" % (self._number, database.encode(), len(lines)) + lines
        )
        self._sink.append(database, lines)
        os.write(self._file, b"finished %d\n" % self._number)


class Record(NamedTuple):
    """Lines that were handed to the spool.

    Attributes:
        database: where they go.
        lines: with their line ends.
        finished: whether the spool has said that it has them.
        end: where the record ends in the file.

    """

    database: Database
    lines: bytes
    finished: bool
    end: int


def read_records(data: bytes) -> Iterator[Record]:
    """Yield the records of one file.

    An agent that is killed while it writes one leaves it torn: the spool had not seen it yet.
    """
    position = 0
    while match := _BEGUN.match(data, position):
        end = match.end() + int(match[3])
        if end > len(data):
            return
        finished = _FINISHED.match(data, end)
        assert finished is None or finished[1] == match[1]
        position = finished.end() if finished else end
        lines = data[match.end() : end]
        yield Record(Database(match[2].decode()), lines, finished is not None, position)


class Tail:
    """Counts the finished ticks of a file that grows; what it has read it does not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._ticks = 0

    def ticks(self) -> int:
        """Return how many ticks are finished."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = [each for each in read_records(file.read()) if each.finished]
        self._ticks += sum(each.database is Database.METRICS for each in new)
        self._read += new[-1].end if new else 0
        return self._ticks
