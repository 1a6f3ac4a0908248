"""Which roof the node's CPUs are under, where memory traffic can be read.

Traffic over the memory roof that reference workloads measured on this node says when memory holds
the CPUs back. How near they are to the compute roof no counter tells that an ordinary user may
read, so below that the bound is idle or unknown, and never compute.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from agent.labels.gpuroofs import GpuRoofs
from probes.sample import Sample, Value
from workloads.kinds import MEMORY_KINDS
from workloads.roofline import Bound

MEMORY_FROM, MEMORY_UNTIL = 0.6, 0.5
"""Share of the roof from which memory is called the bound, and until which it then stays so: what
programs move beside the bytes that a workload counts (write-allocation) is in the traffic too."""

IDLE_BELOW = 0.05
"""Utilization of all CPUs; one busy core of twenty is work."""

FEWEST_THREADS = 0.5
"""Of the node's CPUs, for a ceiling to be the node's: with SMT there are two to a core."""

CPU, TRAFFIC = "cpu", "moved_bytes_per_second"
"""Names in the table of readings."""


class _Seen(NamedTuple):
    time_ms: int
    moved_bytes: Mapping[str, float]


class CpuLabeller:
    """Labels the node's CPUs at every tick.

    Args:
        measured: readings of reference workloads, by device.
        keep: told whenever more is known of that.

    """

    def __init__(
        self,
        measured: Mapping[str, GpuRoofs] | None = None,
        keep: Callable[[Mapping[str, GpuRoofs]], None] = lambda _: None,
    ) -> None:
        self._roofs = (measured or {}).get(CPU, GpuRoofs())
        self._keep = keep
        self._before: _Seen | None = None
        self._last_ms: int | None = None
        self._cpus = 1.0
        self._held = Bound.UNKNOWN

    def label(self, samples: Iterable[Sample], time_ms: int) -> list[Sample]:
        """Return the `cpu_bound` sample of a tick; none while utilization is unknown."""
        known = list(samples)
        cpu = next((each.fields for each in known if each.measurement == "cpu"), {})
        self._cpus = float(cpu.get("cpus_total", self._cpus))
        share = self._share_of_roof(known, time_ms)
        seconds = 0.0 if self._last_ms is None else max(0.0, (time_ms - self._last_ms) / 1000)
        self._last_ms = time_ms
        utilization = cpu.get("utilization_ratio")
        if not isinstance(utilization, float):
            return []
        self._held = self._judge(utilization, share)
        fields: dict[str, Value] = {f"{self._held}_seconds": seconds, "bound": self._held.value}
        if share is not None:
            fields |= {"memory_ratio": min(1.0, share), "evidence": "resctrl"}
        return [Sample("cpu_bound", (), fields)]

    def learn(self, ceilings: Iterable[Sample]) -> None:
        """Take the highest memory ceiling that as good as all CPUs together reached."""
        rates = [
            float(sample.fields.get("bytes_per_second", 0.0))
            for sample in ceilings
            if dict(sample.tags).get("device") == CPU
            and dict(sample.tags).get("kind") in MEMORY_KINDS
            and float(sample.fields.get("threads_total", 0.0)) >= FEWEST_THREADS * self._cpus
        ]
        highest = max(rates, default=0.0)
        if highest > self._roofs.tops.get(TRAFFIC, 0.0):
            self._roofs = GpuRoofs({TRAFFIC: highest})
            self._keep({CPU: self._roofs})

    def _share_of_roof(self, samples: Iterable[Sample], time_ms: int) -> float | None:
        """Return the traffic since the last tick over the roof; None if either is unknown."""
        counters = {
            dict(sample.tags)["cache"]: sample.fields.get("moved_bytes")
            for sample in samples
            if sample.measurement == "memory_traffic"
        }
        moved = {name: value for name, value in counters.items() if isinstance(value, float)}
        before, self._before = self._before, _Seen(time_ms, moved)
        if before is None or before.moved_bytes.keys() != moved.keys() or not moved:
            return None
        grown = [value - before.moved_bytes[name] for name, value in moved.items()]
        seconds = (time_ms - before.time_ms) / 1000
        if seconds <= 0 or min(grown) < 0:  # mounted anew: the counters begin again
            return None
        return self._roofs.share({TRAFFIC: sum(grown) / seconds}, TRAFFIC)

    def _judge(self, utilization: float, share: float | None) -> Bound:
        if utilization < IDLE_BELOW:
            return Bound.IDLE
        needed = MEMORY_UNTIL if self._held is Bound.MEMORY else MEMORY_FROM
        return Bound.MEMORY if share is not None and share >= needed else Bound.UNKNOWN
