"""Open the store that the configuration names; what a store needs is imported only then."""

from agent.config import Config
from agent.stores.store import Store


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
