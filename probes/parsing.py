"""What several probes share to read the kernel's small text files: kept files, lines, numbers."""

import os
from collections.abc import Sequence
from pathlib import Path

CHUNK_BYTES = 65536
ONE_RECORD = CHUNK_BYTES
"""`whole_below` of a file that the kernel makes at once: what a read does not fill is all of it."""


MOST = 2.0**64
"""The kernel's counters are at most unsigned 64-bit: what is larger is no number of its."""


def lines_of(longest: int) -> int:
    """Return `whole_below` for a file whose lines have at most so many bytes.

    The kernel makes such a file by the page (of 4 KiB or more), and ends a read early only before
    a line for which there is no room in the page. Source: fs/seq_file.c, seq_read_iter.
    """
    return 4096 - longest


class KeptFile:
    """A kernel file that is opened once and read again at every sample.

    Opening a file costs several times what reading it does. An error closes the file, so that the
    next `read` opens it anew: a device that went away and came back has a new file.

    Args:
        path: of the file.
        whole_below: a read that gives fewer bytes is known to be the end. Otherwise only another
            one that gives none is, for which the kernel makes the file once more: half of the
            time that /proc/vmstat or a group's memory.stat takes.

    """

    def __init__(self, path: Path, whole_below: int = 1) -> None:
        self.path = path
        self._whole_below = whole_below
        self._descriptor: int | None = None

    def read(self) -> bytes:
        """Return the whole content as it is now.

        Raises:
            OSError: the file cannot be opened or read.

        """
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_whole(self._descriptor, self._whole_below)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a later `read` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_whole(descriptor: int, whole_below: int) -> bytes:
    content = part = os.pread(descriptor, CHUNK_BYTES, 0)
    while len(part) >= whole_below:
        part = os.pread(descriptor, CHUNK_BYTES, len(content))
        content += part
    return content


def whole_lines(content: bytes) -> list[bytes]:
    """Return the lines without their ends, less a last line that has none: it was cut off."""
    return content.split(b"\n")[:-1]


def counters(words: Sequence[bytes]) -> list[float] | None:
    """Return words that are all unsigned 64-bit numbers as such; None if any of them is not."""
    if not b"".join(words).isdigit():
        return None
    values = list(map(float, words))
    return values if max(values) <= MOST else None


def read_text(path: Path | str, whole_below: int = 1) -> str | None:
    """Return a file's text, bytes that are no UTF-8 replaced; None if it cannot be read.

    `whole_below` is that of `KeptFile`. Without the buffers of `Path.read_bytes`: 9 us for a small
    file instead of 13.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_whole(descriptor, whole_below).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_number(path: Path) -> float | None:
    """Return the number that is a file's whole content; None if it is unreadable or no number."""
    text = read_text(path)
    return None if text is None else number(text)


def number(text: str | bytes, most: float = MOST) -> float | None:
    """Return the text as a number from 0 to `most`; None if it is anything else.

    Spaces around it are allowed. What only Python takes for a number (`nan`, `inf`, `1_000`,
    digits of other scripts) is none.
    """
    ascii_text = text if isinstance(text, bytes) else text.encode("ascii", errors="replace")
    try:
        value = float(ascii_text)
    except ValueError:
        return None
    return value if 0.0 <= value <= most and b"_" not in ascii_text else None
