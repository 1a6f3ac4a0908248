"""Find the control groups in which Slurm runs the jobs of this node.

Slurm makes them after the prolog and removes them before the epilog, so hooks cannot name them.
Layouts, by Slurm's doc/html/cgroups.shtml and cgroup_v2.shtml and as seen on real nodes:

    v1   <controller>/slurm/uid_1000/job_7             one slurmd on this machine
         <controller>/slurm_<node>/uid_1000/job_7      Slurm built for several
    v2   system.slice/slurmstepd.scope/job_7
         system.slice/<node>_slurmstepd.scope/job_7
         .../s8FXKTA79XAR00                            since Slurm 26.05: a SLUID, not the job's id
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from probes.cgroup import CgroupPaths, processes_of
from probes.roots import Roots

CONTROLLERS = ("cpuacct", "memory", "blkio", "freezer")
"""Of v1: those that are read, and the one that Slurm always uses."""

SLURM = "slurm"
SCOPE = "slurmstepd.scope"
JOB = re.compile(r"job_(\d+)")
SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}", re.IGNORECASE)
TITLE = re.compile(rb"slurmstepd: \[(\d+)[.\]]")
REAL_USER = re.compile(rb"^Uid:\t(\d{1,10})\t", re.MULTILINE)
LONGEST_FILE = 1 << 20


class Group(NamedTuple):
    """A directory that is a job's: its path, and the name that Slurm gave it."""

    name: str
    path: str


def find_job_cgroups(roots: Roots, node: str = "") -> dict[str, CgroupPaths]:
    """Return the control groups of this node's Slurm jobs, by job id.

    Args:
        roots: where control groups are mounted.
        node: the node's name in Slurm, on a machine with several; the groups of the others are
            left out. Empty for all.

    """
    v1: dict[str, dict[str, Path]] = {}
    for controller in CONTROLLERS:
        for group in _groups_v1(f"{roots.cgroup}/{controller}", node):
            v1.setdefault(group.name, {})[controller] = Path(group.path)
    found = {name: CgroupPaths(None, paths) for name, paths in v1.items()}
    if not found:
        found = {
            group.name: CgroupPaths(Path(group.path))
            for top in _tops_v2(roots, node)
            for group in _jobs_below(top)
        }
    return {_jobid(name, paths, roots): paths for name, paths in found.items()}


def folders_of_jobs(roots: Roots, node: str = "") -> list[str]:
    """Return the folders in which a directory comes when a job does; none if Slurm has none."""
    for controller in CONTROLLERS:  # any one of them tells it
        if tops := _tops_v1(f"{roots.cgroup}/{controller}", node):
            return [*tops, *(user for top in tops for user in _below(top, "uid_"))]
    return _tops_v2(roots, node)


def folders_of_steps(paths: CgroupPaths) -> list[str]:
    """Return the folders in which a directory goes when a task or a step of this job ends.

    A task's goes first: about 20 ms before the job's, where a step's leaves 6 ms (Slurm 22.05).
    """
    job = str(paths.v2 or next(iter(paths.v1.values())))
    steps = _below(job, "step_")
    users = [f"{step}/user" for step in steps] if paths.v2 else []  # beside slurmstepd's own
    return [job, *steps, *users]


def jobid_of_processes(pids: set[int], roots: Roots) -> str | None:
    """Return the job that Slurm's own processes among these say they serve.

    slurmstepd calls itself `slurmstepd: [7.batch]`. A user's process can call itself that too, so
    only root's are believed; and without one, what processes say in SLURM_JOB_ID.
    """
    own = [pid for pid in pids if owner_of(pid, roots) == 0]
    titles = (TITLE.match(_content(f"{roots.proc}/{pid}/cmdline")) for pid in own)
    said = next((match[1].decode() for match in titles if match), None)
    return said or next(filter(None, (_told_jobid(roots, pid) for pid in sorted(pids))), None)


def owner_of(pid: int, roots: Roots) -> int | None:
    """Return the user who started a process; None if it is gone.

    The owner of /proc/PID would not do: a program can make that root.
    """
    match = REAL_USER.search(_content(f"{roots.proc}/{pid}/status"))
    return int(match[1]) if match else None


def _jobid(name: str, paths: CgroupPaths, roots: Roots) -> str:
    """Return the job's id; of a SLUID that nothing explains, the SLUID itself."""
    if job := JOB.fullmatch(name):
        return job[1]
    return jobid_of_processes(processes_of(paths), roots) or name


def _groups_v1(mounted: str, node: str) -> Iterator[Group]:
    for top in _tops_v1(mounted, node):
        for user in _below(top, "uid_"):
            yield from _jobs_below(user)


def _tops_v1(mounted: str, node: str) -> list[str]:
    tops = _below(mounted, SLURM)
    return [top for top in tops if _is_of(node, top, SLURM, f"{SLURM}_{node}")]


def _tops_v2(roots: Roots, node: str) -> list[str]:
    tops = [
        path
        for mounted in (roots.cgroup, roots.cgroup / "unified")
        for path in _below(f"{mounted}/system.slice", "")
        if path.endswith(SCOPE)
    ]
    return [top for top in tops if _is_of(node, top, SCOPE, f"{node}_{SCOPE}")]


def _is_of(node: str, top: str, alone: str, named: str) -> bool:
    return not node or os.path.basename(top) in (alone, named)  # noqa: PTH119 - it is a string


def _jobs_below(folder: str) -> Iterator[Group]:
    for path in _below(folder, ""):
        name = path.rpartition("/")[2]
        if JOB.fullmatch(name) or SLUID.fullmatch(name):
            yield Group(name, path)


def _below(folder: str, prefix: str) -> list[str]:
    """Return the directories of this prefix; none if the folder is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.path for entry in entries if entry.name.startswith(prefix) and entry.is_dir()
            )
    except OSError:
        return []


def _told_jobid(roots: Roots, pid: int) -> str | None:
    for entry in _content(f"{roots.proc}/{pid}/environ").split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"SLURM_JOB_ID" and value.isdigit():
            return value.decode()
    return None


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - it is a string
            return file.read(LONGEST_FILE)
    except OSError:
        return b""
