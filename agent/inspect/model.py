"""The report on one job as data: what `jobinspect --json` prints and the text is made from.

The schema has a version. Fields are added under the same version; a field that changes its
meaning or goes away makes a new one.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import msgspec

SCHEMA = "rooflight.jobinspect/1"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the utilisation table; what is unknown is absent.

    Attributes:
        what: "cpu", "memory", "gpu 0 utilization", ...
        unit: unit of mean, peak, total and available (ratio, B, B/s, W, J, s, count).
        scope: "job" (exact for the job), "gpu" (exact for a GPU the job holds) or "node"
            (everything on the node, other people's work included).
        mean: time-weighted mean while the job ran.
        peak: highest sample.
        total: sum over the job, for counters.
        available: what there was to use.
        source: where the figure comes from: cgroup2, NVML, RAPL, a file of the kernel.
        samples: how many of the samples of the host had it.
        gpu: index of the GPU that it is of; empty for a line of the host.

    """

    what: str
    unit: str
    scope: str
    mean: float | None = None
    peak: float | None = None
    total: float | None = None
    available: float | None = None
    source: str = ""
    samples: int | None = None
    gpu: str = ""

    @property
    def figure(self) -> float | None:
        """The one number by which hosts or GPUs are compared: the mean, or what comes next."""
        if self.mean is not None:
            return self.mean
        return self.peak if self.total is None else self.total


class Summary(Usage, frozen=True, omit_defaults=True):
    """A line over all hosts, or all GPUs, of the job.

    `mean` is that of theirs, `peak` the highest, `total` their sum, `available` what each had (the
    mean, where they differ); `samples` are counted over all of them.

    Attributes:
        members: how many hosts or GPUs it is of.
        samples_expected: how many samples there should be.
        lowest: the lowest of their figures (see `Usage.figure`); absent with a single member.
        lowest_on: its host, or host and GPU.
        highest: the highest.
        highest_on: its host, or host and GPU.

    """

    members: int = 1
    samples_expected: int = 0
    lowest: float | None = None
    lowest_on: str = ""
    highest: float | None = None
    highest_on: str = ""


class Outlier(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host or GPU that is unlike the others of the job; the rule stands in `outliers.py`.

    Attributes:
        what: name of the line; of a GPU without "gpu N" before it.
        value: its figure (see `Usage.figure`); median: that of all hosts, or GPUs.
        gpu: empty for a host.

    """

    what: str
    unit: str
    host: str
    value: float
    median: float
    gpu: str = ""

    @property
    def place(self) -> str:
        """Host, or host and GPU."""
        return place(self.host, self.gpu)


def place(host: str, gpu: str = "") -> str:
    """Return how a host or a GPU is named."""
    return f"{host} gpu {gpu}" if gpu else host


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """One GPU that the job held on a host.

    Attributes:
        gpu: its index there.
        source: what its activity rests on: gpm, dcgm, or nvml (no pipe activity).
        samples: samples taken of it; activity_samples: those among them with pipe activity.

    """

    gpu: str
    uuid: str = ""
    model: str = ""
    source: str = ""
    samples: int = 0
    activity_samples: int = 0


class GpuBounds(msgspec.Struct, frozen=True):
    """How long one GPU was under each roof.

    Attributes:
        gpu: its index on the host.
        evidence: what the labels rest on: gpm or dcgm (counters), or nvml (a resemblance).
        seconds: by bound; those that never held are absent.

    """

    gpu: str
    evidence: str
    seconds: Mapping[str, float]

    def share(self, bound: str) -> float:
        """Return the share that a bound has of the time not idle; 0 if all was idle."""
        busy = sum(seconds for name, seconds in self.seconds.items() if name != "idle")
        return self.seconds.get(bound, 0.0) / busy if busy else 0.0


class Node(msgspec.Struct, frozen=True, dict=True):
    """One host of the job.

    Attributes:
        samples: samples taken; samples_expected: how many there should be.
        final: False while the job runs, or if its end was never seen.
        source: what job-exact figures rest on: cgroup2, cgroup1 or processes.
        node: the host's name in Slurm, if it has another there.
        cpus: CPUs that the job had on it.
        gpus_not_given: GPUs on which its processes ran, and which it was not given.
        gpus_not_found: GPUs that it was given, and NVML does not show.

    """

    host: str
    elapsed_seconds: float
    samples: int
    samples_expected: int
    updated_ms: int
    final: bool
    source: str
    usage: Sequence[Usage]
    bounds: Sequence[GpuBounds] = ()
    gpus: Sequence[Gpu] = ()
    node: str = ""
    cpus: float = 0.0
    gpus_not_given: str = ""
    gpus_not_found: str = ""

    @property
    def name(self) -> str:
        """Its name in Slurm, where it has one."""
        return self.node or self.host

    def line(self, what: str, gpu: str = "") -> Usage | None:
        """Return a line of the host, or of one of its GPUs ("utilization" of "0")."""
        return self._lines.get(f"gpu {gpu} {what}" if gpu else what)

    @cached_property
    def _lines(self) -> Mapping[str, Usage]:
        return {usage.what: usage for usage in self.usage}

    def mean(self, what: str, gpu: str = "") -> float | None:
        """Return the mean of a line; None if it is not known."""
        line = self.line(what, gpu)
        return line.mean if line else None

    def total(self, what: str, gpu: str = "") -> float | None:
        """Return the total of a line; None if it is not known."""
        line = self.line(what, gpu)
        return line.total if line else None


class Phase(msgspec.Struct, frozen=True, omit_defaults=True):
    """One phase that ran within the job; units as in the field's names."""

    host: str
    workload: str
    phase: str
    device: str
    bound: str
    duration_seconds: float
    start_ms: int
    dtype: str = ""
    calls: int = 0
    flops: float | None = None
    moved_bytes: float | None = None
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    intensity_flops_per_byte: float | None = None
    ridge_flops_per_byte: float | None = None
    compute_ratio: float | None = None
    memory_ratio: float | None = None
    link_ratio: float | None = None
    io_ratio: float | None = None
    confidence_ratio: float | None = None
    explanation: str = ""


class Ceiling(msgspec.Struct, frozen=True, omit_defaults=True):
    """One roof measured on a device of the job while it ran."""

    host: str
    device: str
    kind: str
    dtype: str
    flops_per_second: float | None = None
    bytes_per_second: float | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something the numbers say.

    Attributes:
        id: stable name of the rule.
        severity: "info", "hint" or "warning".
        words: what was seen, with its numbers.
        advice: what to do.
        places: hosts, or hosts and GPUs, that it is about; empty for the job as a whole.

    """

    id: str
    severity: str
    words: str
    advice: str
    places: Sequence[str] = ()


class JobHeader(msgspec.Struct, frozen=True):
    """Who ran what, where and when; times in milliseconds since 1970.

    Attributes:
        jobid: as the user writes it; `raw` is the number that the store knows.
        hosts: names of all its nodes; `nodes` is how many there are.
        restart: how often it was requeued before this run.
        submit_ms: when it was queued; 0 if that is not known.
        start_ms: 0 while the job is pending; `reason` then says why, and `expected_start_ms` when
            Slurm means to start it (0 if it does not say).
        wait_seconds: time in the queue.
        memory_bytes: allocated on all its nodes; 0 if that is not known.

    """

    jobid: str
    cluster: str
    state: str
    user: str = ""
    account: str = ""
    partition: str = ""
    name: str = ""
    command: str = ""
    hosts: Sequence[str] = ()
    nodes: int = 1
    cpus: int = 0
    gpus: int = 0
    restart: int = 0
    start_ms: int = 0
    end_ms: int | None = None
    elapsed_seconds: float = 0.0
    exit_code: int | None = None
    raw: str = ""
    time_limit_seconds: float | None = None
    reason: str = ""
    submit_ms: int = 0
    wait_seconds: float | None = None
    expected_start_ms: int = 0
    memory_bytes: float = 0.0


class TaskSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several jobs in a line: a task of an array, a component of a heterogeneous job.

    Attributes:
        memory_peak_bytes: the highest of its hosts; memory_available_bytes: what that one had.
        energy_joules: of its GPUs.
        findings: ids of what its own report finds.

    """

    jobid: str
    state: str
    hosts: Sequence[str]
    elapsed_seconds: float
    cpu_mean_ratio: float | None = None
    memory_peak_bytes: float | None = None
    gpu_mean_ratio: float | None = None
    memory_available_bytes: float | None = None
    energy_joules: float | None = None
    name: str = ""
    cpus: int = 0
    gpus: int = 0
    start_ms: int = 0
    exit_code: int | None = None
    findings: Sequence[str] = ()


class JobReport(msgspec.Struct, frozen=True):
    """Everything that is known of one job.

    Attributes:
        nodes: the hosts whose agents told of it; `job.nodes` says how many there should be.
        tasks: of a whole array or heterogeneous job, its parts; all else is empty then.
        summary: the lines of `nodes` over all hosts and GPUs.
        outliers: hosts and GPUs unlike the others.
        bounds: seconds under each roof, summed over all GPUs.

    """

    job: JobHeader
    nodes: Sequence[Node]
    phases: Sequence[Phase]
    ceilings: Sequence[Ceiling]
    findings: Sequence[Finding]
    grafana: str = ""
    notes: Sequence[str] = ()
    tasks: Sequence[TaskSummary] = ()
    summary: Sequence[Summary] = ()
    outliers: Sequence[Outlier] = ()
    bounds: Mapping[str, float] = {}
    schema: str = SCHEMA
