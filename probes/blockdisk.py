"""Block devices of the node."""

from collections.abc import Sequence
from pathlib import Path

from probes.parsing import KeptFile, counters, lines_of, read_text, whole_lines
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, tags

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the device's own sector size."""

FIELDS = (
    # our field, its column in /proc/diskstats after the name, how many of these make one of ours
    ("reads_total", 0, 1),
    ("read_bytes", 2, 1 / SECTOR_BYTES),
    ("read_seconds", 3, 1000),
    ("writes_total", 4, 1),
    ("write_bytes", 6, 1 / SECTOR_BYTES),
    ("write_seconds", 7, 1000),
    ("in_flight_total", 8, 1),
    ("busy_seconds", 9, 1000),
    ("discard_bytes", 13, 1 / SECTOR_BYTES),  # Linux 4.18 and later
)
COLUMNS = 11
"""Columns after the name that every kernel since 2.6.25 gives."""

LONGEST_LINE = 512
"""A name of at most 31 bytes, and some 20 numbers of at most 20 digits."""

STACKED = ("loop", "ram", "zram", "sr", "fd", "dm-", "md", "drbd", "bcache")
"""First letters of devices that are memory, removable, or lie on other block devices."""


class BlockdiskProbe(Probe):
    """Reads /proc/diskstats.

    No byte is told twice, so that the sum over all devices is the node's disk traffic: partitions,
    device-mapper (LVM, encryption, multipath) and RAID devices and the hidden paths of multipath
    NVMe are left out, and so is a device that never did anything (an empty slot, or one whose
    driver does not count). Source: kernel documentation `admin-guide/iostats`.
    """

    name = "blockdisk"

    def __init__(self, context: Context) -> None:
        self._counters = KeptFile(context.roots.proc / "diskstats", lines_of(LONGEST_LINE))
        self._folder = context.roots.sys / "block"
        self._names: frozenset[str] = frozenset()
        self._whole: frozenset[str] = frozenset()
        if not self._counters.path.exists():
            raise ProbeUnavailable(f"{self._counters.path} is absent")

    def sample(self) -> Sequence[Sample]:
        """Read every whole device's counters.

        Raises:
            OSError: /proc/diskstats cannot be read.

        """
        devices = parse_diskstats(self._counters.read())
        names = frozenset(devices)
        if names != self._names:
            self._names = names
            self._whole = frozenset(name for name in names if is_whole(self._folder, name))
        return [
            Sample("blockdisk", tags(device=name), devices[name])
            for name in sorted(self._whole)
            if any(devices[name].values())
        ]

    def close(self) -> None:
        """Close the kept file."""
        self._counters.close()


def parse_diskstats(content: bytes) -> dict[str, dict[str, float]]:
    """Parse /proc/diskstats: fields by device; stacked devices and malformed lines are left out."""
    devices = {}
    for line in whole_lines(content):
        words = line.split()
        name = words[2].decode(errors="replace") if len(words) >= 3 + COLUMNS else ""
        values = counters(words[3:]) if name and not name.startswith(STACKED) else None
        if values:
            devices[name] = {
                field: values[column] / per_unit
                for field, column, per_unit in FIELDS
                if column < len(values)
            }
    return devices


def is_whole(folder: Path, name: str) -> bool:
    """Tell whether a name is a device of its own: no partition, no hidden path of another one.

    Args:
        folder: /sys/block, which holds whole devices only, with `!` for `/` in names.
        name: as in /proc/diskstats.

    """
    device = folder / name.replace("/", "!")
    try:
        exists = device.exists()
    except (OSError, ValueError):  # a mangled name
        return False
    return exists and (read_text(device / "hidden") or "0").strip() == "0"
