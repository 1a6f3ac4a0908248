"""Energy and power of the node's parts: RAPL counters, and the node's own power meter."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from probes.parsing import ONE_RECORD, KeptFile, number, read_number, read_text
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, tags

ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")
"""Zones of the processor's own counters (AMD's too); `intel-rapl-mmio` tells the same again."""

NODE_METERS = ("power_meter", "ibmpowernv")
"""Drivers of node-level sensors: ACPI 4.0 power meters and IBM POWER. Others measure one part."""

SUPERCHIP_PART = re.compile(r"(\w+) Power Socket (\d+)")
"""How NVIDIA Grace names its ACPI power meters, of which it has one for each part."""

REMEDY = (
    "energy counters are for root only: give the agent CAP_DAC_READ_SEARCH, or let its group read "
    "them with a tmpfiles.d line for each: "
    "z /sys/class/powercap/intel-rapl:*/energy_uj 0440 root rooflight"
)


class EnergyMeter:
    """Adds up a counter of microjoules that wraps.

    Args:
        most: the counter's highest value, after which it starts again from zero.

    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._last: tuple[float, float] | None = None
        self._microjoules = 0.0

    def update(self, microjoules: float, seconds: float) -> dict[str, float]:
        """Return energy since the first update and, from the second on, mean power since the last.

        Args:
            microjoules: the counter now; above its highest value it is no reading: nothing is told.
            seconds: the time of a clock that never goes back.

        """
        if microjoules > self._most:
            return {}
        fields = {}
        if self._last:
            spent = (microjoules - self._last[0]) % self._most
            elapsed = seconds - self._last[1]
            self._microjoules += spent
            if elapsed > 0:
                fields["power_watts"] = spent / 1e6 / elapsed
        self._last = (microjoules, seconds)
        return fields | {"energy_joules": self._microjoules / 1e6}


class RaplZone:
    """One RAPL domain: the counter's file and the sum of what it counted."""

    def __init__(self, folder: Path, most: float) -> None:
        self._file = KeptFile(folder / "energy_uj", ONE_RECORD)
        self._meter = EnergyMeter(most)

    def read(self, seconds: float) -> dict[str, float]:
        """Return energy and power at this time.

        Raises:
            OSError: the counter cannot be read, as by ordinary users since Linux 5.10.

        """
        microjoules = number(self._file.read())
        return {} if microjoules is None else self._meter.update(microjoules, seconds)

    def close(self) -> None:
        """Close the kept file."""
        self._file.close()


class PowerSensor:
    """One hwmon sensor that tells power itself."""

    def __init__(self, path: Path) -> None:
        self._file = KeptFile(path, ONE_RECORD)

    def read(self, _seconds: float) -> dict[str, float]:
        """Return the power.

        Raises:
            OSError: the sensor does not answer.

        """
        microwatts = number(self._file.read())
        return {} if microwatts is None else {"power_watts": microwatts / 1e6}

    def close(self) -> None:
        """Close the kept file."""
        self._file.close()


class PowerProbe(Probe):
    """Reads RAPL energy counters and node-level power meters.

    Domains are named by what they measure: `package-0`, `dram-0` (a part of package 0), `psys`,
    `node` (the ACPI power meter), `<driver>-<label>` (other meters). Power of a RAPL domain is the
    mean since the last sample. Sources: kernel documentation `power/powercap`,
    `hwmon/acpi_power_meter`, `hwmon/sysfs-interface`.
    """

    name = "power"

    def __init__(self, context: Context) -> None:
        self._monotonic = context.monotonic
        self._limits: tuple[str, ...] = ()
        self._domains: dict[str, RaplZone | PowerSensor] = {}
        self._find_zones(context.roots.sys / "class/powercap")
        for domain, path in find_sensors(context.roots.sys / "class/hwmon"):
            self._domains.setdefault(domain, PowerSensor(path))
        if not self._domains:
            raise ProbeUnavailable(
                "; ".join(self._limits) or "this node has neither RAPL counters nor a power meter"
            )

    def sample(self) -> Sequence[Sample]:
        """Read every domain; one that does not answer is left out."""
        samples = []
        for domain, source in self._domains.items():
            with suppress(OSError):
                if fields := source.read(self._monotonic()):
                    samples.append(Sample("power", tags(domain=domain), fields))
        return samples

    def limits(self) -> Sequence[str]:
        """Name the RAPL domains that cannot be read here, and how to let the agent read them."""
        return self._limits

    def close(self) -> None:
        """Close the kept files."""
        for source in self._domains.values():
            source.close()

    def _find_zones(self, folder: Path) -> None:
        unreadable = []
        for domain, zone, most in find_zones(folder):
            try:
                (zone / "energy_uj").read_bytes()
            except OSError:
                unreadable.append(domain)
            else:
                self._domains.setdefault(domain, RaplZone(zone, most))
        if unreadable:
            self._limits = (f"{', '.join(unreadable)}: {REMEDY}",)


def find_zones(folder: Path) -> Iterator[tuple[str, Path, float]]:
    """Yield domain, folder and highest counter value of every RAPL zone, parents first.

    Args:
        folder: /sys/class/powercap.

    """
    for zone in sorted(folder.glob("intel-rapl:*")):
        name, most = _word(zone / "name"), read_number(zone / "max_energy_range_uj")
        if ZONE.fullmatch(zone.name) and name and most:
            parent = zone.with_name(zone.name.rpartition(":")[0])  # of a zone at the top: no folder
            yield zone_domain(name, _word(parent / "name")), zone, most


def zone_domain(name: str, parent: str) -> str:
    """Return a zone's name with what tells its parent from others: dram in package-0 is dram-0."""
    _, dash, which = parent.partition("-")
    return f"{name}{dash}{which}"


def find_sensors(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield domain and file of every node-level power sensor; the file holds microwatts.

    Args:
        folder: /sys/class/hwmon.

    """
    for hwmon in sorted(folder.glob("hwmon*")):
        # drivers that register in the older way put their files into the device's folder
        home = hwmon if (hwmon / "name").exists() else hwmon / "device"
        driver = _word(home / "name")
        if driver in NODE_METERS:
            files = sorted(home.glob("power*_average")) or sorted(home.glob("power*_input"))
            for file in files:
                yield sensor_domain(driver, file), file


def sensor_domain(driver: str, file: Path) -> str:
    """Return the domain that a sensor measures: `node`, `cpu-0` (Grace) or `<driver>-<label>`."""
    stem = file.name.partition("_")[0]
    if driver == "power_meter":
        part = SUPERCHIP_PART.fullmatch(_word(file.with_name(f"{stem}_oem_info")))
        return f"{part[1].lower()}-{part[2]}" if part else "node"
    label = _word(file.with_name(f"{stem}_label")) or stem
    return f"{driver}-{label}"


def _word(path: Path) -> str:
    return (read_text(path) or "").strip()
