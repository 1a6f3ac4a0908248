"""Whose a GPU is: by what its job was given, checked against the processes that NVML sees on it.

A job is given GPUs in words: positions in Slurm's list (SLURM_JOB_GPUS), CUDA's indices, UUIDs of
GPUs and MIG instances, whole or cut short (CUDA_VISIBLE_DEVICES). Samples name them by NVML's
index: `0`, or `0.1` for an instance.

Source: NVIDIA, "CUDA C++ Programming Guide", CUDA environment variables; "MIG User Guide", device
names.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

from agent.messages import JobStart
from agent.slurm.gres import GpuOrder, units
from probes.gpu_device import SeenGpu
from probes.sample import Value

log = logging.getLogger("rooflight.jobs")

ASK_AGAIN_MS = 30_000
"""How often it is asked anew whether a process that is no job's has become one's."""

_OLD_MIG = re.compile(r"MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)")
"""Name of a MIG instance before driver 470: its GPU, GPU instance and compute instance."""

Position = Callable[[int], str | None]
"""Returns the index of the GPU that a number stands for; None if there is none."""


class Given(NamedTuple):
    """What a job's words stand for.

    Attributes:
        gpus: indices of the GPUs and instances; with a whole GPU come its instances.
        missing: words for which there is nothing.

    """

    gpus: frozenset[str]
    missing: tuple[str, ...] = ()


def resolve(words: Iterable[str], seen: Sequence[SeenGpu], position: Position) -> Given:
    """Return the GPUs that words stand for; a number stands for what `position` says."""
    gpus: set[str] = set()
    missing = []
    for word in words:
        index = position(int(word)) if word.isascii() and word.isdigit() else _named(word, seen)
        if index is None:
            missing.append(word)
        else:
            gpus |= {gpu.index for gpu in seen if gpu.index.partition(".")[0] == index} or {index}
    return Given(frozenset(gpus), tuple(missing))


def visible(words: Sequence[str], seen: Sequence[SeenGpu]) -> Given:
    """Return the GPUs that CUDA shows for CUDA_VISIBLE_DEVICES: up to the first that is none."""
    known = {gpu.index for gpu in seen}

    def position(number: int) -> str | None:
        return str(number) if str(number) in known else None

    each = ((word, resolve([word], seen, position)) for word in words)
    good = [word for word, _ in takewhile(lambda pair: not pair[1].missing, each)]
    return resolve(good, seen, position)


def _named(word: str, seen: Iterable[SeenGpu]) -> str | None:
    """Return the one GPU or instance whose UUID begins so, or that an old MIG name means."""
    if old := _OLD_MIG.fullmatch(word):
        return _old_instance(old[1], (int(old[2]), int(old[3])), list(seen))
    if not word.startswith(("GPU-", "MIG-")):
        return None
    found = [gpu.index for gpu in seen if gpu.uuid.startswith(word)]
    return found[0] if len(found) == 1 else None


def _old_instance(uuid: str, ids: tuple[int, int], seen: Sequence[SeenGpu]) -> str | None:
    parents = {gpu.index for gpu in seen if gpu.uuid.startswith(uuid)}
    found = [
        gpu.index
        for gpu in seen
        if gpu.place.instance == ids and gpu.index.partition(".")[0] in parents
    ]
    return found[0] if len(found) == 1 else None


def host_name() -> str:
    """Return this machine's name without its domain, as Slurm mostly knows it."""
    return os.uname().nodename.split(".")[0]


class GpuShare:
    """The GPUs of one job.

    Attributes:
        used: indices of those on which its processes were seen.

    """

    def __init__(self, job: JobStart, used: set[str]) -> None:
        self.used = used
        self._job = job
        self._units: frozenset[str] = frozenset()
        self._given = Given(frozenset(job.gpus or ()))
        self._processes: dict[str, tuple[int, int]] = {}

    def assign(self, given: Given, seen: Iterable[SeenGpu]) -> None:
        """Say what the job's words stand for, now that NVML shows these GPUs."""
        if given.missing and given != self._given:
            names = ", ".join(given.missing)
            log.warning("job %s was given GPU %s, which NVML does not show", self._job.jobid, names)
        self._given = given
        self._units = frozenset(units(seen))

    def meet(self, index: str, own: int, others: int) -> None:
        """Say how many processes of this job, and of others, were seen on a GPU now."""
        self._processes[index] = (own, others)
        if own and index not in self.used:
            self.used.add(index)
            if not self.owns(index):
                words = "processes of job %s run on GPU %s, which it was not given"
                log.warning(words, self._job.jobid, index)

    def owns(self, index: str) -> bool:
        """Tell whether the job holds a GPU or instance."""
        if self._job.gpus_by_use:
            return index in self.used
        return self._job.gpus is None or index in self._given.gpus

    def total(self) -> int:
        """Return how many GPUs and instances the job holds."""
        if self._job.gpus_by_use:
            return len(self.used)
        return len(self._units) if self._job.gpus is None else len(self._job.gpus)

    def fields(self) -> dict[str, Value]:
        """Return what does not agree, for the job's footprint."""
        strange = sorted(index for index in self.used if not self.owns(index))
        told = {"gpus_not_given": strange, "gpus_not_found": self._given.missing}
        return {name: ",".join(words) for name, words in told.items() if words}

    def processes(self, index: str) -> dict[str, float]:
        """Return how many processes were on a GPU at the last sample; nothing if unknown."""
        own, others = self._processes.get(index, (0, 0))
        known = {
            "job_processes_peak_total": float(own),
            "other_processes_peak_total": float(others),
        }
        return known if index in self._processes else {}


class HoldsGpus(Protocol):
    """A job, as far as its GPUs are concerned."""

    job: JobStart
    gpus: GpuShare

    def pids(self) -> set[int]:
        """Return its processes."""


class GpuBook:
    """Keeps who has which GPU, from sample to sample.

    Args:
        order: Slurm's list of GPUs.
        node: this node's name in Slurm, for jobs whose prolog did not say it.

    """

    def __init__(self, order: GpuOrder | None = None, node: str = "") -> None:
        self._order = order
        self._node = node or host_name()
        self._places: dict[str, object] = {}
        self._owner: dict[int, str] = {}
        self._ask_again_ms = 0

    def attribute(self, jobs: Iterable[HoldsGpus], seen: Sequence[SeenGpu], time_ms: int) -> None:
        """Tell every job its GPUs, and what processes are on them."""
        running = list(jobs) if seen else []
        places = [(gpu.index, gpu.uuid, gpu.place) for gpu in seen]
        for each in running:
            if self._places.get(each.job.jobid) != (each.job.start_ms, places):
                each.gpus.assign(self._given(each.job, seen), seen)
        self._places = {each.job.jobid: (each.job.start_ms, places) for each in running}
        self._meet(running, seen, time_ms)

    def _given(self, job: JobStart, seen: Sequence[SeenGpu]) -> Given:
        words = job.gpus or ()
        if job.source == "slurm" and self._order is not None:
            try:
                indices = self._order.indices(job.node or self._node, seen)
            except ValueError as error:
                log.warning("the order of GPUs is taken from NVML: %s", error)
                indices = list(units(seen))
            return resolve(words, seen, lambda n: indices[n] if n < len(indices) else None)
        return visible(words, seen)

    def _meet(self, running: Sequence[HoldsGpus], seen: Sequence[SeenGpu], time_ms: int) -> None:
        # with MIG on, the GPU's own list is that of all its instances once more
        told = {index: gpu.pids for index in units(seen) for gpu in seen if gpu.index == index}
        lists = {index: pids for index, pids in told.items() if pids is not None}
        self._learn({pid for pids in lists.values() for pid in pids}, running, time_ms)
        for index, pids in lists.items():
            owners = [self._owner.get(pid) for pid in pids]
            for each in running:
                own = owners.count(each.job.jobid)
                each.gpus.meet(index, own, len(owners) - own)

    def _learn(self, pids: set[int], running: Sequence[HoldsGpus], time_ms: int) -> None:
        """Find the jobs of processes; who is known stays so while NVML shows the process."""
        jobids = {each.job.jobid for each in running}
        known = self._owner.items()
        self._owner = {pid: job for pid, job in known if pid in pids and (not job or job in jobids)}
        strangers = {pid for pid in pids if not self._owner.get(pid)}
        if strangers <= self._owner.keys() and time_ms < self._ask_again_ms:
            return
        self._ask_again_ms = time_ms + ASK_AGAIN_MS
        theirs: Mapping[str, set[int]] = (
            {each.job.jobid: each.pids() for each in running} if strangers else {}
        )
        for pid in strangers:
            self._owner[pid] = next((job for job, own in theirs.items() if pid in own), "")
