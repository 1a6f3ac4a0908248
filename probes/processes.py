"""What one process and all that it started use: a job where there is no control group for it.

Source: proc_pid_stat(5), proc_pid_io(5).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from probes.parsing import counters, whole_lines
from probes.roots import Roots
from probes.sample import Value

TICKS_PER_SECOND = float(os.sysconf("SC_CLK_TCK"))
PAGE_BYTES = float(os.sysconf("SC_PAGE_SIZE"))
LONGEST_FILE = 4096


class Stat(NamedTuple):
    """What /proc/PID/stat says of one process; times in clock ticks, `resident` in pages."""

    state: bytes
    parent: int
    group: int
    session: int
    user: int
    system: int
    children_user: int
    children_system: int
    started: int
    resident: int


_COLUMNS = (1, 2, 3, 11, 12, 13, 14, 19, 21)
"""Of `Stat`'s numbers, counted from the state, which follows the name."""


def parse_stat(line: bytes) -> Stat | None:
    """Return one process's line; None if it is cut off or no such line.

    The name may hold spaces and parentheses: columns are counted after the last one.
    """
    words = line.rpartition(b")")[2].split()
    if len(words) <= max(_COLUMNS) + 1:  # the last column read must be whole
        return None
    numbers = counters([words[column] for column in _COLUMNS])
    return Stat(words[0], *map(int, numbers)) if numbers else None


def read_stat(proc: Path | str, pid: int) -> Stat | None:
    """Read one process's line below `proc`; None if it is gone."""
    return parse_stat(_content(f"{proc}/{pid}/stat"))


def parse_io(text: bytes) -> tuple[int, int] | None:
    """Return bytes read from and written to block devices, reaped children's included."""
    values = dict(line.partition(b": ")[::2] for line in whole_lines(text))
    numbers = counters([values.get(name, b"-") for name in (b"read_bytes", b"write_bytes")])
    return (int(numbers[0]), int(numbers[1])) if numbers else None


def _content(path: str) -> bytes:
    # there are thousands of these at the first read, and `Path` and buffers treble the time
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, LONGEST_FILE)
    except OSError:  # the process ended just now
        return b""
    finally:
        os.close(descriptor)


class _Usage(NamedTuple):
    """Totals that the kernel adds to the parent's when it reaps the process."""

    user: int
    system: int
    read: int
    write: int

    def plus(self, other: "_Usage") -> "_Usage":
        return _Usage(*map(sum, zip(self, other, strict=True)))

    def missing_from(self, other: "_Usage") -> "_Usage":
        return _Usage(*(max(0, ours - theirs) for ours, theirs in zip(self, other, strict=True)))


_NOTHING = _Usage(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Member:
    stat: Stat
    moved: tuple[int, int] | None

    @property
    def usage(self) -> _Usage:
        """What is lost to the tree if nobody in it reaps the process."""
        stat = self.stat
        user, system = stat.user + stat.children_user, stat.system + stat.children_system
        return _Usage(user, system, *(self.moved or (0, 0)))

    @property
    def inherited(self) -> _Usage:
        """What grows when a child is reaped; of bytes there is only the sum with its own."""
        stat = self.stat
        return _Usage(stat.children_user, stat.children_system, *(self.moved or (0, 0)))


@dataclass(slots=True)
class _Debt:
    """Usage of members that vanished, and what their heir had inherited just before."""

    base: _Usage
    lost: _Usage = field(default=_NOTHING)


class ProcessTree:
    """One process and its descendants, found again at each `read`.

    A process belongs to the tree if its parent does, or if the leader of its session or of its
    process group did: so a child whose parents ended is still found, and once found it stays. What
    a process belongs to is settled when it is first seen, which makes a read cost little on a
    node with thousands of other processes. A daemon that leaves both session and group between two
    reads, with its parents ended, is missed.

    CPU time and bytes are each process's own and its reaped children's; reaping adds a child's
    totals to its parent's, so each is counted once, as a living process or within its parent. What
    a member had that nobody in the tree reaped (adopted by init, or SIGCHLD ignored) is carried
    over as last seen.
    """

    def __init__(self, roots: Roots, root_pid: int) -> None:
        self._proc = roots.proc
        self._root_pid = root_pid
        self._members: dict[int, _Member] = {}  # parents before their children
        self._found = False
        self._leaders: set[int] = set()  # all that ever were members
        self._others: set[str] = set()  # names in /proc: numbers of processes that are no members
        self._debts: dict[int, _Debt] = {}
        self._carried = _NOTHING
        self._highest = _NOTHING
        self._memory_peak = 0.0
        self._reads_io = False

    @property
    def pids(self) -> set[int]:
        """The processes that were in the tree at the last `read`."""
        return set(self._members)

    def read(self) -> dict[str, Value]:
        """Return the fields of `job_cgroup`; empty if the process was never seen.

        Memory is the sum of resident sets: a page that several processes share counts for each.
        After the end of all processes the counters keep their last values.
        """
        before = self._members
        self._members = dict(self._still_there(before))
        self._settle(before)
        self._find_new()
        return self._fields() if self._found else {}

    def _still_there(self, before: dict[int, _Member]) -> Iterator[tuple[int, _Member]]:
        # in the order of ancestry: a child that ends between the two reads is then missed for one
        # sample, and not counted twice, as itself and within its parent
        for pid, old in before.items():
            stat = self._stat(pid)
            if stat and stat.started == old.stat.started:
                yield pid, _Member(stat, self._moved(pid) or old.moved)

    def _settle(self, before: dict[int, _Member]) -> None:
        """Find for each member that vanished who reaped it, and carry over what nobody did."""
        debts, self._debts = self._debts, {}
        for heir, debt in debts.items():
            if heir in self._members:
                # missing at the last read too: whoever reaped it would have it by now
                self._carry(self._missing(heir, debt))
            else:
                self._pass_on(heir, debt.lost, before)
        for pid in before.keys() - self._members.keys():
            self._pass_on(pid, before[pid].usage, before)
        self._debts = {
            heir: debt for heir, debt in self._debts.items() if any(self._missing(heir, debt))
        }

    def _pass_on(self, pid: int, lost: _Usage, before: dict[int, _Member]) -> None:
        """Let the nearest ancestor that is still a member owe what a vanished one had."""
        while pid in before and pid not in self._members:
            pid = before[pid].stat.parent
        if pid in self._members:
            debt = self._debts.setdefault(pid, _Debt(before[pid].inherited))
            debt.lost = debt.lost.plus(lost)
        else:
            self._carry(lost)

    def _missing(self, heir: int, debt: _Debt) -> _Usage:
        return debt.lost.missing_from(self._members[heir].inherited.missing_from(debt.base))

    def _carry(self, usage: _Usage) -> None:
        self._carried = self._carried.plus(usage)

    def _find_new(self) -> None:
        names = os.listdir(self._proc)  # noqa: PTH208 - thousands of them: plain names are enough
        self._others.intersection_update(names)
        unsettled = set(names) - self._others - set(map(str, self._members))
        for pid in sorted(int(name) for name in unsettled if name.isdigit()):
            stat = self._stat(pid)
            if stat is None:
                continue
            if self._belongs(pid, stat):
                self._members[pid] = _Member(stat, self._moved(pid))
                self._leaders.add(pid)
                self._found = True
            elif str(stat.parent) in self._others or stat.parent == 0:
                # otherwise its parent is not settled yet: look again next time
                self._others.add(str(pid))
                self._leaders.discard(pid)

    def _belongs(self, pid: int, stat: Stat) -> bool:
        if pid == self._root_pid:
            return not self._found  # later it is another process with the number of ours
        leaders = {stat.session, stat.group} - {pid}
        return stat.parent in self._members or not self._leaders.isdisjoint(leaders)

    def _stat(self, pid: int) -> Stat | None:
        return read_stat(self._proc, pid)

    def _moved(self, pid: int) -> tuple[int, int] | None:
        moved = parse_io(_content(f"{self._proc}/{pid}/io"))
        self._reads_io = self._reads_io or moved is not None
        return moved

    def _fields(self) -> dict[str, Value]:
        usage = self._total()
        resident = sum(member.stat.resident for member in self._members.values()) * PAGE_BYTES
        self._memory_peak = max(self._memory_peak, resident)
        alive = sum(member.stat.state not in b"ZX" for member in self._members.values())
        fields: dict[str, Value] = {
            "cpu_seconds": (usage.user + usage.system) / TICKS_PER_SECOND,
            "cpu_user_seconds": usage.user / TICKS_PER_SECOND,
            "cpu_system_seconds": usage.system / TICKS_PER_SECOND,
            "memory_bytes": resident,
            "memory_peak_bytes": self._memory_peak,
            "processes_total": float(alive),
            "source": "processes",
        }
        if self._reads_io:
            fields |= {"read_bytes": float(usage.read), "write_bytes": float(usage.write)}
        return fields

    def _total(self) -> _Usage:
        parts = chain(
            (member.usage for member in self._members.values()),
            (self._missing(heir, debt) for heir, debt in self._debts.items()),
        )
        total = self._carried
        for part in parts:
            total = total.plus(part)
        # a counter never goes back, whatever ended between two files
        self._highest = _Usage(*map(max, zip(total, self._highest, strict=True)))
        return self._highest
