"""Values that change seldom: read now and then."""

from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")

SELDOM_SECONDS = 9.0
"""How old error counters and the like may be: less than the agent's usual interval of 10 s, so that
only faster agents are spared. A network card's counters are asked of its firmware, one by one."""


class Seldom(Generic[T]):
    """What `read` returned last, unless that is too long ago.

    Times are in seconds on a clock that never goes back.

    Args:
        read: reads the values; what it raises is raised, and read again at the next time.
        seconds: how old they may be.

    """

    def __init__(self, read: Callable[[], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._due = -inf
        self._values: T

    def values(self, now: float) -> T:
        """Return the values, read now if they are too old."""
        if now >= self._due:
            self._values = self._read()
            self._due = now + self._seconds
        return self._values

    def news(self, now: float) -> T | None:
        """Return the values if they are read now; None while they are not too old.

        What is not told again need be neither checked nor shipped: a quarter of the bytes of a
        node with eight GPUs and four InfiniBand ports that is sampled every second.
        """
        return self.values(now) if now >= self._due else None

    def forget(self) -> None:
        """Have them read anew the next time."""
        self._due = -inf
