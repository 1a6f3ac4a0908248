"""What the store has of jobs: their rows, and which of them belong to one run."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.stores.store import Row, Select, Store
from probes.sample import Value

ONE_START_MS = 10 * 60_000
"""Hosts of one run begin within this time; an older row is of another job with the same id."""

CLOCKS_MS = 60_000
"""How far the clocks of a node and of Slurm's controller may be apart."""

MOST_AT_ONCE = 200
"""Jobs that one question is about."""


class Run(NamedTuple):
    """Which run of a job is meant.

    Attributes:
        restart: how often it was requeued before; None for the last run.
        start_ms: its start as Slurm says; None if Slurm does not say.
        end_ms: its end; None if it goes on, or Slurm does not say.

    """

    restart: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None


class JobRows(NamedTuple):
    """All rows of one job, of all its runs."""

    jobs: Sequence[Row] = ()
    footprints: Sequence[Row] = ()
    gpus: Sequence[Row] = ()

    def of(self, run: Run) -> "JobRows":
        """Return the rows of one run, one of each host."""
        jobs = one_run(self.jobs, run)
        starts = {(row["host"], row["time_ms"]) for row in jobs}
        return JobRows(jobs, _begun(self.footprints, starts), _begun(self.gpus, starts))


def read_jobs(store: Store, cluster: str, jobids: Sequence[str]) -> dict[str, JobRows]:
    """Return the rows of jobs, by the id that the store knows.

    Raises:
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    found: dict[str, tuple[list[Row], list[Row], list[Row]]] = {}
    for first in range(0, len(jobids), MOST_AT_ONCE):
        wanted = jobids[first : first + MOST_AT_ONCE]
        where = {"cluster": cluster, "jobid": wanted if len(wanted) > 1 else wanted[0]}
        jobs = store.rows(Select("job", where))
        if not jobs:
            continue
        parts = (
            jobs,
            store.rows(Select("job_footprint", where)),
            store.rows(Select("job_gpu_footprint", where)),
        )
        for number, rows in enumerate(parts):
            for row in rows:
                found.setdefault(str(row["jobid"]), ([], [], []))[number].append(row)
    return {jobid: JobRows(*parts) for jobid, parts in found.items()}


def one_run(rows: Sequence[Row], run: Run) -> list[Row]:
    """Return the `job` rows of one run, one for each host, each with its own host's start time.

    An agent that found a job by its control group does not know how often it was requeued: where no
    row has the right count, those that lie in the run's time are taken.
    """
    if run.start_ms is None:
        wanted = run.restart
        if wanted is None:
            wanted = int(max((number(row, "restart_total") for row in rows), default=0))
        return _newest(row for row in rows if number(row, "restart_total") == wanted)
    end_ms = run.end_ms or float("inf")
    near = [
        row
        for row in rows
        if run.start_ms - ONE_START_MS <= number(row, "time_ms") <= end_ms + CLOCKS_MS
    ]
    counted = [row for row in near if number(row, "restart_total") == (run.restart or 0)]
    within = [row for row in near if number(row, "time_ms") >= run.start_ms - CLOCKS_MS]
    return _newest(counted or within)


def _newest(rows: Iterable[Row]) -> list[Row]:
    """Return the newest row of each host, as far as they began together."""
    by_host = {
        str(row["host"]): row for row in sorted(rows, key=lambda row: number(row, "time_ms"))
    }
    last = max((number(row, "time_ms") for row in by_host.values()), default=0.0)
    return [row for row in by_host.values() if last - number(row, "time_ms") <= ONE_START_MS]


def _begun(rows: Iterable[Row], starts: set[tuple[Value, Value]]) -> list[Row]:
    return [row for row in rows if (row["host"], row["time_ms"]) in starts]


def number(row: Row, name: str) -> float:
    """Return a number of a row; 0 for what is not there, or a text."""
    value = row.get(name, 0.0)
    return 0.0 if isinstance(value, str) else value


def text(row: Row, name: str) -> str:
    """Return a text of a row; empty for what is not there, or a number."""
    value = row.get(name, "")
    return value if isinstance(value, str) else ""


def words(rows: Iterable[Row], name: str) -> list[str]:
    """Return the different texts that rows have under a name, in their order."""
    return list(dict.fromkeys(filter(None, (text(row, name) for row in rows))))
