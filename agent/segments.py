"""The files of a spool: one segment each, what an earlier agent left of them, and the lock."""

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from probes.catalogue import Database

log = logging.getLogger("rooflight.spool")

# `.open` is how versions before 0.2 named the file that they were writing
_NAME = re.compile(r"(\d{13,})-(\d{6,})-(metrics|jobs)\.(open|lp)")
_OTHER_FILES = ("lock", "ledger", "quarantine.lp", "quarantine.old")


class SpoolUnusable(Exception):
    """The spool cannot be used; the message names the folder and the remedy."""


class SpoolLocked(SpoolUnusable):
    """Another agent uses this spool; the message names its process and the folder."""


@dataclass(slots=True, eq=False)
class Segment:
    """Whole lines of one database: in a file, or in memory while the disk does not take them.

    Attributes:
        path: the file, there or not yet.
        database: where the lines go.
        size: bytes.
        points: lines.
        held: the lines while they are in memory only.
        descriptor: of the file, while it is written; -1 otherwise.

    """

    path: Path
    database: Database
    size: int = 0
    points: int = 0
    held: list[bytes] = field(default_factory=list)
    descriptor: int = -1

    def lines(self) -> bytes:
        """Return the lines of line protocol.

        Raises:
            OSError: the file is gone or cannot be read.

        """
        held = self.held  # read once: the other thread may just have found room for it on the disk
        if held:
            return b"".join(held)
        with self.path.open("rb") as file:
            return file.read(self.size)  # what may follow is half a tick that the disk refused

    def create(self) -> None:
        """Make the file.

        Raises:
            OSError: the disk does not allow it.

        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags, 0o640)

    def write(self, lines: bytes) -> None:
        """Append to the file: all or nothing.

        Raises:
            OSError: the disk did not take them; the segment must not be written to any more.

        """
        written = os.write(self.descriptor, lines)
        if written < len(lines):
            with contextlib.suppress(OSError):  # `lines` leaves it out, too
                os.ftruncate(self.descriptor, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._count(lines)

    def hold(self, lines: bytes) -> None:
        """Keep lines in memory."""
        self.held.append(lines)
        self._count(lines)

    def save(self) -> None:
        """Move what is in memory to the file, which stays open.

        Raises:
            OSError: the disk still refuses; the lines stay in memory.

        """
        saved = Segment(self.path, self.database)
        saved.create()
        try:
            saved.write(b"".join(self.held))
        except OSError:
            saved.close()
            self.path.unlink()
            raise
        self.descriptor, self.held = saved.descriptor, []

    def close(self) -> None:
        """Write to the file no more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _count(self, lines: bytes) -> None:
        self.size += len(lines)
        self.points += lines.count(b"\n")


def segment_path(directory: Path, created_ms: int, sequence: int, database: Database) -> Path:
    """Return the path of a segment: names sort by age."""
    return directory / f"{created_ms:013d}-{sequence:06d}-{database}.lp"


def free_path(segment: Segment, directory: Path) -> Path:
    """Return the segment's path in another folder: of its age, and not taken."""
    created_ms, sequence = map(int, segment.path.name.split("-")[:2])
    while (path := segment_path(directory, created_ms, sequence, segment.database)).exists():
        sequence += 1
    return path


def newest_ms(directory: Path) -> int:
    """Return when the newest segment was begun, in milliseconds since 1970; 0 if there is none.

    Raises:
        OSError: the folder cannot be read.

    """
    names = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return max((int(match[1]) for match in names if match), default=0)


def leftovers(directory: Path) -> list[Segment]:
    """Return what an earlier agent left, oldest first, each without a torn last line.

    Files of other names are left alone, and named in the log.

    Raises:
        OSError: the folder cannot be read.

    """
    found, strange = [], []
    for path in directory.iterdir():
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), int(match[2]), path, Database(match[3])))
        elif path.name not in _OTHER_FILES:
            strange.append(path.name)
    if strange:
        log.warning("%s: left alone, not of this version: %s", directory, ", ".join(strange[:5]))
    return [each for *_, path, database in sorted(found) if (each := _repaired(path, database))]


def _repaired(path: Path, database: Database) -> Segment | None:
    """Return a left segment; None if nothing is in it, or if it cannot be read."""
    try:
        data = path.read_bytes()
        size = data.rfind(b"\n") + 1
        if size == 0:
            path.unlink()
            return None
    except OSError as error:
        log.warning("left alone, cannot be read: %s", error)
        return None
    return Segment(path, database, size, data.count(b"\n"))


@contextlib.contextmanager
def usable(directory: Path) -> Iterator[None]:
    """Turn a folder's refusal into words for a person.

    Raises:
        SpoolUnusable: with the remedy.

    """
    try:
        yield
    except OSError as error:
        raise SpoolUnusable(
            f"{directory}: {error.strerror or error}; give it to the agent's user, "
            "or set agent.state_directory"
        ) from error


def lock(directory: Path) -> int:
    """Return the descriptor of the locked lock file; the kernel unlocks it if we are killed.

    Raises:
        SpoolLocked: another process has it.
        OSError: the file cannot be opened.

    """
    path = directory / "lock"
    _touch(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolLocked(
            f"{directory} is in use by another agent (process {owner}): "
            "stop it, or give this one another state_directory"
        ) from error
    with contextlib.suppress(OSError):  # the disk is full or read-only: it is locked all the same
        path.write_text(f"{os.getpid()}\n")
    return descriptor


def _touch(path: Path) -> None:
    """Make a file if it is not there, and see that it may be written; a read-only disk is no bar.

    Raises:
        OSError: it may not, or a read-only disk does not have it.

    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
