"""The shipper: a thread that sends the spool's segments to the store, oldest first."""

import logging
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from agent.clock import Clock, SystemClock
from agent.ledger import Reason
from agent.pacing import Jitter, Pacing
from agent.quarantine import Quarantine
from agent.segments import Segment
from agent.spool import Spool
from agent.stores.store import Store, StoreRefused, StoreUnreachable
from probes.catalogue import Database

log = logging.getLogger("rooflight.shipper")

MOST_COMPLAINTS = 20
"""Different words of the store that one outage may put into the log."""

MOST_READS = 3
"""Attempts to read a segment before it is given up."""


@dataclass(slots=True)
class _Lane:
    """The way to one database: trouble with one does not hold up the other.

    Attributes:
        pacing: how long to wait.
        not_before: when to send next, on the monotonic clock.

    """

    database: Database
    pacing: Pacing
    not_before: float = 0.0


class Shipper:
    """Sends what the spool holds; a segment is deleted only when the store has its fate settled.

    A store that does not answer, or refuses for a reason that an admin can mend, is tried again,
    see `Pacing`. Points that it will never take go to the quarantine file and are counted; those
    beside them get through.

    Attributes:
        shipped_points: points that the store took.
        store_errors: attempts that failed.

    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        *,
        flush_seconds: float,
        clock: Clock | None = None,
        jitter: Jitter = random.uniform,
    ) -> None:
        self.shipped_points = 0
        self.store_errors = 0
        self._spool = spool
        self._store = store
        self._lanes = [_Lane(each, Pacing(flush_seconds, jitter)) for each in Database]
        # agents that booted together shall not ship together
        self._first_pause = jitter(0.0, flush_seconds)
        self._quarantine = Quarantine(spool.directory / "quarantine.lp")
        self._clock = clock or SystemClock()
        self._complaints: set[str] = set()
        self._unread = 0
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
        """Send what is due; return the seconds until next time."""
        for lane in self._lanes:
            if self._stopping.is_set() or self._clock.monotonic() >= lane.not_before:
                self._attend(lane)
        return max(0.0, min(lane.not_before for lane in self._lanes) - self._clock.monotonic())

    def _attend(self, lane: _Lane) -> None:
        """Send what waits for one database, and settle when to come back."""
        try:
            pause = self._send_waiting(lane)
        except StoreUnreachable as failure:  # for either database: it is one server
            self._complain(f"the store is unreachable, the data is kept: {failure}")
            pause = max(each.pacing.failed(failure.retry_after) for each in self._lanes)
            for each in self._lanes:
                each.not_before = self._clock.monotonic() + pause
        except (StoreRefused, OSError) as refusal:
            self._complain(f"{lane.database}: the data is kept: {refusal}")
            lane.not_before = self._clock.monotonic() + lane.pacing.failed()
        else:
            lane.not_before = self._clock.monotonic() + pause

    def _send_waiting(self, lane: _Lane) -> float:
        """Send the segments of a database, oldest first; return the pause that is due then.

        Raises:
            StoreUnreachable, StoreRefused, OSError: the segment at hand stays, and all after it.

        """
        for segment in self._waiting(lane.database):
            begun = self._clock.monotonic()
            if begun >= self._deadline:
                return 0.0
            self._send(segment)
            self._praise(lane)
            pause = lane.pacing.sent(self._clock.monotonic() - begun)
            if pause and self._spool.closed(lane.database) and not self._stopping.is_set():
                return pause
        return lane.pacing.done()

    def _waiting(self, database: Database) -> Iterator[Segment]:
        """Yield a backlog first: what is being written is closed when all before it was sent.

        So an outage makes a few large segments out of many ticks, and the first contact after it
        is a small one.
        """
        yield from self._spool.closed(database)
        self._spool.close_segment(database)
        yield from self._spool.closed(database)

    def _send(self, segment: Segment) -> None:
        """Send one segment and delete it if the store took it or never will.

        Raises:
            StoreUnreachable: nothing was deleted.
            StoreRefused: an admin must act; nothing was deleted.
            OSError: the segment cannot be read; it is tried again a few times.

        """
        lines = self._read(segment)
        if not lines:
            return
        lost = 0
        try:
            self._store.write(segment.database, lines)
        except StoreRefused as refusal:
            if refusal.keep:
                raise
            lost = refusal.points_lost
            self._put_aside(refusal)
        if self._spool.remove(segment, lost, Reason.REFUSED):  # otherwise it counted as dropped
            self.shipped_points += segment.points - lost

    def _read(self, segment: Segment) -> bytes:
        """Return a segment's lines; nothing if it was given up.

        Raises:
            OSError: see `_send`.

        """
        try:
            lines = segment.lines()
        except OSError as error:
            self._unread += 1
            if self._unread < MOST_READS and not isinstance(error, FileNotFoundError):
                raise
            self._spool.remove(segment, segment.points, Reason.UNREADABLE)
            log.error("lost %d points, a segment that cannot be read: %s", segment.points, error)
            lines = b""
        self._unread = 0
        return lines

    def _put_aside(self, refusal: StoreRefused) -> None:
        self.store_errors += 1
        path, lost = self._quarantine.path, refusal.points_lost
        log.error("the store will not take %d points, see %s: %s", lost, path, refusal)
        try:
            self._quarantine.add(refusal.rejected)
        except OSError as error:
            log.error("%s: %s", path, error)

    def _complain(self, complaint: str) -> None:
        self.store_errors += 1
        if complaint not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            log.warning("%s", complaint)
            self._complaints.add(complaint)

    def _praise(self, lane: _Lane) -> None:
        if lane.pacing.in_trouble:
            log.warning("%s: the store takes data again", lane.database)
            self._complaints.clear()

    def _run(self) -> None:
        try:
            self._awake.wait(self._first_pause)
            while not self._stopping.is_set():
                self._heed_wake()
                self._awake.wait(self.ship())
            self.ship()  # what was appended since
        finally:
            self._store.close()

    def _heed_wake(self) -> None:
        """Make every lane due that is not in trouble, if somebody waits for the data."""
        if self._awake.is_set():
            self._awake.clear()
            for lane in self._lanes:
                if not lane.pacing.in_trouble:
                    lane.not_before = 0.0
