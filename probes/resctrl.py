"""Memory traffic by L3 cache, where the CPU counts it (Intel RDT, AMD QoS).

Source: kernel Documentation/arch/x86/resctrl.rst. The counters of all control groups together are
the node's; each group's hold those of the monitoring groups within it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from probes.parsing import number, read_text
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, Value, tags

FILES = {
    "mbm_total_bytes": "moved_bytes",
    "mbm_local_bytes": "local_bytes",
    "llc_occupancy": "cache_bytes",
}
"""Kernel's file -> our field."""

NO_GROUPS = frozenset({"info", "mon_data", "mon_groups"})


class ResctrlProbe(Probe):
    """Reads the counters of every L3 cache; it makes and moves no group, and needs no root."""

    name = "resctrl"

    def __init__(self, context: Context) -> None:
        self._folder = context.roots.sys / "fs/resctrl"
        if not any(self._groups()):
            raise ProbeUnavailable(
                "no memory traffic counters: the CPU has none, or nobody has mounted them"
                " (mount -t resctrl resctrl /sys/fs/resctrl)"
            )

    def sample(self) -> Sequence[Sample]:
        """Add up the groups; a field that one of them does not tell is left out."""
        sums: defaultdict[str, dict[str, float]] = defaultdict(dict)
        unknown = set()
        for group in self._groups():
            for cache in sorted(group.glob("mon_L3_*")):
                for file, field in FILES.items():
                    value = number(read_text(cache / file) or "")  # a word where it is unavailable
                    if value is None:
                        unknown.add((cache.name, field))
                    else:
                        known = sums[cache.name]
                        known[field] = known.get(field, 0.0) + value
        return [
            Sample("memory_traffic", tags(cache=cache.removeprefix("mon_")), fields)
            for cache, values in sorted(sums.items())
            if (fields := _without(values, cache, unknown))
        ]

    def _groups(self) -> Iterator[Path]:
        """Yield the counters' folder of each control group, the default one first."""
        try:
            below = [path for path in self._folder.iterdir() if path.name not in NO_GROUPS]
        except OSError:
            return
        for group in (self._folder, *sorted(below)):
            if (group / "mon_data").is_dir():
                yield group / "mon_data"


def _without(
    values: dict[str, float], cache: str, unknown: set[tuple[str, str]]
) -> dict[str, Value]:
    return {name: value for name, value in values.items() if (cache, name) not in unknown}
