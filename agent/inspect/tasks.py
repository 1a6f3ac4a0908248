"""Many jobs in one report: an array, a heterogeneous job, what a user ran lately."""

from collections.abc import Iterable, Sequence

from agent.inspect.findings import RULES_BY_ID, SEVERITIES
from agent.inspect.model import Finding, JobHeader, JobReport, TaskSummary
from agent.inspect.units import some
from agent.slurm.hostlist import natural

MOST_NAMED = 8


def of_many(
    cluster: str,
    jobid: str,
    reports: Sequence[JobReport],
    now_ms: int,
    notes: Sequence[str] = (),
) -> JobReport:
    """Return a report with a line for each job, and what was found in how many of them.

    Args:
        cluster: of all of them.
        jobid: of the whole; empty for jobs that have nothing to do with each other.
        reports: with their findings.
        now_ms: milliseconds since 1970.
        notes: what a reader has to know.

    """
    tasks = [task_of(report) for report in reports]
    header = _header(cluster, jobid, [report.job for report in reports], now_ms)
    return JobReport(header, (), (), (), _found(reports), notes=notes, tasks=tasks)


def task_of(report: JobReport) -> TaskSummary:
    """Return a job's line."""
    job = report.job
    lines = {line.what: line for line in report.summary}
    cpu, gpu, energy = (lines.get(name) for name in ("cpu", "gpu utilization", "gpu energy"))
    memory = max(_memory(report), default=None)
    return TaskSummary(
        job.jobid,
        job.state,
        job.hosts,
        job.elapsed_seconds,
        cpu_mean_ratio=cpu.mean if cpu else None,
        memory_peak_bytes=memory[0] if memory else None,
        memory_available_bytes=memory[1] or None if memory else None,
        gpu_mean_ratio=gpu.mean if gpu else None,
        energy_joules=energy.total if energy else None,
        name=job.name,
        cpus=job.cpus,
        gpus=job.gpus,
        start_ms=job.start_ms,
        exit_code=job.exit_code,
        findings=list(dict.fromkeys(finding.id for finding in _telling(report))),
    )


def _memory(report: JobReport) -> Iterable[tuple[float, float]]:
    """Yield the peak of each host, and what that one had."""
    for node in report.nodes:
        line = node.line("memory")
        if line and line.peak is not None:
            yield line.peak, line.available or 0.0


def _telling(report: JobReport) -> list[Finding]:
    """Return what is worth a word in a list of many jobs."""
    return [finding for finding in report.findings if finding.severity != "info"]


def _found(reports: Sequence[JobReport]) -> list[Finding]:
    """Return one finding for each rule that fired for any job."""
    jobids: dict[str, list[str]] = {}
    for report in reports:
        for name in dict.fromkeys(finding.id for finding in _telling(report)):
            jobids.setdefault(name, []).append(report.job.jobid)
    found = [
        Finding(
            name,
            RULES_BY_ID[name].severity,
            f"{name} in {len(where)} of {len(reports)} jobs: {some(where, MOST_NAMED)}",
            RULES_BY_ID[name].advice,
            where,
        )
        for name, where in jobids.items()
    ]
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), -len(each.places)))


def _header(cluster: str, jobid: str, jobs: Sequence[JobHeader], now_ms: int) -> JobHeader:
    """Return what the jobs have in common, and their sums."""
    starts = [job.start_ms for job in jobs if job.start_ms]
    ends = [job.end_ms for job in jobs if job.end_ms is not None]
    submits = [job.submit_ms for job in jobs if job.submit_ms]
    start_ms = min(starts, default=0)
    end_ms = max(ends) if ends and len(ends) == len(jobs) else None
    hosts = sorted({host for job in jobs for host in job.hosts}, key=natural)
    return JobHeader(
        jobid,
        cluster,
        ", ".join(sorted({job.state for job in jobs})),
        user=_same(job.user for job in jobs),
        account=_same(job.account for job in jobs),
        partition=_same(job.partition for job in jobs),
        name=_same(job.name for job in jobs),
        hosts=hosts,
        nodes=len(hosts),
        cpus=sum(job.cpus for job in jobs),
        gpus=sum(job.gpus for job in jobs),
        start_ms=start_ms,
        end_ms=end_ms,
        elapsed_seconds=((end_ms or now_ms) - start_ms) / 1000 if start_ms else 0.0,
        reason=", ".join(dict.fromkeys(job.reason for job in jobs if job.reason)),
        submit_ms=min(submits, default=0),
    )


def _same(words: Iterable[str]) -> str:
    """Return what all say, or nothing."""
    different = set(words)
    return different.pop() if len(different) == 1 else ""
