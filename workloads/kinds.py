"""Names of the ceilings that are measured: the tag `kind` in the store. No torch."""

MATMUL = "matmul"
READ = "read"
MIXED_KINDS = ("copy", "triad", "update")
MEMORY_KINDS = (*MIXED_KINDS, READ)
HOST_TO_DEVICE = "h2d"
DEVICE_TO_HOST = "d2h"
ALL_REDUCE = "all-reduce"
DISK_READ = "disk-read"
DISK_WRITE = "disk-write"

BYTES = "byte"
"""Stands where a number format would, for what moves bytes of any."""


def unit(kind: str) -> str:
    """Return the unit of a ceiling."""
    return "FLOP/s" if kind == MATMUL else "B/s"
