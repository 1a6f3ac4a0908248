"""The spool: finished ticks on disk, from the moment they are sampled until the store has them.

One file at a time is open per database (`.open`); the sampling loop appends whole ticks to it.
Closed files (`.lp`) are shipped oldest first and deleted once the store took them. File names
sort by age: `<created ms>-<sequence>-<database>`.
"""

import errno
import fcntl
import logging
import os
import re
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock, SystemClock
from probes.catalogue import Database

log = logging.getLogger("rooflight.spool")

MEBIBYTE = 1 << 20
_NAME = re.compile(r"(\d{13})-(\d{6,})-(metrics|jobs)\.(open|lp)")


class SpoolLocked(Exception):
    """Another agent uses this spool; the message names its process and the folder."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed file of the spool.

    Attributes:
        path: the file.
        database: where its lines go.
        size: bytes.

    """

    path: Path
    database: Database
    size: int

    def lines(self) -> bytes:
        """Return the lines of line protocol.

        Raises:
            OSError: the file is gone or cannot be read.

        """
        return self.path.read_bytes()


@dataclass(slots=True)
class _OpenSegment:
    path: Path
    descriptor: int
    size: int = 0


class Spool:
    """Segments in one folder, bounded in bytes: when it is full the oldest are dropped and counted.

    `append` and `close_segments` may be called from one thread while another calls `closed` and
    `remove`. What cannot be written (disk full, read-only) waits in memory, bounded too.

    Attributes:
        directory: the folder.
        dropped_points: points lost because spool or memory was full.

    Raises:
        SpoolLocked: another process uses the folder.
        OSError: the folder cannot be made or read.

    """

    def __init__(
        self,
        directory: Path,
        limit_bytes: int,
        segment_bytes: int = MEBIBYTE,
        memory_bytes: int = 2 * MEBIBYTE,
        clock: Clock | None = None,
    ) -> None:
        self.dropped_points = 0
        self.directory = directory
        self._limit_bytes = limit_bytes
        # a spool of few large segments could only drop much at once
        self._segment_bytes = min(segment_bytes, max(1, limit_bytes // 4))
        self._memory_bytes = memory_bytes
        self._clock = clock or SystemClock()
        self._guard = threading.Lock()
        self._open: dict[Database, _OpenSegment] = {}
        self._waiting: deque[tuple[Database, bytes]] = deque()
        self._newest_ms = 0
        self._sequence = 0
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock_file = _lock(directory)
        self._closed = {segment.path.name: segment for segment in self._leftovers()}
        self._closed_bytes = sum(segment.size for segment in self._closed.values())

    @property
    def depth_bytes(self) -> int:
        """Bytes that wait for the store, on disk and in memory."""
        with self._guard:
            return self._depth()

    @property
    def segments(self) -> int:
        """Files that wait for the store."""
        with self._guard:
            return len(self._closed) + len(self._open)

    def append(self, database: Database, lines: bytes) -> None:
        """Keep a tick's lines, each with its line end; on return a killed agent loses none."""
        if not lines.endswith(b"\n"):
            raise ValueError("the spool takes whole lines, each with its line end")
        with self._guard:
            self._waiting.append((database, lines))
            self._write_waiting()
            self._bound_memory()
            self._bound_disk()

    def close_segments(self) -> None:
        """Make everything appended so far shippable."""
        with self._guard:
            self._write_waiting()
            for database in list(self._open):
                self._close_segment(database)

    def closed(self) -> list[Segment]:
        """Return the closed segments, oldest first."""
        with self._guard:
            return list(self._closed.values())

    def remove(self, segment: Segment) -> bool:
        """Delete a segment; False if it had been dropped already, and counted."""
        with self._guard:
            return self._forget(segment)

    def close(self) -> None:
        """Close what is open and let another agent use the folder."""
        self.close_segments()
        os.close(self._lock_file)

    def _depth(self) -> int:
        opened = sum(segment.size for segment in self._open.values())
        return self._closed_bytes + opened + _size(self._waiting)

    def _write_waiting(self) -> None:
        """Write what waits in memory, oldest first, until the disk refuses."""
        try:
            while self._waiting:
                self._write(*self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if len(self._waiting) == 1:  # the first of an outage
                log.warning("spool %s: %s; keeping ticks in memory", self.directory, error)

    def _write(self, database: Database, lines: bytes) -> None:
        segment = self._open.get(database) or self._open_segment(database)
        try:
            written = os.write(segment.descriptor, lines)
            if written < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):  # half a tick would be sent twice or torn
                os.ftruncate(segment.descriptor, segment.size)
            raise
        segment.size += written
        if segment.size >= self._segment_bytes:
            self._close_segment(database)

    def _open_segment(self, database: Database) -> _OpenSegment:
        # a clock that was set back must not put new data before old
        self._newest_ms = max(self._newest_ms, int(self._clock.time() * 1000))
        self._sequence += 1
        name = f"{self._newest_ms:013d}-{self._sequence:06d}-{database}.open"
        path = self.directory / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL
        self._open[database] = _OpenSegment(path, os.open(path, flags, 0o640))
        return self._open[database]

    def _close_segment(self, database: Database) -> None:
        opened = self._open[database]
        final = opened.path.with_suffix(".lp")
        try:
            opened.path.rename(final)
        except OSError as error:
            log.warning("spool: cannot close %s, tried again later: %s", opened.path, error)
            return
        os.close(opened.descriptor)
        del self._open[database]
        self._closed[final.name] = Segment(final, database, opened.size)
        self._closed_bytes += opened.size

    def _forget(self, segment: Segment) -> bool:
        if self._closed.pop(segment.path.name, None) is None:
            return False
        self._closed_bytes -= segment.size
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("spool: cannot delete %s: %s", segment.path, error)
        return True

    def _bound_memory(self) -> None:
        while _size(self._waiting) > self._memory_bytes:
            self.dropped_points += self._waiting.popleft()[1].count(b"\n")

    def _bound_disk(self) -> None:
        while self._depth() > self._limit_bytes:
            oldest = next(iter(self._closed.values()), None)
            if oldest is None or (len(self._closed) == 1 and not self._open):
                return  # the newest data is never dropped
            self.dropped_points += _count_points(oldest)
            self._forget(oldest)
            log.warning("spool %s is full: dropped %s", self.directory, oldest.path.name)

    def _leftovers(self) -> list[Segment]:
        """Return what an earlier agent left, oldest first; its open files are closed."""
        found = []
        for path in sorted(self.directory.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            self._newest_ms = max(self._newest_ms, int(match[1]) + 1)
            segment = _repaired(path, Database(match[3]))
            if segment:
                found.append(segment)
        return found


def _repaired(path: Path, database: Database) -> Segment | None:
    """Return a left segment, closed and without a torn last line; None if nothing is in it."""
    size = path.stat().st_size
    if path.suffix == ".open":
        size = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, size)
        path = path.rename(path.with_suffix(".lp"))
    if size == 0:
        path.unlink()
        return None
    return Segment(path, database, size)


def _count_points(segment: Segment) -> int:
    try:
        return segment.lines().count(b"\n")
    except OSError:  # it is gone, and with it the number of its points
        return 0


def _size(waiting: deque[tuple[Database, bytes]]) -> int:
    return sum(len(lines) for _, lines in waiting)


def _lock(directory: Path) -> int:
    """Return the descriptor of the locked lock file; the kernel unlocks it if we are killed."""
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolLocked(
            f"{directory} is in use by another agent (process {owner}): "
            "stop it, or give this one another state_directory"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
