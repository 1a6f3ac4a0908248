"""What all commands share: one line for an error, exit codes that mean something."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from agent.config import Config, ConfigError, load
from agent.printable import PrintableFormatter, printable

NOT_FOUND, USAGE, UNREACHABLE = 1, 2, 3
"""Exit codes, beside 0 for well."""

_OTHER_STORE = "rooflight.other_store"

Command = Callable[..., Any]


class Fault(Exception):
    """An error for a person: one line, and the exit code."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


def name_process(name: str) -> None:
    """Give this process the name that `ps` and `pgrep` know: else it would be its Python's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def with_config(command: Command) -> Command:
    """Add --config, --store and --debug to a command, and give it its configuration first."""

    @click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE")
    @click.option("--store", type=click.Choice(["local", "influx", "stdout"]))
    @click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
    @functools.wraps(command)
    def wrapper(config_file: Path | None, store: str | None, debug: bool, **options: Any) -> Any:  # noqa: ANN401
        log_to_stderr()
        with one_line_errors(debug=debug):
            config = load(config_file).config
            click.get_current_context().meta[_OTHER_STORE] = store not in (None, config.store)
            return command(_chosen(config, store) if store else config, **options)

    return wrapper


def log_to_stderr() -> None:
    """Write what is logged to standard error, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("rooflight: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def is_for_another_store() -> bool:
    """Tell whether --store names another store than the configuration does."""
    return bool(click.get_current_context().meta.get(_OTHER_STORE))


def _chosen(config: Config, store: str) -> Config:
    """Return the configuration with a store that is read as it is, and not through the reader."""
    inspect = msgspec.structs.replace(config.inspect, reader="")
    return msgspec.structs.replace(config, store=store, inspect=inspect)


class one_line_errors:
    """Turn the errors that people can mend into one line on stderr and an exit code."""

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Print and exit if the error is one of those; others pass."""
        code = None if error is None or self._debug else exit_code(error)
        if code is not None:
            click.echo(printable(f"rooflight: {error}"), err=True)
            sys.exit(code)


def exit_code(error: BaseException) -> int | None:
    """Return the exit code of an error that a person can mend, None for a defect of ours."""
    from agent.segments import SpoolUnusable
    from agent.stores.settings import SettingsError
    from agent.stores.store import StoreRefused, StoreUnreachable

    if isinstance(error, Fault):
        return error.code
    if isinstance(error, StoreUnreachable | StoreRefused):
        return UNREACHABLE
    if isinstance(error, SpoolUnusable):  # the unit starts a service again, but not for USAGE
        return UNREACHABLE if "NOTIFY_SOCKET" in os.environ else USAGE
    return USAGE if isinstance(error, ConfigError | SettingsError) else None


__all__ = ["Config", "Fault", "is_for_another_store", "one_line_errors", "with_config"]
