"""What a store is: a place that takes points and gives rows back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from probes.catalogue import CATALOGUE, Database, Kind
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


class Rejected(NamedTuple):
    """Lines that the store will never take, and its words on them."""

    words: str
    lines: bytes


class StoreRefused(Exception):
    """The store understood and said no; the message carries its words.

    Attributes:
        keep: True if an admin can mend it (password, missing database), so the data must wait;
            False if sending the same again is useless (a field conflict, a point out of range).
        rejected: with keep=False, the lines that were not taken; all others were.

    """

    def __init__(self, message: str, *, keep: bool, rejected: Sequence[Rejected] = ()) -> None:
        super().__init__(message)
        self.keep = keep
        self.rejected = rejected

    @property
    def points_lost(self) -> int:
        """How many points were not taken."""
        return sum(each.lines.count(b"\n") for each in self.rejected)


@dataclass(frozen=True, slots=True)
class Select:
    """A question to a store, small enough that every store can answer it.

    Attributes:
        measurement: a name in the catalogue; it decides which database is asked.
        where: tags and the value that each must have, or the values of which one must hold (at
            least one).
        since_ms: first millisecond, or None.
        until_ms: last millisecond, included, or None.
        newest: at most so many rows, the newest; None for all.

    """

    measurement: str
    where: Mapping[str, str | Sequence[str]]
    since_ms: int | None = None
    until_ms: int | None = None
    newest: int | None = None


def any_of(value: str | Sequence[str]) -> Sequence[str]:
    """Return the values of which one must hold, where there may be one alone."""
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Windows:
    """A question for one field over time, which the store itself thins out to a value per window.

    The rows of the answer have the tags `by`, `time_ms` (the end of the window) and, for a gauge,
    `mean`, `low` and `high`; for a counter `mean`, its growth per second; for a text `count`, how
    many samples said `text`. A counter's steps are taken between neighbouring samples, before
    windows are made: one that starts anew costs that one step, in which its growth is not known.
    A window of which nothing is known has no row.

    Attributes:
        measurement: a name in the catalogue.
        field: one of its fields.
        where: tags and the values of which one must hold; at least one value each.
        by: tags; each combination of their values has rows of its own, oldest first.
        since_ms: begin of the time asked for. A counter grows from its reading there; any other
            sample there describes the time before, and is left out.
        until_ms: its end, included.
        every_ms: length of a window, its end included; windows end at multiples of it.
        text: what a text field must say to be counted.

    """

    measurement: str
    field: str
    where: Mapping[str, Sequence[str]]
    by: tuple[str, ...]
    since_ms: int
    until_ms: int
    every_ms: int
    text: str = ""

    @property
    def kind(self) -> Kind:
        """How the field behaves over time."""
        return CATALOGUE[self.measurement].fields[self.field].kind

    @property
    def first(self) -> str:
        """How the first sample stands to `since_ms`, in any query language."""
        return ">=" if self.kind is Kind.COUNTER else ">"


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

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Return a field over time, see `Windows`.

        Raises:
            StoreUnreachable: the store does not answer.
            StoreRefused: the store said no.

        """

    def close(self) -> None:
        """Give back connections and files."""
