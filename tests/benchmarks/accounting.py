"""What a running process has used, in the kernel's own accounting."""

import time
from pathlib import Path
from typing import NamedTuple

import psutil

_CPUCLOCK_SCHED = 2
KIBIBYTE = 1024


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, of all its threads and of its descendants.

    The kernel counts in nanoseconds here, those of threads that ended included; `/proc/PID/stat`
    has steps of 10 ms. Of children that ended there is only the latter. Source:
    clock_getcpuclockid(3), kernel include/linux/posix-timers.h for the clock's number.
    """
    process = psutil.Process(pid)
    times = process.cpu_times()
    running = [pid, *(child.pid for child in process.children(recursive=True))]
    clocks = [time.clock_gettime((~each << 3) | _CPUCLOCK_SCHED) for each in running]
    return sum(clocks) + float(times.children_user + times.children_system)


class Memory(NamedTuple):
    """Bytes of a process in memory: all of it, and with shared pages counted in proportion."""

    resident: float
    proportional: float


def memory(pid: int) -> Memory:
    """Return what a process holds in memory. Source: proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    return Memory(sizes["Rss"] * KIBIBYTE, sizes["Pss"] * KIBIBYTE)
