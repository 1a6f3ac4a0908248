"""A job, looked at through the store: who it is, how it goes, and its hosts."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import msgspec

from agent.clock import Clock, SystemClock
from agent.command import USAGE, Fault
from agent.config import Config
from agent.inspect.ask import Asked, inspect
from agent.inspect.collect import JobNotFound, report_of
from agent.inspect.model import JobReport
from agent.inspect.rows import read_jobs
from agent.inspect.units import show_seconds
from agent.stores.store import Store, StoreRefused, StoreUnreachable
from agent.top.fromstore import JobHosts
from agent.top.model import Frame

Find = Callable[[Store, Config, str, int], Asked]
"""Asks Slurm and the store who a job is."""

SLURM_MS = 10_000
"""How often Slurm is asked anew about a job of which the store knows nothing yet."""


class Known(NamedTuple):
    """What was found out about the job, and its hosts."""

    report: JobReport
    hosts: JobHosts


class Job:
    """Looks at one job; a store that does not answer is asked again at every look.

    Args:
        config: cluster and store.
        jobid: as the user writes it.
        store: as this user may see it.
        find: asks who the job is.
        clock: the wall clock.

    """

    def __init__(
        self,
        config: Config,
        jobid: str,
        store: Store,
        find: Find = inspect,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._jobid = jobid
        self._store = store
        self._find = find
        self._clock = clock or SystemClock()
        self._known: Known | None = None
        self._asked_ms = 0
        self._last = Frame(0)

    def read(self) -> Frame:
        """Take a look; if the store does not answer, the last one with the reason.

        Raises:
            JobNotFound: neither the store nor Slurm knows the job.
            Fault: it is several jobs.
            SettingsError: the store's settings are wrong.

        """
        now_ms = int(self._clock.time() * 1000)
        try:
            self._last = self._look(now_ms)
        except (StoreUnreachable, StoreRefused) as error:
            words = f"the store does not answer: {error}"
            self._last = replace(self._last, at_ms=self._last.at_ms or now_ms, trouble=words)
        return self._last

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _look(self, now_ms: int) -> Frame:
        if self._known is None or not self._known.report.nodes:
            if self._last.job and now_ms - self._asked_ms < SLURM_MS:
                return replace(self._last, at_ms=now_ms)
            self._asked_ms = now_ms
            asked = self._who(now_ms)
            self._last = Frame(now_ms, job=asked.report.job)
            if asked.store_words:
                self._asked_ms = 0
                raise StoreUnreachable(asked.store_words)
            hosts = JobHosts(self._store, self._config, asked.report.job.raw or self._jobid)
            self._known = Known(asked.report, hosts)
        return self._frame(self._known, now_ms)

    def _who(self, now_ms: int) -> Asked:
        asked = self._find(self._store, self._config, self._jobid, now_ms)
        if asked.report.tasks:
            tasks = ", ".join(task.jobid for task in asked.report.tasks[:5])
            raise Fault(f"job {self._jobid} is several: ask for one of {tasks} ...", USAGE)
        return asked

    def _frame(self, known: Known, now_ms: int) -> Frame:
        report = self._fresh(known.report, now_ms)
        job = report.job
        at_ms = job.end_ms or now_ms
        limits = list(report.notes)
        if job.end_ms:
            ago = show_seconds(round(max(0, now_ms - job.end_ms) / 1000))
            limits.append(f"the job ended {ago} ago: these are its last minutes")
        return Frame(at_ms, known.hosts.read(report, at_ms), job, limits=limits)

    def _fresh(self, known: JobReport, now_ms: int) -> JobReport:
        """Return the report with what the store says now; Slurm's words on the rest stay."""
        raw = known.job.raw or self._jobid
        rows = read_jobs(self._store, self._config.cluster, [raw]).get(raw)
        if rows is None:
            return known
        try:
            now = report_of(self._config, raw, rows, now_ms)
        except JobNotFound:
            return known
        job = msgspec.structs.replace(
            known.job,
            state=now.job.state,
            end_ms=now.job.end_ms,
            elapsed_seconds=now.job.elapsed_seconds,
        )
        return msgspec.structs.replace(now, job=job, notes=known.notes)
