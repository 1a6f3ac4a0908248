"""How much host memory this process can still have: the machine's, and its control group's.

A batch job is killed at the limit of its group, however much the node has free. Sources: proc(5),
the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. No torch.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from probes.cgroup import NO_LIMIT, parse_flat
from probes.parsing import read_number, read_text
from probes.roots import Roots

FILES = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Limit and use, by version of control groups."""


def available_host_bytes(roots: Roots) -> int | None:
    """Return the least of MemAvailable and what is left in each group around this process."""
    free = parse_available(read_text(roots.proc / "meminfo") or "")
    groups = _groups(read_text(roots.proc / "self" / "cgroup") or "", roots.cgroup)
    rooms = [room for group, version in groups if (room := _room(group, version)) is not None]
    return min((room for room in (free, *rooms) if room is not None), default=None)


def parse_available(meminfo: str) -> int | None:
    """Return bytes of MemAvailable; None where it is missing."""
    found = re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", meminfo, re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else None


def _groups(membership: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Give the directories of the groups that hold this process, innermost first, with version."""
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top, version = root, 2
        elif "memory" in controllers.split(","):
            top, version = root / "memory", 1
        else:
            continue
        inner = top / path.lstrip("/")
        around = (group for group in (inner, *inner.parents) if group.is_relative_to(top))
        yield from ((group, version) for group in around)


def _room(group: Path, version: int) -> int | None:
    """Return what the limit leaves beyond what cannot be reclaimed; None without a limit."""
    limit_file, usage_file = FILES[version]
    limit, used = read_number(group / limit_file), read_number(group / usage_file)
    if limit is None or used is None or limit >= NO_LIMIT:
        return None
    stat = parse_flat(read_text(group / "memory.stat") or "")
    reclaimable = stat.get("total_inactive_file", stat.get("inactive_file", 0.0))
    return max(int(limit - used + reclaimable), 0)
