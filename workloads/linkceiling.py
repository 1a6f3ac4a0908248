"""Measure links: between host and device by pinned copies, between ranks by all-reduce."""

import functools
import time

import torch
import torch.distributed as dist

from workloads.ceilings import MIB, WARMUP, Ceiling, Sweep, median_rate, timed
from workloads.device import synchronizer
from workloads.kinds import ALL_REDUCE, BYTES, DEVICE_TO_HOST, HOST_TO_DEVICE

COPY_BYTES = 256 * MIB
REDUCED_BYTES = {"cpu": (4 * MIB, 32 * MIB), "cuda": (64 * MIB, 256 * MIB)}
"""Sizes of which the best counts, by type of device."""


def measure_link(device: torch.device, sweep: Sweep) -> list[Ceiling]:
    """Measure copies of pinned memory to a GPU and back; a CPU has no such link: nothing."""
    if device.type != "cuda":
        return []
    host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    copies = {
        HOST_TO_DEVICE: functools.partial(there.copy_, host, non_blocking=True),
        DEVICE_TO_HOST: functools.partial(host.copy_, there, non_blocking=True),
    }
    size = f"{COPY_BYTES / MIB:.0f} MiB pinned"
    return [
        median_rate(kind, BYTES, COPY_BYTES, size, timed(copy, device, sweep.repeats))
        for kind, copy in copies.items()
    ]


def measure_all_reduce(device: torch.device, sweep: Sweep) -> list[Ceiling]:
    """Measure the bus bandwidth of all-reduce in the process group; nothing without ranks.

    All ranks must call it. Bus bandwidth is bytes / seconds * 2 (n - 1) / n, what each rank's link
    carries whatever n (nccl-tests, PERFORMANCE.md); the slowest rank's time counts.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return []
    sizes = REDUCED_BYTES[device.type]
    found = (_all_reduce(device, size, sweep.repeats) for size in sizes)
    return [max(found, key=lambda ceiling: ceiling.per_second)]


def _all_reduce(device: torch.device, size: int, repeats: int) -> Ceiling:
    ranks = dist.get_world_size()
    values = torch.zeros(size // 4, device=device)
    times = [_slowest_rank(values) for _ in range(WARMUP + repeats)]
    words = f"{size / MIB:.0f} MiB, {ranks} ranks, {dist.get_backend()}"
    on_bus = size * 2 * (ranks - 1) // ranks
    return median_rate(ALL_REDUCE, "fp32", on_bus, words, times[WARMUP:])


def _slowest_rank(values: torch.Tensor) -> float:
    """Return the seconds that the last rank needed for one all-reduce."""
    wait = synchronizer(values.device)
    dist.barrier()
    wait()
    begin = time.perf_counter()
    dist.all_reduce(values)
    wait()
    slowest = torch.tensor(time.perf_counter() - begin, device=values.device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return slowest.item()
