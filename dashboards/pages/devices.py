"""Panels of hosts and their devices: of one node, or of all nodes of a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from dashboards.pages.scope import (
    NO_AGENT,
    NO_COUNTERS,
    NO_DISK,
    NO_FILESYSTEM,
    NO_GPU,
    NO_INFINIBAND,
    NO_PRESSURE,
    NO_TRAFFIC,
)
from dashboards.panel import THIRD, Panel, high_is_bad, timeline, timeseries
from dashboards.query import Query, over_time, rate
from dashboards.units import SHARE


class Grouping(TypedDict):
    """How a query tells series apart."""

    by: str
    per: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose devices are shown.

    Attributes:
        where: condition on the hosts.
        gpus: condition on hosts and GPUs.
        several: whether there are several hosts: what one of them has several of is then added up.

    """

    where: str
    gpus: str
    several: bool

    @property
    def host(self) -> str:
        """The tags that tell hosts apart."""
        return "host" if self.several else ""

    @property
    def gpu(self) -> str:
        """The tags that tell GPUs apart."""
        return "host gpu" if self.several else "gpu"

    def of_gpu(self, what: str) -> str:
        """Return the legend of a line for each GPU."""
        return f"$tag_host GPU $tag_gpu {what}" if self.several else f"GPU $tag_gpu {what}"

    def of_host(self, what: str) -> str:
        """Return the legend of a line for each host."""
        return f"$tag_host {what}" if self.several else what

    def each(self, tags: str) -> Grouping:
        """Return a line for each host, or for each device of the one host."""
        return Grouping(by="host", per=tags) if self.several else Grouping(by=tags, per="")

    def of_each(self, tags: str, what: str) -> str:
        """Return the legend of those lines."""
        shown = "host" if self.several else tags
        return " ".join([*(f"$tag_{tag}" for tag in shown.split()), what])


def gpu_panels(scope: Scope) -> list[Panel]:
    """Return what the GPUs did."""
    return [*_gpu_bounds(scope), *_gpu_state(scope), *_gpu_activity(scope)]


def _gpu_bounds(scope: Scope) -> list[Panel]:
    where, by = scope.gpus, scope.gpu
    return [
        timeline(
            "Bound of each GPU",
            "Which roof each GPU was under: what to change to make it faster. Idle is waste; "
            "latency is small kernels or waiting; unknown where nothing is counted (NVML alone).",
            over_time("bound", "last(bound)", by, where=where),
            empty=NO_GPU,
        ),
        timeseries(
            "GPU utilization",
            "Share of time in which any kernel ran. Low: the GPU waits for data, for other GPUs or "
            "for nothing. High says little: one thread keeps a GPU 'used'.",
            over_time("gpu", "mean(utilization_ratio)", by, where=where),
            empty=NO_GPU,
        ).sized(THIRD),
        timeseries(
            "GPU memory",
            "Device memory in use. Much left free is room for a larger batch; frameworks that "
            "reserve everything at once always look full.",
            over_time("gpu", "mean(memory_used_bytes)", by, where=where),
            empty=NO_GPU,
        ).sized(THIRD),
        timeseries(
            "GPU power",
            "Power of each GPU. It shows real work better than utilization does: a GPU far below "
            "its limit for long is not computing much.",
            over_time("gpu", "mean(power_watts)", by, where=where),
            empty=NO_GPU,
        ).sized(THIRD),
    ]


def _gpu_state(scope: Scope) -> list[Panel]:
    where, by = scope.gpus, scope.gpu
    power_cap = "throttle_power_cap_seconds"
    return [
        timeseries(
            "GPU clocks",
            "Clock of the multiprocessors. It sinks when the GPU idles, gets too hot, or keeps its "
            "power limit: compare with the panels beside it.",
            over_time("gpu", "mean(sm_clock_hertz)", by, where=where),
            empty=NO_GPU,
        ).sized(THIRD),
        timeseries(
            "GPU temperature",
            "Temperature of the chip. From about 85 degrees on most GPUs slow themselves down; one "
            "that is hotter than its neighbours has a fan, a filter or a heat sink to look at.",
            over_time("gpu", "max(temperature_celsius)", by, where=where),
            empty=NO_GPU,
            steps=high_is_bad(80, 88),
        ).sized(THIRD),
        timeseries(
            "GPU throttling",
            "Share of time in which the GPU was slowed, for any reason and to keep its power "
            "limit. The limit is normal under full load; where the first is above the second, it "
            "was heat or the power brake, which never are.",
            over_time(
                "gpu",
                "mean(throttled_state)",
                by,
                where=where,
                legend=scope.of_gpu("for any reason"),
            ),
            rate("gpu", power_cap, by, where=where, legend=scope.of_gpu("power limit")),
            empty=NO_GPU,
            unit=SHARE,
        ).sized(THIRD),
    ]


def _gpu_activity(scope: Scope) -> list[Panel]:
    where, by = scope.gpus, scope.gpu
    links = {
        "pcie_receive_bytes": "PCIe in",
        "pcie_transmit_bytes": "PCIe out",
        "nvlink_receive_bytes": "NVLink in",
        "nvlink_transmit_bytes": "NVLink out",
    }
    return [
        timeseries(
            "Tensor pipes",
            "Share of cycles with a tensor pipe busy: matrix products in fp16, bf16, fp8 or tf32. "
            "Near nothing in a training that should use them: check its precision.",
            over_time("gpu", "mean(tensor_active_ratio)", by, where=where),
            empty=NO_COUNTERS,
        ).sized(THIRD),
        timeseries(
            "GPU memory bandwidth",
            "Share of cycles in which the memory interface moved data. From about 70 % on, memory "
            "bandwidth is the limit.",
            over_time("gpu", "mean(dram_active_ratio)", by, where=where),
            empty=NO_COUNTERS,
        ).sized(THIRD),
        timeseries(
            "PCIe and NVLink",
            "Bytes from and to the host (PCIe) and other GPUs (NVLink). Much PCIe traffic beside "
            "little compute: data is loaded during the step instead of ahead of it.",
            *_rates(scope, "gpu", "gpu", links, scope.gpus),
            empty=NO_GPU,
        ).sized(THIRD),
    ]


def host_panels(scope: Scope) -> list[Panel]:
    """Return what processors and memory of the hosts did, everybody's work included."""
    where, by, name = scope.where, scope.host, scope.of_host
    cpu = {
        "utilization_ratio": "all CPUs",
        "busiest_core_ratio": "busiest CPU",
        "iowait_ratio": "waiting for disks",
    }
    return [
        timeseries(
            "CPU of the node",
            "Share of all CPUs' time in use, and of the busiest CPU alone. All low and one at 100 "
            "% is a single thread that everything waits for.",
            *(
                over_time("cpu", f"mean({field})", by, where=where, legend=name(words))
                for field, words in cpu.items()
            ),
            empty=NO_AGENT,
        ).sized(THIRD),
        timeseries(
            "Memory of the node",
            "Memory that programs use, and all there is. When the first nears the second, the "
            "kernel ends programs.",
            over_time("memory", "mean(used_bytes)", by, where=where, legend=name("used")),
            over_time("memory", "last(total_bytes)", by, where=where, legend=name("all")),
            empty=NO_AGENT,
        ).sized(THIRD),
        timeseries(
            "Pressure",
            "Share of time in which work stood still for want of CPU, memory or disk. Some percent "
            "for memory is swapping or reclaiming: too little memory, or too much in use.",
            *(
                rate(
                    "pressure",
                    f"{resource}_some_seconds",
                    by,
                    where=where,
                    legend=name(f"waited for {resource}"),
                )
                for resource in ("cpu", "memory", "io")
            ),
            empty=NO_PRESSURE,
            steps=high_is_bad(0.1, 0.4),
        ).sized(THIRD),
        *_cpu_bounds(scope),
    ]


def _cpu_bounds(scope: Scope) -> list[Panel]:
    moved = {"moved_bytes": "moved"}
    return [
        timeline(
            "Bound of the CPUs",
            "Which roof the CPUs of each node were under: memory where their memory traffic is "
            "near what was measured, io where they wait for disks, unknown where traffic is not "
            "counted.",
            over_time(
                "cpu_bound",
                "last(bound)",
                scope.host,
                where=scope.where,
                legend=scope.of_host("CPUs"),
            ),
            empty=NO_AGENT,
        ).sized(2 * THIRD),
        timeseries(
            "Memory traffic",
            "Bytes between the CPUs' caches and memory. Compare with the ceiling of memory that "
            "rooflight workload ceilings measures: near it, more cores do not help.",
            *_rates(scope, "memory_traffic", "cache", moved),
            empty=NO_TRAFFIC,
        ).sized(THIRD),
    ]


def network_panels(scope: Scope) -> list[Panel]:
    """Return what went over the networks."""
    traffic = {"receive_bytes": "received", "transmit_bytes": "sent"}
    troubles = {
        "transmit_wait_total": "waited",
        "transmit_discards_total": "dropped",
        "receive_errors_total": "errors",
    }
    external = f"{scope.where} AND \"interface\" <> 'lo'"
    return [
        timeseries(
            "InfiniBand",
            "Bytes received and sent. In a job over several nodes it should be about the same for "
            "each; one that stays behind holds up all others.",
            *_rates(scope, "infiniband", "device port", traffic),
            empty=NO_INFINIBAND,
        ).sized(THIRD),
        timeseries(
            "InfiniBand congestion and errors",
            "Ticks in which data waited for credit, packets dropped, packets with errors. Waiting "
            "is other traffic in the way; errors are a cable or a port.",
            *_rates(scope, "infiniband", "device port", troubles),
            empty=NO_INFINIBAND,
        ).sized(THIRD),
        timeseries(
            "Ethernet",
            "Bytes received and sent over all interfaces but loopback. A job over several nodes "
            "that is busy here and not on InfiniBand communicates over the wrong network.",
            *_rates(scope, "network", "interface", traffic, external),
            empty="These nodes have no network interface but loopback.",
        ).sized(THIRD),
    ]


def storage_panels(scope: Scope) -> list[Panel]:
    """Return what was read and written, and how full temp disks are."""
    traffic = {"read_bytes": "read", "write_bytes": "written"}
    operations = {"metadata_operations_total": "operations"}
    path = "host path" if scope.several else "path"
    full = "last(used_bytes) / last(total_bytes)"
    return [
        timeseries(
            "Shared file systems",
            "Bytes read from and written to NFS, Lustre, WEKA, GPFS and BeeGFS by the whole node. "
            "Steady reading during training is a data set that would fit on the temp disk.",
            *_rates(scope, "filesystem", "mount", traffic),
            empty=NO_FILESYSTEM,
        ),
        timeseries(
            "Operations on shared metadata",
            "Opens, lookups, stats and the like, per second. Thousands are many small files: pack "
            "them together, or copy them to the temp disk first.",
            *_rates(scope, "filesystem", "mount", operations),
            empty=NO_FILESYSTEM,
        ),
        timeseries(
            "Temp disks, how full",
            "Node-local temporary storage in use. A full one ends every job that writes there.",
            over_time("tempdisk", full, path, where=scope.where),
            empty=NO_AGENT,
            unit=SHARE,
            steps=high_is_bad(0.8, 0.9),
        ),
        timeseries(
            "Local disks",
            "Bytes read from and written to the node's own disks.",
            *_rates(scope, "blockdisk", "device", traffic),
            empty=NO_DISK,
        ),
    ]


def _rates(
    scope: Scope, measurement: str, tags: str, counters: Mapping[str, str], where: str = ""
) -> list[Query]:
    """Return the rates of counters (field -> words for it) of devices that tags tell apart."""
    return [
        rate(
            measurement,
            counter,
            **scope.each(tags),
            where=where or scope.where,
            legend=scope.of_each(tags, words),
        )
        for counter, words in counters.items()
    ]
