"""The kernel's page cache: throw a file out of it, and see how much of it is in."""

import ctypes
import mmap
import os
from pathlib import Path


def evict(path: Path) -> None:
    """Drop a file's pages from memory, so that they are read from storage next time.

    Pages that a process has mapped stay (posix_fadvise(2), POSIX_FADV_DONTNEED), and so do all on
    a file system that lives in memory.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # what is not yet written stays, too
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def cached_ratio(path: Path) -> float:
    """Return which part of a file, not an empty one, is in memory (mincore(2)): 0 to 1.

    Reading to find out would read ahead; this reads nothing.
    """
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        start = ctypes.c_char.from_buffer(view)
        failed = _libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), resident)
        del start  # else the mapping could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore {path}")
    return 1.0 - bytes(resident).count(0) / pages


_libc = ctypes.CDLL(None, use_errno=True)
