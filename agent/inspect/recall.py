"""Fill a report from Slurm's comments (AdminComment), where the store told nothing of the job."""

import msgspec

from agent.inspect.ask import Asked
from agent.inspect.comment import OURS, Content, NotAComment, decode, told_by
from agent.inspect.model import JobHeader, JobReport, TaskSummary
from agent.inspect.tasks import task_of
from agent.slurm.accounting import Ask, SlurmUnreachable, run_command
from agent.slurm.comments import Comment, comments

Found = dict[tuple[str, int], str]
"""The comments of ours: by id and start of the run."""


def recalled(asked: Asked, ask: Ask = run_command) -> Asked:
    """Return the report with what comments tell, if it has no figures; its notes say so."""
    report = asked.report
    missing = report.tasks if report.tasks else not report.nodes and report.job.end_ms
    if not missing or not report.job.jobid:
        return asked
    try:
        found = _ours(comments(report.job.jobid, ask))
    except SlurmUnreachable:
        return asked
    if not found:
        return asked
    return _tasks_told(asked, found) if report.tasks else _job_told(asked, found)


def _ours(found: list[Comment]) -> Found:
    return {
        (comment.jobid, comment.start_ms): comment.text
        for comment in found
        if comment.text.startswith(OURS)
    }


def _job_told(asked: Asked, found: Found) -> Asked:
    report = asked.report
    text = found.get((report.job.jobid, report.job.start_ms))
    if text is None:
        return asked
    try:
        content = decode(text)
    except NotAComment as words:
        notes = [*report.notes, f"the summary in AdminComment cannot be used: {words}"]
        return msgspec.structs.replace(asked, report=msgspec.structs.replace(report, notes=notes))
    told = told_by(content, msgspec.structs.replace(report, notes=[_note(asked, content)]))
    return Asked(told)


def _note(asked: Asked, content: Content) -> str:
    """Say where the figures come from, and why."""
    why = f"does not answer: {asked.store_words}" if asked.store_words else "has nothing of it"
    kept = "" if content.is_whole else f"; {len(content.nodes)} of {content.hosts} hosts are in it"
    return f"these figures are the summary that Slurm keeps in AdminComment{kept}: the store {why}"


def _tasks_told(asked: Asked, found: Found) -> Asked:
    """Return the report with the tasks' lines that comments fill."""
    report = asked.report
    tasks = [_task_told(task, report.job.cluster, found) for task in report.tasks]
    filled = sum(new is not old for new, old in zip(tasks, report.tasks, strict=True))
    if not filled:
        return asked
    note = f"{filled} of {len(tasks)} lines are from the summaries that Slurm keeps in AdminComment"
    if asked.store_words:
        note = f"{note}: the store does not answer: {asked.store_words}"
    return Asked(msgspec.structs.replace(report, tasks=tasks, notes=[*report.notes, note]))


def _task_told(task: TaskSummary, cluster: str, found: Found) -> TaskSummary:
    text = found.get((task.jobid, task.start_ms))
    if text is None or task.cpu_mean_ratio is not None or task.memory_peak_bytes is not None:
        return task
    header = JobHeader(
        task.jobid,
        cluster,
        task.state,
        hosts=task.hosts,
        nodes=len(task.hosts),
        elapsed_seconds=task.elapsed_seconds,
        name=task.name,
        cpus=task.cpus,
        gpus=task.gpus,
        start_ms=task.start_ms,
        exit_code=task.exit_code,
    )
    try:
        return task_of(told_by(decode(text), JobReport(header, (), (), (), ())))
    except NotAComment:
        return task
