"""A store as one person may see it: own jobs, and the hosts that they ran on while they did.

Jobs are let through by the rule that is given. All else follows from them: rows that carry a job's
id must be of a run that may be seen, and measurements of a host (which carry none) are shown for
the time of one such run, those of its GPUs for the GPUs that it held. So a job has to be asked for
before its hosts. What may not be seen looks like what is not there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from agent.lineprotocol import stored_tag
from agent.stores.store import Row, Select, Store, StoreRefused, Windows, any_of
from probes.catalogue import CATALOGUE, Database

MOST_JOBS = 10_000
"""Rows of jobs that are looked through for the asker's own where no job is named."""

GRACE_MS = 5 * 60_000
"""How long a run counts after it was last heard of, if its end was never reported."""

FOR_EVER = 1 << 62

JobKey = tuple[str, str]
"""Cluster and id."""

MaySee = Callable[[Row], bool]
"""Tells whether what a `job` row is about may be seen."""

Place = tuple[str, str, str]
"""Cluster, job's id and host: where a run is told from others by its start."""


class Run(NamedTuple):
    """A run of a job on one host; `end_ms` is FOR_EVER where it is not known."""

    cluster: str
    jobid: str
    host: str
    start_ms: int
    end_ms: int

    def overlap(self, since_ms: int, until_ms: int) -> int:
        """Return how much of a time it ran in; below 0 if it did not."""
        return min(self.end_ms, until_ms) - max(self.start_ms, since_ms)

    def holds(self, row: Row, every_ms: int = 0) -> bool:
        """Tell whether a row of this host is of this run; a window begins before its time."""
        time_ms = float(row["time_ms"])
        of_job = row.get("jobid", self.jobid) == self.jobid
        return of_job and self.start_ms <= time_ms and time_ms - every_ms <= self.end_ms


class GuardedStore:
    """A store that answers as if it held nothing but what may be seen."""

    def __init__(self, store: Store, may_see: MaySee) -> None:
        self._store = store
        self._may_see = may_see
        self._runs: dict[JobKey, list[Run]] = {}

    def write(self, database: Database, lines: bytes) -> None:
        """Refuse.

        Raises:
            StoreRefused: always.

        """
        raise StoreRefused("this way into the store is for reading only", keep=True)

    def rows(self, select: Select) -> Sequence[Row]:
        """Return the rows that match and may be seen, oldest first.

        Raises:
            StoreUnreachable, StoreRefused: the store's own.

        """
        if select.measurement == "job":
            return self._job_rows(select)
        until = FOR_EVER if select.until_ms is None else select.until_ms
        where = {name: any_of(value) for name, value in select.where.items()}
        runs = self._granted(select.measurement, where, select.since_ms or 0, until)
        if not runs:
            return []
        since, until = _clipped(runs, select.since_ms or 0, until)
        clipped = replace(select, since_ms=since, until_ms=until if until < FOR_EVER else None)
        return self._shown(self._store.rows(clipped), select.measurement, runs)

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Return a field over time, as far as it may be seen; see `Windows`.

        The first and the last window of a host may hold some of what was before and after.

        Raises:
            StoreRefused: hosts or GPUs that were not held alike would be mixed in a row.
            StoreUnreachable, StoreRefused: the store's own.

        """
        runs = self._granted(asked.measurement, asked.where, asked.since_ms, asked.until_ms)
        if not runs:
            return []
        where = {**asked.where, "host": sorted({run.host for run in runs})}
        if "jobid" in where:
            where["jobid"] = sorted({run.jobid for run in runs})
        apart = {"host", *CATALOGUE[asked.measurement].tags} & {"host", "gpu"}
        if len(where["host"]) > 1 and not apart <= set(asked.by):
            raise StoreRefused(f"to be asked by {' and '.join(sorted(apart))}", keep=True)
        if "gpu" in apart:
            where["gpu"] = self._own_gpus(asked, runs)
        since, until = _clipped(runs, asked.since_ms, asked.until_ms)
        if since >= until or not all(where.values()):
            return []
        found = self._store.windows(replace(asked, where=where, since_ms=since, until_ms=until))
        return self._shown(found, asked.measurement, runs, asked.every_ms)

    def close(self) -> None:
        """Give back connections and files."""
        self._store.close()

    def _job_rows(self, select: Select) -> Sequence[Row]:
        """Return the jobs that may be seen, and remember where those ran that were named."""
        if select.where.keys() >= {"cluster", "jobid"}:
            keys = _keys(select.where["cluster"], select.where["jobid"])
            visible = [row for row in self._learn_runs(keys) if _matches(select, row)]
        else:
            rows = self._store.rows(replace(select, newest=MOST_JOBS))
            visible = [row for row in rows if self._may_see(row)]
        return visible if select.newest is None else visible[-select.newest :]

    def _learn_runs(self, keys: Sequence[JobKey]) -> list[Row]:
        """Return the rows of all runs of jobs that may be seen, and remember the runs."""
        if not keys:
            return []
        clusters, jobids = zip(*keys, strict=True)
        where = {"cluster": sorted(set(clusters)), "jobid": sorted(set(jobids))}
        rows = self._store.rows(Select("job", where))
        visible = [row for row in rows if self._may_see(row)]
        ends = _ends(rows)
        self._runs |= {key: [] for key in keys}
        for row in visible:
            run = Run(*_place(row), _time_ms(row), ends[_place(row), _time_ms(row)])
            self._runs.setdefault((run.cluster, run.jobid), []).append(run)
        return visible

    def _granted(
        self, measurement: str, where: Mapping[str, Sequence[str]], since_ms: int, until_ms: int
    ) -> list[Run]:
        """Return the runs in whose right a question is answered; none if it is not.

        Of rows without a job's id: the runs of that job which covers most of the time.
        """
        clusters, hosts = where.get("cluster", ()), where.get("host")
        if "jobid" in CATALOGUE[measurement].tags:
            keys = _keys(clusters, where.get("jobid", ()))
            self._learn_runs([key for key in keys if key not in self._runs])
            runs = [run for key in keys for run in self._runs[key]]
            return [run for run in runs if hosts is None or run.host in hosts]
        wanted = [
            [run for run in runs if run.cluster in clusters and run.host in (hosts or ())]
            for runs in self._runs.values()
        ]
        best = max(wanted, key=lambda runs: _overlap(runs, since_ms, until_ms), default=[])
        ended = [self._with_end(run) for run in best]
        return [run for run in ended if run.overlap(since_ms, until_ms) >= 0]

    def _with_end(self, run: Run) -> Run:
        """Return the run with an end: if none was reported, a while after it was last heard of."""
        if run.end_ms < FOR_EVER:
            return run
        where = {"cluster": run.cluster, "jobid": run.jobid, "host": run.host}
        rows = self._store.rows(Select("job_footprint", where, run.start_ms, run.start_ms))
        heard = [float(row.get("updated_epoch_milliseconds", 0)) for row in rows]
        return run._replace(end_ms=int(max(heard, default=run.start_ms)) + GRACE_MS)

    def _shown(
        self, rows: Iterable[Row], measurement: str, runs: Sequence[Run], every_ms: int = 0
    ) -> list[Row]:
        """Return the rows of these runs; of a GPU, only if the run held it."""
        by_host: dict[str, list[Run]] = {}
        for run in runs:
            by_host.setdefault(run.host, []).append(run)
        only = runs[0].host  # a row without a host is an answer about the only one
        tags = CATALOGUE[measurement].tags
        held = self._held(runs) if "gpu" in tags and "jobid" not in tags else None
        shown = []
        for row in rows:
            host = str(row.get("host", only))
            of_run = any(run.holds(row, every_ms) for run in by_host.get(host, ()))
            if of_run and (held is None or "gpu" not in row or (host, row["gpu"]) in held):
                shown.append(row)
        return shown

    def _own_gpus(self, asked: Windows, runs: Sequence[Run]) -> list[str]:
        own = {gpu for _, gpu in self._held(runs)}
        return sorted(own & set(asked.where.get("gpu", own)))

    def _held(self, runs: Sequence[Run]) -> set[tuple[str, str]]:
        """Return host and index of each GPU that the runs held."""
        where = {"cluster": runs[0].cluster, "jobid": runs[0].jobid}
        starts = {(run.host, run.start_ms) for run in runs}
        rows = self._store.rows(Select("job_gpu_footprint", where))
        return {
            (str(row["host"]), str(row["gpu"]))
            for row in rows
            if (str(row["host"]), _time_ms(row)) in starts
        }


def _matches(select: Select, row: Row) -> bool:
    time_ms = float(row["time_ms"])
    return (
        all(str(row.get(tag)) in map(stored_tag, any_of(of)) for tag, of in select.where.items())
        and (select.since_ms is None or time_ms >= select.since_ms)
        and (select.until_ms is None or time_ms <= select.until_ms)
    )


def _ends(rows: Sequence[Row]) -> dict[tuple[Place, int], int]:
    """Return the end of each run by place and start: at the latest when its id is used anew."""
    ends: dict[tuple[Place, int], int] = {}
    later: dict[Place, int] = {}
    for row in reversed(rows):  # newest first
        place, start_ms = _place(row), _time_ms(row)
        end_ms = int(float(row.get("end_epoch_milliseconds", FOR_EVER)))
        ends[place, start_ms] = min(end_ms, later.get(place, FOR_EVER))
        later[place] = start_ms - 1
    return ends


def _keys(clusters: str | Sequence[str], jobids: str | Sequence[str]) -> list[JobKey]:
    return [
        (stored_tag(cluster), stored_tag(jobid))
        for cluster in any_of(clusters)
        for jobid in any_of(jobids)
    ]


def _place(row: Row) -> Place:
    return str(row["cluster"]), str(row["jobid"]), str(row["host"])


def _time_ms(row: Row) -> int:
    return int(float(row["time_ms"]))


def _overlap(runs: Iterable[Run], since_ms: int, until_ms: int) -> int:
    return max((run.overlap(since_ms, until_ms) for run in runs), default=-FOR_EVER)


def _clipped(runs: Iterable[Run], since_ms: int, until_ms: int) -> tuple[int, int]:
    start_ms = min(run.start_ms for run in runs)
    return max(since_ms, start_ms), min(until_ms, max(run.end_ms for run in runs))
