"""A job for the virtual machine: computes, says what it used, rests, and leaves.

    job.py RESULT BUSY_PROCESSES MEBIBYTES

BUSY_PROCESSES beside this one compute until there is a file RESULT-may-rest, and some seconds at
least; this one holds memory. Then it writes into RESULT, as JSON, what its processes used by
getrusage(2), and what the files of its control group say; rests until there is a file
RESULT-may-leave; and writes the same into RESULT-left: what is read meanwhile lies between.
"""

import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

LEAST_SECONDS = 6.0
"""Processor time, so large that two hundredths of it are more than what cannot be told apart."""


def job_group() -> Path:
    """Return the folder of the job's control group, from the group of this task (cgroup v2)."""
    own = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::")
    return Path("/sys/fs/cgroup") / re.sub(r"(/job_\d+)/.*", r"\1", own).lstrip("/")


def flat(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}


def stalled_seconds(path: Path) -> float:
    return int(re.findall(r"^some .* total=(\d+)$", path.read_text(), re.MULTILINE)[0]) / 1e6


def compute() -> int:
    """Start a process that computes until it is ended."""
    if child := os.fork():
        return child
    while True:
        sum(range(1000))


def used_seconds() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(who) for who in whose]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def readings() -> dict[str, float]:
    group = job_group()
    # of Slurm's own processes and of its extern step, which are in the job's group
    groups = [*group.glob("step_*/slurm"), *group.glob("step_extern/user")]
    steps = [flat(each / "cpu.stat")["usage_usec"] for each in groups]
    return {
        "slurm_cpu": sum(steps) / 1e6,
        "getrusage": used_seconds(),
        "cpu": flat(group / "cpu.stat")["usage_usec"] / 1e6,
        "memory_peak": int((group / "memory.peak").read_text()),
        "memory_limit": int((group / "memory.max").read_text()),
        "cpu_pressure": stalled_seconds(group / "cpu.pressure"),
        "memory_pressure": stalled_seconds(group / "memory.pressure"),
        "io_pressure": stalled_seconds(group / "io.pressure"),
    }


def wait_for(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.5)


def write(result: str) -> None:
    """Write what is read now, all at once."""
    Path(f"{result}.new").write_text(json.dumps(readings()))
    Path(f"{result}.new").rename(result)


def main(result: str, busy: int, mebibytes: int) -> None:
    held = bytearray(mebibytes << 20)
    held[::4096] = bytes(len(held) // 4096)  # only what was written to is charged
    children = [compute() for _ in range(busy)]
    wait_for(f"{result}-may-rest")
    while children and flat(job_group() / "cpu.stat")["usage_usec"] < LEAST_SECONDS * 1e6:
        time.sleep(0.2)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    write(result)
    wait_for(f"{result}-may-leave")
    write(f"{result}-left")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
