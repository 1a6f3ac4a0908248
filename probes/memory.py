"""Main memory of the node."""

import os
from collections.abc import Sequence
from contextlib import suppress

from probes.parsing import ONE_RECORD, KeptFile, lines_of, number, whole_lines
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample

MEMINFO = {
    b"MemTotal": "total_bytes",
    b"MemAvailable": "available_bytes",
    b"MemFree": "free_bytes",
    b"Buffers": "buffers_bytes",
    b"Cached": "cached_bytes",
    b"Shmem": "shared_bytes",
    b"AnonPages": "anonymous_bytes",
    b"Slab": "slab_bytes",
    b"Dirty": "dirty_bytes",
    b"Writeback": "writeback_bytes",
    b"Mlocked": "locked_bytes",
    b"Hugetlb": "hugepages_bytes",
    b"SwapTotal": "swap_total_bytes",
    b"SwapFree": "swap_free_bytes",
}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
VMSTAT = {
    # kernel's name -> (our field, what one of it is)
    b"pswpin": ("swap_in_bytes", PAGE_BYTES),
    b"pswpout": ("swap_out_bytes", PAGE_BYTES),
    b"pgmajfault": ("major_faults_total", 1),
    b"oom_kill": ("oom_kills_total", 1),
}
LONGEST_LINE = 80
"""Of /proc/vmstat: the longest name has some 40 bytes, a number at most 20 digits."""


class MemoryProbe(Probe):
    """Reads /proc/meminfo and /proc/vmstat.

    `available` is the kernel's own estimate; where there is none (before Linux 3.14), neither it
    nor `used` is given. Sources: `man 5 proc_meminfo`, `man 5 proc_vmstat`.
    """

    name = "memory"

    def __init__(self, context: Context) -> None:
        self._meminfo = KeptFile(context.roots.proc / "meminfo", ONE_RECORD)
        self._vmstat = KeptFile(context.roots.proc / "vmstat", lines_of(LONGEST_LINE))
        if not self._meminfo.path.exists():
            raise ProbeUnavailable(f"{self._meminfo.path} is absent")

    def sample(self) -> Sequence[Sample]:
        """Read the memory's use now.

        Raises:
            OSError: /proc/meminfo cannot be read.

        """
        fields = memory_fields(parse_meminfo(self._meminfo.read()))
        with suppress(OSError):
            fields |= parse_vmstat(self._vmstat.read())
        return [Sample("memory", (), fields)] if fields else []

    def close(self) -> None:
        """Close the kept files."""
        self._meminfo.close()
        self._vmstat.close()


def parse_meminfo(content: bytes) -> dict[str, float]:
    """Parse /proc/meminfo: bytes by field name, and `swap_free_bytes`, which is no field."""
    sizes = {}
    for line in whole_lines(content):
        name, _, rest = line.partition(b":")
        if field := MEMINFO.get(name):
            value, _, unit = rest.strip().partition(b" ")
            kibibytes = number(value)
            if kibibytes is not None and unit == b"kB":
                sizes[field] = kibibytes * 1024
    return sizes


def memory_fields(sizes: dict[str, float]) -> dict[str, float]:
    """Return the sizes, and what is used; swap left free only serves to find what is used."""
    fields = dict(sizes)
    swap_free = fields.pop("swap_free_bytes", None)
    for used, whole, free in (
        ("used_bytes", sizes.get("total_bytes"), sizes.get("available_bytes")),
        ("swap_used_bytes", sizes.get("swap_total_bytes"), swap_free),
    ):
        if whole is not None and free is not None and free <= whole:
            fields[used] = whole - free
    return fields


def parse_vmstat(content: bytes) -> dict[str, float]:
    """Parse /proc/vmstat: the counters of swapping, major faults and kills for want of memory."""
    fields = {}
    for name, (field, unit) in VMSTAT.items():
        # of some 200 lines we want four, and none of them is the first
        _, found, after = content.partition(b"\n" + name + b" ")
        text, end, _ = after.partition(b"\n")
        if found and end and (value := number(text)) is not None:
            fields[field] = value * unit
    return fields
