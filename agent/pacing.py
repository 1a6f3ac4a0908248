"""When the shipper may knock at the store's door again: thousands of agents share it."""

import random
from collections.abc import Callable

LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0

LEISURE = 40
"""How many times as long as it took to answer a server is left alone while an agent catches up.

On average one agent in LEISURE + 1 then has a request under way, so 10,000 of them make a queue
that a server works off before they lose patience. `tests/unit/test_pacing.py` plays that through:
no request waits for more than 4 s, and the server is busy for the whole time of the recovery.
"""
LONGEST_LEISURE_SECONDS = 600.0

Jitter = Callable[[float, float], float]


class Pacing:
    """The pauses between the requests of one agent to one database.

    Attributes:
        in_trouble: the last attempt failed: the pause must not be cut short.

    """

    def __init__(self, flush_seconds: float, jitter: Jitter = random.uniform) -> None:
        self.in_trouble = False
        self._flush_seconds = flush_seconds
        self._jitter = jitter
        self._failures = 0
        # what an earlier agent left is sent with the same leisure as what an outage left
        self._catching_up = True

    def failed(self, retry_after: float = 0.0) -> float:
        """Return the pause after a failure: never less than a healthy agent makes.

        What the server asked for comes on top, because it may have told every agent the same.
        """
        self.in_trouble = self._catching_up = True
        self._failures = min(self._failures + 1, 30)  # an outage of a year is no reason to overflow
        shortest = min(self._flush_seconds, LONGEST_BACKOFF_SECONDS / 2)
        ceiling = min(LONGEST_BACKOFF_SECONDS, shortest * 2.0**self._failures)
        return self._jitter(shortest, ceiling) + min(retry_after, LONGEST_RETRY_AFTER_SECONDS)

    def sent(self, seconds: float) -> float:
        """Return the pause before the next segment of a backlog; sending one took `seconds`."""
        self.in_trouble = False
        self._failures = 0
        if not self._catching_up:
            return 0.0
        return self._jitter(0.0, min(2 * LEISURE * seconds, LONGEST_LEISURE_SECONDS))

    def done(self) -> float:
        """Return the pause after everything was sent."""
        self.in_trouble = self._catching_up = False
        self._failures = 0
        return self._flush_seconds
