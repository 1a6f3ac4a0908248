"""The processes of this node: what they use, whose they are, which GPUs they hold.

psutil tells who a process is, which seldom changes. What changes at every look is read from
/proc/PID/stat alone: with 900 processes that is 16 ms of processor time, and psutil's way 35.
"""

import os
import pwd
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import psutil

from agent.top.model import Process
from probes.parsing import read_text
from probes.processes import PAGE_BYTES, TICKS_PER_SECOND, Stat, read_stat

SETTLING_SECONDS = 2.0
"""A new process is asked twice who it is: between fork and exec it is still its parent."""

AGAIN_SECONDS = 60.0
PARTS = 16
"""Later askings are spread over so many parts of a minute."""

HIDDEN = "(not visible here: another user's, or in a container)"
JOB = re.compile(r"/job_(\d+)\b")
PROC = "/proc"


class Who(NamedTuple):
    """What seldom changes of a process.

    Attributes:
        started: clock ticks after boot: with the pid it tells a process from its successors.
        again_at: when to ask anew, on the monotonic clock.

    """

    started: int
    user: str
    command: str
    job: str
    again_at: float


class Processes:
    """All processes that this user can see, from one look to the next."""

    def __init__(self) -> None:
        self._before: dict[int, Stat] = {}
        self._time = 0.0
        self._known: dict[int, Who] = {}

    def read(self, now: float, holders: Mapping[str, Sequence[int]]) -> list[Process]:
        """Return the processes.

        Args:
            now: the time on a clock that never goes back, in seconds.
            holders: processes with a compute context by index of the GPU.

        """
        passed, self._time = now - self._time, now
        before, self._before = self._before, dict(_stats())
        gpus = _by_process(holders)
        settling = SETTLING_SECONDS if before else AGAIN_SECONDS
        self._known = {
            pid: self._who(pid, stat, now, settling) for pid, stat in self._before.items()
        }
        seen = [
            self._process(pid, stat, before.get(pid), passed, gpus.get(pid, ()))
            for pid, stat in self._before.items()
        ]
        hidden = sorted(gpus.keys() - self._before.keys())
        return [*seen, *(Process(pid, "?", HIDDEN, gpus=gpus[pid]) for pid in hidden)]

    def _process(
        self, pid: int, stat: Stat, old: Stat | None, passed: float, gpus: Sequence[str]
    ) -> Process:
        ticks, who = stat.user + stat.system, self._known[pid]
        cpu = None
        if old and old.started == stat.started:
            cpu = max(0.0, (ticks - old.user - old.system) / TICKS_PER_SECOND / passed)
        return Process(
            pid,
            who.user,
            who.command,
            stat.state.decode(),
            cpu,
            stat.resident * PAGE_BYTES,
            ticks / TICKS_PER_SECOND,
            gpus,
            who.job,
        )

    def _who(self, pid: int, stat: Stat, now: float, settling: float) -> Who:
        known = self._known.get(pid)
        if known is None or known.started != stat.started:
            return who(pid, stat.started, now + settling)
        if now < known.again_at:
            return known
        return who(pid, stat.started, now + AGAIN_SECONDS * (1 + pid % PARTS / PARTS))


def who(pid: int, started: int, again_at: float) -> Who:
    """Ask who a process is; of one that ends meanwhile, what could be learned."""
    user, command = "?", "(ended)"
    try:
        process = psutil.Process(pid)
        command = f"[{process.name()}]"  # for the kernel's own, and for those that have ended
        user = user_name(process.uids().real)
        command = " ".join(process.cmdline()).strip() or command
    except psutil.Error:
        pass
    return Who(started, user, command, _job(pid), again_at)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return a user's name, or the number of one without; asked once, for a directory is slow."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _job(pid: int) -> str:
    """Return the Slurm job in whose control group a process is; "" if in none."""
    found = JOB.search(read_text(f"{PROC}/{pid}/cgroup") or "")
    return found[1] if found else ""


def _stats() -> Iterator[tuple[int, Stat]]:
    for name in os.listdir(PROC):  # noqa: PTH208 - thousands of them: plain names are enough
        if name.isdigit() and (stat := read_stat(PROC, int(name))):
            yield int(name), stat


def _by_process(holders: Mapping[str, Sequence[int]]) -> dict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for gpu, pids in holders.items():
        for pid in pids:
            found[pid].append(gpu)
    return dict(found)
