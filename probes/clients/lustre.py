"""The Lustre client's counters (llite), one set for each mounted file system.

Up to Lustre 2.11 they are in /proc/fs/lustre, which any user may read; since 2.12 in debugfs,
which only root may. Source: Lustre Operations Manual, "Monitoring Client Activity", and
lustre/llite/lproc_llite.c (`llite_opcode_table`).
"""

from collections import defaultdict
from pathlib import Path

from probes.parsing import number, read_text
from probes.roots import Roots
from probes.sample import Value

METADATA = frozenset(
    {
        *("create", "getattr", "getxattr", "link", "listxattr", "mkdir", "mknod", "readdir"),
        *("removexattr", "rename", "rmdir", "setattr", "setxattr", "statfs", "symlink"),
        *("truncate", "unlink"),
    }
)
_COUNTS = {
    "read_bytes": "reads_total",
    "write_bytes": "writes_total",
    "open": "opens_total",
    "close": "closes_total",
    **dict.fromkeys(METADATA, "metadata_operations_total"),
}
"""Kernel's name -> the field that its number of samples is added to."""
_SUMS = ("read_bytes", "write_bytes")


def parse_stats(text: str) -> dict[str, float]:
    """Return the counters of one llite instance; what was never used is absent, as in the file.

    Bytes are those that programs read and wrote, from the client's page cache or not.
    """
    if not text.endswith("\n"):  # cut off: the sum of metadata operations would be too small
        return {}
    fields: defaultdict[str, float] = defaultdict(float)
    for line in text.splitlines():
        # name, count, "samples", unit, then for most units: minimum, maximum, sum
        words = line.split()
        if len(words) < 4 or words[2] != "samples" or words[0] not in _COUNTS:
            continue
        if (count := number(words[1])) is not None:
            fields[_COUNTS[words[0]]] += count
        if words[0] in _SUMS and len(words) > 6 and (total := number(words[6])) is not None:
            fields[words[0]] += total
    return dict(fields)


def file_system_of(source: str) -> str:
    """Return the file system's name: `scratch` of the source `10.0.0.1@o2ib:/scratch/home`."""
    return source.rpartition(":/")[2].partition("/")[0]


def read_counters(roots: Roots) -> dict[str, dict[str, Value]]:
    """Return counters by file system name; empty where there are none that we may read.

    A file system mounted twice has two instances (`scratch-ffff9a0b`), and nothing that an
    ordinary user may read tells which is which: their counters are added up.
    """
    summed: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for instance in _instances(roots):
        name = instance.name.rpartition("-")[0]
        for field, value in parse_stats(read_text(instance / "stats") or "").items():
            summed[name][field] += value
    return {name: {**fields} for name, fields in summed.items()}


def _instances(roots: Roots) -> list[Path]:
    for folder in (roots.proc / "fs/lustre/llite", roots.sys / "kernel/debug/lustre/llite"):
        try:
            return sorted(folder.iterdir())
        except OSError:
            continue
    return []
