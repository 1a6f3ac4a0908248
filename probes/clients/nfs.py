"""The NFS client's counters, one set for each mount.

Source: the kernel's fs/nfs/super.c (`nfs_show_stats`) and net/sunrpc/stats.c; any user may read
/proc/self/mountstats.
"""

import re
from collections.abc import Iterable, Mapping

from probes.mounts import unescape
from probes.parsing import MOST
from probes.sample import Value

READS = frozenset({"READ", "READ_PLUS"})
WRITES = frozenset({"WRITE"})
OPENS = frozenset({"OPEN", "OPEN_NOATTR"})
CLOSES = frozenset({"CLOSE"})
METADATA = frozenset(
    {
        # both versions
        *("ACCESS", "CREATE", "GETATTR", "LINK", "LOOKUP", "PATHCONF", "READDIR", "READLINK"),
        *("REMOVE", "RENAME", "SETATTR", "SYMLINK", "FSINFO"),
        # version 3
        *("FSSTAT", "MKDIR", "MKNOD", "READDIRPLUS", "RMDIR"),
        # version 4
        *("FS_LOCATIONS", "GETACL", "LOOKUPP", "LOOKUP_ROOT", "SERVER_CAPS", "SETACL", "STATFS"),
        *("GETXATTR", "LISTXATTRS", "REMOVEXATTR", "SETXATTR"),
    }
)
_FIELDS = {
    "reads_total": READS,
    "writes_total": WRITES,
    "opens_total": OPENS,
    "closes_total": CLOSES,
    "metadata_operations_total": METADATA,
}

_BLOCK = re.compile(r"^device \S+ mounted on (\S+) with fstype nfs4? statvers=1\.\d+\n", re.M)
_NUMBER = "([0-9]{1,20})"
_OPERATION = re.compile(rf"^\t *([A-Z_]+): {_NUMBER} {_NUMBER}(?: [0-9]+){{4,}}")
_BYTES = re.compile(rf"^\tbytes:\t(?:[0-9]+ ){{4}}{_NUMBER} {_NUMBER} [0-9]+ [0-9]+ *$", re.M)


def parse_mountstats(text: str) -> dict[str, dict[str, Value]]:
    """Return the counters of every NFS mount by mount point; of equal mount points the last."""
    return {
        unescape(start[1]): _parse_block(text[start.end() :]) for start in _BLOCK.finditer(text)
    }


def _parse_block(rest: str) -> dict[str, Value]:
    """Return the counters of the block that `rest` begins with; nothing if it was cut off."""
    head, table, after = rest.partition("\n\tper-op statistics\n")
    operations, end, _ = after.partition("\n\n")  # an empty line ends each block
    if not table or not end or "\ndevice " in head:
        return {}
    fields: dict[str, Value] = {}
    if moved := _BYTES.search(f"{head}\n"):
        # what went over the network; what programs read may have come from the page cache
        fields |= _plausible({"read_bytes": int(moved[1]), "write_bytes": int(moved[2])})
    return fields | _plausible(_sums(_parse_operations(operations)))


def _parse_operations(table: str) -> dict[str, tuple[int, int]]:
    """Return (operations, transmissions) by name; none at all if a line is odd: sums need all."""
    rows = [_OPERATION.fullmatch(line) for line in table.split("\n")]
    return {row[1]: (int(row[2]), int(row[3])) for row in rows if row} if all(rows) else {}


def _sums(operations: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    sums = {
        field: sum(operations[name][0] for name in names & operations.keys())
        for field, names in _FIELDS.items()
        if names & operations.keys()
    }
    if operations:
        sums["retransmits_total"] = _retransmits(operations.values())
    return sums


def _retransmits(operations: Iterable[tuple[int, int]]) -> int:
    # an operation under way is counted before it is sent, so a difference may be below zero
    return sum(max(0, transmissions - count) for count, transmissions in operations)


def _plausible(values: Mapping[str, int]) -> dict[str, Value]:
    return {name: float(value) for name, value in values.items() if value <= MOST}
