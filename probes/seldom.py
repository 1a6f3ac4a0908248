"""Values that change seldom: read now and then, told at every sample."""

from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")

SELDOM_SECONDS = 9.0
"""How old error counters and the like may be: less than the agent's usual interval of 10 s, so that
only faster agents are spared. A network card's counters are asked of its firmware, one by one."""


class Seldom(Generic[T]):
    """What `read` returned last, unless that is too long ago.

    Args:
        read: reads the values; what it raises is raised, and read again at the next time.
        seconds: how old they may be.
        monotonic: clock in seconds that never goes back.

    """

    def __init__(
        self, read: Callable[[], T], seconds: float, monotonic: Callable[[], float]
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._monotonic = monotonic
        self._due = -inf
        self._values: T

    def values(self) -> T:
        """Return the values, read now if they are too old."""
        now = self._monotonic()
        if now >= self._due:
            self._values = self._read()
            self._due = now + self._seconds
        return self._values

    def forget(self) -> None:
        """Have them read anew the next time."""
        self._due = -inf
