"""The lines of the utilisation table: which fields of a footprint each shows, and their source."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.inspect.model import Usage
from agent.stores.store import Row
from probes.sample import Value

BITS_PER_BYTE = 8


class Line(NamedTuple):
    """One line.

    Attributes:
        what: its name.
        unit: of its numbers.
        scope: see `Usage`.
        source: where its numbers come from: a file of /proc by its name there, or what it is;
            empty for what the row itself says in the field `told_in`.
        counted: the field that tells in how many samples there was a number.
        mean: field of the mean; so for the others.

    """

    what: str
    unit: str
    scope: str
    source: str
    counted: str = ""
    mean: str = ""
    peak: str = ""
    total: str = ""
    available: str = ""
    told_in: str = "source"


def _of_job(what: str, unit: str, **fields: str) -> Line:
    return Line(what, unit, "job", "", "job_cgroup_samples_total", **fields)


def _of_node(what: str, unit: str, source: str, measurement: str, **fields: str) -> Line:
    return Line(what, unit, "node", source, f"{measurement}_samples_total", **fields)


def _traffic(what: str, source: str, measurement: str, directions: Mapping[str, str]) -> list[Line]:
    """Return lines for the bytes that moved and, with mean and peak, for how fast they did."""
    lines = []
    for words, direction in directions.items():
        field = f"node_{measurement}_{direction}"
        rates = {"mean": f"{field}_per_second", "peak": f"{field}_peak_bytes_per_second"}
        rate_of = f"{measurement}_speed"
        moved = _of_node(f"{what} {words}", "B", source, measurement, total=f"{field}_bytes")
        speed = _of_node(
            f"{what} {words} rate", "B/s", source, measurement, **rates, available=rate_of
        )
        lines += [moved, speed]
    return lines


IN_AND_OUT = {"in": "receive", "out": "transmit"}
READ_AND_WRITTEN = {"read": "read", "written": "write"}

NODE_LINES: tuple[Line, ...] = (
    _of_job("cpu", "ratio", mean="cpu_utilization_mean_ratio", peak="cpu_utilization_peak_ratio"),
    _of_job("cpu time", "s", total="cpu_seconds", available="cpu_seconds_available"),
    _of_job(
        "memory",
        "B",
        mean="memory_mean_bytes",
        peak="memory_peak_bytes",
        available="memory_available",
    ),
    _of_job("out of memory", "count", total="oom_kills_total"),
    _of_job("processes", "count", peak="processes_peak_total"),
    _of_job("disk read", "B", total="read_bytes"),
    _of_job("disk written", "B", total="write_bytes"),
    _of_job(
        "temp disk held",
        "B",
        peak="tempdisk_job_peak_bytes",
        available="node_tempdisk_total_bytes",
        told_in="tempdisk_job_source",
    ),
    _of_job("shared memory", "B", peak="shared_memory_peak_bytes"),
    _of_job("job waited for cpu", "s", total="cpu_pressure_seconds"),
    _of_job("job waited for memory", "s", total="memory_pressure_seconds"),
    _of_job("job waited for disk", "s", total="io_pressure_seconds"),
    _of_node(
        "node cpu",
        "ratio",
        "stat",
        "cpu",
        mean="node_cpu_utilization_mean_ratio",
        peak="node_cpu_utilization_peak_ratio",
    ),
    _of_node("node cpu others", "ratio", "stat", "cpu", mean="others"),
    _of_node("node cpu iowait", "ratio", "stat", "cpu", mean="node_cpu_iowait_mean_ratio"),
    _of_node(
        "node memory",
        "B",
        "meminfo",
        "memory",
        mean="node_memory_used_mean_bytes",
        peak="node_memory_used_peak_bytes",
        available="node_memory_total_bytes",
    ),
    _of_node(
        "node power",
        "W",
        "hwmon",
        "power",
        mean="node_power_mean_watts",
        peak="node_power_peak_watts",
    ),
    _of_node("node energy", "J", "hwmon", "power", total="node_energy_joules"),
    _of_node("cpu energy", "J", "RAPL", "power", total="node_cpu_energy_joules"),
    *_traffic("network", "net/dev", "network", IN_AND_OUT),
    _of_node("loopback", "B", "net/dev", "network", total="node_loopback_bytes"),
    *_traffic("infiniband", "sysfs", "infiniband", IN_AND_OUT),
    _of_node(  # of Soft-RoCE, which counts no bytes, the one sign of its traffic
        "infiniband packets in",
        "count",
        "sysfs",
        "infiniband",
        total="node_infiniband_receive_packets_total",
    ),
    _of_node(
        "infiniband packets out",
        "count",
        "sysfs",
        "infiniband",
        total="node_infiniband_transmit_packets_total",
    ),
    _of_node(
        "infiniband ports", "count", "sysfs", "infiniband", peak="node_infiniband_ports_total"
    ),
    _of_node(
        "infiniband errors",
        "count",
        "sysfs",
        "infiniband",
        total="node_infiniband_errors_total",
    ),
    _of_node("all disks read", "B", "diskstats", "blockdisk", total="node_blockdisk_read_bytes"),
    _of_node(
        "all disks written", "B", "diskstats", "blockdisk", total="node_blockdisk_write_bytes"
    ),
    *_traffic("shared files", "fs client", "filesystem", READ_AND_WRITTEN),
    _of_node(
        "shared file operations",
        "count",
        "fs client",
        "filesystem",
        total="node_filesystem_operations_total",
    ),
    _of_node(
        "temp disk used",
        "B",
        "statvfs",
        "tempdisk",
        peak="node_tempdisk_used_peak_bytes",
        available="node_tempdisk_total_bytes",
    ),
    _of_node("waited for cpu", "s", "PSI", "pressure", total="node_cpu_pressure_seconds"),
    _of_node("waited for memory", "s", "PSI", "pressure", total="node_memory_pressure_seconds"),
    _of_node("waited for disk", "s", "PSI", "pressure", total="node_io_pressure_seconds"),
)


def _of_gpu(what: str, unit: str, **fields: str) -> Line:
    return Line(what, unit, "gpu", "NVML", "samples_total", **fields)


def _activity(what: str) -> Line:
    field = f"{what.replace(' ', '_')}_mean_ratio"
    return Line(what, "ratio", "gpu", "", "activity_samples_total", mean=field)


GPU_LINES: tuple[Line, ...] = (
    _of_gpu("utilization", "ratio", mean="utilization_mean_ratio", peak="utilization_peak_ratio"),
    _of_gpu(
        "memory",
        "B",
        mean="memory_used_mean_bytes",
        peak="memory_used_peak_bytes",
        available="memory_total_bytes",
    ),
    _of_gpu(
        "power",
        "W",
        mean="power_mean_watts",
        peak="power_peak_watts",
        available="power_limit_watts",
    ),
    _of_gpu("energy", "J", total="energy_joules"),
    _of_gpu("temperature", "degC", peak="temperature_peak_celsius"),
    _of_gpu("sm clock", "Hz", mean="sm_clock_mean_hertz"),
    _activity("sm active"),
    _activity("tensor active"),
    _activity("fp32 active"),
    _activity("fp64 active"),
    _activity("dram active"),
    _of_gpu("throttled", "s", total="throttled_seconds"),
    _of_gpu("slowed for power", "s", total="throttled_power_seconds"),
    _of_gpu("slowed for heat", "s", total="throttled_thermal_seconds"),
    _of_gpu("pcie in", "B", total="pcie_receive_bytes"),
    _of_gpu("pcie out", "B", total="pcie_transmit_bytes"),
    _of_gpu("nvlink in", "B", total="nvlink_receive_bytes"),
    _of_gpu("nvlink out", "B", total="nvlink_transmit_bytes"),
    _of_gpu("processes of the job", "count", peak="job_processes_peak_total"),
    _of_gpu("processes of others", "count", peak="other_processes_peak_total"),
    _of_gpu("memory errors", "count", total="ecc_uncorrected_total"),
    _of_gpu("xid errors", "count", total="xid_errors_total"),
)


def node_usage(row: Row) -> list[Usage]:
    """Return the lines of a `job_footprint` row of which anything is known."""
    return list(_usages(NODE_LINES, {**row, **derived(row)}))


def gpu_usage(row: Row) -> list[Usage]:
    """Return the lines of a `job_gpu_footprint` row."""
    return list(_usages(GPU_LINES, row, str(row["gpu"])))


def derived(row: Row) -> dict[str, Value]:
    """Return what follows from the numbers of a `job_footprint` row."""
    found: dict[str, float | None] = {
        "memory_available": _first(row, "memory_limit_bytes", "node_memory_total_bytes"),
        "others": _others_cpu(row),
        "node_energy_joules": _product(row, 1.0, "node_power_mean_watts", "elapsed_seconds"),
        "network_speed": _product(row, 1 / BITS_PER_BYTE, "node_network_speed_bits_per_second"),
        "infiniband_speed": _product(
            row, 1 / BITS_PER_BYTE, "node_infiniband_rate_bits_per_second"
        ),
        "cpu_seconds_available": _product(row, 1.0, "elapsed_seconds", "cpus_total"),
    }
    elapsed = _number(row, "elapsed_seconds")
    for measurement, directions in (
        ("network", IN_AND_OUT),
        ("infiniband", IN_AND_OUT),
        ("filesystem", READ_AND_WRITTEN),
    ):
        for direction in directions.values():
            name = f"node_{measurement}_{direction}"
            found[f"{name}_per_second"] = (
                _product(row, 1 / elapsed, f"{name}_bytes") if elapsed else None
            )
    return {name: value for name, value in found.items() if value is not None}


def _others_cpu(row: Row) -> float | None:
    """Return the share of the node's CPUs that everybody but the job used."""
    available = _product(row, 1.0, "elapsed_seconds", "node_cpus_total")
    used, all_used = _number(row, "cpu_seconds"), _number(row, "node_cpu_utilization_mean_ratio")
    if not available or used is None or all_used is None:
        return None
    return max(0.0, all_used - used / available)


def _usages(lines: Iterable[Line], values: Row, gpu: str = "") -> Iterator[Usage]:
    """Yield the lines of which anything is known; a large job has ten thousand."""
    prefix = f"gpu {gpu} " if gpu else ""
    for line in lines:
        mean = _number(values, line.mean) if line.mean else None
        peak = _number(values, line.peak) if line.peak else None
        total = _number(values, line.total) if line.total else None
        if mean is None and peak is None and total is None:
            continue
        samples, told = _number(values, line.counted), values.get(line.told_in)
        yield Usage(
            prefix + line.what,
            line.unit,
            line.scope,
            mean,
            peak,
            total,
            _number(values, line.available) if line.available else None,
            line.source or (told if isinstance(told, str) else ""),
            None if samples is None else int(samples),
            gpu,
        )


def _number(values: Row, field: str) -> float | None:
    """Return a finite number, None for anything else."""
    value = values.get(field)
    return value if isinstance(value, float) and math.isfinite(value) else None


def _first(row: Row, *fields: str) -> float | None:
    known = (_number(row, field) for field in fields)
    return next((number for number in known if number is not None), None)


def _product(row: Row, factor: float, *fields: str) -> float | None:
    for field in fields:
        number = _number(row, field)
        if number is None:
            return None
        factor *= number
    return factor
