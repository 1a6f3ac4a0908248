"""The spool: finished ticks on disk, from the moment they are sampled until the store has them.

One segment at a time is open per database; the sampling loop appends whole ticks to it. Closed
ones are shipped oldest first and deleted once the store took them. File names sort by age:
`<created ms>-<sequence>-<database>.lp`.

Nothing is synced: an append takes 0.007 ms, and 0.17 ms with fsync, at times 7 ms, on a fast disk
that is idle. A killed agent loses nothing, because the kernel has it; a machine that loses power
loses what the kernel had not written, about the last 35 s (vm.dirty_expire_centisecs and a
writeback interval), of which all but the last flush interval is in the store already.
"""

import logging
import os
import threading
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.ledger import Ledger, Reason
from agent.segments import Segment, leftovers, lock, newest_ms, segment_path, usable
from probes.catalogue import Database

log = logging.getLogger("rooflight.spool")

SEGMENT_BYTES = 1 << 18
MEMORY_BYTES = 1 << 21
MEMORY_PARTS = 16


class Spool:
    """Segments in one folder, bounded in bytes: when it is full the oldest are dropped and counted.

    `append` may be called from one thread while another calls all the rest. What the disk does not
    take (full, read-only) waits in memory, bounded too, and is shipped from there.

    Attributes:
        directory: the folder.

    Raises:
        SpoolLocked: another process uses the folder.
        SpoolUnusable: the folder cannot be made or read.

    """

    def __init__(
        self,
        directory: Path,
        limit_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self.directory = directory
        self._limit_bytes = limit_bytes
        # a spool of few large segments could only drop much at once
        self._segment_bytes = min(segment_bytes, max(1, limit_bytes // 4))
        self._memory_bytes = memory_bytes
        self._clock = clock or SystemClock()
        self._guard = threading.Lock()
        self._sequence = 0
        with usable(directory):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock_file = lock(directory)
            found = leftovers(directory)
        self._ledger = Ledger(directory / "ledger")
        self._newest_ms = max(self._ledger.newest_ms, newest_ms(directory)) + 1
        # all of them, oldest first: a segment has its name and its place when it is begun
        self._segments = {segment.path.name: segment for segment in found}
        self._bytes = sum(segment.size for segment in found)
        self._open: dict[Database, Segment] = {}
        self._held: list[Segment] = []
        self._undeleted: list[Path] = []
        self._disk_refuses = False

    @property
    def newest_ms(self) -> int:
        """The latest time at which anything was appended, by this agent or one before it."""
        with self._guard:
            return self._newest_ms

    @property
    def depth_bytes(self) -> int:
        """Bytes that wait for the store, on disk and in memory."""
        with self._guard:
            return self._bytes

    @property
    def segments(self) -> int:
        """Segments that wait for the store."""
        with self._guard:
            return len(self._segments)

    @property
    def lost(self) -> dict[Reason, int]:
        """Points that never reached the store, by reason, for as long as the folder is there."""
        with self._guard:
            return {reason: points for reason, points in self._ledger.lost.items() if points}

    def append(self, database: Database, lines: bytes) -> None:
        """Keep a tick's lines, each with its line end; on return a killed agent loses none."""
        if not lines.endswith(b"\n"):
            raise ValueError("the spool takes whole lines, each with its line end")
        with self._guard:
            # a clock that was set back must not put new data before old
            self._newest_ms = max(self._newest_ms, int(self._clock.time() * 1000))
            self._save_held()
            if not self._written(database, lines):
                self._hold(database, lines)
            self._bytes += len(lines)
            self._bound()
            self._note()

    def close_segment(self, database: Database) -> None:
        """Make everything that was appended to a database shippable."""
        with self._guard:
            self._save_held()
            self._close(database)
            self._note()

    def closed(self, database: Database) -> list[Segment]:
        """Return the closed segments of a database, oldest first."""
        with self._guard:
            mine = (each for each in self._segments.values() if each.database is database)
            return [each for each in mine if each is not self._open.get(database)]

    def remove(self, segment: Segment, lost: int = 0, reason: Reason = Reason.REFUSED) -> bool:
        """Delete a segment, of which so many points are lost; False if it was dropped before."""
        with self._guard:
            removed = self._forget(segment, lost, reason)
            self._note()
            return removed

    def close(self) -> None:
        """Close what is open and let another agent use the folder."""
        for database in Database:
            self.close_segment(database)
        with self._guard:
            self._ledger.close()
            os.close(self._lock_file)

    def _written(self, database: Database, lines: bytes) -> bool:
        """Append to a file; False if the disk does not take it."""
        segment = self._open.get(database)
        if segment and segment.held:
            return False  # nor did it take what came before
        try:
            segment = segment or self._begin(database, in_file=True)
            segment.write(lines)
        except OSError as error:
            self._complain(error)
            self._close(database)
            return False
        if self._disk_refuses:
            log.warning("%s: the disk takes ticks again", self.directory)
        self._disk_refuses = False
        if segment.size >= self._segment_bytes:
            self._close(database)
        return True

    def _hold(self, database: Database, lines: bytes) -> None:
        segment = self._open.get(database) or self._begin(database, in_file=False)
        if not segment.held:
            self._held.append(segment)
        segment.hold(lines)
        if segment.size >= self._memory_bytes // MEMORY_PARTS:
            self._close(database)

    def _save_held(self) -> None:
        """Move what is in memory to the disk, oldest first, until the disk refuses."""
        try:
            while self._held:
                segment = self._held[0]
                segment.save()
                del self._held[0]
                if segment is not self._open.get(segment.database):
                    segment.close()
        except OSError as error:
            self._complain(error)

    def _begin(self, database: Database, *, in_file: bool) -> Segment:
        """Return a new open segment.

        Raises:
            OSError: the disk does not allow a new file.

        """
        self._sequence += 1
        path = segment_path(self.directory, self._newest_ms, self._sequence, database)
        segment = Segment(path, database)
        if in_file:
            segment.create()
        self._open[database] = self._segments[path.name] = segment
        return segment

    def _close(self, database: Database) -> None:
        segment = self._open.pop(database, None)
        if segment:
            segment.close()
            if segment.size == 0:  # the disk took the file, but not its first tick
                self._forget(segment, 0, Reason.UNREADABLE)

    def _bound(self) -> None:
        """Drop the oldest, in memory and on disk, but never the newest."""
        while len(self._held) > 1 and self._held_bytes() > self._memory_bytes:
            self._drop(self._held[0], Reason.MEMORY_FULL)
        while self._bytes - self._held_bytes() > self._limit_bytes:
            oldest = self._oldest_file()
            if oldest is None:
                return
            self._drop(oldest, Reason.SPOOL_FULL)

    def _oldest_file(self) -> Segment | None:
        *older, _ = self._segments.values()
        unfinished = (*self._held, *self._open.values())
        return next((each for each in older if each not in unfinished), None)

    def _held_bytes(self) -> int:
        return sum(segment.size for segment in self._held)

    def _drop(self, segment: Segment, reason: Reason) -> None:
        log.warning("%s: %s, dropped %d points", self.directory, reason.words, segment.points)
        self._forget(segment, segment.points, reason)

    def _forget(self, segment: Segment, lost: int, reason: Reason) -> bool:
        """Count what is lost of a segment and delete it."""
        if self._segments.pop(segment.path.name, None) is None:
            return False
        if lost:  # before the file goes: if this process is killed now, rather twice than never
            self._ledger.lose(reason, lost)
        if self._open.get(segment.database) is segment:
            del self._open[segment.database]
        self._bytes -= segment.size
        if segment in self._held:
            self._held.remove(segment)
        else:
            self._delete(segment.path)
        return True

    def _delete(self, path: Path) -> None:
        """Delete a file, and those that a read-only disk kept from being deleted before."""
        self._undeleted.append(path)
        try:
            while self._undeleted:
                self._undeleted[-1].unlink(missing_ok=True)
                self._undeleted.pop()
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._disk_refuses:
            log.warning("%s: %s; ticks are kept in memory, and shipped", self.directory, error)
        self._disk_refuses = True

    def _note(self) -> None:
        self._ledger.note(self._newest_ms, sum(segment.points for segment in self._held))
