"""Clients of shared file systems on this node: what they move, and how full the systems are."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from probes.clients import lustre, nfs
from probes.mounts import Mount, capacity, parse_mountinfo
from probes.parsing import KeptFile, read_text
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, Value, tags

TYPES: Mapping[str, str] = {
    # the kernel's file system type -> our `type`
    "nfs": "nfs",
    "nfs4": "nfs",
    "lustre": "lustre",
    "wekafs": "weka",
    "gpfs": "gpfs",
    "beegfs": "beegfs",
    "beegfs_nodev": "beegfs",
}

REFRESH_SECONDS = 60.0
"""Between two looks at mounts and capacities: asking for a capacity costs the servers a request."""

_LIMITS = {
    "nfs": "NFS counters are in /proc/self/mountstats, which cannot be read here",
    "lustre": "Lustre counters are in debugfs since Lustre 2.12, which only root may read",
    "weka": "WEKA shows a node no counters of its own: `weka stats` asks the cluster, with a login",
    "gpfs": "GPFS counters come from mmpmon, which only root may run",
    "beegfs": "BeeGFS shows a node no counters of its own: `beegfs-ctl --clientstats` asks the "
    "servers",
}


def shared_mounts(mounts: Iterable[Mount]) -> list[Mount]:
    """Return the shared file systems, each once under its first mount point.

    A mount hides an earlier one on the same point; further mounts of one device (bind mounts, two
    folders of one NFS export) share its counters, which must not be counted twice.
    """
    visible = {mount.path: mount for mount in mounts}
    once: dict[str, Mount] = {}
    for mount in visible.values():
        if mount.kind in TYPES:
            once.setdefault(mount.device, mount)
    return list(once.values())


class FilesystemProbe(Probe):
    """Reads what an ordinary user may read of NFS, Lustre, WEKA, GPFS and BeeGFS mounts.

    NFS and old Lustre show their counters to all; of the others there is the capacity alone, and
    `limits` says what is missing.
    """

    name = "filesystem"

    def __init__(
        self, context: Context, *, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    ) -> None:
        self._roots = context.roots
        self._monotonic = context.monotonic
        self._statvfs = statvfs
        self._mountstats = KeptFile(context.roots.proc / "self/mountstats")
        self._mounts = self._shared_mounts()
        if not self._mounts:
            raise ProbeUnavailable(
                "no shared file system is mounted (looked for NFS, Lustre, WEKA, GPFS, BeeGFS)"
            )
        self._capacities: dict[str, dict[str, Value]] = {}
        self._refreshed: float | None = None  # a dead server must not hang the agent's start

    def sample(self) -> Sequence[Sample]:
        """Read the counters now; mounts and capacities once a minute."""
        now = self._monotonic()
        if self._refreshed is None or now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            self._mounts = self._shared_mounts()
            self._capacities = {mount.path: self._capacity(mount) for mount in self._mounts}
        samples = []
        for mount, counters in self._with_counters():
            if fields := {**counters, **self._capacities.get(mount.path, {})}:
                whose = tags(mount=mount.path, type=TYPES[mount.kind])
                samples.append(Sample("filesystem", whose, fields))
        return samples

    def _shared_mounts(self) -> list[Mount]:
        return shared_mounts(parse_mountinfo(read_text(self._roots.proc / "self/mountinfo") or ""))

    def _capacity(self, mount: Mount) -> dict[str, Value]:
        try:
            return capacity(self._statvfs(mount.path))
        except OSError:
            return {}

    def _with_counters(self) -> list[tuple[Mount, Mapping[str, Value]]]:
        kinds = {TYPES[mount.kind] for mount in self._mounts}
        by_mount = self._nfs_counters() if "nfs" in kinds else {}
        by_name = lustre.read_counters(self._roots) if "lustre" in kinds else {}
        return [
            (mount, by_name.pop(lustre.file_system_of(mount.source), {}))
            if mount.kind == "lustre"
            else (mount, by_mount.get(mount.path, {}))
            for mount in self._mounts
        ]

    def _nfs_counters(self) -> dict[str, dict[str, Value]]:
        try:
            return nfs.parse_mountstats(self._mountstats.read().decode(errors="replace"))
        except OSError:
            return {}

    def limits(self) -> Sequence[str]:
        """Say for which of the mounted systems there is only the capacity."""
        missing = {TYPES[mount.kind] for mount, counters in self._with_counters() if not counters}
        return [_LIMITS[kind] for kind in sorted(missing & _LIMITS.keys())]

    def close(self) -> None:
        """Close the NFS counters' file."""
        self._mountstats.close()
