"""Put together what the store and Slurm know of a job; each is useful without the other."""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from agent.config import Config
from agent.inspect.collect import JobNotFound, collect, latest_jobid, not_found, report_of
from agent.inspect.findings import find
from agent.inspect.header import merged, without_samples
from agent.inspect.model import JobReport
from agent.inspect.rows import JobRows, Run, number, read_jobs, text
from agent.inspect.tasks import of_many
from agent.slurm.accounting import (
    JOBID,
    Ask,
    SlurmJob,
    SlurmUnreachable,
    jobs,
    jobs_of,
    latest,
    run_command,
)
from agent.slurm.answers import PENDING
from agent.stores.settings import SettingsError
from agent.stores.store import Row, Select, Store, StoreRefused, StoreUnreachable

LAST = "last"
STORE_ERRORS = (StoreUnreachable, StoreRefused, SettingsError)

MaySee = Callable[[SlurmJob], bool]
"""Tells whether a run that Slurm told of may be shown to who asks."""

MOST_RECENT = 10_000
"""Rows of jobs that are looked through for one user's, where Slurm does not answer."""

MOST_COMPONENTS = 256
"""Components of a heterogeneous job (Slurm's own limit is 128)."""


class Asked(msgspec.Struct, frozen=True):
    """A report, and whether the store could be asked for it."""

    report: JobReport
    store_words: str = ""


class _Slurm(NamedTuple):
    """What Slurm said: the runs that it knows, and why it could not be asked."""

    runs: Sequence[SlurmJob] = ()
    silence: str = ""
    asked: bool = False

    def notes(self) -> list[str]:
        """Return what a reader of the report has to know of it."""
        words = f"Slurm could not be asked ({self.silence}): what follows is the store's alone"
        return [words] if self.silence else []


def inspect(
    store: Store,
    config: Config,
    jobid: str,
    now_ms: int,
    *,
    restart: int | None = None,
    ask: Ask = run_command,
    may_see: MaySee = lambda run: True,
) -> Asked:
    """Return the report on a job, by whatever of store and Slurm answers.

    What Slurm tells and `may_see` does not let through counts as not told.

    Raises:
        JobNotFound: neither knows the job.
        StoreUnreachable, StoreRefused, SettingsError: the store does not answer, and Slurm knows
            nothing.

    """
    if jobid == LAST:
        jobid = latest_jobid(store, config.cluster)
    slurm = _Slurm()
    if JOBID.fullmatch(jobid):
        slurm = _ask_slurm(lambda: [run for run in jobs(jobid, ask) if may_see(run)])
    runs = latest(slurm.runs)
    if restart is not None:
        runs = [run for run in slurm.runs if run.restart == restart]
    if len(runs) > 1:
        return _several(store, config, jobid, runs, now_ms)
    if runs:
        return _one(store, config, runs[0], now_ms)
    try:
        raw = slurm.runs[-1].raw if slurm.runs else jobid
        return _from_store(store, config, raw, now_ms, Run(restart), slurm)
    except JobNotFound as words:
        raise JobNotFound(f"{words}{_where_else(slurm)}") from words


def recent(
    store: Store,
    config: Config,
    user: str,
    since_ms: int,
    now_ms: int,
    *,
    ask: Ask = run_command,
) -> Asked:
    """Return a line for each job of a user that waited or ran since a moment.

    They are those that Slurm knows; where no Slurm answers, those that the store has.

    Raises:
        StoreUnreachable, StoreRefused, SettingsError: neither answers.

    """
    slurm = _ask_slurm(lambda: jobs_of(user, since_ms, ask))
    if not slurm.silence:
        return _several(store, config, "", latest(slurm.runs), now_ms)
    rows = store.rows(Select("job", {"cluster": config.cluster}, newest=MOST_RECENT))
    ours = [row for row in rows if text(row, "user") == user and _after(row, since_ms)]
    jobids = list(dict.fromkeys(str(row["jobid"]) for row in ours))
    found = read_jobs(store, config.cluster, jobids)
    reports = [_judged(report_of(config, each, found[each], now_ms)) for each in jobids]
    return Asked(of_many(config.cluster, "", reports, now_ms, slurm.notes()))


def _after(row: Row, since_ms: int) -> bool:
    return number(row, "end_epoch_milliseconds") >= since_ms or "end_epoch_milliseconds" not in row


def _ask_slurm(question: Callable[[], list[SlurmJob]]) -> _Slurm:
    """Return what Slurm knows, or why it could not be asked."""
    try:
        return _Slurm(question(), asked=True)
    except SlurmUnreachable as error:
        return _Slurm(silence=str(error), asked=True)


def _where_else(slurm: _Slurm) -> str:
    if slurm.silence:
        return f"; Slurm could not be asked ({slurm.silence})"
    return "; sacct and squeue do not know it either" if slurm.asked else ""


def _one(store: Store, config: Config, run: SlurmJob, now_ms: int) -> Asked:
    """Return the report on a run that Slurm knows."""
    report, words = without_samples(config.cluster, run), ""
    if run.state != PENDING:
        try:
            report = collect(store, config, run.raw, now_ms, _run(run))
        except JobNotFound:
            pass
        except STORE_ERRORS as error:
            words = str(error)
    return Asked(_judged(merged(report, run, now_ms)), words)


def _several(
    store: Store, config: Config, jobid: str, runs: Sequence[SlurmJob], now_ms: int
) -> Asked:
    """Return a report with a line for each run."""
    words = ""
    rows: dict[str, JobRows] = {}
    begun = list(dict.fromkeys(run.raw for run in runs if run.state != PENDING))
    try:
        rows = read_jobs(store, config.cluster, begun)
    except STORE_ERRORS as error:
        words = str(error)
    reports = [_judged(_of_run(config, run, rows, now_ms)) for run in runs]
    return Asked(of_many(config.cluster, jobid, reports, now_ms), words)


def _of_run(config: Config, run: SlurmJob, rows: dict[str, JobRows], now_ms: int) -> JobReport:
    report = without_samples(config.cluster, run)
    if run.state != PENDING and run.raw in rows:
        with contextlib.suppress(JobNotFound):
            report = report_of(config, run.raw, rows[run.raw], now_ms, _run(run))
    return merged(report, run, now_ms)


def _run(run: SlurmJob) -> Run:
    return Run(run.restart, run.start_ms or None, run.end_ms)


def _from_store(
    store: Store, config: Config, jobid: str, now_ms: int, run: Run, slurm: _Slurm
) -> Asked:
    """Return the report on a job that only the store knows.

    Components of a heterogeneous job have ids in a row, and their rows tell the id of the whole.
    """
    whole = re.fullmatch(r"(\d+)\+(\d+)", jobid)
    raw = str(int(whole[1]) + int(whole[2])) if whole else jobid
    leader = whole[1] if whole else jobid
    rows = read_jobs(store, config.cluster, [raw]).get(raw, JobRows())
    if whole and not _is_component(rows, leader):
        raise not_found(config, jobid)
    if not whole and _is_component(rows, leader):
        parts = _components(store, config, leader)
        reports = [_judged(report_of(config, each, parts[each], now_ms, run)) for each in parts]
        return Asked(of_many(config.cluster, jobid, reports, now_ms, slurm.notes()))
    report = collect(store, config, raw, now_ms, run, rows)
    return Asked(_judged(msgspec.structs.replace(report, notes=(*report.notes, *slurm.notes()))))


def _components(store: Store, config: Config, leader: str) -> dict[str, JobRows]:
    """Return the rows of all components, by their ids."""
    ids = [str(int(leader) + offset) for offset in range(MOST_COMPONENTS)]
    found = read_jobs(store, config.cluster, ids)
    return {
        each: found[each] for each in ids if each in found and _is_component(found[each], leader)
    }


def _is_component(rows: JobRows, leader: str) -> bool:
    return any(text(row, "het_jobid") == leader for row in rows.jobs)


def _judged(report: JobReport) -> JobReport:
    """Return the report with its findings: last, because some look at what Slurm knows better."""
    return msgspec.structs.replace(report, findings=find(report))
