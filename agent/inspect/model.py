"""The report on one job as data: what `jobinspect --json` prints and the text is made from.

The schema has a version. Fields are added under the same version; a field that changes its
meaning or goes away makes a new one.
"""

from collections.abc import Mapping, Sequence

import msgspec

SCHEMA = "rooflight.jobinspect/1"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the utilisation table; what is unknown is absent.

    Attributes:
        what: "cpu", "memory", "gpu 0", ...
        unit: unit of mean, peak, total and available (ratio, B, W, J, s).
        mean: time-weighted mean while the job ran.
        peak: highest sample.
        total: sum over the job, for counters.
        available: what there was to use.
        scope: "job" (exact for the job), "gpu" (exact for a GPU the job holds) or "node"
            (everything on the node, other people's work included).

    """

    what: str
    unit: str
    scope: str
    mean: float | None = None
    peak: float | None = None
    total: float | None = None
    available: float | None = None


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


class Node(msgspec.Struct, frozen=True):
    """One host of the job.

    Attributes:
        samples: samples taken; samples_expected: how many there should be.
        final: False while the job runs, or if its end was never seen.
        source: what job-exact figures rest on: cgroup2, cgroup1 or processes.

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

    """

    id: str
    severity: str
    words: str
    advice: str


class JobHeader(msgspec.Struct, frozen=True):
    """Who ran what, where and when; times in milliseconds since 1970.

    Attributes:
        jobid: as the user writes it; `raw` is the number that the store knows.
        start_ms: 0 while the job is pending; `reason` then says why.

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


class TaskSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task of an array, or one component of a heterogeneous job, in a line."""

    jobid: str
    state: str
    hosts: Sequence[str]
    elapsed_seconds: float
    cpu_mean_ratio: float | None = None
    memory_peak_bytes: float | None = None
    gpu_mean_ratio: float | None = None


class JobReport(msgspec.Struct, frozen=True):
    """Everything that is known of one job."""

    job: JobHeader
    nodes: Sequence[Node]
    phases: Sequence[Phase]
    ceilings: Sequence[Ceiling]
    findings: Sequence[Finding]
    grafana: str = ""
    notes: Sequence[str] = ()
    tasks: Sequence[TaskSummary] = ()
    schema: str = SCHEMA
