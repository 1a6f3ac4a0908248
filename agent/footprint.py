"""Footprints: what a job used so far, folded from the samples of each tick.

A table says which field of which sample goes where and how; three small reducers do the sums.
Counters are summed from differences, so totals are exact whatever the interval. Means are
weighted with the time since the sample before, and the first sample of a job, which describes
the time before it, weighs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from probes.catalogue import BOUND_SECONDS, CPU_BOUNDS
from probes.sample import Sample, Tags, Value

MOST_SERIES = 4096
"""Series whose steps are kept: job ids come and go, and an agent lives for years."""

Reducer = Literal["mean", "peak", "total", "whole", "last", "added", "sum", "count"]
"""How values of successive ticks become one. `total` sums what a counter grew by since the job's
first sample; `whole` is for counters that begin with the job itself and counts all of them;
`added` adds up what each sample tells of the interval that it ends; `sum` adds up all samples of a
tick, as the speeds of several links, and keeps the highest; `count` is in how many samples there
was a value."""


class Rule(NamedTuple):
    """Where one field of a footprint comes from.

    Attributes:
        target: field of `job_footprint` or `job_gpu_footprint`.
        measurement: measurement of the sample.
        field: field of the sample.
        reducer: how values of successive ticks become one.
        accept: which samples count, by their tags; None for all.
        busiest: for `total`, the field that takes its growth per second in the busiest interval.

    """

    target: str
    measurement: str
    field: str
    reducer: Reducer
    accept: Callable[[Mapping[str, str]], bool] | None = None
    busiest: str = ""


class Step(NamedTuple):
    """What a rule does with the samples of one series; `series` is the name of its counter."""

    field: str
    reducer: Reducer
    target: str
    series: str
    busiest: str


Reading = tuple[Step, Value]
"""A value, and what is done with it."""


class Rules:
    """A table of rules, and for each series that was met the steps that they mean for it."""

    def __init__(self, *rules: Rule) -> None:
        self._by_measurement: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_measurement.setdefault(rule.measurement, []).append(rule)
        self._steps: dict[tuple[str, Tags], list[Step]] = {}

    def __iter__(self) -> Iterator[Rule]:
        return chain.from_iterable(self._by_measurement.values())

    def steps(self, measurement: str, tags: Tags) -> Sequence[Step]:
        """Return the steps for a series."""
        known = self._steps.get((measurement, tags))
        if known is None:
            if len(self._steps) >= MOST_SERIES:
                self._steps.clear()
            known = self._steps[measurement, tags] = list(self._made(measurement, tags))
        return known

    def read(self, samples: Iterable[Sample]) -> list[Reading]:
        """Return the values that samples have for the rules, each with what is done with it."""
        return [
            (step, value)
            for measurement, tags, fields in samples
            for step in self.steps(measurement, tags)
            if (value := fields.get(step.field)) is not None
        ]

    def _made(self, measurement: str, tags: Tags) -> Iterator[Step]:
        for rule in self._by_measurement.get(measurement, ()):
            if rule.accept is None or rule.accept(dict(tags)):
                series = f"{rule.target} {rule.field} {tags}"
                yield Step(rule.field, rule.reducer, rule.target, series, rule.busiest)


def _with_busiest(
    target: str,
    measurement: str,
    field: str,
    accept: Callable[[Mapping[str, str]], bool] | None = None,
) -> Rule:
    """Return the rule for a total of bytes and for its rate in the busiest interval."""
    rate = f"{target.removesuffix('_bytes')}_peak_bytes_per_second"
    return Rule(target, measurement, field, "total", accept, rate)


def _is_loopback(tags: Mapping[str, str]) -> bool:
    return tags["interface"] == "lo"


def _is_external(tags: Mapping[str, str]) -> bool:
    return tags["interface"] != "lo"


def _is_package(tags: Mapping[str, str]) -> bool:
    return tags["domain"].startswith("package")


def _is_node(tags: Mapping[str, str]) -> bool:
    return tags["domain"] == "node"


PORT_ERRORS = (
    *("symbol_errors_total", "link_error_recovery_total", "link_downed_total"),
    *("receive_errors_total", "transmit_discards_total", "local_link_integrity_errors_total"),
    *("buffer_overrun_errors_total", "packet_sequence_errors_total", "ack_timeouts_total"),
)
"""Counters of InfiniBand and RoCE ports that stand still on a sound fabric."""

FILE_OPERATIONS = ("reads_total", "writes_total", "opens_total", "metadata_operations_total")

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
    Rule("tempdisk_job_last_bytes", "job_cgroup", "tempdisk_used_bytes", "last"),
    Rule("tempdisk_job_source", "job_cgroup", "tempdisk_source", "last"),
    Rule("shared_memory_peak_bytes", "job_cgroup", "shared_memory_bytes", "peak"),
    Rule("oom_kills_total", "job_cgroup", "oom_kills_total", "whole"),
    Rule("cpu_pressure_seconds", "job_cgroup", "cpu_pressure_seconds", "whole"),
    Rule("memory_pressure_seconds", "job_cgroup", "memory_pressure_seconds", "whole"),
    Rule("io_pressure_seconds", "job_cgroup", "io_pressure_seconds", "whole"),
    Rule("source", "job_cgroup", "source", "last"),
    Rule("node_cpus_total", "cpu", "cpus_total", "last"),
    Rule("node_cpu_utilization_mean_ratio", "cpu", "utilization_ratio", "mean"),
    Rule("node_cpu_utilization_peak_ratio", "cpu", "utilization_ratio", "peak"),
    Rule("node_cpu_iowait_mean_ratio", "cpu", "iowait_ratio", "mean"),
    *(
        Rule(f"node_cpu_{bound}_seconds", "cpu_bound", f"{bound}_seconds", "added")
        for bound in CPU_BOUNDS
    ),
    Rule("node_memory_used_mean_bytes", "memory", "used_bytes", "mean"),
    Rule("node_memory_used_peak_bytes", "memory", "used_bytes", "peak"),
    Rule("node_memory_total_bytes", "memory", "total_bytes", "last"),
    Rule("node_cpu_energy_joules", "power", "energy_joules", "total", _is_package),
    Rule("node_power_mean_watts", "power", "power_watts", "mean", _is_node),
    Rule("node_power_peak_watts", "power", "power_watts", "peak", _is_node),
    _with_busiest("node_network_receive_bytes", "network", "receive_bytes", _is_external),
    _with_busiest("node_network_transmit_bytes", "network", "transmit_bytes", _is_external),
    Rule("node_network_speed_bits_per_second", "network", "speed_bits_per_second", "sum"),
    Rule("node_loopback_bytes", "network", "transmit_bytes", "total", _is_loopback),
    _with_busiest("node_infiniband_receive_bytes", "infiniband", "receive_bytes"),
    _with_busiest("node_infiniband_transmit_bytes", "infiniband", "transmit_bytes"),
    Rule("node_infiniband_receive_packets_total", "infiniband", "receive_packets_total", "total"),
    Rule("node_infiniband_transmit_packets_total", "infiniband", "transmit_packets_total", "total"),
    Rule("node_infiniband_rate_bits_per_second", "infiniband", "rate_bits_per_second", "sum"),
    Rule("node_infiniband_ports_total", "infiniband", "link_up_state", "sum"),
    *(Rule("node_infiniband_errors_total", "infiniband", name, "total") for name in PORT_ERRORS),
    Rule("node_blockdisk_read_bytes", "blockdisk", "read_bytes", "total"),
    Rule("node_blockdisk_write_bytes", "blockdisk", "write_bytes", "total"),
    _with_busiest("node_filesystem_read_bytes", "filesystem", "read_bytes"),
    _with_busiest("node_filesystem_write_bytes", "filesystem", "write_bytes"),
    *(
        Rule("node_filesystem_operations_total", "filesystem", name, "total")
        for name in FILE_OPERATIONS
    ),
    Rule("node_tempdisk_used_peak_bytes", "tempdisk", "used_bytes", "peak"),
    Rule("node_tempdisk_total_bytes", "tempdisk", "total_bytes", "peak"),
    Rule("node_cpu_pressure_seconds", "pressure", "cpu_some_seconds", "total"),
    Rule("node_memory_pressure_seconds", "pressure", "memory_some_seconds", "total"),
    Rule("node_io_pressure_seconds", "pressure", "io_some_seconds", "total"),
)

THROTTLES = {
    "power_cap": "power",
    "power_brake": "power",
    "software_thermal": "thermal",
    "hardware_thermal": "thermal",
}
"""What slows a GPU -> which total it belongs to."""

THROTTLED = tuple(sorted({f"throttled_{kind}_seconds" for kind in THROTTLES.values()}))

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
    Rule("activity_samples_total", "gpu", "dram_active_ratio", "count"),
    Rule("fp32_active_mean_ratio", "gpu", "fp32_active_ratio", "mean"),
    Rule("fp64_active_mean_ratio", "gpu", "fp64_active_ratio", "mean"),
    *(
        Rule(f"throttled_{kind}_seconds", "gpu", f"throttle_{cause}_seconds", "total")
        for cause, kind in THROTTLES.items()
    ),
    Rule("ecc_uncorrected_total", "gpu", "ecc_uncorrected_total", "total"),
    Rule("xid_errors_total", "gpu", "xid_errors_total", "total"),
    Rule("pcie_receive_bytes", "gpu", "pcie_receive_bytes", "total"),
    Rule("pcie_transmit_bytes", "gpu", "pcie_transmit_bytes", "total"),
    Rule("nvlink_receive_bytes", "gpu", "nvlink_receive_bytes", "total"),
    Rule("nvlink_transmit_bytes", "gpu", "nvlink_transmit_bytes", "total"),
    Rule("source", "gpu", "source", "last"),
    *(
        Rule(target, "bound", f"{target.partition('_')[0]}_seconds", "added")
        for target in BOUND_SECONDS
    ),
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
        self.take(rules.read(samples), seconds)

    def take(self, readings: Iterable[Reading], seconds: float) -> None:
        """Take in what rules read from the samples of one tick."""
        sums: dict[str, float] = {}
        counters = self.counters
        for step, value in readings:
            # most counters are of errors and stand still: a third of the time is spared
            if step.busiest or counters.get(step.series) != value:
                self._reduce(step, value, seconds, sums)
        for target, value in sums.items():
            self.keep_highest(target, value)

    def count(self, target: str) -> None:
        """Add one."""
        self.values[target] = float(self.values.get(target, 0.0)) + 1.0

    def fields(self) -> dict[str, Value]:
        """Return the footprint's fields as they stand."""
        means = {
            target: total / self.weights[target]
            for target, total in self.sums.items()
            if self.weights[target] > 0
        }
        return {**self.values, **means}

    def _reduce(self, step: Step, value: Value, seconds: float, sums: dict[str, float]) -> None:
        """Take in one value; `sums` are those of this tick, over all its samples."""
        reducer, target = step.reducer, step.target
        if reducer == "last" or isinstance(value, str):
            self.values[target] = value
        elif reducer in ("total", "whole"):
            self._take_counter(step, value, seconds, sums)
        elif reducer == "sum":
            sums[target] = sums.get(target, 0.0) + value
        elif reducer == "count":
            self.count(target)
        elif seconds <= 0:
            return  # there is no time that it would tell of
        elif reducer == "mean":
            self.sums[target] = self.sums.get(target, 0.0) + value * seconds
            self.weights[target] = self.weights.get(target, 0.0) + seconds
        elif reducer == "peak":
            self.keep_highest(target, value)
        else:  # added
            self.values[target] = float(self.values.get(target, 0.0)) + value

    def _take_counter(
        self, step: Step, value: float, seconds: float, sums: dict[str, float]
    ) -> None:
        before = self.counters.get(step.series)
        grown = 0.0 if before == value else self._add(step, before, value)
        if step.busiest and seconds > 0:
            sums[step.busiest] = sums.get(step.busiest, 0.0) + grown / seconds

    def keep_highest(self, target: str, value: float) -> None:
        """Take a value if it is the highest so far."""
        self.values[target] = max(value, float(self.values.get(target, value)))

    def _add(self, step: Step, before: float | None, value: float) -> float:
        """Add what the counter grew by, and return it; one that went back adds nothing."""
        if before is None:
            before = 0.0 if step.reducer == "whole" else value
        self.counters[step.series] = value
        grown = max(0.0, value - before)
        self.values[step.target] = float(self.values.get(step.target, 0.0)) + grown
        return grown
