"""Ask the store for a job and make the report from its rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from agent.config import Config
from agent.inspect.findings import find
from agent.inspect.model import Ceiling, GpuBounds, JobHeader, JobReport, Node, Phase, Usage
from agent.stores.store import Row, Select, Store
from probes.catalogue import BOUND_SECONDS

SILENCE_MS = 5 * 60_000
"""A running job of which nothing was heard for so long has lost its agent."""

ONE_START_MS = 10 * 60_000
"""Hosts of one run begin within this time; an older row is of another job with the same id."""


class JobNotFound(Exception):
    """The store knows no such job; the message says what was asked where."""


class _Line(NamedTuple):
    """A line of the utilisation table: which fields of a footprint it shows."""

    what: str
    unit: str
    scope: str
    mean: str = ""
    peak: str = ""
    total: str = ""
    available: str = ""


NODE_LINES: tuple[_Line, ...] = (
    _Line("cpu", "ratio", "job", "cpu_utilization_mean_ratio", "cpu_utilization_peak_ratio"),
    _Line("cpu time", "s", "job", total="cpu_seconds"),
    _Line(
        "memory", "B", "job", "memory_mean_bytes", "memory_peak_bytes", available="memory_available"
    ),
    _Line("processes", "count", "job", peak="processes_peak_total"),
    _Line("disk read", "B", "job", total="read_bytes"),
    _Line("disk written", "B", "job", total="write_bytes"),
    _Line("temp disk held", "B", "job", peak="tempdisk_job_peak_bytes"),
    _Line(
        "node cpu",
        "ratio",
        "node",
        "node_cpu_utilization_mean_ratio",
        "node_cpu_utilization_peak_ratio",
    ),
    _Line("node cpu others", "ratio", "node", "others"),
    _Line(
        "node memory",
        "B",
        "node",
        "node_memory_used_mean_bytes",
        "node_memory_used_peak_bytes",
        available="node_memory_total_bytes",
    ),
    _Line("node power", "W", "node", "node_power_mean_watts", "node_power_peak_watts"),
    _Line("cpu energy", "J", "node", total="node_cpu_energy_joules"),
    _Line("network in", "B", "node", total="node_network_receive_bytes"),
    _Line("network out", "B", "node", total="node_network_transmit_bytes"),
    _Line("loopback", "B", "node", total="node_loopback_bytes"),
    _Line("infiniband in", "B", "node", total="node_infiniband_receive_bytes"),
    _Line("infiniband out", "B", "node", total="node_infiniband_transmit_bytes"),
    _Line("all disks read", "B", "node", total="node_blockdisk_read_bytes"),
    _Line("all disks written", "B", "node", total="node_blockdisk_write_bytes"),
    _Line("shared files read", "B", "node", total="node_filesystem_read_bytes"),
    _Line("shared files written", "B", "node", total="node_filesystem_write_bytes"),
    _Line(
        "temp disk used",
        "B",
        "node",
        peak="node_tempdisk_used_peak_bytes",
        available="node_tempdisk_total_bytes",
    ),
    _Line("waited for cpu", "s", "node", total="node_cpu_pressure_seconds"),
    _Line("waited for memory", "s", "node", total="node_memory_pressure_seconds"),
    _Line("waited for disk", "s", "node", total="node_io_pressure_seconds"),
)

GPU_LINES: tuple[_Line, ...] = (
    _Line("utilization", "ratio", "gpu", "utilization_mean_ratio", "utilization_peak_ratio"),
    _Line(
        "memory",
        "B",
        "gpu",
        "memory_used_mean_bytes",
        "memory_used_peak_bytes",
        available="memory_total_bytes",
    ),
    _Line(
        "power",
        "W",
        "gpu",
        "power_mean_watts",
        "power_peak_watts",
        available="power_limit_watts",
    ),
    _Line("energy", "J", "gpu", total="energy_joules"),
    _Line("sm active", "ratio", "gpu", "sm_active_mean_ratio"),
    _Line("tensor active", "ratio", "gpu", "tensor_active_mean_ratio"),
    _Line("dram active", "ratio", "gpu", "dram_active_mean_ratio"),
    _Line("throttled", "s", "gpu", total="throttled_seconds"),
)


def latest_jobid(store: Store, cluster: str) -> str:
    """Return the id of the job that began last on a cluster.

    Raises:
        JobNotFound: there is none.
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    rows = store.rows(Select("job", {"cluster": cluster}, newest=1))
    if not rows:
        raise JobNotFound(f"no job of cluster {cluster} is in the store yet")
    return str(rows[-1]["jobid"])


def collect(
    store: Store, config: Config, jobid: str, now_ms: int, restart: int | None = None
) -> JobReport:
    """Return the report on a run of a job: the latest, or the one after so many requeues.

    Raises:
        JobNotFound: the store knows no such job, or no such run of it.
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    where = {"cluster": config.cluster, "jobid": jobid}
    jobs = store.rows(Select("job", where))
    if not jobs:
        raise JobNotFound(f"no job {jobid} of cluster {config.cluster} in the {config.store} store")
    hosts = one_run(jobs, restart)
    if not hosts:
        raise JobNotFound(f"job {jobid} was not requeued {restart} times")
    footprints = _of_run(store.rows(Select("job_footprint", where)), hosts)
    gpus = _of_run(store.rows(Select("job_gpu_footprint", where)), hosts)
    nodes = [_node(row, [gpu for gpu in gpus if gpu["host"] == row["host"]]) for row in footprints]
    header = _header(hosts, nodes, now_ms)
    until = header.end_ms or now_ms
    report = JobReport(
        job=header,
        nodes=nodes,
        phases=_phases(store, where, header.start_ms, until),
        ceilings=_ceilings(store, header, until),
        findings=[],
        grafana=_grafana_link(config, header, until),
    )
    return msgspec.structs.replace(report, findings=find(report))


def one_run(rows: Sequence[Row], restart: int | None) -> list[Row]:
    """Return the `job` rows of one run, one for each host, each with its own host's start time."""
    wanted = max(_number(row, "restart_total") for row in rows) if restart is None else restart
    runs = [row for row in rows if _number(row, "restart_total") == wanted]
    newest = {
        str(row["host"]): row for row in sorted(runs, key=lambda row: _number(row, "time_ms"))
    }
    last = max((_number(row, "time_ms") for row in newest.values()), default=0.0)
    return [row for row in newest.values() if last - _number(row, "time_ms") <= ONE_START_MS]


def _of_run(rows: Iterable[Row], hosts: Iterable[Row]) -> list[Row]:
    """Return the rows that belong to the given `job` rows: of the same host and start."""
    starts = {(row["host"], row["time_ms"]) for row in hosts}
    return [row for row in rows if (row["host"], row["time_ms"]) in starts]


def _header(rows: Sequence[Row], nodes: Sequence[Node], now_ms: int) -> JobHeader:
    """Fold the rows that the job's hosts wrote into one header."""
    first = rows[0]
    start_ms = min(int(_number(row, "time_ms")) for row in rows)
    ends = [int(_number(row, "end_epoch_milliseconds")) for row in rows if _ended(row)]
    end_ms = max(ends) if len(ends) == len(rows) else None
    codes = [int(_number(row, "exit_code_total")) for row in rows if "exit_code_total" in row]
    return JobHeader(
        jobid=str(first["jobid"]),
        cluster=str(first["cluster"]),
        state=_state(rows, nodes, now_ms),
        user=_text(first, "user"),
        account=_text(first, "account"),
        partition=_text(first, "partition"),
        name=_text(first, "name"),
        command=_text(first, "command"),
        hosts=sorted({host for row in rows for host in _text(row, "hosts").split(",")}),
        nodes=len(rows),
        cpus=int(sum(_number(row, "cpus_total") for row in rows)),
        gpus=int(sum(_number(row, "gpus_total") for row in rows)),
        restart=int(_number(first, "restart_total")),
        start_ms=start_ms,
        end_ms=end_ms,
        elapsed_seconds=((end_ms or now_ms) - start_ms) / 1000,
        exit_code=max(codes) if end_ms and codes else None,
    )


def _state(rows: Sequence[Row], nodes: Sequence[Node], now_ms: int) -> str:
    """Return the job's state; RUNNING turns into LOST when nothing is heard of it any more."""
    states = {_text(row, "state") for row in rows}
    for state in ("FAILED", "RUNNING"):
        if state in states:
            break
    else:
        state = sorted(states)[0]
    heard = max((node.updated_ms for node in nodes), default=0)
    return "LOST" if state == "RUNNING" and now_ms - heard > SILENCE_MS else state


def _node(row: Row, gpus: Iterable[Row]) -> Node:
    values = dict(row)
    limit = values.get("memory_limit_bytes", values.get("node_memory_total_bytes"))
    if limit is not None:
        values["memory_available"] = limit
    others = _others_cpu(row)
    if others is not None:
        values["others"] = others
    usage = _usages(NODE_LINES, values)
    in_order = sorted(gpus, key=lambda each: str(each["gpu"]))
    for gpu in in_order:
        usage += _usages(GPU_LINES, gpu, f"gpu {gpu['gpu']} ")
    return Node(
        host=str(row["host"]),
        elapsed_seconds=_number(row, "elapsed_seconds"),
        samples=int(_number(row, "samples_total")),
        samples_expected=int(_number(row, "samples_expected_total")),
        updated_ms=int(_number(row, "updated_epoch_milliseconds")),
        final=_number(row, "final_state") == 1.0,
        source=_text(row, "source"),
        usage=usage,
        bounds=[found for gpu in in_order if (found := _bounds(gpu)).seconds],
    )


def _bounds(gpu: Row) -> GpuBounds:
    held = {name.split("_")[0]: _number(gpu, name) for name in BOUND_SECONDS}
    known = {bound: seconds for bound, seconds in held.items() if seconds > 0}
    return GpuBounds(str(gpu["gpu"]), _text(gpu, "source"), known)


def _others_cpu(row: Row) -> float | None:
    """Return the share of the node's CPUs that everybody but the job used."""
    needed = ("node_cpu_utilization_mean_ratio", "cpu_seconds", "node_cpus_total")
    available = _number(row, "elapsed_seconds") * _number(row, "node_cpus_total")
    if available <= 0 or any(name not in row for name in needed):
        return None
    return max(0.0, _number(row, needed[0]) - _number(row, "cpu_seconds") / available)


def _usages(lines: Iterable[_Line], values: Mapping[str, object], prefix: str = "") -> list[Usage]:
    """Return the lines of which anything is known."""
    found = []
    for line in lines:
        numbers = {
            name: values.get(getattr(line, name)) for name in ("mean", "peak", "total", "available")
        }
        known = {name: value for name, value in numbers.items() if isinstance(value, float)}
        if known.keys() - {"available"}:
            found.append(Usage(prefix + line.what, line.unit, line.scope, **known))
    return found


def _phases(store: Store, where: Mapping[str, str], since: int, until: int) -> list[Phase]:
    rows = store.rows(Select("phase", where, since, until))
    optional: dict[str, str] = {
        "flops": "flops_total",
        "bytes_per_second": "moved_bytes_per_second",
        **{
            name: name
            for name in (
                "moved_bytes",
                "flops_per_second",
                "intensity_flops_per_byte",
                "ridge_flops_per_byte",
                "compute_ratio",
                "memory_ratio",
                "link_ratio",
                "io_ratio",
                "confidence_ratio",
            )
        },
    }
    return [
        Phase(
            host=str(row["host"]),
            workload=_text(row, "workload"),
            phase=_text(row, "phase"),
            device=_text(row, "device"),
            bound=_text(row, "bound") or "unknown",
            duration_seconds=_number(row, "duration_seconds"),
            start_ms=int(_number(row, "time_ms")),
            dtype=_text(row, "dtype"),
            calls=int(_number(row, "calls_total")),
            explanation=_text(row, "explanation"),
            **{name: _number(row, field) for name, field in optional.items() if field in row},
        )
        for row in rows
    ]


def _ceilings(store: Store, header: JobHeader, until: int) -> list[Ceiling]:
    """Return the newest ceiling of each device and kind that was measured during the job."""
    newest: dict[tuple[str, str, str, str], Ceiling] = {}
    for host in header.hosts:
        where = {"cluster": header.cluster, "host": host}
        for row in store.rows(Select("ceiling", where, header.start_ms, until)):
            key = (host, _text(row, "device"), _text(row, "kind"), _text(row, "dtype"))
            newest[key] = Ceiling(
                *key,
                flops_per_second=_number(row, "flops_per_second") or None,
                bytes_per_second=_number(row, "bytes_per_second") or None,
            )
    return [newest[key] for key in sorted(newest)]


def _grafana_link(config: Config, header: JobHeader, until: int) -> str:
    """Return the address of the job's dashboard at the job's time, or nothing."""
    if not config.grafana.url:
        return ""
    query = urlencode(
        {
            "var-cluster": header.cluster,
            "var-jobid": header.jobid,
            "from": header.start_ms,
            "to": until,
        }
    )
    return f"{config.grafana.url.rstrip('/')}/d/rooflight-job/job?{query}"


def _ended(row: Row) -> bool:
    return "end_epoch_milliseconds" in row


def _number(row: Row, name: str) -> float:
    value = row.get(name, 0.0)
    return 0.0 if isinstance(value, str) else value


def _text(row: Row, name: str) -> str:
    value = row.get(name, "")
    return value if isinstance(value, str) else ""
