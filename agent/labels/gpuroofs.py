"""What a GPU's own counters show at most, and how reference work looks to NVML alone.

A fraction of a roof compares like with like: a counter now against the same counter while the
reference workloads drove this GPU as hard as they can. `gpu-roofs.json` in the agent's state
directory holds such readings by GPU model; where it says nothing, the defaults below stand.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

log = logging.getLogger("rooflight.bounds")

DEFAULT_TOPS: Mapping[str, float] = {
    # dcgmproftester, as the KempnerPulse documentation quotes NVIDIA
    "tensor_active_ratio": 0.93,
    # nothing published: the whole pipe
    "fp64_active_ratio": 1.0,
    "fp32_active_ratio": 1.0,
    "fp16_active_ratio": 1.0,
    "integer_active_ratio": 1.0,
    # NVIDIA's DCGM guide says about 0.8 (written for V100), HBM3 is said to reach 0.93; the higher
    # one understates memory, which is the error that a measured reading corrects
    "dram_active_ratio": 0.93,
}
"""Reading at the roof by field of `gpu`, for any model."""

WIRE_SHARE = 0.83
"""nvbandwidth's README: 26.1 GB/s host to device of the 31.5 that PCIe 4.0 x16 carries. Taken for
NVLink too."""

NEAR = 0.1
"""How far each part of a signature may be off; half a step between 300 and 450 W of 700."""


class Wires(NamedTuple):
    """Bytes per second and direction of a GPU's links; 0 where it has none."""

    pcie: float
    nvlink: float


PCIE_3, PCIE_4, PCIE_5 = 15.75e9, 31.5e9, 63.0e9
LINKS: Mapping[str, Wires] = {
    # words of the driver's name -> PCIe x16 (PCI-SIG) and NVLink (25 GB/s a link; B200: 50)
    "b200": Wires(PCIE_5, 900e9),
    "h200": Wires(PCIE_5, 450e9),
    "h100 pcie": Wires(PCIE_5, 300e9),
    "h100 nvl": Wires(PCIE_5, 300e9),
    "h100": Wires(PCIE_5, 450e9),
    "l40s": Wires(PCIE_4, 0.0),
    "a100": Wires(PCIE_4, 300e9),
    "a40": Wires(PCIE_4, 56.25e9),
    "v100 sxm2": Wires(PCIE_3, 150e9),
    "v100": Wires(PCIE_3, 0.0),
    "t4": Wires(PCIE_3, 0.0),
}
"""The first entry counts of which the driver's name has all words."""


class Signature(msgspec.Struct, frozen=True):
    """How a GPU looks to NVML: power and SM clock over their limits, and memory utilization."""

    power_ratio: float
    memory_utilization_ratio: float
    sm_clock_ratio: float

    def near(self, other: "Signature") -> bool:
        """Tell whether all parts agree within `NEAR`."""
        pairs = (
            (self.power_ratio, other.power_ratio),
            (self.memory_utilization_ratio, other.memory_utilization_ratio),
            (self.sm_clock_ratio, other.sm_clock_ratio),
        )
        return all(abs(mine - theirs) <= NEAR for mine, theirs in pairs)


class GpuRoofs(msgspec.Struct, frozen=True):
    """What reference workloads showed on one model of GPU.

    Attributes:
        tops: reading at the roof by field of `gpu`; ratios, and rates in bytes per second.
        compute: how a compute-bound reference phase looks to NVML; None if none was seen.
        memory: the same of a memory-bound one.

    """

    tops: Mapping[str, float] = msgspec.field(default_factory=dict)
    compute: Signature | None = None
    memory: Signature | None = None

    def share(self, fields: Mapping[str, object], name: str) -> float | None:
        """Return the reading of a field over its top; None if either is unknown."""
        reading, top = fields.get(name), self.tops.get(name, 0.0)
        return reading / top if isinstance(reading, float) and top > 0 else None


def with_defaults(model: str, measured: GpuRoofs | None) -> GpuRoofs:
    """Return what was measured on this model, with defaults for the rest."""
    known = measured or GpuRoofs()
    tops = {**DEFAULT_TOPS, **_link_tops(model), **known.tops}
    return msgspec.structs.replace(known, tops=tops)


def load(file: Path) -> dict[str, GpuRoofs]:
    """Read the table by model; one that is missing or broken is empty."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, GpuRoofs])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.warning("readings of reference workloads left aside: %s: %s", file, error)
        with contextlib.suppress(OSError):  # or what is learned next would replace them
            file.rename(file.with_suffix(".unreadable"))
        return {}


def save(file: Path, table: Mapping[str, GpuRoofs]) -> None:
    """Write the table; a disk that is full costs the table, not the agent."""
    try:
        file.with_suffix(".new").write_bytes(msgspec.json.encode(table))
        file.with_suffix(".new").rename(file)
    except OSError as error:
        log.warning("readings of reference workloads not saved: %s", error)


def _link_tops(model: str) -> dict[str, float]:
    words = set(re.findall(r"[a-z0-9]+", model.lower()))
    wires = next((each for name, each in LINKS.items() if set(name.split()) <= words), None)
    if wires is None:
        return {}
    return {
        f"{link}_{way}_bytes_per_second": rate * WIRE_SHARE
        for link, rate in (("pcie", wires.pcie), ("nvlink", wires.nvlink))
        for way in ("receive", "transmit")
    }
