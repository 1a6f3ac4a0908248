"""What this host's devices reached before and what their peers on other hosts reach."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from agent.config import Config
from agent.permissions import PRIVATE, make_folder
from agent.printable import printable
from agent.stores.opening import open_for_reading
from agent.stores.settings import SettingsError
from agent.stores.store import Row, Select, StoreRefused, StoreUnreachable
from agent.workload.options import writing
from probes.roots import Roots
from workloads.device import device_identity, driver_version
from workloads.history import Comparison, Place, Reading, append, compare, load, readings
from workloads.runner import RunReport

PEERS_SINCE_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a device stands.

    Attributes:
        comparisons: with its past, its peers or its datasheet, as far as there are any.
        missing: why peers were not asked; empty if they were.

    """

    comparisons: list[Comparison]
    missing: str

    def shortfalls(self, tolerance: float) -> list[Comparison]:
        """Return the comparisons in which the device is further below than the tolerance."""
        return [found for found in self.comparisons if found.is_short(tolerance)]


def history_file(config: Config) -> Path:
    """Return the file that keeps what this host's devices reached."""
    return config.state_directory() / "ceilings.jsonl"


def remember(report: RunReport, config: Config) -> list[Reading]:
    """Add a report's ceilings to this host's history.

    Raises:
        UsageProblem: the history cannot be written.

    """
    device = torch.device(report.setting.device)
    place = Place(
        config.host_name(),
        device_identity(device),
        report.model,
        driver_version(device, Roots()),
        report.finished,
    )
    current = readings(report.ceilings, place)
    file = history_file(config)
    with writing(str(file)):
        make_folder(file.parent, PRIVATE)
        append(file, current)
    return current


def say_standing(standing: Standing, tolerance: float) -> bool:
    """Print on stderr how the device stands; False if it is further below than the tolerance."""
    short = standing.shortfalls(tolerance)
    for comparison in short:
        click.echo(printable(f"rooflight: {comparison}"), err=True)
    if standing.missing:
        click.echo(printable(f"rooflight: peers were not asked: {standing.missing}"), err=True)
    if not standing.comparisons:
        click.echo(
            "rooflight: nothing to compare with yet: this is the first measurement", err=True
        )
    elif not short:
        count = len(standing.comparisons)
        click.echo(
            f"rooflight: {count} comparisons, none below by more than {tolerance:.0%}", err=True
        )
    return not short


def standing(current: list[Reading], config: Config) -> Standing:
    """Compare readings with this host's history and with its peers in the store."""
    past, missing = load(history_file(config)), ""
    if config.store == "influx":  # the embedded store knows this host alone
        try:
            past += peers(config)
        except (StoreUnreachable, StoreRefused, SettingsError) as reason:
            missing = str(reason)
    return Standing(compare(current, past), missing)


def peers(config: Config) -> list[Reading]:
    """Return the ceilings that other hosts of the cluster have stored.

    Raises:
        SettingsError, StoreUnreachable, StoreRefused: the store cannot be asked.

    """
    since_ms = int((time.time() - PEERS_SINCE_SECONDS) * 1000)
    store = open_for_reading(config)
    try:
        rows = store.rows(Select("ceiling", {"cluster": config.cluster}, since_ms))
    finally:
        store.close()
    return [reading_of(row) for row in rows if row["host"] != config.host_name()]


def reading_of(row: Row) -> Reading:
    """Return a stored ceiling as a reading."""
    host, device, model, kind, dtype = (
        str(row.get(name, "")) for name in ("host", "device", "model", "kind", "dtype")
    )
    rate = row.get("flops_per_second", row.get("bytes_per_second", 0.0))
    at = float(row["time_ms"]) / 1000
    return Reading(host, device, model, "", kind, dtype, float(rate), at)
