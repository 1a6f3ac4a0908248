"""What Slurm knows better than the agents: who, when, where, and how it ended."""

import msgspec

from agent.inspect.model import JobHeader, JobReport
from agent.slurm.answers import PENDING, SlurmJob


def merged(report: JobReport, job: SlurmJob, now_ms: int) -> JobReport:
    """Return the report with Slurm's word on all that Slurm decides."""
    header = report.job
    notes = list(report.notes)
    if header.state == "LOST" and job.end_ms is None:
        notes.append("no agent of this job was heard of for minutes: the figures end there")
    if job.state == PENDING and job.restart:
        last = job.restart - 1
        notes.append(f"it was requeued: --restart {last} shows the run before")
    return msgspec.structs.replace(report, job=_header(header, job, now_ms), notes=notes)


def _header(header: JobHeader, job: SlurmJob, now_ms: int) -> JobHeader:
    start_ms, end_ms = job.start_ms or header.start_ms, job.end_ms
    waited_until = start_ms or now_ms
    return msgspec.structs.replace(
        header,
        jobid=job.jobid,
        raw=job.raw,
        state=job.state,
        user=job.user or header.user,
        account=job.account or header.account,
        partition=job.partition or header.partition,
        name=job.name or header.name,
        hosts=job.hosts or header.hosts,
        nodes=len(job.hosts) or header.nodes,
        cpus=job.cpus or header.cpus,
        gpus=job.gpus,
        restart=max(job.restart, header.restart),
        start_ms=start_ms,
        end_ms=end_ms,
        elapsed_seconds=max(0, (end_ms or now_ms) - start_ms) / 1000 if start_ms else 0.0,
        exit_code=job.exit_code,
        time_limit_seconds=job.time_limit_seconds,
        reason=job.reason,
        submit_ms=job.submit_ms,
        wait_seconds=max(0, waited_until - job.submit_ms) / 1000 if job.submit_ms else None,
        expected_start_ms=job.expected_start_ms,
        memory_bytes=job.memory_bytes,
    )


def without_samples(cluster: str, job: SlurmJob) -> JobReport:
    """Return a report on a job that no agent told of, to be merged with Slurm's words."""
    words = f"no agent sampled job {job.raw}, as far as the store knows"
    notes = [] if job.state == PENDING else [words]
    header = JobHeader(job.jobid, cluster, job.state, raw=job.raw, nodes=len(job.hosts))
    return JobReport(header, (), (), (), (), notes=notes)
