"""What text and page say in the same words: who, where and when, and what phases are called."""

import time
from collections import Counter

from agent.inspect.model import JobHeader, JobReport, Phase
from agent.inspect.units import show, show_seconds, some

MOST_HOSTS = 8

SCOPES = {
    "job": "exact for the job",
    "gpu": "exact for the GPU",
    "node": "whole node, others' work included",
}


def header_words(report: JobReport) -> dict[str, str]:
    """Return the lines at the head of a report, by their names."""
    job = report.job
    rows = {
        "Job"
        if job.jobid
        else "Jobs": f"{job.jobid or len(report.tasks)} on cluster {job.cluster}",
        "State": _state(report),
        "User": " / ".join(filter(None, (job.user, job.account, job.partition))),
        "Command": (job.command or job.name) if job.jobid else "",
        "Where": _where(report),
        "Queued": _queued(report),
        "When": _when(job) if job.jobid else "",
    }
    return {name: words for name, words in rows.items() if words}


def phase_name(phase: Phase) -> str:
    """Name a phase, with its variant where several were compared, and its rank where it has one."""
    variant = phase.workload.partition(" ")[2]
    rank = phase.device if phase.device.startswith("rank ") else ""
    return " ".join(filter(None, (phase.phase, variant, rank)))


def moment(moment_ms: float) -> str:
    """Return a moment in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment_ms / 1000))


def _state(report: JobReport) -> str:
    """Return how it went; of several jobs, how many of them."""
    job = report.job
    if report.tasks:
        counts = Counter(task.state for task in report.tasks)
        return ", ".join(f"{count} {state}" for state, count in counts.most_common())
    exit_words = "" if job.exit_code is None else f", exit code {job.exit_code}"
    times = {1: "once", 2: "twice"}.get(job.restart, f"{job.restart} times")
    requeued = f", requeued {times} before this run" if job.restart else ""
    return f"{job.state}{exit_words}{requeued}"


def _where(report: JobReport) -> str:
    """Return hosts and what was allocated; none for a job that waits."""
    job = report.job
    if not job.jobid:
        return ""
    memory = f", {show(job.memory_bytes, 'B')} memory" if job.memory_bytes else ""
    models = dict.fromkeys(gpu.model for node in report.nodes for gpu in node.gpus if gpu.model)
    kinds = f" ({', '.join(models)})" if models else ""
    nodes = f"{len(job.hosts)} nodes: " if len(job.hosts) > 1 else ""
    hosts = f"{nodes}{some(job.hosts, MOST_HOSTS)} " if job.hosts else ""
    if not (hosts or job.cpus):
        return ""
    return f"{hosts}({_count(job.cpus, 'CPU')}{memory}, {_count(job.gpus, 'GPU')}{kinds})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _queued(report: JobReport) -> str:
    job = report.job
    if not job.submit_ms or report.tasks:
        return ""
    waited = "" if job.wait_seconds is None else show_seconds(job.wait_seconds)
    if not job.start_ms:
        return f"{moment(job.submit_ms)}, waiting{f' for {waited}' if waited else ''}"
    return f"{moment(job.submit_ms)}{f', waited {waited}' if waited else ''}"


def _when(job: JobHeader) -> str:
    if not job.start_ms:
        expected = job.expected_start_ms
        plan = f"; Slurm means to start it {moment(expected)}" if expected else ""
        return f"not begun: {job.reason or 'waiting'}{plan}"
    limit = job.time_limit_seconds
    used = f" ({min(1.0, job.elapsed_seconds / limit):.0%})" if limit else ""
    asked = f" of {show_seconds(limit)} asked for{used}" if limit else ""
    seconds = show_seconds(job.elapsed_seconds)
    if job.end_ms is None:
        return f"since {moment(job.start_ms)}, {seconds} so far{asked}"
    return f"{moment(job.start_ms)}, took {seconds}{asked}"
