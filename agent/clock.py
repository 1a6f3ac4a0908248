"""The two clocks of the agent, injected so that tests own the time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock and monotonic clock, both in seconds."""

    def time(self) -> float:
        """Return seconds since 1970; it may jump."""

    def monotonic(self) -> float:
        """Return seconds since some moment; it never goes back."""


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()


def next_tick(now: float, interval: float) -> float:
    """Return the first multiple of `interval` after `now`, both in seconds since 1970.

    Multiples are counted in milliseconds: the tick's timestamp is then exact in the store.
    """
    step = max(1, round(interval * 1000))
    return (int(now * 1000) // step + 1) * step / 1000
