"""Standard output as a store, for a first look and for pipes."""

import sys
from collections.abc import Sequence

from agent.stores.store import Row, Select, StoreRefused, Windows
from probes.catalogue import Database

_NO_WAY_BACK = "standard output cannot be read back; use another store"


class StdoutStore:
    """Prints line protocol and remembers nothing."""

    def write(self, database: Database, lines: bytes) -> None:
        """Print the lines of either database.

        Raises:
            StoreRefused: nobody reads them any more (keep=True).

        """
        try:
            sys.stdout.write(lines.decode(errors="replace"))
            sys.stdout.flush()
        except OSError as error:
            raise StoreRefused(f"standard output: {error}", keep=True) from error

    def rows(self, select: Select) -> Sequence[Row]:
        """Refuse: there is nothing to read back.

        Raises:
            StoreRefused: always.

        """
        raise StoreRefused(_NO_WAY_BACK, keep=True)

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Refuse: there is nothing to read back.

        Raises:
            StoreRefused: always.

        """
        raise StoreRefused(_NO_WAY_BACK, keep=True)

    def close(self) -> None:
        """Do nothing: standard output belongs to the process."""
