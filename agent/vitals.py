"""What the agent says of itself: whether it keeps up, and what it costs."""

import resource
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version

from agent.runner import Health
from agent.shipper import Shipper
from agent.spool import Spool
from probes.parsing import KeptFile
from probes.sample import Sample, Value, tags

PAGE_BYTES = resource.getpagesize()


MOST_RUNS = 100
"""Unbroken rows of ticks that are remembered: a skipped tick or a step of the clock ends one."""


@dataclass(slots=True)
class TickTimes:
    """Which moments have had a tick: where the clock is set back, some get a second one.

    Attributes:
        before_ms: until then an earlier agent may have had ticks.

    """

    before_ms: int = 0
    _runs: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST_RUNS))

    def add(self, time_ms: int, step_ms: int) -> bool:
        """Note a tick, which lies a step after the last one as a rule; True if it had one."""
        known = time_ms <= self.before_ms
        known = known or any(first <= time_ms <= last for first, last in self._runs)
        if self._runs and self._runs[-1][1] == time_ms - step_ms:
            self._runs[-1] = (self._runs[-1][0], time_ms)
        else:
            self._runs.append((time_ms, time_ms))
        return known


@dataclass(slots=True)
class Vitals:
    """Counters of the loop.

    Attributes:
        ticks: ticks finished.
        skipped: ticks left out because the one before took too long.
        replaced: ticks at a moment that had one already: the clock was set back.
        implausible: values that failed the range check.
        tick_seconds: time that the last tick took.
        lateness_seconds: how late the last tick began.

    """

    ticks: int = 0
    skipped: int = 0
    replaced: int = 0
    implausible: int = 0
    tick_seconds: float = 0.0
    lateness_seconds: float = 0.0
    times: TickTimes = field(default_factory=TickTimes)

    def begin(self, time_ms: int, step_ms: int) -> None:
        """Note the time of an aligned tick."""
        self.replaced += self.times.add(time_ms, step_ms)

    def sample(self, spool: Spool, shipper: Shipper, statm: KeptFile) -> Sample:
        """Return the `agent` sample; `statm` is /proc/self/statm (`man 5 proc`)."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lost = spool.lost
        fields: dict[str, Value] = {
            "tick_seconds": self.tick_seconds,
            "lateness_seconds": self.lateness_seconds,
            "ticks_total": float(self.ticks),
            "ticks_skipped_total": float(self.skipped),
            "ticks_replaced_total": float(self.replaced),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_bytes": _resident_bytes(statm),
            "spool_bytes": float(spool.depth_bytes),
            "spool_segments_total": float(spool.segments),
            "shipped_points_total": float(shipper.shipped_points),
            "dropped_points_total": float(sum(lost.values())),
            "implausible_total": float(self.implausible),
            "store_errors_total": float(shipper.store_errors),
            "version": _version(),
            **{f"dropped_{reason}_total": float(points) for reason, points in lost.items()},
        }
        return Sample("agent", (), fields)


def health_samples(probes: Iterable[Health]) -> list[Sample]:
    """Return an `agent_probe` sample for each probe that this node has."""
    return [
        Sample(
            "agent_probe",
            tags(probe=health.name),
            {
                "duration_seconds": health.duration_seconds,
                "errors_total": float(health.errors),
                "stalled_total": float(health.stalled),
            },
        )
        for health in probes
        if not health.unavailable
    ]


@cache
def _version() -> str:
    # finding it reads the package's files: 180 us, a third of a tick
    return version("rooflight")


def _resident_bytes(statm: KeptFile) -> float:
    return float(statm.read().split()[1]) * PAGE_BYTES
