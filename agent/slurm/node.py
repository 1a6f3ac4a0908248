"""Keep the agent's jobs in step with what Slurm runs on this node.

The prolog tells of a job before its control group exists, and the epilog after it is gone. This
finds the group as soon as Slurm makes it, reads it whenever a task has ended (the last moment at
which it is whole and still there, so that the account of a short job is exact), takes on jobs whose
prolog nobody heard, and ends those whose epilog nobody heard.
"""

import logging
import os
import pwd
from contextlib import suppress

from agent.jobs import RunningJob
from agent.loop import Loop
from agent.messages import JobStart
from agent.slurm.discovery import find_job_cgroups, folders_of_jobs, folders_of_steps, owner_of
from agent.slurm.inotify import FolderWatch
from probes.cgroup import CgroupPaths, processes_of
from probes.parsing import read_text
from probes.processes import TICKS_PER_SECOND, parse_stat
from probes.roots import Roots

log = logging.getLogger("rooflight.slurm")

REFRESH_SECONDS = 10.0
"""How often to look for what inotify does not tell, such as slurmd itself having started."""

PROLOG_SECONDS = 1.5
"""How long a job's group may be there before its prolog counts as missed."""

EPILOG_SECONDS = 60.0
"""How long a job's group may be gone before its epilog counts as missed."""

BEGIN_SECONDS = 3600.0
"""How long other prologs may take, from our prolog to the job's group."""

FIRST_JOB_SECONDS = 60.0
"""How long an agent that a prolog started waits for the job that it was started for."""


class SlurmNode:
    """Follows the control groups of Slurm's jobs.

    Attributes:
        folders: what changes in it when a job or a step comes or goes.

    """

    def __init__(
        self, loop: Loop, roots: Roots, *, node: str = "", until_idle: float | None = None
    ) -> None:
        self._loop = loop
        self._roots = roots
        self._node = node
        self._until_idle = until_idle
        self._ship = loop.job_ended
        self._refreshed = loop.clock.monotonic()
        self._stops_at = self._refreshed + max(until_idle or 0.0, FIRST_JOB_SECONDS)
        self._unknown_since: dict[str, float] = {}
        self._gone_since: dict[str, float] = {}
        self._jobid_by_folder: dict[str, str] = {}
        self._ended = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.folders = FolderWatch()

    def follow(self) -> None:
        """Look at the groups at once when Slurm changes them, and now and then in any case."""
        self._loop.before_tick = self._before_tick
        self._ship, self._loop.job_ended = self._loop.job_ended, self._job_ended
        self._loop.job_started = self._locate
        self._loop.watch(self.folders.fileno(), self._react)
        self._loop.watch(self._ended, self._stop_when_idle)
        self.refresh()

    def refresh(self) -> None:
        """Give every job its group, take on and end jobs that nobody told of."""
        found = find_job_cgroups(self._roots, self._node)
        self._watch(found)
        for jobid, paths in found.items():
            if running := self._loop.jobs.get(jobid):
                running.locate(paths)
        self._take_on(found)
        self._end_gone(found)
        self._stop_when_idle()
        self._refreshed = self._loop.clock.monotonic()

    def _locate(self, running: RunningJob) -> None:
        """Give a job its group, if Slurm made it before we were told of the job, or hear of it."""
        found = find_job_cgroups(self._roots, self._node)
        self._watch(found)  # with its first job, slurmd makes folders that were not there before
        if paths := found.get(running.job.jobid):
            running.locate(paths)

    def _before_tick(self) -> None:
        waits = self._unknown_since or self._gone_since
        if waits or self._loop.clock.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self.refresh()
        else:
            self._stop_when_idle()

    def _react(self) -> None:
        changed = self.folders.changed()
        for jobid in {self._jobid_by_folder.get(folder, "") for folder in changed}:
            self._loop.glance(jobid)
        self.refresh()

    def _watch(self, found: dict[str, CgroupPaths]) -> None:
        folders = {
            folder: jobid for jobid, paths in found.items() for folder in folders_of_steps(paths)
        }
        self._jobid_by_folder = folders
        for folder in (*folders_of_jobs(self._roots, self._node), *folders):
            self.folders.watch(folder)

    def _take_on(self, found: dict[str, CgroupPaths]) -> None:
        now = self._loop.clock.monotonic()
        unknown = [jobid for jobid in found if self._loop.jobs.get(jobid) is None]
        self._unknown_since = {jobid: self._unknown_since.get(jobid, now) for jobid in unknown}
        for jobid, since in self._unknown_since.items():
            pids = processes_of(found[jobid]) if now - since >= PROLOG_SECONDS else set()
            if pids:  # one without a process was left behind by a job that ended
                log.info("job %s was not told of by a prolog", jobid)
                job = _describe(jobid, self._node, pids, self._roots)
                self._loop.start_job(job).locate(found[jobid])

    def _end_gone(self, found: dict[str, CgroupPaths]) -> None:
        now = self._loop.clock.monotonic()
        gone = [
            running
            for running in self._loop.jobs
            if running.job.source == "slurm" and running.job.jobid not in found
        ]
        self._gone_since = {
            running.job.jobid: self._gone_since.get(running.job.jobid, now) for running in gone
        }
        if not folders_of_jobs(self._roots, self._node):
            return  # Slurm does without control groups here: only an epilog tells
        for running in gone:
            patience = EPILOG_SECONDS if running.was_located() else BEGIN_SECONDS
            since = self._gone_since[running.job.jobid]
            if now - since >= patience:
                log.info("the end of job %s was not told by an epilog", running.job.jobid)
                end_ms = int((self._loop.clock.time() - (now - since)) * 1000)
                self._loop.end_job(running.job.jobid, None, end_ms)

    def _stop_when_idle(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._ended)
        if self._until_idle is None or len(self._loop.jobs):
            return
        if self._loop.clock.monotonic() >= self._stops_at:
            log.info("no job for %g s: done", self._until_idle)
            self._loop.stop()

    def _job_ended(self) -> None:
        self._ship()
        self._stops_at = self._loop.clock.monotonic() + (self._until_idle or 0.0)
        os.eventfd_write(self._ended, 1)  # not at once: one that is requeued begins again


def _describe(jobid: str, node: str, pids: set[int], roots: Roots) -> JobStart:
    """Return what can be known of a job from its processes: who and since when."""
    owners = [owner_of(pid, roots) for pid in sorted(pids)]
    uid = next(filter(None, owners), 0)  # slurmstepd, root's, is in it too
    began = min((_started_ms(roots, pid) for pid in pids), default=0)
    return JobStart(
        jobid, began, uid=uid, user=_user(uid), gpus=(), gpus_by_use=True, source="slurm", node=node
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _started_ms(roots: Roots, pid: int) -> int:
    """Return when a process began, in milliseconds since 1970."""
    text = read_text(roots.proc / str(pid) / "stat") or ""
    stat = parse_stat(text.encode(errors="replace"))
    lines = (read_text(roots.proc / "stat") or "").splitlines()
    booted = next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)
    return round((booted + stat.started / TICKS_PER_SECOND) * 1000) if stat else 0
