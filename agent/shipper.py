"""The shipper: a thread that sends the spool's segments to the store, oldest first."""

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.spool import Segment, Spool
from agent.stores.store import Store, StoreRefused, StoreUnreachable
from probes.catalogue import Database

log = logging.getLogger("rooflight.shipper")

SHORTEST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
QUARANTINE_BYTES = 1 << 20


class Shipper:
    """Sends what the spool holds; a segment is deleted only when the store has its fate settled.

    An unreachable store is tried again after a random pause that grows to a minute, so that a
    thousand agents do not come back at the same moment. A store that refuses for a reason that
    an admin can mend is tried again too; data that it will never take goes to `quarantine.lp`.

    Attributes:
        shipped_points: points that the store took.
        dropped_points: points that the store will never take.
        store_errors: attempts that failed.

    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        *,
        flush_seconds: float,
        clock: Clock | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.shipped_points = 0
        self.dropped_points = 0
        self.store_errors = 0
        self._spool = spool
        self._store = store
        self._flush_seconds = flush_seconds
        self._quarantine = spool.directory / "quarantine.lp"
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._failures = 0
        self._complaints: set[str] = set()
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False before `start`, after `stop`, and after a bug."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to ship in a thread of its own, which also closes the store at the end."""
        self._thread.start()

    def wake(self) -> None:
        """Ship now, unless the store is being given time to recover."""
        self._awake.set()

    def stop(self, deadline_seconds: float) -> bool:
        """Ship until the deadline and leave the rest in the spool; True if the thread ended."""
        self._deadline = self._clock.monotonic() + deadline_seconds
        self._stopping.set()
        self._awake.set()
        self._thread.join(deadline_seconds + 1.0)
        return not self._thread.is_alive()

    def ship(self) -> float:
        """Close the open segments and send all there is; return the seconds until next time."""
        self._spool.close_segments()
        waiting = set[Database]()
        for segment in self._spool.closed():
            if self._clock.monotonic() >= self._deadline:
                break
            if segment.database in waiting:
                continue  # order is kept within a database
            try:
                self._send(segment)
            except StoreRefused as refusal:
                waiting.add(segment.database)
                self._complain(f"the store refused, the data is kept: {refusal}")
            except StoreUnreachable as failure:
                self._complain(f"the store is unreachable, the data is kept: {failure}")
                return self._backoff(failure.retry_after)
        return self._backoff() if waiting else self._content()

    def _send(self, segment: Segment) -> None:
        """Send one segment and delete it if the store took it or never will.

        Raises:
            StoreUnreachable: nothing was deleted.
            StoreRefused: an admin must act; nothing was deleted.

        """
        try:
            lines = segment.lines()
        except OSError as error:
            self._give_up_unreadable(segment, error)
            return
        points, lost = lines.count(b"\n"), 0
        try:
            self._store.write(segment.database, lines)
        except StoreRefused as refusal:
            if refusal.keep:
                raise
            lost = min(points, max(1, refusal.points_lost))
            self._put_aside(str(refusal), lines, lost)
        if self._spool.remove(segment):  # otherwise the spool has counted it as dropped
            self.shipped_points += points - lost
            self.dropped_points += lost

    def _give_up_unreadable(self, segment: Segment, error: OSError) -> None:
        if self._spool.remove(segment):
            self.store_errors += 1
            log.error("lost a spool segment that cannot be read: %s", error)

    def _put_aside(self, words: str, lines: bytes, lost: int) -> None:
        self.store_errors += 1
        log.error("the store will not take %d points, see %s: %s", lost, self._quarantine, words)
        try:
            append_bounded(self._quarantine, _comment(words) + lines, QUARANTINE_BYTES)
        except OSError as error:
            log.error("cannot write %s: %s", self._quarantine, error)

    def _complain(self, complaint: str) -> None:
        self.store_errors += 1
        if complaint not in self._complaints:
            log.warning("%s", complaint)
        self._complaints.add(complaint)

    def _backoff(self, retry_after: float = 0.0) -> float:
        self._failures += 1
        ceiling = min(LONGEST_BACKOFF_SECONDS, SHORTEST_BACKOFF_SECONDS * 2.0**self._failures)
        pause = self._jitter(SHORTEST_BACKOFF_SECONDS, ceiling)
        return max(pause, min(retry_after, LONGEST_RETRY_AFTER_SECONDS))

    def _content(self) -> float:
        if self._complaints:
            log.warning("the store takes data again")
        self._complaints.clear()
        self._failures = 0
        return self._flush_seconds

    def _run(self) -> None:
        try:
            # agents that booted together shall not ship together
            self._wait(self._jitter(0.0, self._flush_seconds))
            while not self._stopping.is_set():
                self._wait(self.ship())
            self.ship()  # what was appended since
        finally:
            self._store.close()

    def _wait(self, seconds: float) -> None:
        """Sleep; `wake` cuts a pause short, but not a backoff, and `stop` both."""
        if self._failures:
            self._stopping.wait(seconds)
        else:
            self._awake.wait(seconds)
        self._awake.clear()


def append_bounded(path: Path, data: bytes, limit_bytes: int) -> None:
    """Append to a file; one that grows over the limit loses its older half, at a line's end."""
    with path.open("ab+") as file:
        file.write(data)
        if file.tell() <= limit_bytes:
            return
        file.seek(-(limit_bytes // 2), 2)
        file.readline()
        newer = file.read()
    path.write_bytes(newer)


def _comment(words: str) -> bytes:
    return f"# {' '.join(words.split())}\n".encode()
