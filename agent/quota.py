"""How much users' programs may tell the agent: it must stay cheap, and its store small."""

from collections.abc import Callable
from dataclasses import dataclass, field

from probes.sample import Tags

POINTS_PER_SECOND = 50.0
"""A program that marks phases of a fraction of a second stays below this."""

POINTS_AT_ONCE = 500.0
BYTES_PER_SECOND = 20_000.0
"""Twice as much as so many points of phases have; a message is charged before it is decoded."""

BYTES_AT_ONCE = 400_000.0
MESSAGES_PER_SECOND = 100.0
"""What a socket is read for: more waits there, and costs nothing."""

MESSAGES_AT_ONCE = 500.0
MOST_USERS = 1000
"""Users whose buckets are kept: more than have jobs on one node."""

TOO_MANY = (
    f"too much: at most {POINTS_PER_SECOND:.0f} points and {BYTES_PER_SECOND / 1000:.0f} kB each "
    f"second, {POINTS_AT_ONCE:.0f} points and {BYTES_AT_ONCE / 1000:.0f} kB at once"
)
MOST_NAMES = 200
"""Different names of phases in one job: each is a series that the store keeps."""


class Bucket:
    """An allowance that fills up again by and by.

    Args:
        rate: of filling, per second.
        size: what fits, and is there at first.
        monotonic: a clock in seconds.

    """

    def __init__(self, rate: float, size: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._size = size
        self._monotonic = monotonic
        self._left = size
        self._since = monotonic()

    def take(self, amount: float) -> bool:
        """Tell whether so much is left, and take it if so."""
        if not self.has(amount):
            return False
        self._left -= amount
        return True

    def has(self, amount: float) -> bool:
        """Tell whether so much is left."""
        self._fill()
        return self._left >= amount

    def is_full(self) -> bool:
        """Tell whether nothing was taken, or all of it long ago."""
        return self.has(self._size)

    def _fill(self) -> None:
        now = self._monotonic()
        self._left = min(self._size, self._left + (now - self._since) * self._rate)
        self._since = now


@dataclass(slots=True)
class Quota:
    """Counts what each user has told.

    Attributes:
        monotonic: a clock in seconds.

    """

    monotonic: Callable[[], float]
    _points: dict[int, Bucket] = field(default_factory=dict)
    _bytes: dict[int, Bucket] = field(default_factory=dict)
    _names: dict[str, set[Tags]] = field(default_factory=dict)

    def allows_bytes(self, uid: int, size: int) -> bool:
        """Tell whether a message of so many bytes may be decoded now, and count it if so."""
        return self._bucket(self._bytes, uid, BYTES_PER_SECOND, BYTES_AT_ONCE).take(size)

    def allows(self, uid: int, points: int) -> bool:
        """Tell whether a user may tell so many points now, and count them if so."""
        return self._bucket(self._points, uid, POINTS_PER_SECOND, POINTS_AT_ONCE).take(points)

    def knows(self, jobid: str, name: Tags) -> bool:
        """Tell whether a job may use this name of a phase, and remember it if so."""
        names = self._names.setdefault(jobid, set())
        if name not in names and len(names) >= MOST_NAMES:
            return False
        names.add(name)
        return True

    def forget(self, jobid: str) -> None:
        """Forget a job that ended."""
        self._names.pop(jobid, None)

    def _bucket(self, buckets: dict[int, Bucket], uid: int, rate: float, size: float) -> Bucket:
        if uid not in buckets:
            if len(buckets) >= MOST_USERS:
                kept = {other: each for other, each in buckets.items() if not each.is_full()}
                buckets.clear()
                buckets.update(kept)
            buckets[uid] = Bucket(rate, size, self.monotonic)
        return buckets[uid]
