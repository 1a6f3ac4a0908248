"""Looks, taken in a thread of their own: a driver or a store that hangs never stops the keys."""

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from agent.top.model import Frame, Source

FIRST_SECONDS = 0.5
"""From the first look, which has no rates yet, to the second."""

PATIENCE_SECONDS = 0.5
"""How long an end waits for the look that is under way."""


class Feed:
    """Takes a look, waits for the interval, and so on, from `with` to its end.

    Args:
        open_source: opens the source, in the thread: that may take a while too.
        interval: seconds between two looks.

    Attributes:
        ready: file descriptor that can be read when there is something new.

    """

    def __init__(self, open_source: Callable[[], Source], interval: float) -> None:
        self.ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open_source = open_source
        self._interval = interval
        self._frame: Frame | None = None
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._stopping = False
        # a daemon: a look that hangs in a driver must not keep the process alive
        self._thread = threading.Thread(target=self._work, name="looks", daemon=True)
        self._other_hook = threading.excepthook

    def __enter__(self) -> "Feed":
        """Begin; what the thread raises is kept for `newest`, and not printed over the screen."""
        threading.excepthook = self._failed
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; a look that hangs is left behind."""
        self._stopping = True
        self._wake.set()
        self._thread.join(PATIENCE_SECONDS)
        threading.excepthook = self._other_hook

    def newest(self) -> Frame | None:
        """Return the newest look, None before the first; raises what the source raised."""
        if self._error is not None:
            raise self._error
        return self._frame

    def pace(self, interval: float) -> None:
        """Look every so many seconds from now on."""
        if interval != self._interval:
            self._interval = interval
            self._wake.set()

    def _work(self) -> None:
        source = self._open_source()
        try:
            while not self._stopping:
                begun = time.monotonic()
                is_first = self._frame is None
                self._frame = source.read()
                os.eventfd_write(self.ready, 1)
                wait = min(FIRST_SECONDS, self._interval) if is_first else self._interval
                self._wake.wait(max(0.0, begun + wait - time.monotonic()))
                self._wake.clear()
        finally:
            source.close()

    def _failed(self, failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not self._thread:
            self._other_hook(failure)
            return
        self._error = failure.exc_value
        os.eventfd_write(self.ready, 1)
