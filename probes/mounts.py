"""What is mounted where, and how full it is: shared by the probes of temporary and shared disks."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from probes.sample import Value

LOCAL_KINDS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "zfs", "f2fs", "jfs", "tmpfs", "overlay"}
)
"""File systems that ask no server."""

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mounted file system.

    Attributes:
        device: `major:minor` of the file system; mounts that share it show the same files.
        path: mount point.
        kind: file system type as the kernel names it (ext4, nfs4, lustre).
        source: what is mounted: a block device, `server:/export`, ...
        root: which folder of the file system the mount shows.

    """

    device: str
    path: str
    kind: str
    source: str
    root: str = "/"


def parse_mountinfo(text: str) -> list[Mount]:
    """Return all mounts, the latest last. Source: proc_pid_mountinfo(5)."""
    return [mount for line in text.splitlines() if (mount := _parse_line(line))]


def _parse_line(line: str) -> Mount | None:
    place, _, what = line.partition(" - ")
    words, names = place.split(), what.split()
    if len(words) < 6 or len(names) < 2:
        return None
    root, path = unescape(words[3]), unescape(words[4])
    return Mount(words[2], path, names[0], unescape(names[1]), root)


def unescape(word: str) -> str:
    r"""Undo the kernel's octal escapes (`\040` is a space) in a path of a mount table."""
    return _OCTAL.sub(lambda escape: chr(int(escape[1], 8)), word)


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that holds an absolute path: the longest mount point, of equals the last."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.path)]
    return max(reversed(holding), key=lambda mount: len(mount.path), default=None)


def capacity(space: os.statvfs_result) -> dict[str, Value]:
    """Return total, used and available bytes, as `df` counts them. Source: statvfs(3)."""
    block = space.f_frsize
    return {
        "total_bytes": float(space.f_blocks * block),
        "used_bytes": float((space.f_blocks - space.f_bfree) * block),
        "available_bytes": float(space.f_bavail * block),
    }
