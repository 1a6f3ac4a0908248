"""How much space a folder holds: by its own mount, by its quota, or by walking through it.

A folder of a job is hostile ground: millions of files, endless nesting, files that vanish, links
that lead elsewhere, names that are no text. Nothing here follows a link or leaves the file system.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BLOCK_BYTES = 512
"""Unit of st_blocks, whatever the file system's own is (stat(3type))."""

MOST_DEEP = 128
"""Levels that are entered: each takes two descriptors while it is walked through."""

ENTRIES_PER_LOOK = 64
"""Entries that are taken between two looks at the clock."""

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Usage(NamedTuple):
    """Space held.

    Attributes:
        held_bytes: blocks in use, as `du` counts them.
        source: mount, quota or walk.
        whole: False where there may be more than could be seen.

    """

    held_bytes: float
    source: str
    whole: bool = True


class Folder(NamedTuple):
    """A folder that was found, as descriptors that need no permission to read it."""

    itself: int
    parent: int

    @property
    def owner(self) -> int:
        """User id of its owner."""
        return os.fstat(self.itself).st_uid


@contextmanager
def found(top: Path, names: Sequence[str]) -> Iterator[Folder]:
    """Give a folder below `top`; no link is followed in `names`, which users may have made.

    Descriptors are held for a moment only: an open one keeps a file system from being unmounted.

    Raises:
        OSError: there is no such folder, or one above it may not be passed.

    """
    opened = [os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for name in names:
            opened.append(os.open(name, _LOOK, dir_fd=opened[-1]))
        yield Folder(opened[-1], opened[-2])
    finally:
        for descriptor in opened:
            os.close(descriptor)


def own_space(
    folder: Folder, statvfs: Callable[[int], os.statvfs_result] = os.fstatvfs
) -> Usage | None:
    """Return what the folder's own file system or project quota says; None if it has neither.

    Where a project has a limit, XFS and ext4 answer statvfs within its folder with that limit and
    what is left of it. A folder above that has the same limit shares the quota with others.
    """
    space = statvfs(folder.itself)
    used = float((space.f_blocks - space.f_bfree) * space.f_frsize)
    if os.fstat(folder.itself).st_dev != os.fstat(folder.parent).st_dev:
        return Usage(used, "mount")
    above = statvfs(folder.parent)
    if space.f_blocks * space.f_frsize < above.f_blocks * above.f_frsize:
        return Usage(used, "quota", whole=space.f_bfree > 0)  # it may be over a soft limit
    return None


class _Level(NamedTuple):
    """A folder that is being walked through."""

    descriptor: int
    names: Iterator[os.DirEntry[str]]
    close: Callable[[], None]


class TreeWalk:
    """Adds up what a folder holds, a while at a time.

    A file with several names counts in equal parts, so that within the folder it counts once.

    Attributes:
        held_bytes: found so far.
        whole: whether everything that was met could be counted.
        entries: names met so far.

    Raises:
        OSError: the folder may not be read.

    """

    def __init__(self, folder: Folder, clock: Callable[[], float]) -> None:
        self._clock = clock
        status = os.fstat(folder.itself)
        self._device = status.st_dev
        self._levels: list[_Level] = []
        self.held_bytes = float(status.st_blocks * BLOCK_BYTES)
        self.whole = True
        self.entries = 0
        self._push(os.open(".", _ENTER, dir_fd=folder.itself))

    def advance(self, seconds: float) -> bool:
        """Go on for so long; tell whether all has been seen."""
        until = self._clock() + seconds
        while self._levels:
            for _ in range(ENTRIES_PER_LOOK):
                if not self._levels:
                    break
                self._take_next()
            if self._clock() >= until:
                break
        return not self._levels

    def close(self) -> None:
        """Let go of the folder."""
        while self._levels:
            self._pop()

    def usage(self) -> Usage:
        """Return what was found so far."""
        return Usage(self.held_bytes, "walk", self.whole and not self._levels)

    def _take_next(self) -> None:
        try:
            entry = next(self._levels[-1].names, None)
        except OSError:  # the rest of its names cannot be read
            self.whole, entry = False, None
        if entry is None:
            self._pop()
            return
        self.entries += 1
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # it was there just now
        except OSError:
            self.whole = False
            return
        if status.st_dev == self._device:
            self._count(entry.name, status)

    def _count(self, name: str, status: os.stat_result) -> None:
        is_folder = stat.S_ISDIR(status.st_mode)
        names = 1 if is_folder else max(1, status.st_nlink)
        self.held_bytes += status.st_blocks * BLOCK_BYTES / names
        if is_folder:
            self._enter(name)

    def _enter(self, name: str) -> None:
        if len(self._levels) >= MOST_DEEP:
            self.whole = False
            return
        try:
            descriptor = os.open(name, _ENTER, dir_fd=self._levels[-1].descriptor)
        except FileNotFoundError:
            return
        except OSError:  # not for us to read, or no folder any more
            self.whole = False
            return
        if os.fstat(descriptor).st_dev != self._device:  # mounted between the two calls
            os.close(descriptor)
            return
        try:
            self._push(descriptor)
        except OSError:
            self.whole = False

    def _push(self, descriptor: int) -> None:
        try:
            names = os.scandir(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._levels.append(_Level(descriptor, names, names.close))

    def _pop(self) -> None:
        level = self._levels.pop()
        level.close()
        os.close(level.descriptor)
