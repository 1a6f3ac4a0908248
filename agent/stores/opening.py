"""Open the store that the configuration names; what a store needs is imported only then."""

import os
from collections.abc import Sequence

from agent.config import Config
from agent.stores.settings import SettingsError
from agent.stores.store import Row, Select, Store, Windows
from probes.catalogue import Database


def open_store(config: Config) -> Store:
    """Return the store for writing and reading.

    Raises:
        SettingsError: its settings are wrong; the message names file and remedy.
        StoreRefused: the embedded store's file cannot be used.

    """
    if config.store == "influx":
        from agent.stores.influx import InfluxStore

        return InfluxStore(config.influx)
    if config.store == "stdout":
        from agent.stores.stdout import StdoutStore

        return StdoutStore()
    from agent.stores.local import LocalStore

    return LocalStore(config.local_path(), config.local.retention_days)


def open_for_reading(config: Config) -> Store:
    """Return the store for reading; the embedded one then needs no right to write.

    Raises:
        SettingsError, StoreRefused: see `open_store`.

    """
    if config.store == "local":
        from agent.stores.local import LocalStore

        return LocalStore.read_only(config.local_path())
    return open_store(config)


def open_for_asker(config: Config) -> Store:
    """Return the store as the person who runs this may see it: through the reader if there is one.

    Without a reader this is a courtesy: who can read the store's files, or has its credential, can
    read all of it by other means. A store that this person cannot open says so when it is asked.
    """
    from agent.privacy import Privacy, as_seen_by, asker

    if config.inspect.reader:
        from agent.stores.reader import ReaderStore

        return ReaderStore(config.inspect.reader)
    try:
        store = open_for_reading(config)
    except SettingsError as error:
        return ClosedStore(error)
    return as_seen_by(asker(os.geteuid()), store, Privacy(config))


class ClosedStore:
    """A store that could not be opened: whoever asks it is told why."""

    def __init__(self, error: SettingsError) -> None:
        self._error = error

    def write(self, database: Database, lines: bytes) -> None:
        """Raise what is wrong.

        Raises:
            SettingsError: always.

        """
        raise self._error

    def rows(self, select: Select) -> Sequence[Row]:
        """Raise what is wrong.

        Raises:
            SettingsError: always.

        """
        raise self._error

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Raise what is wrong.

        Raises:
            SettingsError: always.

        """
        raise self._error

    def close(self) -> None:
        """Do nothing."""
