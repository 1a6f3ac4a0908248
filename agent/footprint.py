"""Footprints: what a job used so far, folded from the samples of each tick.

A table says which field of which sample goes where and how; three small reducers do the sums.
Counters are summed from differences, so totals are exact whatever the interval. Means are
weighted with the time since the sample before, and the first sample of a job, which describes
the time before it, weighs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from probes.sample import Sample, Tags, Value

MOST_SERIES = 4096
"""Names of counters that are kept: 0.1 us to look one up, 0.7 to make it anew, 200 times a tick."""

Reducer = Literal["mean", "peak", "total", "whole", "last", "seconds"]
"""How values of successive ticks become one. `total` sums what a counter grew by since the job's
first sample; `whole` is for counters that begin with the job itself and counts all of them;
`seconds` adds up the time that a text held, under the name of the text followed by `target`."""


class Rule(NamedTuple):
    """Where one field of a footprint comes from.

    Attributes:
        target: field of `job_footprint` or `job_gpu_footprint`.
        measurement: measurement of the sample.
        field: field of the sample.
        reducer: how values of successive ticks become one.
        accept: which samples count, by their tags; None for all.

    """

    target: str
    measurement: str
    field: str
    reducer: Reducer
    accept: Callable[[Mapping[str, str]], bool] | None = None


class Rules:
    """A table of rules.

    Attributes:
        by_measurement: the rules that want a measurement, by its name.

    """

    def __init__(self, *rules: Rule) -> None:
        self.by_measurement: dict[str, list[Rule]] = {}
        for rule in rules:
            self.by_measurement.setdefault(rule.measurement, []).append(rule)

    def __iter__(self) -> Iterator[Rule]:
        return chain.from_iterable(self.by_measurement.values())


def _is_loopback(tags: Mapping[str, str]) -> bool:
    return tags["interface"] == "lo"


def _is_external(tags: Mapping[str, str]) -> bool:
    return tags["interface"] != "lo"


def _is_package(tags: Mapping[str, str]) -> bool:
    return tags["domain"].startswith("package")


def _is_node(tags: Mapping[str, str]) -> bool:
    return tags["domain"] == "node"


NODE_RULES = Rules(
    Rule("cpu_seconds", "job_cgroup", "cpu_seconds", "whole"),
    Rule("memory_mean_bytes", "job_cgroup", "memory_bytes", "mean"),
    Rule("memory_peak_bytes", "job_cgroup", "memory_bytes", "peak"),
    Rule("memory_peak_bytes", "job_cgroup", "memory_peak_bytes", "peak"),
    Rule("memory_limit_bytes", "job_cgroup", "memory_limit_bytes", "last"),
    Rule("read_bytes", "job_cgroup", "read_bytes", "whole"),
    Rule("write_bytes", "job_cgroup", "write_bytes", "whole"),
    Rule("processes_peak_total", "job_cgroup", "processes_total", "peak"),
    Rule("tempdisk_job_peak_bytes", "job_cgroup", "tempdisk_used_bytes", "peak"),
    Rule("oom_kills_total", "job_cgroup", "oom_kills_total", "whole"),
    Rule("source", "job_cgroup", "source", "last"),
    Rule("node_cpus_total", "cpu", "cpus_total", "last"),
    Rule("node_cpu_utilization_mean_ratio", "cpu", "utilization_ratio", "mean"),
    Rule("node_cpu_utilization_peak_ratio", "cpu", "utilization_ratio", "peak"),
    Rule("node_memory_used_mean_bytes", "memory", "used_bytes", "mean"),
    Rule("node_memory_used_peak_bytes", "memory", "used_bytes", "peak"),
    Rule("node_memory_total_bytes", "memory", "total_bytes", "last"),
    Rule("node_cpu_energy_joules", "power", "energy_joules", "total", _is_package),
    Rule("node_power_mean_watts", "power", "power_watts", "mean", _is_node),
    Rule("node_power_peak_watts", "power", "power_watts", "peak", _is_node),
    Rule("node_network_receive_bytes", "network", "receive_bytes", "total", _is_external),
    Rule("node_network_transmit_bytes", "network", "transmit_bytes", "total", _is_external),
    Rule("node_loopback_bytes", "network", "transmit_bytes", "total", _is_loopback),
    Rule("node_infiniband_receive_bytes", "infiniband", "receive_bytes", "total"),
    Rule("node_infiniband_transmit_bytes", "infiniband", "transmit_bytes", "total"),
    Rule("node_blockdisk_read_bytes", "blockdisk", "read_bytes", "total"),
    Rule("node_blockdisk_write_bytes", "blockdisk", "write_bytes", "total"),
    Rule("node_filesystem_read_bytes", "filesystem", "read_bytes", "total"),
    Rule("node_filesystem_write_bytes", "filesystem", "write_bytes", "total"),
    Rule("node_tempdisk_used_peak_bytes", "tempdisk", "used_bytes", "peak"),
    Rule("node_tempdisk_total_bytes", "tempdisk", "total_bytes", "peak"),
    Rule("node_cpu_pressure_seconds", "pressure", "cpu_some_seconds", "total"),
    Rule("node_memory_pressure_seconds", "pressure", "memory_some_seconds", "total"),
    Rule("node_io_pressure_seconds", "pressure", "io_some_seconds", "total"),
)

GPU_RULES = Rules(
    Rule("utilization_mean_ratio", "gpu", "utilization_ratio", "mean"),
    Rule("utilization_peak_ratio", "gpu", "utilization_ratio", "peak"),
    Rule("memory_used_mean_bytes", "gpu", "memory_used_bytes", "mean"),
    Rule("memory_used_peak_bytes", "gpu", "memory_used_bytes", "peak"),
    Rule("memory_total_bytes", "gpu", "memory_total_bytes", "last"),
    Rule("power_mean_watts", "gpu", "power_watts", "mean"),
    Rule("power_peak_watts", "gpu", "power_watts", "peak"),
    Rule("power_limit_watts", "gpu", "power_limit_watts", "last"),
    Rule("energy_joules", "gpu", "energy_joules", "total"),
    Rule("temperature_peak_celsius", "gpu", "temperature_celsius", "peak"),
    Rule("sm_clock_mean_hertz", "gpu", "sm_clock_hertz", "mean"),
    Rule("sm_active_mean_ratio", "gpu", "sm_active_ratio", "mean"),
    Rule("tensor_active_mean_ratio", "gpu", "tensor_active_ratio", "mean"),
    Rule("dram_active_mean_ratio", "gpu", "dram_active_ratio", "mean"),
    Rule("throttled_seconds", "gpu", "throttle_power_cap_seconds", "total"),
    Rule("throttled_seconds", "gpu", "throttle_software_thermal_seconds", "total"),
    Rule("throttled_seconds", "gpu", "throttle_hardware_thermal_seconds", "total"),
    Rule("throttled_seconds", "gpu", "throttle_power_brake_seconds", "total"),
    Rule("pcie_receive_bytes", "gpu", "pcie_receive_bytes", "total"),
    Rule("pcie_transmit_bytes", "gpu", "pcie_transmit_bytes", "total"),
    Rule("nvlink_receive_bytes", "gpu", "nvlink_receive_bytes", "total"),
    Rule("nvlink_transmit_bytes", "gpu", "nvlink_transmit_bytes", "total"),
    Rule("source", "gpu", "source", "last"),
    Rule("_bound_seconds", "bound", "bound", "seconds"),
)


class Totals(msgspec.Struct):
    """The running state of one footprint; kept on disk, so that a restarted agent goes on.

    Attributes:
        values: peaks, totals and last values by target.
        sums: value times seconds by target, for means.
        weights: seconds by target, for means.
        counters: last reading of every counter, by rule and series.

    """

    values: dict[str, Value] = {}
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    counters: dict[str, float] = {}

    def fold(self, rules: Rules, samples: Iterable[Sample], seconds: float) -> None:
        """Take in the samples of one tick, `seconds` after the one before (0 for the first)."""
        for sample in samples:
            for rule in rules.by_measurement.get(sample.measurement, ()):
                value = sample.fields.get(rule.field)
                if value is None or (rule.accept and not rule.accept(dict(sample.tags))):
                    continue
                self._reduce(rule, sample.tags, value, seconds)

    def fields(self) -> dict[str, Value]:
        """Return the footprint's fields as they stand."""
        means = {
            target: total / self.weights[target]
            for target, total in self.sums.items()
            if self.weights[target] > 0
        }
        return {**self.values, **means}

    def _reduce(self, rule: Rule, tags: Tags, value: Value, seconds: float) -> None:
        if rule.reducer == "seconds":
            target = f"{value}{rule.target}"
            self.values[target] = float(self.values.get(target, 0.0)) + seconds
        elif rule.reducer == "last" or isinstance(value, str):
            self.values[rule.target] = value
        elif rule.reducer in ("total", "whole"):
            self._add(rule, tags, value)
        elif seconds > 0 and rule.reducer == "peak":
            known = self.values.get(rule.target, value)
            self.values[rule.target] = max(value, float(known))
        elif seconds > 0:
            self.sums[rule.target] = self.sums.get(rule.target, 0.0) + value * seconds
            self.weights[rule.target] = self.weights.get(rule.target, 0.0) + seconds

    def _add(self, rule: Rule, tags: Tags, value: float) -> None:
        """Add what the counter grew by; one that went back starts anew and adds nothing."""
        series = _series(rule.target, rule.field, tags)
        grown = value - self.counters.get(series, 0.0 if rule.reducer == "whole" else value)
        self.counters[series] = value
        self.values[rule.target] = float(self.values.get(rule.target, 0.0)) + max(0.0, grown)


@lru_cache(maxsize=MOST_SERIES)
def _series(target: str, field: str, tags: Tags) -> str:
    return f"{target} {field} {tags}"
