"""Measure the roofs of a device: matrix product per dtype; memory by copy, triad, update and read.

Each kernel is warmed up and timed several times; the median counts, and of several kernels or
shapes the best. Elements are counted as in STREAM (McCalpin): copy 2, triad 3, update 3, read 1.
A CPU fetches the lines that copy and triad overwrite, uncounted; update writes what it has read,
as an optimizer does, so it shows what the memory really moves. Links are measured in
`workloads.linkceiling`, the temporary disk in `workloads.diskceiling`.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from probes.roots import Roots
from workloads.device import TORCH_DTYPES, binding, last_level_cache_bytes, synchronizer
from workloads.kinds import ALL_REDUCE, DISK_READ, HOST_TO_DEVICE, MIXED_KINDS, READ
from workloads.kinds import MATMUL as MATMUL
from workloads.roofline import Ceilings

MIB = 1 << 20
WARMUP = 2
FEWEST_REPEATS = 3
ARRAYS = 3
"""Arrays that the memory kernels read and write."""

PATIENCE = 1.0
"""Seconds for one kernel, after which the fewest repeats must do: fp16 is slow on most CPUs."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One measured roof.

    Attributes:
        kind: a name in `workloads.kinds`.
        dtype: of the elements.
        per_second: FLOP/s for matmul, bytes/s for all else.
        spread: (longest - shortest) / median of the repeats.
        threads: CPU threads used.
        size: shape of the product, or size of the arrays.
        repeats: timed runs of which this is the median.
        rounds: of measurements, of which this is the best.
        binding: which CPUs and NUMA nodes the threads were bound to.

    """

    kind: str
    dtype: str
    per_second: float
    spread: float
    threads: int
    size: str
    repeats: int
    rounds: int = 1
    binding: str = ""

    @property
    def method(self) -> str:
        """How it was measured, in words."""
        best = f", best of {self.rounds} rounds" if self.rounds > 1 else ""
        bound = f", {self.binding}" if self.binding else ""
        return f"{self.kind} {self.size}, median of {self.repeats}{best}{bound}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """How much to measure: shapes (m, n, k) of products, bytes per array, timed repeats.

    `binding` says where the threads may run.
    """

    shapes: tuple[tuple[int, int, int], ...]
    array_bytes: int
    repeats: int
    binding: str = ""


CPU_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (512, 4096, 1024), (512, 1024, 4096))
GPU_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 11008, 4096), (8192, 4096, 14336))


def default_sweep(device: torch.device, roots: Roots) -> Sweep:
    """Return shapes that fill the device and arrays that no cache of it can hold."""
    bound = binding(roots)
    if device.type == "cuda":
        return Sweep(GPU_SHAPES, 1024 * MIB, repeats=15, binding=bound)
    beyond_cache = max(256 * MIB, 2 * last_level_cache_bytes(roots))
    return Sweep(CPU_SHAPES, beyond_cache, repeats=5, binding=bound)


def measure(device: torch.device, dtypes: Iterable[str], sweep: Sweep) -> list[Ceiling]:
    """Measure the compute roof for each dtype, and the memory roofs."""
    products = [measure_matmul(device, dtype, sweep) for dtype in dtypes]
    found = [*products, *measure_memory(device, sweep)]
    return [replace(ceiling, binding=sweep.binding) for ceiling in found]


def measure_matmul(device: torch.device, dtype: str, sweep: Sweep) -> Ceiling:
    """Measure x W^T over the sweep's shapes and return the best: 2 m n k FLOPs each."""
    candidates = (_matmul(device, dtype, shape, sweep.repeats) for shape in sweep.shapes)
    return max(candidates, key=lambda ceiling: ceiling.per_second)


def measure_memory(device: torch.device, sweep: Sweep) -> list[Ceiling]:
    """Measure b = a, c = a + 0.4 b, b = b + 0.4 a, and the sum of a, with fp32 arrays."""
    length = sweep.array_bytes // 4
    first, second, third = (torch.full((length,), 0.1, device=device) for _ in range(ARRAYS))
    kernels: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (2, lambda: second.copy_(first)),
        "triad": (3, lambda: torch.add(first, second, alpha=0.4, out=third)),
        "update": (3, lambda: second.add_(first, alpha=0.4)),
        READ: (1, first.sum),
    }
    size = f"{sweep.array_bytes / MIB:.0f} MiB arrays"
    return [
        median_rate(kind, "fp32", weight * 4 * length, size, timed(kernel, device, sweep.repeats))
        for kind, (weight, kernel) in kernels.items()
    ]


def held_bytes(sweep: Sweep) -> int:
    """Return the device memory that measuring holds while a workload's weights stay there."""
    return ARRAYS * sweep.array_bytes


def best_of(rounds: Sequence[Iterable[Ceiling]]) -> list[Ceiling]:
    """Keep the highest roof of each kind and dtype: noise only ever lowers what is measured."""
    best: dict[tuple[str, str], Ceiling] = {}
    for ceiling in itertools.chain.from_iterable(rounds):
        key = (ceiling.kind, ceiling.dtype)
        if key not in best or ceiling.per_second > best[key].per_second:
            best[key] = ceiling
    return [replace(ceiling, rounds=len(rounds)) for ceiling in best.values()]


def median_of(rounds: Sequence[Iterable[Ceiling]]) -> list[Ceiling]:
    """Take the middle one of each kind and dtype: what the machine gave in that time."""
    known: dict[tuple[str, str], list[Ceiling]] = {}
    for ceiling in itertools.chain.from_iterable(rounds):
        known.setdefault((ceiling.kind, ceiling.dtype), []).append(ceiling)
    return [
        replace(same[0], per_second=statistics.median(ceiling.per_second for ceiling in same))
        for same in known.values()
    ]


def quick(sweep: Sweep, product: Ceiling) -> Sweep:
    """Return a sweep over the one shape that was best, for looking again between two calls."""
    rows, columns, inner = map(int, product.size.split("x"))
    return replace(sweep, shapes=((rows, columns, inner),), repeats=3)


def roofs(ceilings: Iterable[Ceiling]) -> Ceilings:
    """Return the roofs that labels are made with: the best kernel of each sort counts.

    The link is the one between devices where it was measured, else that from host to device.
    """
    found = list(ceilings)
    return Ceilings(
        flops_per_second={c.dtype: c.per_second for c in found if c.kind == MATMUL},
        bytes_per_second=_highest(found, *MIXED_KINDS),
        read_bytes_per_second=_highest(found, READ),
        link_bytes_per_second=_highest(found, ALL_REDUCE) or _highest(found, HOST_TO_DEVICE),
        io_bytes_per_second=_highest(found, DISK_READ),
    )


def _highest(ceilings: Iterable[Ceiling], *kinds: str) -> float | None:
    return max((c.per_second for c in ceilings if c.kind in kinds), default=None)


def _matmul(device: torch.device, dtype: str, shape: tuple[int, int, int], repeats: int) -> Ceiling:
    rows, columns, inner = shape
    left = torch.randn(rows, inner, device=device, dtype=TORCH_DTYPES[dtype])
    right = torch.randn(columns, inner, device=device, dtype=TORCH_DTYPES[dtype])
    times = timed(functools.partial(F.linear, left, right), device, repeats)
    size = f"{rows}x{columns}x{inner}"
    return median_rate(MATMUL, dtype, 2 * rows * columns * inner, size, times)


def median_rate(
    kind: str,
    dtype: str,
    amount: int,
    size: str,
    seconds: Sequence[float],
    threads: int | None = None,
) -> Ceiling:
    """Return the ceiling that repeats of `amount` FLOPs or bytes show, by their median time."""
    median = statistics.median(seconds)
    return Ceiling(
        kind=kind,
        dtype=dtype,
        per_second=amount / median,
        spread=(max(seconds) - min(seconds)) / median,
        threads=threads or torch.get_num_threads(),
        size=size,
        repeats=len(seconds),
    )


def timed(kernel: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Return seconds of each repeat, after warm-up, waiting for the device around each.

    Repeats beyond `FEWEST_REPEATS` are left out once `PATIENCE` has passed.
    """
    wait = synchronizer(device)
    seconds: list[float] = []
    deadline = time.perf_counter() + PATIENCE
    with torch.inference_mode():
        while len(seconds) < WARMUP + repeats:
            wait()
            begin = time.perf_counter()
            kernel()
            wait()
            end = time.perf_counter()
            seconds.append(end - begin)
            if end > deadline and len(seconds) >= WARMUP + FEWEST_REPEATS:
                break
    return seconds[WARMUP:]
