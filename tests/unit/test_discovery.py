"""Where Slurm keeps its jobs, in each layout that it has."""

from pathlib import Path

import pytest

from agent.slurm.discovery import (
    find_job_cgroups,
    folders_of_jobs,
    folders_of_steps,
    jobid_of_processes,
)
from probes.cgroup import CgroupPaths
from probes.roots import Roots

SLUID = "s8FXKTA79XAR00"


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")


def make(roots: Roots, *folders: str) -> None:
    for folder in folders:
        (roots.cgroup / folder).mkdir(parents=True)


def v1(roots: Roots, **folders: str) -> CgroupPaths:
    return CgroupPaths(None, {name: roots.cgroup / name / path for name, path in folders.items()})


def v2(roots: Roots, folder: str) -> CgroupPaths:
    return CgroupPaths(roots.cgroup / folder)


def process(
    roots: Roots, pid: int, *, title: bytes = b"", environment: bytes = b"", uid: int = 0
) -> None:
    folder = roots.proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
    (folder / "cmdline").write_bytes(title)
    (folder / "environ").write_bytes(environment)


def test_no_slurm(roots: Roots) -> None:
    make(roots, "cpuacct/user.slice", "system.slice/ssh.service")
    assert find_job_cgroups(roots) == {}
    assert folders_of_jobs(roots) == []


def test_v1_with_one_slurmd(roots: Roots) -> None:
    make(roots, "cpuacct/slurm/uid_1000/job_7/step_0/task_0", "memory/slurm/uid_1000/job_7/step_0")
    make(roots, "cpuacct/slurm/system", "cpuacct/slurm/uid_0/job_8")
    job = "slurm/uid_1000/job_7"
    assert find_job_cgroups(roots) == {
        "7": v1(roots, cpuacct=job, memory=job),
        "8": v1(roots, cpuacct="slurm/uid_0/job_8"),
    }


def test_v1_where_slurm_only_tracks_processes(roots: Roots) -> None:
    make(roots, "cpuacct/user.slice", "freezer/slurm_n1/uid_1000/job_7/step_0")
    assert find_job_cgroups(roots) == {"7": v1(roots, freezer="slurm_n1/uid_1000/job_7")}


def test_v1_with_several_slurmd(roots: Roots) -> None:
    first, second = "slurm_n1/uid_1000/job_7", "slurm_n2/uid_1000/job_8"
    make(roots, f"cpuacct/{first}/step_0", f"cpuacct/{second}/step_0")
    assert find_job_cgroups(roots, "n1") == {"7": v1(roots, cpuacct=first)}
    assert find_job_cgroups(roots, "n2") == {"8": v1(roots, cpuacct=second)}
    assert find_job_cgroups(roots, "n") == {}
    assert find_job_cgroups(roots).keys() == {"7", "8"}


def test_folders_in_which_tasks_end(roots: Roots) -> None:
    make(roots, "cpuacct/slurm/uid_0/job_7/step_0/task_0", "s/job_8/step_0/user/task_0")
    job = v1(roots, cpuacct="slurm/uid_0/job_7")
    top = str(job.v1["cpuacct"])
    assert folders_of_steps(job) == [top, f"{top}/step_0"]
    top = str(roots.cgroup / "s" / "job_8")
    assert folders_of_steps(v2(roots, "s/job_8")) == [top, f"{top}/step_0", f"{top}/step_0/user"]


@pytest.mark.parametrize("scope", ["slurmstepd.scope", "n1_slurmstepd.scope"])
@pytest.mark.parametrize("mounted", ["", "unified/"])
def test_v2(roots: Roots, scope: str, mounted: str) -> None:
    top = f"{mounted}system.slice/{scope}"
    make(roots, f"{top}/job_7/step_0/user/task_special", f"{top}/system", f"{top}/slurmd")
    assert find_job_cgroups(roots) == {"7": v2(roots, f"{top}/job_7")}
    assert find_job_cgroups(roots, "n1") == {"7": v2(roots, f"{top}/job_7")}
    assert folders_of_jobs(roots) == [str(roots.cgroup / top)]


def test_v2_with_several_slurmd(roots: Roots) -> None:
    make(roots, "system.slice/n1_slurmstepd.scope/job_7", "system.slice/n2_slurmstepd.scope/job_8")
    assert find_job_cgroups(roots, "n2").keys() == {"8"}


def test_a_sluid_is_the_job_that_slurmstepd_says(roots: Roots) -> None:
    folder = f"system.slice/slurmstepd.scope/{SLUID}"
    make(roots, f"{folder}/step_extern/slurm", f"{folder}/step_0/user/task_0")
    (roots.cgroup / folder / "step_extern/slurm/cgroup.procs").write_text("41\n")
    process(roots, 41, title=b"slurmstepd: [123.extern]\0")
    assert find_job_cgroups(roots) == {"123": v2(roots, folder)}


def test_a_sluid_that_nothing_explains_stays_one(roots: Roots) -> None:
    folder = f"system.slice/slurmstepd.scope/{SLUID}"
    make(roots, folder, "system.slice/slurmstepd.scope/sILUO000000000")  # letters that none has
    assert find_job_cgroups(roots) == {SLUID: v2(roots, folder)}


def test_slurmstepd_is_believed_before_the_environment_of_programs(roots: Roots) -> None:
    process(roots, 41, title=b"python\0", environment=b"A=1\0SLURM_JOB_ID=9\0")
    process(roots, 42, title=b"slurmstepd: [123.0]\0")
    assert jobid_of_processes({41, 42}, roots) == "123"
    assert jobid_of_processes({41}, roots) == "9"
    assert jobid_of_processes({40}, roots) is None


def test_only_root_s_slurmstepd_is_believed(roots: Roots) -> None:
    process(roots, 41, title=b"slurmstepd: [666.0]\0", environment=b"SLURM_JOB_ID=x\0", uid=1000)
    assert jobid_of_processes({41}, roots) is None
