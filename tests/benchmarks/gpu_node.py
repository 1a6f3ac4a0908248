"""A node with eight GPUs, four InfiniBand ports and four jobs, on a machine that has none of it.

The GPUs are replayed through NVML's own interface. The ports are files with every counter that the
probe knows, more than any card has. RAPL is the golden machine's; the rest of /sys is this
machine's own. Each job is four processes that sleep, in the control groups that Slurm would make
for them (made of files, see slurm_groups.py), or known by their first process alone.
"""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from agent.messages import JobStart
from probes.catalogue import INFINIBAND_COUNTERS, INFINIBAND_HARDWARE_COUNTERS
from probes.roots import Roots
from tests.benchmarks.accounting import family
from tests.benchmarks.slurm_groups import write_job
from tests.golden.machine import MACHINES
from tests.nvml.build import TRACES

GPUS = 8
PORTS = 4
JOBS = 4
GOLDEN_CLASSES = ("powercap", "hwmon")

PROCESSES_OF_A_JOB = 4
TREE = ["sh", "-c", "sleep 3600 & sleep 3600 & sleep 3600 & wait"]
START_SECONDS = 10.0

Jobs = Literal["slurm", "trees"]
"""How a job's processes are found: in Slurm's control groups, or as a tree, as `rooflight run` does
where it may make no group."""


def write_trace(target: Path) -> None:
    """Write a trace of eight GPUs: four times the two of the recorded one."""
    with (TRACES / "two_h100.csv").open() as recorded:
        lines = [line for line in recorded if not line.startswith("#")]
    rows = list(csv.reader(lines))
    with target.open("w", newline="") as file:
        for gpu in range(GPUS):
            uuid = f"GPU-44444444-0000-0000-0000-{gpu:012}"
            file.write(f"# device {gpu} uuid={uuid} memory_mib=81559 name=NVIDIA H100 80GB HBM3\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for gpu in range(GPUS):
            writer.writerows([row[0], gpu, *row[2:]] for row in rows[1:] if int(row[1]) == gpu % 2)


def make_roots(folder: Path) -> Roots:
    """Return the roots of the node: this machine's, with ports and energy counters added."""
    sys = folder / "sys"
    (sys / "class").mkdir(parents=True)
    for name in ("block", "dev", "devices"):
        (sys / name).symlink_to(Path("/sys") / name)
    for real in Path("/sys/class").iterdir():
        if real.name not in (*GOLDEN_CLASSES, "infiniband"):
            (sys / "class" / real.name).symlink_to(real)
    for name in GOLDEN_CLASSES:
        (sys / "class" / name).symlink_to(MACHINES / "gpu_node/sys/class" / name)
    for number in range(PORTS):
        _write_port(sys / f"class/infiniband/mlx5_{number}/ports/1")
    return Roots(sys=sys)


def _write_port(port: Path) -> None:
    words = ("port_rcv_data", "port_xmit_data")
    counters = {f"counters/{name}": "123456789012\n" for name in (*INFINIBAND_COUNTERS, *words)}
    hardware = {f"hw_counters/{name}": "12345\n" for name in INFINIBAND_HARDWARE_COUNTERS}
    link = {"state": "4: ACTIVE\n", "rate": "400 Gb/sec (4X NDR)\n", "link_layer": "InfiniBand\n"}
    _write_files(port, {**counters, **hardware, **link})


def _write_files(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@contextmanager
def running_processes() -> Iterator[list[int]]:
    """Give the processes of all jobs, one job after the other.

    They are started by who measures, not by who is measured: it would be charged with them.
    """
    roots = [subprocess.Popen(TREE, start_new_session=True) for _ in range(JOBS)]
    try:
        yield [pid for root in roots for pid in processes_below(root.pid)]
    finally:
        for root in roots:
            os.killpg(root.pid, signal.SIGKILL)
            root.wait()


def gpus_of(pids: Sequence[int]) -> str:
    """Return which process is on which GPU, for the replayed NVML: each job's last two."""
    ranks = [pid for job in _by_job(pids) for pid in job[-GPUS // JOBS :]]
    return " ".join(f"{gpu}:{pid}" for gpu, pid in enumerate(ranks))


def jobs_of(folder: Path, kind: Jobs, pids: Sequence[int]) -> list[JobStart]:
    """Return the jobs, each with two GPUs, whose processes these are."""
    make = slurm_job if kind == "slurm" else tree_job
    return [make(folder, number, job) for number, job in enumerate(_by_job(pids))]


def _by_job(pids: Sequence[int]) -> list[Sequence[int]]:
    return [pids[at : at + PROCESSES_OF_A_JOB] for at in range(0, len(pids), PROCESSES_OF_A_JOB)]


def processes_below(root: int) -> list[int]:
    """Return a job's processes, the first one first, as soon as it has started the others."""
    deadline = time.monotonic() + START_SECONDS
    while len(pids := family(root)) < PROCESSES_OF_A_JOB:
        assert time.monotonic() < deadline, "a job does not start its processes"
        time.sleep(0.01)
    return pids


def slurm_job(folder: Path, number: int, pids: Sequence[int]) -> JobStart:
    """Return a job as its prolog tells of it, with the group that the agent then finds."""
    group = folder / f"system.slice/slurmstepd.scope/job_{1000 + number}"
    write_job(group, script=pids[:2], ranks=pids[2:])
    told = {"source": "slurm", "node": "node1", "nodes": "node1", "cgroup_v2": str(group)}
    return msgspec.structs.replace(_job(number), **told)


def tree_job(_folder: Path, number: int, pids: Sequence[int]) -> JobStart:
    """Return a job as `rooflight run` tells of it."""
    return msgspec.structs.replace(_job(number), pid=pids[0])


def _job(number: int) -> JobStart:
    return JobStart(
        jobid=f"{1000 + number}",
        start_ms=int(time.time() * 1000),
        gpus=(str(2 * number), str(2 * number + 1)),
        cpus=16.0,
    )
