"""A node with eight GPUs, four InfiniBand ports and four jobs, on a machine that has none of it.

The GPUs are replayed through NVML's own interface. The ports are files with every counter that the
probe knows, more than any card has. RAPL is the golden machine's; the rest of /sys is this
machine's own. Each job has a control group made of files and a process tree that sleeps.
"""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.messages import JobStart
from probes.catalogue import INFINIBAND_COUNTERS, INFINIBAND_HARDWARE_COUNTERS
from probes.roots import Roots
from tests.golden.machine import MACHINES
from tests.nvml.build import TRACES

GPUS = 8
PORTS = 4
JOBS = 4
GOLDEN_CLASSES = ("powercap", "hwmon")

CGROUP_FILES = {
    "cgroup.procs": "",
    "cpu.stat": "usage_usec 7654321000\nuser_usec 7000000000\nsystem_usec 654321000\n",
    "memory.current": "68719476736\n",
    "memory.peak": "88719476736\n",
    "memory.max": "137438953472\n",
    "memory.stat": "".join(f"entry_{number} 123456789\n" for number in range(50)) + "shmem 4096\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
    "io.stat": "259:0 rbytes=1048576 wbytes=2097152 rios=9 wios=9 dbytes=0 dios=0\n",
}


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
def running_jobs(folder: Path) -> Iterator[list[JobStart]]:
    """Give four jobs of four processes, each with two GPUs."""
    command = ["sh", "-c", "sleep 3600 & sleep 3600 & sleep 3600 & wait"]
    roots = [subprocess.Popen(command, start_new_session=True) for _ in range(JOBS)]
    try:
        yield [_job(folder, number, root.pid) for number, root in enumerate(roots)]
    finally:
        for root in roots:
            os.killpg(root.pid, signal.SIGKILL)
            root.wait()


def _job(folder: Path, number: int, pid: int) -> JobStart:
    cgroup = folder / f"job{number}"
    _write_files(cgroup, CGROUP_FILES)
    return JobStart(
        jobid=f"{1000 + number}",
        start_ms=int(time.time() * 1000),
        pid=pid,
        gpus=(str(2 * number), str(2 * number + 1)),
        cpus=16.0,
        cgroup_v2=str(cgroup),
    )
