"""Many jobs as text: one line each."""

import time
from collections.abc import Iterator, Sequence

from agent.inspect.layout import Column, table
from agent.inspect.model import JobReport, TaskSummary
from agent.inspect.units import show, show_seconds

MOST_ROWS = 100
LONGEST_NAME = 12
LONGEST_JOBID = 20
SHOWN_FIRST = ("FAILED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "CANCELLED", "RUNNING")
NUMBERS = ("time", "cpus", "cpu", "memory", "gpus", "gpu")


def task_lines(report: JobReport, width: int) -> Iterator[str]:
    """Yield a line for each job; of very many those that have something to tell."""
    tasks = telling(report.tasks)
    apart = not report.job.jobid
    left = [Column(name) for name in ("job", *(("name", "began") if apart else ()), "state")]
    numbers = [Column(name, right=True) for name in NUMBERS]
    last = Column("findings" if apart else "hosts, findings")
    rows = [[*_cells(task, apart=apart)] for task in tasks]
    columns = [*left, *numbers, last]
    yield from table(columns, rows, width, fold=len(columns) - 1)
    if left_out := len(report.tasks) - len(tasks):
        yield f"{left_out} more, of which there is nothing to tell: --json"


def telling(tasks: Sequence[TaskSummary]) -> list[TaskSummary]:
    """Return at most `MOST_ROWS`: those that failed or run or in which something was found."""
    if len(tasks) <= MOST_ROWS:
        return list(tasks)
    first = [task for task in tasks if task.state in SHOWN_FIRST or task.findings]
    chosen = {task.jobid for task in (first or tasks)[:MOST_ROWS]}
    return [task for task in tasks if task.jobid in chosen]


def _cells(task: TaskSummary, *, apart: bool) -> Iterator[str]:
    yield _short(task.jobid, LONGEST_JOBID) if not apart else task.jobid
    if apart:
        yield _short(task.name, LONGEST_NAME)
        began = time.localtime(task.start_ms / 1000)
        yield time.strftime("%m-%d %H:%M", began) if task.start_ms else ""
    code = f" {task.exit_code}" if task.exit_code else ""
    yield f"{task.state}{code}"
    yield show_seconds(task.elapsed_seconds) if task.start_ms else ""
    yield str(task.cpus or "")
    yield _shown(task.cpu_mean_ratio, "ratio")
    yield _shown(task.memory_peak_bytes, "B")
    yield str(task.gpus or "")
    yield _shown(task.gpu_mean_ratio, "ratio")
    words = (() if apart else task.hosts, task.findings)
    yield ", ".join(each for part in words for each in part)


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}~"


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else show(value, unit)
