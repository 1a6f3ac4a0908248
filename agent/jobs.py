"""The jobs on this host: what they use, their footprints, and both kept over a restart."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent.footprint import GPU_RULES, NODE_RULES, THROTTLED, Totals
from agent.gpus import GpuShare
from agent.messages import JobStart
from agent.segments import usable
from agent.slurm.hostlist import count_hosts
from probes.catalogue import FOOTPRINT_SOURCES
from probes.cgroup import Cgroup, CgroupPaths, processes_of
from probes.processes import ProcessTree
from probes.roots import Roots
from probes.sample import Sample, Value, tags

log = logging.getLogger("rooflight.jobs")

ASIDE = ".unreadable"
"""Suffix of a job's state that this release cannot read: another may."""

GLANCE_SECONDS = 1e-6
"""Weight of a sample between ticks: the ticks around it stand for that time in the means."""


COUNTS = {measurement: f"{measurement}_samples_total" for measurement in FOOTPRINT_SOURCES}
"""Measurement -> the field that tells in how many samples it was there."""


class Saved(msgspec.Struct):
    """A running job as it lies on disk."""

    job: JobStart
    node: Totals
    gpus: dict[str, Totals]
    samples: int = 0
    last_ms: int = 0
    last_cpu_seconds: float = 0.0
    busiest: float = 0.0
    gpus_used: set[str] = set()


class Accounting:
    """Reads what one job uses: its cgroup where there is one, its process tree, or both."""

    def __init__(self, job: JobStart, roots: Roots) -> None:
        self._jobid = job.jobid
        self._roots = roots
        self._tree = ProcessTree(roots, job.pid) if job.pid else None
        paths = CgroupPaths(
            v2=Path(job.cgroup_v2) if job.cgroup_v2 else None,
            v1={name: Path(path) for name, path in job.cgroup_v1.items()},
        )
        self._cgroup = Cgroup(paths, roots)

    def locate(self, paths: CgroupPaths) -> None:
        """Say where the job's control group is, once that is known."""
        if paths != self._cgroup.paths:
            self._cgroup.close()
            self._cgroup = Cgroup(paths, self._roots)

    def freshen(self) -> None:
        """Have the next sample read everything anew."""
        self._cgroup.freshen()

    def close(self) -> None:
        """Give back what is held open."""
        self._cgroup.close()

    def pids(self) -> set[int]:
        """Return the job's processes."""
        return processes_of(self._cgroup.paths) | (self._tree.pids if self._tree else set())

    def sample(self) -> Sample | None:
        """Return the job's `job_cgroup` sample; None if nothing of it is left."""
        tree = self._tree.read() if self._tree else {}
        fields: dict[str, Value] = {**tree, **self._cgroup.read()}
        # the tree sees buffered writes when they are made, a cgroup when they reach the disk
        fields |= {name: tree[name] for name in ("read_bytes", "write_bytes") if name in tree}
        if fields.get("memory_bytes") == 0:
            del fields["memory_bytes"]  # its programs have ended: no sample of their memory
        return Sample("job_cgroup", tags(jobid=self._jobid), fields) if fields else None


class Tick:
    """The samples of a node at one moment, looked through once for all of its jobs.

    Attributes:
        readings: what goes into every job's footprint.
        measurements: names of what there is.
        gpus: samples of each GPU, by its index.

    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.readings = NODE_RULES.read(samples)
        self.measurements = {sample.measurement for sample in samples}
        self.gpus: dict[str, list[Sample]] = {}
        for sample in samples:
            if sample.measurement in ("gpu", "bound"):
                self.gpus.setdefault(gpu_index(sample), []).append(sample)


class RunningJob:
    """One job and its footprint.

    Attributes:
        job: what was said when it began.
        saved: the footprint's state.
        gpus: which GPUs are its.
        hangs: whether a thread is stuck in reading what it uses, see `Relay`.

    """

    def __init__(self, saved: Saved, roots: Roots) -> None:
        self.job = saved.job
        self.saved = saved
        self.gpus = GpuShare(saved.job, saved.gpus_used)
        self.hangs = False
        self._accounting = Accounting(saved.job, roots)
        self._cpus = saved.job.cpus or float(os.cpu_count() or 1)

    def __str__(self) -> str:
        return f"what job {self.job.jobid} uses"

    def samples(self) -> list[Sample]:
        """Return what the job itself uses now; nothing if nothing of it is left."""
        own = self._accounting.sample()
        return [own] if own else []

    def pids(self) -> set[int]:
        """Return the job's processes on this host."""
        return self._accounting.pids()

    def locate(self, cgroup: CgroupPaths) -> None:
        """Say where the job's control group is: Slurm makes it after the prolog."""
        self._accounting.locate(cgroup)

    def freshen(self) -> None:
        """Have the next sample read everything anew."""
        self._accounting.freshen()

    def close(self) -> None:
        """Give back what is held open."""
        if not self.hangs:
            self._accounting.close()

    def was_located(self) -> bool:
        """Tell whether anything of the job itself was ever read."""
        return "source" in self.saved.node.values

    def glance(self, own: Sequence[Sample]) -> None:
        """Take what the job itself used into its totals and peaks, between two ticks."""
        self.saved.node.fold(NODE_RULES, own, GLANCE_SECONDS)

    def fold(self, tick: Tick, time_ms: int, own: Sequence[Sample] = ()) -> None:
        """Take one tick of the node, and the samples of this job's own, into the footprint."""
        saved = self.saved
        seconds = max(0.0, (time_ms - saved.last_ms) / 1000) if saved.samples else 0.0
        saved.samples += 1
        saved.last_ms = time_ms
        saved.node.take([*tick.readings, *NODE_RULES.read(own)], seconds)
        there = tick.measurements | {sample.measurement for sample in own}
        for measurement in COUNTS.keys() & there:
            saved.node.count(COUNTS[measurement])
        self._fold_busiest(seconds)
        for index, of_gpu in tick.gpus.items():
            if self.owns(index):
                self._fold_gpu(index, of_gpu, seconds)

    def rows(self, interval: float, *, final: bool) -> Iterator[Sample]:
        """Yield the `job_footprint` sample and one `job_gpu_footprint` per GPU."""
        saved, elapsed = self.saved, self.elapsed_seconds()
        fields = saved.node.fields()
        cpu_seconds = float(fields.get("cpu_seconds", 0.0))
        fields |= {
            "elapsed_seconds": elapsed,
            "samples_total": float(saved.samples),
            "samples_expected_total": float(self._expected_samples(interval, final=final)),
            "updated_epoch_milliseconds": float(saved.last_ms),
            "final_state": float(final),
            "cpus_total": self._cpus,
            **self.gpus.fields(),
        }
        if "cpu_seconds" in fields and elapsed > 0:
            fields["cpu_utilization_mean_ratio"] = min(1.0, cpu_seconds / elapsed / self._cpus)
            fields["cpu_utilization_peak_ratio"] = saved.busiest
        yield Sample("job_footprint", tags(jobid=self.job.jobid), fields)
        for gpu, totals in sorted(saved.gpus.items()):
            yield Sample("job_gpu_footprint", tags(jobid=self.job.jobid, gpu=gpu), _of_gpu(totals))

    def owns(self, gpu: str) -> bool:
        """Tell whether the job holds the GPU of this index."""
        return self.gpus.owns(gpu)

    def elapsed_seconds(self) -> float:
        """Return the time from the job's start to its last sample."""
        return max(0.0, (self.saved.last_ms - self.job.start_ms) / 1000)

    def _expected_samples(self, interval: float, *, final: bool) -> int:
        """Return the ticks since the start, and the samples taken at start and end."""
        step = max(1, round(interval * 1000))
        return self.saved.last_ms // step - self.job.start_ms // step + 1 + final

    def _fold_gpu(self, index: str, samples: Sequence[Sample], seconds: float) -> None:
        totals = self.saved.gpus.setdefault(index, Totals())
        totals.fold(GPU_RULES, samples, seconds)
        for measurement, tags_of_gpu, _ in samples:
            if measurement == "gpu":
                names = dict(tags_of_gpu)
                totals.values |= {"uuid": names["uuid"], "model": names["model"]}
                totals.count("samples_total")
                for name, processes in self.gpus.processes(index).items():
                    totals.keep_highest(name, processes)

    def _fold_busiest(self, seconds: float) -> None:
        """Keep the highest CPU utilization between two samples."""
        saved = self.saved
        now = float(saved.node.values.get("cpu_seconds", 0.0))
        if seconds > 0:
            ratio = (now - saved.last_cpu_seconds) / seconds / self._cpus
            saved.busiest = max(saved.busiest, min(1.0, ratio))
        saved.last_cpu_seconds = now


def _of_gpu(totals: Totals) -> dict[str, Value]:
    fields = totals.fields()
    slowed = [fields[name] for name in THROTTLED if name in fields]
    return {**fields, "throttled_seconds": sum(map(float, slowed))} if slowed else fields


def gpu_index(sample: Sample) -> str:
    """Return the `gpu` tag of a `gpu` or `bound` sample."""
    return dict(sample.tags)["gpu"]


class JobTable:
    """All jobs that run on this host, each with its state in a file of `directory`."""

    def __init__(self, directory: Path, roots: Roots) -> None:
        self._directory = directory
        self._roots = roots
        self._jobs: dict[str, RunningJob] = {}
        with usable(directory):
            directory.mkdir(parents=True, exist_ok=True)
        for file in sorted(directory.glob("*.json")):
            self._restore(file)
        for file in sorted(directory.glob(f"*{ASIDE}")):
            self._restore_aside(file)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(tuple(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, jobid: str) -> RunningJob | None:
        """Return the running job of this id."""
        return self._jobs.get(jobid)

    def start(self, job: JobStart) -> RunningJob:
        """Add a job; one that is known already under the same start goes on."""
        known = self._jobs.get(job.jobid)
        if known and known.job.start_ms == job.start_ms:
            return known
        saved = Saved(job, Totals(), {})
        if known and known.job.gpus_by_use:  # found by its group before its prolog was heard
            told = msgspec.structs.replace(job, start_ms=known.job.start_ms)
            saved = msgspec.structs.replace(known.saved, job=told)
        if known:
            known.close()
        running = RunningJob(saved, self._roots)
        self._jobs[job.jobid] = running
        return running

    def end(self, jobid: str) -> None:
        """Forget a job and its file."""
        if running := self._jobs.pop(jobid, None):
            running.close()
        for file in (self._file(jobid), self._file(jobid).with_suffix(ASIDE)):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Write every job's state, and give back what is held open."""
        self.save()
        for running in self:
            running.close()

    def save(self) -> None:
        """Write every job's state; a full disk costs the state, not the agent."""
        for running in self:
            file = self._file(running.job.jobid)
            try:
                file.with_suffix(".new").write_bytes(msgspec.json.encode(running.saved))
                file.with_suffix(".new").rename(file)
            except OSError as error:
                log.warning("state of job %s not saved: %s", running.job.jobid, error)

    def _file(self, jobid: str) -> Path:
        return self._directory / f"{jobid}.json"

    def _restore(self, file: Path) -> None:
        try:
            saved = read_saved(file.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            log.warning("state of a job left aside: %s: %s", file, error)
            with suppress(OSError):
                file.rename(file.with_suffix(ASIDE))
            return
        self._jobs[saved.job.jobid] = RunningJob(saved, self._roots)

    def _restore_aside(self, file: Path) -> None:
        """Take on what a release before this one could not read, unless the job is known since."""
        with suppress(OSError, msgspec.DecodeError):
            saved = read_saved(file.read_bytes())
            if saved.job.jobid not in self._jobs:
                file.rename(file.with_suffix(".json"))
                self._jobs[saved.job.jobid] = RunningJob(saved, self._roots)


def read_saved(data: bytes) -> Saved:
    """Return a job's state; what a newer release added to it is left out.

    Raises:
        msgspec.DecodeError: it is not one.

    """
    known = {"type", *JobStart.__struct_fields__}
    state = msgspec.json.decode(data, type=dict[str, Any])
    said = state.get("job")
    if isinstance(said, dict):  # as a message it would be refused
        state["job"] = {name: value for name, value in said.items() if name in known}
    return msgspec.convert(state, Saved)


def job_row(
    job: JobStart, state: str, host: str, gpus: int, end: tuple[int, int | None] | None
) -> Sample:
    """Return the `job` sample; `end` is (milliseconds since 1970, exit code) once it ended."""
    fields: dict[str, Value] = {
        "user": job.user,
        "account": job.account,
        "partition": job.partition,
        "name": job.name,
        "command": job.command,
        "state": state,
        "hosts": host,
        "source": job.source,
        "nodes_total": float(count_hosts(job.nodes) or 1),
        "cpus_total": job.cpus or float(os.cpu_count() or 1),
        "gpus_total": float(gpus),
        "restart_total": float(job.restart),
        "start_epoch_milliseconds": float(job.start_ms),
    }
    told = {"node": job.node, "nodes": job.nodes, "het_jobid": job.het_jobid}
    fields |= {name: words for name, words in told.items() if words}
    if end:
        fields["end_epoch_milliseconds"] = float(end[0])
        if end[1] is not None:
            fields["exit_code_total"] = float(end[1])
    return Sample("job", tags(jobid=job.jobid), fields)
