"""What the agent says of itself: whether it keeps up, and what it costs."""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from agent.runner import Health
from agent.shipper import Shipper
from agent.spool import Spool
from probes.sample import Sample, Value, tags

PAGE_BYTES = resource.getpagesize()


@dataclass(slots=True)
class Vitals:
    """Counters of the loop.

    Attributes:
        ticks: ticks finished.
        skipped: ticks left out because the one before took too long.
        implausible: values that failed the range check.
        tick_seconds: time that the last tick took.
        lateness_seconds: how late the last tick began.

    """

    ticks: int = 0
    skipped: int = 0
    implausible: int = 0
    tick_seconds: float = 0.0
    lateness_seconds: float = 0.0

    def sample(self, spool: Spool, shipper: Shipper, statm: Path) -> Sample:
        """Return the `agent` sample; `statm` is /proc/self/statm (`man 5 proc`)."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        fields: dict[str, Value] = {
            "tick_seconds": self.tick_seconds,
            "lateness_seconds": self.lateness_seconds,
            "ticks_total": float(self.ticks),
            "ticks_skipped_total": float(self.skipped),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_bytes": _resident_bytes(statm),
            "spool_bytes": float(spool.depth_bytes),
            "spool_segments_total": float(spool.segments),
            "shipped_points_total": float(shipper.shipped_points),
            "dropped_points_total": float(spool.dropped_points + shipper.dropped_points),
            "implausible_total": float(self.implausible),
            "store_errors_total": float(shipper.store_errors),
            "version": _version(),
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


def _resident_bytes(statm: Path) -> float:
    return float(statm.read_text().split()[1]) * PAGE_BYTES
