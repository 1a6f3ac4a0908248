"""Make a control group for a local job where this user may; without one the tree must do."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from probes.roots import Roots

log = logging.getLogger("rooflight.jobs")

V1_CONTROLLERS = ("cpuacct", "memory", "pids")
V2_CONTROLLERS = ("cpu", "memory", "io", "pids")
PARENT = "rooflight"


@dataclass(frozen=True, slots=True)
class JobCgroup:
    """The directories of one job's control group; empty where none could be made."""

    v2: Path | None
    v1: Mapping[str, Path]

    def join(self, pid: int) -> None:
        """Move a process in; its children will follow."""
        for directory in self._directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the directories; one in which a program still runs stays."""
        for directory in self._directories():
            with suppress(OSError):
                directory.rmdir()

    def _directories(self) -> list[Path]:
        return [*([self.v2] if self.v2 else []), *self.v1.values()]


def make(roots: Roots, jobid: str) -> JobCgroup:
    """Make the job's control group in whichever hierarchy this machine has and this user may."""
    if (roots.cgroup / "cgroup.controllers").exists():
        return JobCgroup(_make_v2(roots.cgroup, jobid), {})
    made: dict[str, Path] = {}
    for controller in V1_CONTROLLERS:
        directory = roots.cgroup / controller / PARENT / jobid
        if _make(directory):
            made[controller] = directory
    return JobCgroup(None, made if "cpuacct" in made and "memory" in made else {})


def _make_v2(root: Path, jobid: str) -> Path | None:
    """Make `rooflight/<jobid>` below the root and ask for the controllers it should count."""
    parent = root / PARENT
    directory = parent / jobid
    if not _make(parent):
        return None
    for controller in V2_CONTROLLERS:
        for above in (root, parent):
            with suppress(OSError):  # a controller that is not there is not counted
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
    return directory if _make(directory) else None


def _make(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory / "cgroup.procs", os.W_OK)
