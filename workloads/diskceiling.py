"""Measure a disk: write and read a file past the page cache, several large blocks in flight.

O_DIRECT (open(2)) moves blocks between the disk and page-aligned buffers. A file system that
refuses it is measured through the page cache, flushed and dropped around; the result says so.
"""

import errno
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from probes.mounts import mount_of, parse_mountinfo
from probes.parsing import read_text
from probes.roots import Roots
from workloads.ceilings import MIB, Ceiling, median_rate
from workloads.kinds import BYTES, DISK_READ, DISK_WRITE

DIRECT = os.O_DIRECT
BLOCK = 4 * MIB
IN_FLIGHT = 4
SEGMENT = 32 * MIB
"""Timed at once; the first one warms up."""

MOST_BYTES = 1024 * MIB
SHARE_OF_FREE = 0.1
FEWEST_SEGMENTS = 3
PATIENCE = 3.0
"""Seconds for each direction, after which the fewest segments must do."""

Move = Callable[[int, mmap.mmap, int], int]
"""(descriptor, buffer, offset) -> bytes moved."""


@dataclass(frozen=True, slots=True)
class _TestFile:
    """An open file without a name: it is gone when it is closed, even by a crash."""

    descriptor: int
    direct: bool


def measure_disk(folder: Path, roots: Roots, most: int = MOST_BYTES) -> list[Ceiling]:
    """Measure writing to and reading from the disk of `folder` with a file of up to `most` bytes.

    The file takes no more than a tenth of the free space; nothing is measured where that is less
    than three segments of 32 MiB, or where the folder cannot be written.
    """
    segments = min(most, free_bytes(folder)) // SEGMENT
    if segments < FEWEST_SEGMENTS:
        return []
    try:
        with _test_file(folder) as file:
            return _measure(file, segments, describe(folder, roots, direct=file.direct))
    except OSError:  # no permission, a quota, a disk that fills up meanwhile
        return []


def free_bytes(folder: Path) -> int:
    """Return what a test file may take of the folder's disk; 0 where it cannot be asked."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return 0
    return int(space.f_bavail * space.f_frsize * SHARE_OF_FREE)


def describe(folder: Path, roots: Roots, *, direct: bool) -> str:
    """Say what is measured and how: "4 MiB x 4, O_DIRECT, ext4 /scratch"."""
    mounts = parse_mountinfo(read_text(roots.proc / "self/mountinfo") or "")
    mount = mount_of(folder.resolve(), mounts)
    place = f"{mount.kind} {mount.path}" if mount else str(folder)
    method = "O_DIRECT" if direct else "O_DIRECT refused"
    return f"{BLOCK // MIB} MiB x {IN_FLIGHT}, {method}, {place}"


def _measure(file: _TestFile, segments: int, words: str) -> list[Ceiling]:
    buffers = [mmap.mmap(-1, BLOCK) for _ in range(IN_FLIGHT)]
    noise = os.urandom(BLOCK)  # neither a file system nor a disk can compress it
    for buffer in buffers:
        buffer.write(noise)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        writing = list(_segments(file, _write, buffers, pool, segments))
        if not file.direct:
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        reading = list(_segments(file, _read, buffers, pool, len(writing)))
    return [
        median_rate(kind, BYTES, SEGMENT, words, times[1:], threads=IN_FLIGHT)
        for kind, times in ((DISK_WRITE, writing), (DISK_READ, reading))
    ]


def _segments(
    file: _TestFile,
    move: Move,
    buffers: list[mmap.mmap],
    pool: ThreadPoolExecutor,
    most: int,
) -> Iterator[float]:
    """Yield seconds of each segment, in the order of the file, until patience ends."""
    deadline = time.perf_counter() + PATIENCE

    def run(lane: int, start: int) -> None:
        for offset in range(start + lane * BLOCK, start + SEGMENT, IN_FLIGHT * BLOCK):
            if move(file.descriptor, buffers[lane], offset) != BLOCK:
                raise OSError(errno.EIO, "a block was moved in part")

    for index in range(most):
        begin = time.perf_counter()
        list(pool.map(run, range(IN_FLIGHT), [index * SEGMENT] * IN_FLIGHT))
        if move is _write:
            os.fdatasync(file.descriptor)
        end = time.perf_counter()
        yield end - begin
        if end > deadline and index + 1 >= FEWEST_SEGMENTS:
            return


def _write(descriptor: int, buffer: mmap.mmap, offset: int) -> int:
    return os.pwrite(descriptor, buffer, offset)


def _read(descriptor: int, buffer: mmap.mmap, offset: int) -> int:
    return os.preadv(descriptor, [buffer], offset)


@contextmanager
def _test_file(folder: Path) -> Iterator[_TestFile]:
    """Open a file past the page cache where that is allowed, and unlink it at once."""
    descriptor, name = tempfile.mkstemp(prefix="rooflight-ceiling-", dir=folder)
    os.close(descriptor)
    try:
        file = _open(name)
    finally:
        Path(name).unlink()
    try:
        yield file
    finally:
        os.close(file.descriptor)


def _open(name: str) -> _TestFile:
    try:
        return _TestFile(os.open(name, os.O_RDWR | DIRECT), direct=True)
    except OSError as refused:
        if refused.errno != errno.EINVAL:
            raise
    return _TestFile(os.open(name, os.O_RDWR), direct=False)
