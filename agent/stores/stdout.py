"""Standard output as a store, for a first look and for pipes."""

import sys
from collections.abc import Sequence

from agent.stores.store import Row, Select, StoreRefused
from probes.catalogue import Database


class StdoutStore:
    """Prints line protocol and remembers nothing."""

    def write(self, database: Database, lines: bytes) -> None:
        """Print the lines of either database."""
        sys.stdout.write(lines.decode(errors="replace"))
        sys.stdout.flush()

    def rows(self, select: Select) -> Sequence[Row]:
        """Refuse: there is nothing to read back.

        Raises:
            StoreRefused: always.

        """
        raise StoreRefused("standard output cannot be read back; use another store", keep=True)

    def close(self) -> None:
        """Do nothing: standard output belongs to the process."""
