"""Hosts that tell of a job what real agents would: made-up samples through the real code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.encoder import Encoder
from agent.footprint import Totals
from agent.jobs import RunningJob, Saved, Tick, job_row
from agent.messages import JobStart
from agent.stores.store import Store
from probes.catalogue import Database
from probes.roots import Roots
from probes.sample import Sample, Value, tags

CLUSTER = "test"
START_MS = 1_700_000_000_000
STEP_SECONDS = 10.0
MODEL = "NVIDIA H100 80GB HBM3"


def gpu_samples(gpu: int, seconds: float, utilization: float, step: float) -> list[Sample]:
    """Return what a GPU shows after so long at one load, under the memory roof if it has any."""
    names = tags(gpu=str(gpu), uuid=f"GPU-{gpu}", model=MODEL)
    fields: dict[str, Value] = {
        "utilization_ratio": utilization,
        "memory_used_bytes": 60.0 * 2**30,
        "memory_total_bytes": 80.0 * 2**30,
        "power_watts": 100.0 + 500.0 * utilization,
        "power_limit_watts": 700.0,
        "energy_joules": (100.0 + 500.0 * utilization) * seconds,
        "sm_active_ratio": 0.9 * utilization,
        "tensor_active_ratio": 0.05 * utilization,
        "dram_active_ratio": 0.8 * utilization,
        "source": "gpm",
    }
    name = "memory" if utilization > 0.05 else "idle"
    bound: dict[str, Value] = {"bound": name, f"{name}_seconds": step if seconds else 0.0}
    return [Sample("gpu", names, fields), Sample("bound", tags(gpu=str(gpu)), bound)]


def host_samples(jobid: str, seconds: float, cpus: float) -> list[Sample]:
    """Return what a host shows after so long with so many CPUs busy for the job."""
    own: dict[str, Value] = {
        "cpu_seconds": cpus * seconds,
        "memory_bytes": 8.0 * 2**30,
        "memory_limit_bytes": 64.0 * 2**30,
        "source": "cgroup1",
    }
    return [
        Sample("job_cgroup", tags(jobid=jobid), own),
        Sample("cpu", (), {"utilization_ratio": min(1.0, cpus / 8), "cpus_total": 8.0}),
        Sample("memory", (), {"used_bytes": 16.0 * 2**30, "total_bytes": 256.0 * 2**30}),
        Sample("power", tags(domain="node"), {"power_watts": 900.0}),
        Sample("network", tags(interface="eth0"), _moved(1e6 * seconds)),
        Sample("infiniband", tags(device="mlx5_0", port="1"), _moved(1e9 * seconds)),
    ]


def _moved(count: float) -> Mapping[str, Value]:
    return {"receive_bytes": count, "transmit_bytes": 2 * count}


@dataclass
class SimulatedHost:
    """One host of a job, whose agent takes a sample every ten seconds.

    Attributes:
        job: as the prolog told of it.
        host: the agent's name for the host.
        cpus: CPUs that the job keeps busy.
        loads: utilization of each GPU.

    """

    job: JobStart
    host: str = "n1"
    cpus: float = 4.0
    loads: tuple[float, ...] = ()
    running: RunningJob = field(init=False)

    def __post_init__(self) -> None:
        self.running = RunningJob(Saved(self.job, Totals(), {}), Roots())

    def run(self, seconds: int) -> None:
        """Take the samples of so long a run."""
        for passed in range(0, seconds + 1, round(STEP_SECONDS)):
            self.running.fold(Tick(self.samples(float(passed))), self.job.start_ms + passed * 1000)

    def samples(self, passed: float) -> list[Sample]:
        found = host_samples(self.job.jobid, passed, self.cpus)
        for gpu, load in enumerate(self.loads):
            found += gpu_samples(gpu, passed, load, STEP_SECONDS)
        return found

    def lines(self, state: str, end: tuple[int, int | None] | None) -> bytes:
        """Return the job's rows as line protocol; `end` is moment and exit code."""
        rows = [job_row(self.job, state, self.host, len(self.loads), end)]
        rows += self.running.rows(STEP_SECONDS, final=end is not None)
        lines = Encoder(CLUSTER, self.host).lines(rows, self.job.start_ms)
        return b"".join(lines.values())


def job_start(jobid: str = "7", **values: object) -> JobStart:
    """Return a job of eight CPUs on each host, as Slurm's prolog tells of it."""
    known = {"start_ms": START_MS, "user": "alice", "cpus": 8.0, "source": "slurm", "gpus": None}
    return JobStart(jobid, **{**known, **values})  # type: ignore[arg-type]


def write_job(
    store: Store,
    hosts: Iterable[SimulatedHost],
    seconds: int = 600,
    *,
    exit_code: int | None = 0,
) -> None:
    """Run a job on its hosts and write what they tell; None: it is not over yet."""
    for host in hosts:
        host.run(seconds)
        end = None if exit_code is None else (host.job.start_ms + seconds * 1000, exit_code)
        state = {0: "COMPLETED", None: "RUNNING"}.get(exit_code, "FAILED")
        store.write(Database.JOBS, host.lines(state, end))
