"""Which figures over time a report has, and where their lines come from."""

from collections.abc import Callable
from typing import NamedTuple

from agent.stores.store import Row

TAGS = {
    "power": ("domain",),
    "infiniband": ("device", "port"),
    "network": ("interface",),
    "blockdisk": ("device",),
    "filesystem": ("mount",),
}
"""Tags that tell apart what a host has several of."""


class Source(NamedTuple):
    """Where the values of a line come from."""

    name: str
    measurement: str
    field: str
    accept: Callable[[Row], bool] = lambda _: True


class Figure(NamedTuple):
    """What a panel shows; of GPUs, one source makes a line for each GPU."""

    title: str
    unit: str
    sources: tuple[Source, ...]

    @property
    def of_gpus(self) -> bool:
        """Whether it shows GPUs, and not hosts."""
        return self.sources[0].measurement == "gpu"


def _is(tag: str, beginning: str) -> Callable[[Row], bool]:
    return lambda row: str(row.get(tag, "")).startswith(beginning)


def _is_external(row: Row) -> bool:
    return row.get("interface") != "lo"


FIGURES = (
    Figure(
        "CPU",
        "ratio",
        (
            Source("job", "job_cgroup", "cpu_seconds"),
            Source("whole node", "cpu", "utilization_ratio"),
        ),
    ),
    Figure(
        "Memory",
        "B",
        (
            Source("job", "job_cgroup", "memory_bytes"),
            Source("whole node", "memory", "used_bytes"),
        ),
    ),
    Figure("GPU utilization", "ratio", (Source("", "gpu", "utilization_ratio"),)),
    Figure(
        "GPU activity",
        "ratio",
        (
            Source("tensor pipes", "gpu", "tensor_active_ratio"),
            Source("memory interface", "gpu", "dram_active_ratio"),
        ),
    ),
    Figure("GPU memory", "B", (Source("", "gpu", "memory_used_bytes"),)),
    Figure("GPU power", "W", (Source("", "gpu", "power_watts"),)),
    Figure(
        "Power of the node",
        "W",
        (
            Source("whole node", "power", "power_watts", _is("domain", "node")),
            Source("CPUs", "power", "power_watts", _is("domain", "package")),
            Source("memory", "power", "power_watts", _is("domain", "dram")),
        ),
    ),
    Figure(
        "InfiniBand",
        "B/s",
        (
            Source("received", "infiniband", "receive_bytes"),
            Source("sent", "infiniband", "transmit_bytes"),
        ),
    ),
    Figure(
        "Network",
        "B/s",
        (
            Source("received", "network", "receive_bytes", _is_external),
            Source("sent", "network", "transmit_bytes", _is_external),
        ),
    ),
    Figure(
        "Disk",
        "B/s",
        (
            Source("job read", "job_cgroup", "read_bytes"),
            Source("job wrote", "job_cgroup", "write_bytes"),
            Source("all disks read", "blockdisk", "read_bytes"),
            Source("all disks written", "blockdisk", "write_bytes"),
        ),
    ),
    Figure(
        "Shared file systems",
        "B/s",
        (
            Source("read", "filesystem", "read_bytes"),
            Source("written", "filesystem", "write_bytes"),
        ),
    ),
    Figure("Temp disk of the job", "B", (Source("held", "job_cgroup", "tempdisk_used_bytes"),)),
)
