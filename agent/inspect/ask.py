"""Put together what the store and Slurm know of a job; each is useful without the other."""

from collections.abc import Sequence

import msgspec

from agent.config import Config
from agent.inspect.collect import JobNotFound, collect, latest_jobid
from agent.inspect.findings import find
from agent.inspect.model import JobHeader, JobReport, Node, TaskSummary
from agent.slurm.accounting import (
    JOBID,
    PENDING,
    Ask,
    SlurmJob,
    SlurmUnreachable,
    jobs,
    latest,
    run_command,
)
from agent.stores.store import Store, StoreRefused, StoreUnreachable

LAST = "last"


class Asked(msgspec.Struct, frozen=True):
    """A report, and whether the store could be asked for it."""

    report: JobReport
    store_words: str = ""


def inspect(
    store: Store,
    config: Config,
    jobid: str,
    now_ms: int,
    *,
    restart: int | None = None,
    ask: Ask = run_command,
) -> Asked:
    """Return the report on a job, by whatever of store and Slurm answers.

    Raises:
        JobNotFound: neither knows the job.
        StoreUnreachable, StoreRefused: the store does not answer, and Slurm knows nothing.

    """
    if jobid == LAST:
        jobid = latest_jobid(store, config.cluster)
    known, notes = _ask_slurm(jobid, ask)
    runs = latest(known)
    if len(runs) > 1:
        return Asked(_summary(store, config, jobid, runs, now_ms, notes))
    job = _run_of(known, restart)
    try:
        report = collect(store, config, job.raw if job else jobid, now_ms, restart)
    except JobNotFound:
        if job is None:
            raise
        report = _without_samples(config, job, now_ms)
    except (StoreUnreachable, StoreRefused) as error:
        if job is None:
            raise
        return Asked(_finished(_without_samples(config, job, now_ms), job, notes), str(error))
    return Asked(_finished(report, job, notes))


def _ask_slurm(jobid: str, ask: Ask) -> tuple[list[SlurmJob], list[str]]:
    """Return the runs that Slurm knows, and a note if it could not be asked."""
    if not JOBID.fullmatch(jobid):
        return [], []
    try:
        return jobs(jobid, ask), []
    except SlurmUnreachable as error:
        return [], [f"Slurm could not be asked ({error}): what follows is the store's alone"]


def _run_of(runs: Sequence[SlurmJob], restart: int | None) -> SlurmJob | None:
    """Return the run after so many requeues, or the last one."""
    if restart is not None and restart < len(runs):
        return runs[restart]
    return runs[-1] if runs else None


def _finished(report: JobReport, job: SlurmJob | None, notes: Sequence[str]) -> JobReport:
    """Add what Slurm knows better, and find again: some rules look at it."""
    if job is not None:
        report = msgspec.structs.replace(report, job=merged(report.job, job))
    report = msgspec.structs.replace(report, notes=(*report.notes, *notes))
    return msgspec.structs.replace(report, findings=find(report))


def merged(header: JobHeader, job: SlurmJob) -> JobHeader:
    """Return the header with Slurm's word on all that Slurm decides."""
    end_ms = job.end_ms or header.end_ms
    return msgspec.structs.replace(
        header,
        jobid=job.jobid,
        raw=job.raw,
        state=job.state,
        user=job.user or header.user,
        account=job.account,
        partition=job.partition,
        name=job.name,
        hosts=job.hosts or header.hosts,
        nodes=len(job.hosts) or header.nodes,
        cpus=job.cpus or header.cpus,
        gpus=job.gpus,
        start_ms=job.start_ms or header.start_ms,
        end_ms=end_ms,
        elapsed_seconds=(
            (end_ms - job.start_ms) / 1000 if end_ms and job.start_ms else header.elapsed_seconds
        ),
        exit_code=header.exit_code if job.exit_code is None else job.exit_code,
        time_limit_seconds=job.time_limit_seconds,
        reason=job.reason,
    )


def _without_samples(config: Config, job: SlurmJob, now_ms: int) -> JobReport:
    """Return a report from Slurm's words alone."""
    elapsed = max(0, (job.end_ms or now_ms) - job.start_ms) / 1000 if job.start_ms else 0.0
    header = JobHeader(job.jobid, config.cluster, job.state, elapsed_seconds=elapsed)
    words = f"no agent sampled job {job.raw}, as far as the store knows"
    notes = [] if job.state == PENDING else [words]
    return JobReport(merged(header, job), (), (), (), (), notes=notes)


def _summary(
    store: Store,
    config: Config,
    jobid: str,
    runs: Sequence[SlurmJob],
    now_ms: int,
    notes: Sequence[str],
) -> JobReport:
    """Return a report with a line for each task of an array or component of a het job."""
    tasks = [_task(store, config, run, now_ms) for run in runs]
    states = sorted({run.state for run in runs})
    starts = [run.start_ms for run in runs if run.start_ms]
    ends = [run.end_ms for run in runs if run.end_ms]
    finished = len(ends) == len(runs)
    start_ms = min(starts, default=0)
    end_ms = max(ends) if finished else None
    header = JobHeader(
        jobid,
        config.cluster,
        ", ".join(states),
        user=runs[0].user,
        account=runs[0].account,
        partition=runs[0].partition,
        name=runs[0].name,
        hosts=sorted({host for run in runs for host in run.hosts}),
        nodes=len({host for run in runs for host in run.hosts}),
        cpus=sum(run.cpus for run in runs),
        gpus=sum(run.gpus for run in runs),
        start_ms=start_ms,
        end_ms=end_ms,
        elapsed_seconds=((end_ms or now_ms) - start_ms) / 1000 if start_ms else 0.0,
    )
    return JobReport(header, (), (), (), (), notes=notes, tasks=tasks)


def _task(store: Store, config: Config, run: SlurmJob, now_ms: int) -> TaskSummary:
    try:
        nodes = collect(store, config, run.raw, now_ms).nodes
    except JobNotFound:
        nodes = ()
    elapsed = ((run.end_ms or now_ms) - run.start_ms) / 1000 if run.start_ms else 0.0
    return TaskSummary(
        run.jobid,
        run.state,
        run.hosts,
        elapsed,
        cpu_mean_ratio=_mean(nodes, "cpu"),
        memory_peak_bytes=_highest(nodes, "memory"),
        gpu_mean_ratio=_mean(nodes, " utilization"),
    )


def _mean(nodes: Sequence[Node], ending: str) -> float | None:
    """Return the mean of a line over all nodes (and GPUs, if the line is theirs)."""
    found = [
        usage.mean
        for node in nodes
        for usage in node.usage
        if usage.scope != "node" and usage.what.endswith(ending) and usage.mean is not None
    ]
    return sum(found) / len(found) if found else None


def _highest(nodes: Sequence[Node], what: str) -> float | None:
    peaks = [
        usage.peak
        for node in nodes
        for usage in node.usage
        if usage.what == what and usage.scope == "job" and usage.peak is not None
    ]
    return max(peaks, default=None)
