"""Datasheet peaks of the accelerators that clusters run: what a device could do at best.

Dense numbers (no sparsity), at the boost clock, as the vendors print them. What a device reaches is
measured in `workloads.ceilings`; the two side by side show how far a node is from its kind.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from workloads.kinds import MATMUL, MEMORY_KINDS, MIXED_KINDS

TERA = 1e12
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Peaks:
    """Datasheet peaks of one device as software sees it.

    Attributes:
        name: what people call it.
        words: words that its driver name holds, all of them.
        flops_per_second: by dtype, dense; `_tensor` marks the matrix unit where a dtype has both.
            Integer dtypes count operations.
        bytes_per_second: of device memory.
        memory_bytes: as marketed.
        watts: thermal design power.
        source: where the numbers are printed.
        attainable: share of the 16-bit and of the memory peak that a healthy device has been
            shown to reach; None where nobody has published it.

    """

    name: str
    words: frozenset[str]
    flops_per_second: Mapping[str, float]
    bytes_per_second: float
    memory_bytes: float
    watts: float
    source: str
    attainable: "Attainable"

    def ridge(self, dtype: str) -> float | None:
        """Return the intensity in FLOP/byte where the two peaks meet; None without that dtype."""
        flops = self.flops_per_second.get(dtype)
        return None if flops is None else flops / self.bytes_per_second

    def peak(self, kind: str, dtype: str) -> float | None:
        """Return the peak above a measured ceiling; None for links and disks, which it lacks."""
        if kind == MATMUL:
            return self.flops_per_second.get(dtype)
        return self.bytes_per_second if kind in MEMORY_KINDS else None

    def attainable_ratio(self, kind: str, dtype: str) -> float | None:
        """Return the share of `peak` that a healthy device reaches; None where unpublished."""
        if kind == MATMUL:
            return self.attainable.compute if dtype in ("bf16", "fp16") else None
        return self.attainable.memory if kind in MIXED_KINDS else None


class Attainable(NamedTuple):
    """Published shares of a peak."""

    compute: float | None = None
    memory: float | None = None


def find_peaks(device_name: str) -> Peaks | None:
    """Find the datasheet of a device by its driver name ("NVIDIA A100-SXM4-80GB").

    None for what the table lacks: unknown models, variants with other clocks (NVL), and slices of
    a device (MIG), whose share of the peaks the name does not tell.
    """
    words = frozenset(re.findall(r"[a-z0-9]+", device_name.lower()))
    if words & {"nvl", "mig"}:
        return None
    return next((peaks for peaks in DATASHEETS if peaks.words <= words), None)


def _peaks(
    name: str,
    words: str,
    tera: Mapping[str, float],
    gigabytes_per_second: float,
    gigabytes: float,
    watts: float,
    source: str,
    attainable: Attainable = Attainable(),  # noqa: B008 - it is immutable
) -> Peaks:
    flops = {dtype: value * TERA for dtype, value in tera.items()}
    memory = (gigabytes_per_second * GIGA, gigabytes * GIGA)
    known = frozenset(words.split())
    return Peaks(name, known, flops, *memory, watts, source, attainable)


_A100 = {
    "fp64": 9.7,
    "fp64_tensor": 19.5,
    "fp32": 19.5,
    "tf32": 156,
    "fp16": 312,
    "bf16": 312,
    "int8": 624,
    "int4": 1248,
}
_A40 = {
    "fp64": 0.584,
    "fp32": 37.4,
    "tf32": 74.8,
    "fp16": 149.7,
    "bf16": 149.7,
    "int8": 299.3,
    "int4": 598.7,
}
# V100 has no integer tensor cores: int8 is DP4A on the CUDA cores, four times fp32.
_V100_SXM2 = {"fp64": 7.8, "fp32": 15.7, "fp16": 125, "int8": 62.8}
_V100_PCIE = {"fp64": 7.0, "fp32": 14.0, "fp16": 112, "int8": 56.0}
_T4 = {"fp64": 0.254, "fp32": 8.1, "fp16": 65, "int8": 130, "int4": 260}
# The H100 and L40S datasheets print sparse figures from TF32 down: halved here.
_H100_SXM = {
    "fp64": 34,
    "fp64_tensor": 67,
    "fp32": 67,
    "tf32": 494.5,
    "fp16": 989,
    "bf16": 989,
    "fp8": 1979,
    "int8": 1979,
}
_H100_PCIE = {
    "fp64": 26,
    "fp64_tensor": 51,
    "fp32": 51,
    "tf32": 378,
    "fp16": 756,
    "bf16": 756,
    "fp8": 1513,
    "int8": 1513,
}
_L40S = {
    "fp64": 1.43,
    "fp32": 91.6,
    "tf32": 183,
    "fp16": 362.05,
    "bf16": 362.05,
    "fp8": 733,
    "int8": 733,
}
_B200 = {
    "fp64": 40,
    "fp64_tensor": 40,
    "fp32": 80,
    "tf32": 1125,
    "fp16": 2250,
    "bf16": 2250,
    "fp8": 4500,
    "int8": 4500,
    "fp4": 9000,
}
# One device is one of the module's two dies (GCD): half of the module's 383 TFLOP/s and 3277 GB/s.
_MI250X_DIE = {
    "fp64": 23.95,
    "fp64_tensor": 47.85,
    "fp32": 23.95,
    "fp16": 191.5,
    "bf16": 191.5,
    "int8": 191.5,
}
_MI300X = {
    "fp64": 81.7,
    "fp64_tensor": 163.4,
    "fp32": 163.4,
    "tf32": 653.7,
    "fp16": 1307.4,
    "bf16": 1307.4,
    "fp8": 2614.9,
    "int8": 2614.9,
}

_A100_SHEET = "NVIDIA A100 datasheet 1758950-r4 and Ampere whitepaper"
_V100_SHEET = "NVIDIA V100 datasheet us-1165301-r5"
_H100_SHEET = "NVIDIA H100 datasheet, sparse figures halved"

# Products: mamf-finder, stas00/ml-engineering, compute/accelerator. Memory: gpt-fast, README.
_A100_SXM_REACHES = Attainable(compute=0.869, memory=0.83)
_A100_PCIE_REACHES = Attainable(compute=0.811)
_H100_SXM_REACHES = Attainable(compute=0.803)
_B200_REACHES = Attainable(compute=0.776)
_MI300X_REACHES = Attainable(compute=0.514)

DATASHEETS = (
    _peaks(
        "A100 SXM 40 GB", "a100 sxm4 40gb", _A100, 1555, 40, 400, _A100_SHEET, _A100_SXM_REACHES
    ),
    _peaks(
        "A100 SXM 80 GB", "a100 sxm4 80gb", _A100, 2039, 80, 400, _A100_SHEET, _A100_SXM_REACHES
    ),
    _peaks(
        "A100 PCIe 40 GB", "a100 pcie 40gb", _A100, 1555, 40, 250, _A100_SHEET, _A100_PCIE_REACHES
    ),
    _peaks(
        "A100 PCIe 80 GB", "a100 pcie 80gb", _A100, 1935, 80, 300, _A100_SHEET, _A100_PCIE_REACHES
    ),
    _peaks("A40", "a40", _A40, 696, 48, 300, "NVIDIA A40 datasheet"),
    _peaks("V100 SXM2 16 GB", "v100 sxm2 16gb", _V100_SXM2, 900, 16, 300, _V100_SHEET),
    _peaks("V100 SXM2 32 GB", "v100 sxm2 32gb", _V100_SXM2, 900, 32, 300, _V100_SHEET),
    _peaks("V100 PCIe 16 GB", "v100 pcie 16gb", _V100_PCIE, 900, 16, 250, _V100_SHEET),
    _peaks("V100 PCIe 32 GB", "v100 pcie 32gb", _V100_PCIE, 900, 32, 250, _V100_SHEET),
    _peaks("T4", "t4", _T4, 320, 16, 70, "NVIDIA T4 tensor core datasheet 951643"),
    _peaks("H100 SXM", "h100 hbm3", _H100_SXM, 3350, 80, 700, _H100_SHEET, _H100_SXM_REACHES),
    _peaks("H100 PCIe", "h100 pcie", _H100_PCIE, 2000, 80, 350, _H100_SHEET),
    _peaks("H200 SXM", "h200", _H100_SXM, 4800, 141, 700, "NVIDIA H200 datasheet"),
    _peaks("L40S", "l40s", _L40S, 864, 48, 350, "NVIDIA L40S datasheet, sparse figures halved"),
    _peaks(
        "B200", "b200", _B200, 8000, 180, 1000, "NVIDIA DGX and HGX B200 datasheets", _B200_REACHES
    ),
    _peaks("MI250X die", "mi250x", _MI250X_DIE, 1638.5, 64, 280, "AMD MI250X data sheet, halved"),
    _peaks(
        "MI300X",
        "mi300x",
        _MI300X,
        5300,
        192,
        750,
        "AMD MI300X platform data sheet",
        _MI300X_REACHES,
    ),
)
