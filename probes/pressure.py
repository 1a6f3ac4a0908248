"""Pressure stall information: time in which work waited for a CPU, memory, a disk or interrupts."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from probes.parsing import ONE_RECORD, KeptFile, number, whole_lines
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample

RESOURCES = {
    "cpu": ("some", "full"),
    "memory": ("some", "full"),
    "io": ("some", "full"),
    "irq": ("full",),
}
"""The amounts that each resource's file tells; irq came with Linux 6.1."""


class PressureProbe(Probe):
    """Reads /proc/pressure. Source: kernel documentation `accounting/psi`."""

    name = "pressure"

    def __init__(self, context: Context) -> None:
        folder = context.roots.proc / "pressure"
        # some kernels have the files and answer EOPNOTSUPP when read: absent as well
        self._files = {name: KeptFile(folder / name, ONE_RECORD) for name in _readable(folder)}
        if not self._files:
            raise ProbeUnavailable(
                f"{folder} gives nothing: the kernel is older than 4.20, or pressure stall "
                "information is off (boot with psi=1)"
            )

    def sample(self) -> Sequence[Sample]:
        """Read the stall times, in seconds since boot and as shares of the last 10 s."""
        fields: dict[str, float] = {}
        for resource, file in self._files.items():
            with suppress(OSError):
                for amount, (seconds, ratio) in parse_pressure(file.read()).items():
                    if amount in RESOURCES[resource]:
                        fields[f"{resource}_{amount}_seconds"] = seconds
                        fields[f"{resource}_{amount}_ratio"] = ratio
        return [Sample("pressure", (), fields)] if fields else []

    def close(self) -> None:
        """Close the kept files."""
        for file in self._files.values():
            file.close()


def _readable(folder: Path) -> list[str]:
    names = []
    for name in RESOURCES:
        with suppress(OSError):
            (folder / name).read_bytes()
            names.append(name)
    return names


def parse_pressure(content: bytes) -> dict[str, tuple[float, float]]:
    """Parse a file of /proc/pressure: (seconds in all, share of the last 10 s) by amount.

    A line is `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`: percent, and microseconds.
    """
    amounts = {}
    for line in whole_lines(content):
        amount, *parts = line.decode(errors="replace").split(" ")
        values = dict(part.partition("=")[::2] for part in parts)
        percent = number(values.get("avg10", ""), most=100.0)
        microseconds = number(values.get("total", ""))
        if percent is not None and microseconds is not None:
            amounts[amount] = (microseconds / 1e6, percent / 100.0)
    return amounts
