"""The temporary disk space of each Slurm job, measured beside the sampling and never in its way.

A job's folders are those that the configuration names by pattern, and those that Slurm mounted for
the job alone on /tmp and /var/tmp (job_container/tmpfs). What cannot be read at once is walked
through, a few milliseconds at a time, with long rests.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from agent.messages import JobStart
from probes.diskusage import TreeWalk, Usage, found, own_space
from probes.mounts import LOCAL_KINDS, mount_of, parse_mountinfo
from probes.parsing import read_text
from probes.roots import Roots
from probes.sample import Sample, Value

log = logging.getLogger("rooflight.jobs")

SLICE_SECONDS, PAUSE_SECONDS = 0.005, 0.045
"""A walk works for so long, then lets others work."""

REST = 50.0
"""After a walk, rest for so many times as long as it worked: two hundredths of a CPU at most."""

LEAST_REST_SECONDS = 10.0
MOST_WALK_SECONDS = 30.0
"""Of work; a folder that takes longer is told with "at least". Five million files fit."""

FIND_SECONDS = 10.0
"""How often folders are looked for."""

ASLEEP_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""A file system that hangs holds the measuring: figures so old are told no more."""

MOST_PIDS = 16
"""Processes of a job whose mounts are looked at: slurmd's own among them see the node's."""

MAY_READ_ALL = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH among a process's capabilities (capabilities(7))."""

PRIVATE_TOPS = ("/tmp", "/var/tmp")  # noqa: S108 - looked at, not used
DELETED = "//deleted"


class Measurable(Protocol):
    """A job, as far as its folders are concerned."""

    job: JobStart

    def pids(self) -> set[int]:
        """Return its processes."""


class Place(NamedTuple):
    """Where a folder of a job may be.

    Attributes:
        top: a folder that no user made.
        names: of the folders below it, the last of which is the job's.
        owners: users to whom it may belong; another's is not the job's.

    """

    top: Path
    names: tuple[str, ...]
    owners: frozenset[int]

    def __str__(self) -> str:
        return str(self.top.joinpath(*self.names))


def place_of(pattern: str, job: JobStart) -> Place | None:
    """Return the place that a pattern names: %j job, %u user's name, %U user's id, %n node.

    Returns:
        None where a name is unknown or would lead elsewhere.

    """
    values = {"%j": job.jobid, "%u": job.user, "%U": str(job.uid), "%n": job.node}
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if "%" in part)
    names = []
    for part in parts[fixed:]:
        needed = [value for mark, value in values.items() if mark in part]
        if any(not value or "/" in value for value in needed):
            return None
        for mark, value in values.items():
            part = part.replace(mark, value)
        names.append(part)
    if not {"", ".", ".."}.isdisjoint(names):
        return None
    return Place(Path(*parts[:fixed]), tuple(names), frozenset({0, job.uid}))


def private_folders(of_job: str, of_node: str) -> Iterator[Path]:
    """Yield the node's paths of what a job sees on /tmp and /var/tmp, and the node does not.

    Args:
        of_job: /proc/PID/mountinfo of a process of the job.
        of_node: the same of ours.

    """
    ours = parse_mountinfo(of_node)
    known = {(mount.device, mount.root, mount.path) for mount in ours}
    for mount in parse_mountinfo(of_job):
        if mount.path not in PRIVATE_TOPS or (mount.device, mount.root, mount.path) in known:
            continue
        for host in reversed(ours):
            below = Path(mount.root)
            if host.device == mount.device and below.is_relative_to(host.root):
                if not mount.root.endswith(DELETED):
                    yield Path(host.path) / below.relative_to(host.root)
                break


def limits(roots: Roots) -> list[str]:
    """Say what this user cannot measure of other users' folders."""
    status = read_text(roots.proc / "self/status") or ""
    capabilities = status.partition("CapEff:")[2].split()[:1]
    if capabilities and int(capabilities[0], 16) & MAY_READ_ALL:
        return []
    return [
        "a folder that only its job's user may enter is read by a mount or a project quota of its"
        " own, and not walked through: for that the agent needs CAP_DAC_READ_SEARCH"
    ]


class JobFolder:
    """One folder of a job, measured again and again.

    Attributes:
        usage: what it held when it was last looked at; None if there is no such folder.
        trouble: why it cannot be measured; empty if it can, or is not there.
        due: when to look at it again, by the clock.

    """

    def __init__(self, place: Place, kind: str, clock: Callable[[], float]) -> None:
        self.place = place
        self.usage: Usage | None = None
        self.trouble = ""
        self.due = 0.0
        self._kind = kind
        self._clock = clock
        self._walk: TreeWalk | None = None
        self._worked = 0.0

    def is_walking(self) -> bool:
        """Tell whether a walk is under way."""
        return self._walk is not None

    def step(self, seconds: float) -> None:
        """Begin to measure, or go on for so long."""
        if self._walk is None:
            self._begin()
        else:
            self._go_on(self._walk, seconds)

    def close(self) -> None:
        """Let go of the folder."""
        if self._walk is not None:
            self._walk.close()
        self._walk = None

    def _begin(self) -> None:
        self.due = self._clock() + LEAST_REST_SECONDS
        try:
            self.usage, self.trouble = self._look()
        except (FileNotFoundError, NotADirectoryError):
            self.usage, self.trouble = None, ""
        except OSError as error:
            self.usage, self.trouble = None, error.strerror or str(error)

    def _look(self) -> tuple[Usage | None, str]:
        """Return what is known at once, or why nothing will be; begin a walk if it takes one."""
        with found(self.place.top, self.place.names) as folder:
            if folder.owner not in self.place.owners:
                return None, f"belongs to user {folder.owner}"
            own = own_space(folder)
            if own is not None:
                return own, ""
            if self._kind not in LOCAL_KINDS:
                return None, f"is on {self._kind}: a walk could hang, or burden its servers"
            self._walk = TreeWalk(folder, self._clock)
        return self.usage, ""

    def _go_on(self, walk: TreeWalk, seconds: float) -> None:
        begun = self._clock()
        done = walk.advance(seconds)
        self._worked += self._clock() - begun
        done = done or self._worked >= MOST_WALK_SECONDS
        seen = walk.usage()
        if done or self.usage is None or seen.held_bytes > self.usage.held_bytes:
            self.usage = seen
        if done:
            self.close()
            self.due = self._clock() + max(LEAST_REST_SECONDS, REST * self._worked)
            self._worked = 0.0


class JobDisk:
    """All folders of one job."""

    def __init__(
        self, running: Measurable, patterns: Iterable[str], roots: Roots, clock: Callable[[], float]
    ) -> None:
        self.job = running.job
        self.folders: dict[str, JobFolder] = {}
        self._running = running
        self._places = [place for each in patterns if (place := place_of(each, running.job))]
        self._roots = roots
        self._clock = clock
        self._find_at = 0.0
        self._told: set[str] = set()

    def step(self, seconds: float) -> bool:
        """Look for folders and measure those that are due; tell whether a walk is under way."""
        now = self._clock()
        if now >= self._find_at:
            self._find_at = now + FIND_SECONDS
            self._find()
        due = [each for each in self.folders.values() if each.is_walking() or each.due <= now]
        for folder in due:
            folder.step(seconds / len(due))
            self._tell(folder)
        return any(folder.is_walking() for folder in self.folders.values())

    def fields(self) -> dict[str, Value]:
        """Return what all folders hold, and how that is known; nothing if there is none."""
        known = [usage for folder in tuple(self.folders.values()) if (usage := folder.usage)]
        if not known:
            return {}
        source = " + ".join(sorted({usage.source for usage in known}))
        certain = all(usage.whole for usage in known)
        return {
            "tempdisk_used_bytes": round(sum(usage.held_bytes for usage in known)) * 1.0,
            "tempdisk_source": source if certain else f"{source}, at least",
        }

    def close(self) -> None:
        """Let go of all folders."""
        for folder in self.folders.values():
            folder.close()

    def _find(self) -> None:
        of_node = read_text(self._roots.proc / "self/mountinfo") or ""
        mounts = parse_mountinfo(of_node)
        places = [*self._places, *self._private(of_node)]
        for place in places:
            if not any(Path(str(place)).is_relative_to(known) for known in self.folders):
                mount = mount_of(Path(os.path.realpath(place.top)), mounts)
                kind = mount.kind if mount else "an unknown file system"
                self.folders[str(place)] = JobFolder(place, kind, self._clock)

    def _private(self, of_node: str) -> Iterator[Place]:
        for pid in sorted(self._running.pids(), reverse=True)[:MOST_PIDS]:
            of_job = read_text(self._roots.proc / str(pid) / "mountinfo") or of_node
            if of_job == of_node:
                continue
            for path in private_folders(of_job, of_node):
                yield Place(path.parent, (path.name,), frozenset({self.job.uid}))
            return

    def _tell(self, folder: JobFolder) -> None:
        if folder.trouble and str(folder.place) not in self._told:
            self._told.add(str(folder.place))
            words = "temp disk of job %s: %s is not measured: %s"
            log.warning(words, self.job.jobid, folder.place, folder.trouble)


class JobDisks:
    """Measures the folders of all jobs in a thread of its own.

    Args:
        patterns: of folders that are a job's own, see `place_of`.
        roots: where the kernel's files are.
        clock: in seconds.

    """

    def __init__(
        self,
        patterns: Sequence[str] = (),
        roots: Roots | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patterns = patterns
        self._roots = roots or Roots()
        self._clock = clock
        self._jobs: Mapping[str, JobDisk] = {}
        self._ended: list[JobDisk] = []
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self._worked_at = clock()
        self._was_silent = False

    def follow(self, jobs: Iterable[Measurable]) -> None:
        """Measure the folders of these jobs of Slurm, and of no others."""
        before = self._jobs
        slurm = [running for running in jobs if running.job.source == "slurm"]
        self._jobs = {each.job.jobid: self._kept(before, each) for each in slurm}
        self._ended += [disk for disk in before.values() if disk not in self._jobs.values()]
        if self._jobs and self._worker is None:
            self._worked_at = self._clock()
            # a daemon: a thread stuck in a dead file system must not keep the process alive
            self._worker = threading.Thread(target=self._work, name="jobdisk", daemon=True)
            self._worker.start()

    def complete(self, jobid: str, samples: Sequence[Sample]) -> list[Sample]:
        """Return a job's own samples, with the space that it holds."""
        disk = self._jobs.get(jobid)
        held = disk.fields() if disk and not self._is_silent() else {}
        return [
            sample._replace(fields={**sample.fields, **held})
            if sample.measurement == "job_cgroup"
            else sample
            for sample in samples
        ]

    def step(self) -> float:
        """Do a little of what there is to do; return how long to rest, in seconds."""
        while self._ended:
            self._ended.pop().close()
        disks = tuple(self._jobs.values())
        walking = [disk.step(SLICE_SECONDS / len(disks)) for disk in disks]
        self._worked_at = self._clock()
        return PAUSE_SECONDS if any(walking) else ASLEEP_SECONDS

    def close(self) -> None:
        """End the thread; one that hangs is left behind."""
        self._stopping.set()

    def _kept(self, before: Mapping[str, JobDisk], running: Measurable) -> JobDisk:
        known = before.get(running.job.jobid)
        if known is not None and known.job.start_ms == running.job.start_ms:
            return known
        return JobDisk(running, self._patterns, self._roots, self._clock)

    def _is_silent(self) -> bool:
        silent = self._clock() - self._worked_at > SILENT_SECONDS
        if silent and not self._was_silent:
            log.warning("temp disk of jobs is not measured: a file system does not answer")
        self._was_silent = silent
        return silent

    def _work(self) -> None:
        rest = 0.0
        while not self._stopping.wait(rest):
            rest = self.step()
        self.follow([])
        self.step()
