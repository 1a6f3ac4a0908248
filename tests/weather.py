"""What a busy machine does to a test: how long to wait, and a yardstick for what measures time.

A test waits for an event and not for a time, and `PATIENCE` is when it gives up. What must be quick
is held against what the same machine does at the same moment: `Weather`.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

PATIENCE = 300.0
"""Seconds until it is called hanging: beside ten programs everything takes ten times as long."""

NAP_SECONDS = 0.01


def wait_until(condition: Callable[[], object], what: str = "it did not happen") -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it does not hold in time.

    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Weather:
    """How much later than it asked a thread is woken here, while this is entered.

    Attributes:
        late: seconds, of each nap.

    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._over.set()
        self._thread.join()

    @property
    def worst(self) -> float:
        """The longest delay, in seconds."""
        return max(self.late, default=0.0)

    @property
    def usual(self) -> float:
        """The delay that nine of ten naps did not exceed, in seconds."""
        return sorted(self.late)[int(0.9 * (len(self.late) - 1))] if self.late else 0.0

    def _watch(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            time.sleep(NAP_SECONDS)
            self.late.append(time.monotonic() - begun - NAP_SECONDS)
