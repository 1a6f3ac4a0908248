"""Node-local temporary storage: how full it is, and what its block device moves."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from probes.mounts import Mount, capacity, mount_of, parse_mountinfo
from probes.parsing import ONE_RECORD, KeptFile, number, read_text
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, Value, tags

SECTOR_BYTES = 512.0
"""Of the kernel's block statistics, whatever the device's own sector is."""


def parse_block_stat(text: bytes) -> dict[str, Value]:
    """Return bytes read and written. Source: kernel Documentation/block/stat.rst."""
    words = text.split()
    if len(words) < 11:
        return {}
    sectors = {"read_bytes": number(words[2]), "write_bytes": number(words[6])}
    return {name: value * SECTOR_BYTES for name, value in sectors.items() if value is not None}


def inodes(space: os.statvfs_result) -> dict[str, Value]:
    """Return inodes there are and in use; empty where the file system has no fixed number."""
    if not space.f_files:
        return {}
    return {
        "inodes_total": float(space.f_files),
        "inodes_used_total": float(space.f_files - space.f_ffree),
    }


class TempdiskProbe(Probe):
    """Reads the configured paths, $TMPDIR and /tmp, each file system once, under its first path.

    Bytes moved are those of the block device (a partition's own) that holds the file system. File
    systems without one (tmpfs, overlay, ZFS, btrfs) have sizes alone.
    """

    name = "tempdisk"

    def __init__(
        self,
        context: Context,
        *,
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
        stat: Callable[[Path], os.stat_result] = os.stat,
    ) -> None:
        self._roots = context.roots
        self._table = context.roots.proc / "self/mountinfo"
        self._statvfs = statvfs
        self._stat = stat
        own = os.environ.get("TMPDIR")
        usual = [Path(path) for path in (own, "/tmp") if path]  # noqa: S108 - looked at, not used
        self._paths = (*context.tempdisk_paths, *usual)
        self._types: dict[tuple[Path, int], str] = {}
        self._statistics: dict[int, KeptFile] = {}
        if not any(self._devices()):
            raise ProbeUnavailable(f"none of {', '.join(map(str, self._paths))} can be read")

    def sample(self) -> Sequence[Sample]:
        """Ask every file system for its size and its block device for its counters."""
        samples = []
        for path, device in self._devices():
            fields = {**self._space(path), **self._moved(device)}
            if fields:
                kind = self._type(path, device)
                samples.append(Sample("tempdisk", tags(path=str(path), type=kind), fields))
        return samples

    def close(self) -> None:
        """Close the block devices' files."""
        for file in self._statistics.values():
            file.close()

    def _devices(self) -> Iterator[tuple[Path, int]]:
        # found anew each time: a scratch disk may be mounted after the agent has started
        seen = set()
        for path in self._paths:
            try:
                device = self._stat(path).st_dev
            except OSError:
                continue
            if device not in seen:
                seen.add(device)
                yield path, device

    def _space(self, path: Path) -> dict[str, Value]:
        try:
            space = self._statvfs(path)
        except OSError:
            return {}
        return {**capacity(space), **inodes(space)}

    def _moved(self, device: int) -> dict[str, Value]:
        file = self._statistics.get(device)
        if file is None:
            name = f"{os.major(device)}:{os.minor(device)}"
            path = self._roots.sys / "dev/block" / name / "stat"
            file = self._statistics[device] = KeptFile(path, ONE_RECORD)
        try:
            return parse_block_stat(file.read())
        except OSError:  # a file system without a block device
            return {}

    def _type(self, path: Path, device: int) -> str:
        if (path, device) not in self._types:
            mount = mount_of(path.resolve(), self._mounts())
            self._types[path, device] = mount.kind if mount else "unknown"
        return self._types[path, device]

    def _mounts(self) -> list[Mount]:
        return parse_mountinfo(read_text(self._table) or "")

    def limits(self) -> Sequence[str]:
        """Name the configured paths that are not there."""
        return [
            f"{path} cannot be read: mount it, or take it out of the tempdisk paths"
            for path in self._paths
            if not path.exists()
        ]
