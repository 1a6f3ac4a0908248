"""Make the report on a job from the store's rows."""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from agent.config import Config
from agent.inspect.lines import gpu_usage, node_usage
from agent.inspect.model import Ceiling, Gpu, GpuBounds, JobHeader, JobReport, Node, Phase
from agent.inspect.outliers import outliers
from agent.inspect.rows import JobRows, Run, number, read_jobs, text, words
from agent.inspect.summary import bound_seconds, summarize
from agent.slurm.hostlist import expand_hosts, natural
from agent.stores.store import Row, Select, Store
from probes.catalogue import BOUNDS

SILENCE_MS = 5 * 60_000
"""A running job of which nothing was heard for so long has lost its agent."""

MOST_PHASES = 5000
"""Rows of phases that are read; a name is one row, so this is some hundred per rank."""


class JobNotFound(Exception):
    """The store knows no such job; the message says what was asked where."""


def not_found(config: Config, jobid: str) -> JobNotFound:
    """Return the error that says where a job was looked for."""
    return JobNotFound(f"no job {jobid} of cluster {config.cluster} in the {config.store} store")


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
    store: Store,
    config: Config,
    jobid: str,
    now_ms: int,
    run: Run | None = None,
    rows: JobRows | None = None,
) -> JobReport:
    """Return the report on a run of a job, by default the last, without findings.

    Raises:
        JobNotFound: the store knows no such job, or no such run of it.
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    if rows is None:
        rows = read_jobs(store, config.cluster, [jobid]).get(jobid, JobRows())
    report = report_of(config, jobid, rows, now_ms, run)
    job = report.job
    until = job.end_ms or now_ms
    where = {"cluster": config.cluster, "jobid": jobid}
    phases = _phases(store, where, job.start_ms, until)
    return msgspec.structs.replace(
        report,
        phases=phases,
        ceilings=_ceilings(store, job, phases, until) if phases else (),
        grafana=_grafana_link(config, jobid, job.start_ms, until),
    )


def report_of(
    config: Config, jobid: str, rows: JobRows, now_ms: int, run: Run | None = None
) -> JobReport:
    """Return the report that rows give: without phases, without findings.

    Raises:
        JobNotFound: there are no rows, or none of that run.

    """
    if not rows.jobs:
        raise not_found(config, jobid)
    ours = rows.of(run or Run())
    if not ours.jobs:
        raise JobNotFound(_no_such_run(jobid, run or Run()))
    names = {str(row["host"]): text(row, "node") for row in ours.jobs}
    gpus: dict[str, list[Row]] = {host: [] for host in names}
    for row in ours.gpus:
        gpus[str(row["host"])].append(row)
    nodes = [
        _node(row, gpus[host], names[host])
        for row in sorted(ours.footprints, key=lambda row: natural(str(row["host"])))
        if (host := str(row["host"])) in names
    ]
    return JobReport(
        job=_header(ours.jobs, nodes, now_ms),
        nodes=nodes,
        phases=(),
        ceilings=(),
        findings=(),
        summary=summarize(nodes),
        outliers=outliers(nodes),
        bounds=bound_seconds(nodes),
    )


def _no_such_run(jobid: str, run: Run) -> str:
    if run.start_ms is None:
        return f"job {jobid} was not requeued {run.restart} times, as far as the store knows"
    return f"no agent told of this run of job {jobid}: the store has others of this id"


def _header(rows: Sequence[Row], nodes: Sequence[Node], now_ms: int) -> JobHeader:
    """Fold the rows that the job's hosts wrote into one header."""
    first = rows[0]
    start_ms = min(int(number(row, "time_ms")) for row in rows)
    ends = [int(number(row, "end_epoch_milliseconds")) for row in rows if _ended(row)]
    hosts = _hosts(rows)
    whole = len(ends) == len(rows) >= len(hosts)
    end_ms = max(ends) if whole else None
    codes = [int(number(row, "exit_code_total")) for row in rows if "exit_code_total" in row]
    return JobHeader(
        jobid=str(first["jobid"]),
        cluster=str(first["cluster"]),
        state=_state(rows, nodes, now_ms),
        user=text(first, "user"),
        account=text(first, "account"),
        partition=text(first, "partition"),
        name=text(first, "name"),
        command=text(first, "command"),
        hosts=hosts,
        nodes=len(hosts),
        cpus=int(sum(number(row, "cpus_total") for row in rows)),
        gpus=int(sum(number(row, "gpus_total") for row in rows)),
        restart=int(number(first, "restart_total")),
        start_ms=start_ms,
        end_ms=end_ms,
        elapsed_seconds=((end_ms or now_ms) - start_ms) / 1000,
        exit_code=max(codes) if end_ms and codes else None,
        raw=str(first["jobid"]),
    )


def _hosts(rows: Sequence[Row]) -> list[str]:
    """Return the names of all nodes of the job, of those too that did not tell of it."""
    named = {text(row, "node") or str(row["host"]) for row in rows}
    for nodes in words(rows, "nodes"):
        try:
            named |= set(expand_hosts(nodes))
        except ValueError:
            continue
    return sorted(named, key=natural)


def _state(rows: Sequence[Row], nodes: Sequence[Node], now_ms: int) -> str:
    """Return the job's state; RUNNING turns into LOST when nothing is heard of it any more."""
    states = {text(row, "state") for row in rows}
    for state in ("FAILED", "RUNNING"):
        if state in states:
            break
    else:
        state = sorted(states)[0]
    heard = max((node.updated_ms for node in nodes), default=0)
    return "LOST" if state == "RUNNING" and now_ms - heard > SILENCE_MS else state


def _node(row: Row, gpus: Iterable[Row], name: str) -> Node:
    host = str(row["host"])
    in_order = sorted(gpus, key=_index)
    return Node(
        host=host,
        elapsed_seconds=number(row, "elapsed_seconds"),
        samples=int(number(row, "samples_total")),
        samples_expected=int(number(row, "samples_expected_total")),
        updated_ms=int(number(row, "updated_epoch_milliseconds")),
        final=number(row, "final_state") == 1.0,
        source=text(row, "source"),
        usage=[*node_usage(row), *(line for gpu in in_order for line in gpu_usage(gpu))],
        bounds=[found for gpu in in_order if (found := _bounds(gpu)).seconds],
        gpus=[_gpu(gpu) for gpu in in_order],
        node=name if name != host else "",
        cpus=number(row, "cpus_total"),
        gpus_not_given=text(row, "gpus_not_given"),
        gpus_not_found=text(row, "gpus_not_found"),
    )


def _index(gpu: Row) -> tuple[int, str]:
    """Order 2 before 10, and instances of a MIG device by their names."""
    name = str(gpu["gpu"])
    return int(name) if name.isdigit() else -1, name


def _gpu(row: Row) -> Gpu:
    return Gpu(
        str(row["gpu"]),
        text(row, "uuid"),
        text(row, "model"),
        text(row, "source"),
        int(number(row, "samples_total")),
        int(number(row, "activity_samples_total")),
    )


def _bounds(gpu: Row) -> GpuBounds:
    held = {bound: number(gpu, f"{bound}_bound_seconds") for bound in BOUNDS}
    known = {bound: seconds for bound, seconds in held.items() if seconds > 0}
    return GpuBounds(str(gpu["gpu"]), text(gpu, "source"), known)


PHASE_NUMBERS = {
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
"""Number of a `Phase` -> field of the `phase` measurement; what is unknown is absent."""


def _phases(store: Store, where: Mapping[str, str], since: int, until: int) -> list[Phase]:
    rows = store.rows(Select("phase", where, since, until, MOST_PHASES))
    return [
        Phase(
            host=str(row["host"]),
            workload=text(row, "workload"),
            phase=text(row, "phase"),
            device=text(row, "device"),
            bound=text(row, "bound") or "unknown",
            duration_seconds=number(row, "duration_seconds"),
            start_ms=int(number(row, "time_ms")),
            dtype=text(row, "dtype"),
            calls=int(number(row, "calls_total")),
            explanation=text(row, "explanation"),
            **{name: number(row, field) for name, field in PHASE_NUMBERS.items() if field in row},
        )
        for row in rows
    ]


def _ceilings(store: Store, job: JobHeader, phases: Iterable[Phase], until: int) -> list[Ceiling]:
    """Return the newest ceiling of each device and kind that was measured during the job."""
    where = {"cluster": job.cluster, "host": sorted({phase.host for phase in phases})}
    newest: dict[tuple[str, str, str, str], Ceiling] = {}
    for row in store.rows(Select("ceiling", where, job.start_ms, until)):
        key = (str(row["host"]), text(row, "device"), text(row, "kind"), text(row, "dtype"))
        newest[key] = Ceiling(
            *key,
            flops_per_second=number(row, "flops_per_second") or None,
            bytes_per_second=number(row, "bytes_per_second") or None,
        )
    return [newest[key] for key in sorted(newest)]


def _grafana_link(config: Config, jobid: str, since: int, until: int) -> str:
    """Return the address of the job's dashboard at the job's time, or nothing."""
    if not config.grafana.url:
        return ""
    query = urlencode(
        {"var-cluster": config.cluster, "var-jobid": jobid, "from": since, "to": until}
    )
    return f"{config.grafana.url.rstrip('/')}/d/rooflight-job/job?{query}"


def _ended(row: Row) -> bool:
    return "end_epoch_milliseconds" in row
