"""What one look shows: hosts, their GPUs and processes; the same from this node and from a store.

What is not known is None, and is left out of the screen. Units are those of the fields' names, or
base units: bytes, watts, degrees Celsius, shares 0..1, bytes per second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

from agent.inspect.model import JobHeader


class Span(NamedTuple):
    """A stretch of time in which a GPU was under one bound; milliseconds since 1970."""

    begin_ms: int
    end_ms: int
    bound: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU or MIG instance.

    Attributes:
        index: as NVML counts, or `parent.instance`.
        answers: False if it was there, and is not any more.
        compute, memory, link: shares of the GPU's roofs.
        slowed_for_heat, slowed_by_brake: shares of the time.
        held: whether a process has a compute context, or a job holds it.
        errors: whether memory errors that were not corrected are known, or critical Xid events.
        history: bounds of the last minutes, oldest first.

    """

    index: str
    model: str = ""
    answers: bool = True
    utilization: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    watts: float | None = None
    watts_limit: float | None = None
    celsius: float | None = None
    hertz: float | None = None
    compute: float | None = None
    memory: float | None = None
    link: float | None = None
    slowed_for_heat: float = 0.0
    slowed_by_brake: float = 0.0
    held: bool = False
    errors: bool = False
    history: Sequence[Span] = ()

    @property
    def bound(self) -> str:
        """The bound of now."""
        return self.history[-1].bound if self.history else "unknown"


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes per second, both ways."""

    into: float
    out: float


@dataclass(frozen=True, slots=True)
class Disk:
    """One temporary disk; `share` is what `df` says: used of what ordinary users can have."""

    path: str
    share: float
    used: float
    total: float
    moved: Flow | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    Attributes:
        state: the kernel's letter: R runs, S sleeps, D waits for a disk or a server, Z has ended.
        cpu: share of one CPU since the last look; None at the first.
        seconds: processor time so far.
        gpus: indices of the GPUs that it holds.
        job: id of the Slurm job that it belongs to.

    """

    pid: int
    user: str
    command: str
    state: str = ""
    cpu: float | None = None
    resident: float = 0.0
    seconds: float = 0.0
    gpus: Sequence[str] = ()
    job: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """One node.

    Attributes:
        silent_seconds: how long nothing was heard of it; 0 while it reports.
        of_job: whether cpu and memory are what a job uses of its own share.
        cpu: share of all CPUs.
        waits: share of the last 10 s in which some task waited, by resource.
        watts: by domain: node, package-0, ...
        fabric_errors: names of InfiniBand ports whose error counters grow.

    """

    name: str
    silent_seconds: float = 0.0
    of_job: bool = False
    cpus: float | None = None
    cpu: float | None = None
    busiest_core: float | None = None
    load: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    waits: Sequence[tuple[str, float]] = ()
    watts: Sequence[tuple[str, float]] = ()
    infiniband: Flow | None = None
    network: Flow | None = None
    files: Flow | None = None
    fabric_errors: Sequence[str] = ()
    disks: Sequence[Disk] = ()
    gpus: Sequence[Gpu] = ()
    processes: Sequence[Process] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One look.

    Attributes:
        at_ms: when; milliseconds since 1970.
        job: the job whose hosts these are; None for this node.
        trouble: why this is not all or not the newest; empty if it is.
        limits: what cannot be read here, each with what would mend it.

    """

    at_ms: int
    hosts: Sequence[Host] = ()
    job: JobHeader | None = None
    trouble: str = ""
    limits: Sequence[str] = ()


class Source(Protocol):
    """Where looks come from; used by one thread at a time."""

    def read(self) -> Frame:
        """Take a look now."""

    def close(self) -> None:
        """Give back what the source holds open."""


def gpu_order(index: str) -> tuple[int, ...]:
    """Return the place of a GPU: "0", "0.1", "1", ..., "10"."""
    return tuple(int(part) for part in index.split(".") if part.isdigit())


def gpu_list(indices: Sequence[str]) -> str:
    """Return indices of GPUs, neighbours as a range: "0-3,6"."""
    whole = sorted((each for each in indices if each.isdigit()), key=int)
    parts = []
    for _, run in groupby(enumerate(whole), key=lambda pair: int(pair[1]) - pair[0]):
        members = [index for _, index in run]
        parts.append(members[0] if len(members) == 1 else f"{members[0]}-{members[-1]}")
    instances = sorted((each for each in indices if not each.isdigit()), key=gpu_order)
    return ",".join([*parts, *instances])
