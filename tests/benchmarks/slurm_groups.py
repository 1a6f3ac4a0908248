"""The control groups of a job of Slurm on cgroup v2, as files in a folder.

Names and layout are those of a real job: Slurm 22.05 on Linux 6.1, both of Debian 12, with
task/cgroup and proctrack/cgroup; a batch script that runs one step of two tasks. Every group has
every file, because whoever walks through the groups reads all the names. There is no io.stat:
Slurm does not ask for that controller.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

NUMBER = 68719476736
STALLED = "".join(
    f"{part} avg10=0.72 avg60=0.18 avg300=0.04 total=139461\n" for part in ("some", "full")
)
_CGROUP = (
    *("controllers", "events", "freeze", "kill", "max.depth", "max.descendants", "pressure"),
    *("procs", "stat", "subtree_control", "threads", "type"),
)
_MEMORY = (
    *("current", "events", "events.local", "high", "low", "max", "min", "numa_stat", "oom.group"),
    *("peak", "pressure", "reclaim", "stat", "swap.current", "swap.events", "swap.high"),
    *("swap.max", "zswap.current", "zswap.max"),
)
_MEMORY_STAT = (
    *("anon", "file", "kernel", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "sock"),
    *("vmalloc", "shmem", "zswap", "zswapped", "file_mapped", "file_dirty", "file_writeback"),
    *("swapcached", "anon_thp", "file_thp", "shmem_thp", "inactive_anon", "active_anon"),
    *("inactive_file", "active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable"),
    *("slab", "workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon"),
    *("workingset_activate_file", "workingset_restore_anon", "workingset_restore_file"),
    *("workingset_nodereclaim", "pgscan", "pgsteal", "pgscan_kswapd", "pgscan_direct"),
    *("pgsteal_kswapd", "pgsteal_direct", "pgfault", "pgmajfault", "pgrefill", "pgactivate"),
    *("pgdeactivate", "pglazyfree", "pglazyfreed", "zswpin", "zswpout", "thp_fault_alloc"),
    "thp_collapse_alloc",
)
NAMES = (
    *(f"cgroup.{name}" for name in _CGROUP),
    *(f"cpu.{name}" for name in ("idle", "max", "max.burst", "pressure", "stat", "weight")),
    "cpu.weight.nice",
    *(f"cpuset.{name}" for name in ("cpus", "cpus.effective", "cpus.partition", "mems")),
    *("cpuset.mems.effective", "io.pressure"),
    *(f"memory.{name}" for name in _MEMORY),
)
TEXTS: Mapping[str, str] = {
    "cgroup.procs": "",
    "cpu.stat": (
        "usage_usec 7654321000\nuser_usec 7000000000\nsystem_usec 654321000\nnr_periods 0\n"
        "nr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"
    ),
    "memory.max": f"{2 * NUMBER}\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "memory.stat": "".join(f"{name} {NUMBER}\n" for name in _MEMORY_STAT),
    **{f"{name}.pressure": STALLED for name in ("cpu", "memory", "io")},
}
"""What is in those that are more than a number."""


def write_job(job: Path, script: Sequence[int], ranks: Sequence[int]) -> None:
    """Write all groups of a job.

    Args:
        job: its folder.
        script: processes of the batch script, the first of which is slurmstepd's here, too.
        ranks: one process for each task of its step.

    """
    stepd = script[:1]
    members = {
        "": (),
        **_step("step_extern", stepd, {"task_0": stepd}),
        **_step("step_batch", stepd, {"task_0": script}),
        **_step("step_0", stepd, {f"task_{number}": [rank] for number, rank in enumerate(ranks)}),
    }
    for group, pids in members.items():
        _write_group(job / group, pids)


def _step(
    name: str, stepd: Sequence[int], tasks: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    below = {f"{name}/user/{task}": pids for task, pids in tasks.items()}
    return {name: (), f"{name}/slurm": stepd, f"{name}/user": (), **below}


def _write_group(group: Path, pids: Sequence[int]) -> None:
    group.mkdir(parents=True)
    procs = "".join(f"{pid}\n" for pid in pids)
    for name in NAMES:
        text = TEXTS.get(name, f"{NUMBER}\n")
        (group / name).write_text(procs if name == "cgroup.procs" else text)
