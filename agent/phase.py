"""Mark phases of your own program, so that `jobinspect` shows them beside what the job used.

    from agent.phase import phase

    with phase("prefill"):
        ...

In a job, of Slurm or of `rooflight run`, the marks go to the node's agent; elsewhere they do
nothing. A mark costs some microseconds and never waits: totals are kept here by name and sent at
most once a second, and when the program ends. Each sending repeats the totals so far under the
time of the phase's first start, so what is lost on the way is made good by the next, and nothing
is counted twice.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from agent.client import jobid_of, send_points, socket_of
from probes.sample import Sample, Value, tags

EVERY_SECONDS = 1.0
MOST_NAMES = 100
"""A name is a series in the store: a program that makes up ever new ones gets no more than this."""
OTHERS = "(other phases)"
LONGEST_NAME = 100


class Total:
    """What is known of one name; no dataclass, whose import would cost a third of this one's."""

    __slots__ = ("calls", "seconds", "sent", "started_ms")

    def __init__(self, started_ms: int) -> None:
        self.started_ms = started_ms  # the first start, since 1970
        self.calls = 0
        self.seconds = 0.0
        self.sent = True


class Marks:
    """Totals of all phases of this process.

    Safe to use from several threads: each block counts, so phases that overlap, or lie within one
    of the same name, add up to more than the time that passed.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._environment = environment
        self._clock = clock
        self._wall = wall
        self._in_a_job = bool(socket_of(environment))
        self.forget()

    def forget(self) -> None:
        """Begin anew; what was counted so far is the parent's, when a process forks."""
        self._lock = threading.RLock()
        self._totals: dict[str, Total] = {}
        self._next_sending = self._clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block as one call of `name`, also when it raises."""
        if not self._in_a_job:
            yield
            return
        totals, started_ms, begin = self._totals, int(self._wall() * 1000), self._clock()
        try:
            yield
        finally:
            if totals is self._totals:  # a child that was forked within the block began nothing
                self._add(name, started_ms, self._clock() - begin)

    def flush(self) -> None:
        """Send what was not sent yet."""
        with self._lock:
            waiting = {name: total for name, total in self._totals.items() if not total.sent}
            self._next_sending = self._clock() + EVERY_SECONDS
            points = [self._point(name, total) for name, total in waiting.items()]
            try:
                arrived = not points or send_points(points, self._environment)
            except (OSError, ValueError):  # no descriptor left, a name that is no UTF-8
                arrived = False
            for total in waiting.values():
                total.sent = arrived

    def _add(self, name: str, started_ms: int, seconds: float) -> None:
        with self._lock:
            total = self._total(str(name)[:LONGEST_NAME], started_ms)
            total.calls += 1
            total.seconds += seconds
            total.sent = False
            if self._clock() >= self._next_sending:
                self.flush()

    def _total(self, name: str, started_ms: int) -> Total:
        if name not in self._totals and len(self._totals) >= MOST_NAMES:
            name = OTHERS
        return self._totals.setdefault(name, Total(started_ms))

    def _point(self, name: str, total: Total) -> tuple[Sample, int]:
        where = tags(
            jobid=jobid_of(self._environment),
            workload="user",
            phase=name,
            device=rank(self._environment),
        )
        fields: dict[str, Value] = {
            "duration_seconds": total.seconds,
            "calls_total": float(total.calls),
            "bound": "unknown",
        }
        return Sample("phase", where, fields), total.started_ms


def rank(environment: Mapping[str, str]) -> str:
    """Return "rank N" for one of several processes that torchrun or srun began on this host.

    Ranks begin a phase at the same time; without this, one would overwrite the other.
    """
    number = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID")
    return f"rank {number}" if number else ""


_marks = Marks(os.environ)
phase = _marks.phase
atexit.register(_marks.flush)
os.register_at_fork(after_in_child=_marks.forget)
