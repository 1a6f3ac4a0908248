"""Hear at once that a directory was made or removed, instead of looking again and again.

Source: inotify(7).
"""

import ctypes
import os
import struct
from collections.abc import Iterator

IN_CREATE, IN_DELETE, IN_ONLYDIR = 0x100, 0x200, 0x0100_0000
IN_IGNORED = 0x8000
LONGEST_READ = 1 << 16

_HEADER = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name


class FolderWatch:
    """Watches folders for directories that come and go."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._descriptor = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._descriptor < 0:  # this user has too many: nothing is heard, ticks must do
            self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._folders: dict[int, str] = {}

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._descriptor

    def watch(self, folder: str) -> None:
        """Watch a folder; one that is gone, or one too many for the kernel, is left out.

        To say so again does no harm, and is needed where a folder was removed and made anew.
        """
        number = self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), IN_CREATE | IN_DELETE | IN_ONLYDIR
        )
        if number >= 0:
            self._folders[number] = folder

    def changed(self) -> set[str]:
        """Return the folders in which something came or went since the last call."""
        return {self._folders[number] for number in self._events() if number in self._folders}

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._descriptor)

    def _events(self) -> Iterator[int]:
        """Yield the watches of events, and forget those of folders that are gone."""
        try:
            data = os.read(self._descriptor, LONGEST_READ)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + length
            if mask & IN_IGNORED:
                self._folders.pop(number, None)
            else:
                yield number
