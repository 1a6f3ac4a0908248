"""A wall clock that another process can step: the seconds to add lie in a file of eight bytes."""

import mmap
import struct
import time
from pathlib import Path

_SECONDS = struct.Struct("d")


def step_to(file: Path, seconds: float) -> None:
    """Let the clocks of this file be so many seconds ahead of the machine's."""
    if not file.exists():
        file.write_bytes(bytes(_SECONDS.size))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), _SECONDS.size) as shared:
        _SECONDS.pack_into(shared, 0, seconds)


class SteppedClock:
    """The machine's clocks, the wall clock shifted by what the file says at the moment."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._shared = mmap.mmap(opened.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time() + float(_SECONDS.unpack_from(self._shared)[0])

    def monotonic(self) -> float:
        """Return seconds of the monotonic clock, which no step touches."""
        return time.monotonic()
