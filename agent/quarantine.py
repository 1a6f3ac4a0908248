"""The quarantine file: points that the store will never take, each with the store's words."""

from collections.abc import Iterable
from pathlib import Path

from agent.stores.store import Rejected

QUARANTINE_BYTES = 1 << 20


class Quarantine:
    """Two files of bounded size: the newer ends in `.lp`, the older in `.old`.

    Attributes:
        path: the newer file; lines of line protocol after a `#` line with the store's words.

    """

    def __init__(self, path: Path, limit_bytes: int = QUARANTINE_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes

    def add(self, rejected: Iterable[Rejected]) -> None:
        """Append lines; the oldest make room, and of too many at once the first are kept.

        Raises:
            OSError: the disk does not take them.

        """
        for each in rejected:
            entry = _comment(each.words) + each.lines
            entry = entry[: entry.rfind(b"\n", 0, self._limit_bytes // 2) + 1]
            if self._size() + len(entry) > self._limit_bytes // 2:
                self.path.replace(self.path.with_suffix(".old"))
            with self.path.open("ab") as file:
                file.write(entry)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def _comment(words: str) -> bytes:
    return f"# {' '.join(words.split())}\n".encode()
