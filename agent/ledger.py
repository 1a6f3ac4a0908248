"""How many points were lost, and why: kept in a file, so that a killed agent's losses count, too.

The file keeps its size and is written in place: that works on a full disk as well (ext4, xfs and
tmpfs; on a file system that copies on write, and on a read-only one, only memory has the numbers).
"""

import contextlib
import logging
import os
import re
from collections import Counter
from enum import StrEnum
from pathlib import Path

log = logging.getLogger("rooflight.spool")

_HELD, _NEWEST = "held", "newest_ms"
_LINE = "{:<12} {:020d}\n"
_NUMBER = re.compile(r"(\w+) +(\d{20})")


class Reason(StrEnum):
    """Why points did not reach the store.

    Attributes:
        SPOOL_FULL: the store was away for longer than the spool has room.
        MEMORY_FULL: so it was, and the disk did not take them either.
        NOT_SAVED: an agent ended, or was killed, while the disk did not take them.
        REFUSED: the store will never take them: they are in the quarantine file.
        UNREADABLE: their file was deleted or cannot be read.

    """

    SPOOL_FULL = "spool_full"
    MEMORY_FULL = "memory_full"
    NOT_SAVED = "not_saved"
    REFUSED = "refused"
    UNREADABLE = "unreadable"

    @property
    def words(self) -> str:
        """What happened, for the log."""
        return self.value.replace("_", " ")


class Ledger:
    """The numbers of a spool that outlive its agent; not for two threads at once.

    Numbers of a newer release are kept as they are: it goes on with them after a rollback.

    Attributes:
        lost: points lost since the file was made, by reason.
        newest_ms: the latest time at which anything was appended, in milliseconds since 1970.

    """

    def __init__(self, path: Path) -> None:
        numbers = read_numbers(path)
        self.lost = Counter({reason: numbers[reason] for reason in Reason})
        self.newest_ms = numbers[_NEWEST]
        known = {*Reason, _HELD, _NEWEST}
        self._others = {name: number for name, number in numbers.items() if name not in known}
        self._held = 0
        self._descriptor = _open(path)
        if held := numbers[_HELD]:  # in the memory of an agent that is gone
            log.warning("%s: an agent ended while the disk refused: lost %d points", path, held)
        self.lose(Reason.NOT_SAVED, held)

    def lose(self, reason: Reason, points: int) -> None:
        """Count lost points."""
        self.lost[reason] += points
        self._write()

    def note(self, newest_ms: int, held: int) -> None:
        """Keep the time of an append, and how many points are nowhere but in memory now."""
        if (newest_ms, held) != (self.newest_ms, self._held):
            self.newest_ms, self._held = newest_ms, held
            self._write()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self) -> None:
        numbers = {reason.value: self.lost[reason] for reason in Reason}
        numbers |= {_HELD: self._held, _NEWEST: self.newest_ms, **self._others}
        text = "".join(_LINE.format(name, number) for name, number in numbers.items())
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, text.encode(), 0)


def read_numbers(path: Path) -> Counter[str]:
    """Return the numbers of a ledger by name; nothing if there is none."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return Counter()
    found = (_NUMBER.fullmatch(line) for line in lines)
    return Counter({match[1]: int(match[2]) for match in found if match})


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError:
        return -1
