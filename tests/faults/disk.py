"""A small disk of our own that can be full, or read-only: a file system in memory."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.services import Missing
from tests.weather import PATIENCE


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self, yes: bool) -> None:
        """Remount it."""
        options = f"remount,{'ro' if yes else 'rw'}"
        subprocess.run(["mount", "-o", options, self.folder], check=True, timeout=PATIENCE)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a disk.

    Raises:
        Missing: this user may not mount anything.

    """
    folder.mkdir(parents=True)
    options = f"size={mebibytes}m,mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, timeout=30
    )
    if done.returncode != 0:
        raise Missing(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=PATIENCE)
