"""What a store is: a place that takes points and gives rows back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from probes.catalogue import Database
from probes.sample import Value

Row = dict[str, Value]
"""Tags and fields of one point by name, and `time_ms` (a float). What was not written is absent."""


class StoreUnreachable(Exception):
    """The store does not answer now, or has no time: keep the data and try again later.

    Attributes:
        retry_after: seconds that the store asked to be left alone, or 0.

    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreRefused(Exception):
    """The store understood and said no; the message carries its words.

    Attributes:
        keep: True if an admin can mend it (password, missing database), so the data must wait;
            False if sending the same again is useless (a field conflict, a point out of range).
        points_lost: how many points the store did not take, as far as it says.

    """

    def __init__(self, message: str, *, keep: bool, points_lost: int = 0) -> None:
        super().__init__(message)
        self.keep = keep
        self.points_lost = points_lost


@dataclass(frozen=True, slots=True)
class Select:
    """A question to a store, small enough that every store can answer it.

    Attributes:
        measurement: a name in the catalogue; it decides which database is asked.
        where: tags and the values that they must have.
        since_ms: first millisecond, or None.
        until_ms: last millisecond, included, or None.
        newest: at most so many rows, the newest; None for all.

    """

    measurement: str
    where: Mapping[str, str]
    since_ms: int | None = None
    until_ms: int | None = None
    newest: int | None = None


class Store(Protocol):
    """Where points live and are asked for."""

    def write(self, database: Database, lines: bytes) -> None:
        """Write whole lines of line protocol, times in milliseconds.

        Writing the same point again changes nothing. Not called from two threads at once.

        Raises:
            StoreUnreachable: nothing is known to be written; try again.
            StoreRefused: see its `keep`.

        """

    def rows(self, select: Select) -> Sequence[Row]:
        """Return the rows that match, oldest first.

        Raises:
            StoreUnreachable: the store does not answer.
            StoreRefused: the store said no.

        """

    def close(self) -> None:
        """Give back connections and files."""
