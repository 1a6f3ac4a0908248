"""What a running process has used, in the kernel's own accounting."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

_CPUCLOCK_SCHED = 2
KIBIBYTE = 1024


class Usage(NamedTuple):
    """What processes used so far.

    Attributes:
        cpu_seconds: user and system time.
        wakeups: how often they waited for something, and came back.

    """

    cpu_seconds: float
    wakeups: int


def usage(pids: Iterable[int]) -> Usage:
    """Return what these processes and their descendants used together."""
    counted = [(cpu_seconds(pid), wakeups(pid)) for pid in pids]
    return Usage(sum(seconds for seconds, _ in counted), sum(times for _, times in counted))


def family(pid: int) -> list[int]:
    """Return a process and all of its descendants that run."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, of all its threads and of its descendants.

    The kernel counts in nanoseconds here, those of threads that ended included; `/proc/PID/stat`
    has steps of 10 ms. Of children that ended there is only the latter. Source:
    clock_getcpuclockid(3), kernel include/linux/posix-timers.h for the clock's number.
    """
    times = psutil.Process(pid).cpu_times()
    clocks = [time.clock_gettime((~each << 3) | _CPUCLOCK_SCHED) for each in family(pid)]
    return sum(clocks) + float(times.children_user + times.children_system)


def wakeups(pid: int) -> int:
    """Return how often a process, its threads and its descendants gave up a CPU to wait.

    Each such wait ends with a wakeup. A thread that ended takes its number along. Source:
    proc_pid_status(5), `voluntary_ctxt_switches`.
    """
    files = [file for each in family(pid) for file in Path(f"/proc/{each}/task").glob("*/status")]
    return sum(_of_what_is_left(waits, file) for file in files)


def waits(status: str) -> int:
    """Return how often a task waited, by its `status` file; 0 if that does not say it."""
    words = status.partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)
    return int(words[0]) if words else 0


def _of_what_is_left(parse: Callable[[str], int], file: Path) -> int:
    with suppress(OSError):  # a thread ended just now
        return parse(file.read_text())
    return 0


class Memory(NamedTuple):
    """Bytes in memory: all of it, and with shared pages counted in proportion."""

    resident: float
    proportional: float


def memory(*pids: int) -> Memory:
    """Return what processes and their descendants hold in memory: a sum over the processes."""
    held = [memory_of_one(each) for pid in pids for each in family(pid)]
    return Memory(sum(each.resident for each in held), sum(each.proportional for each in held))


def memory_of_one(pid: int) -> Memory:
    """Return what one process holds in memory. Source: proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    return Memory(sizes["Rss"] * KIBIBYTE, sizes["Pss"] * KIBIBYTE)
