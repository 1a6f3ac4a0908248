"""What is left of the host's memory: the least of the machine's and of each group's around us."""

from pathlib import Path

import pytest

from probes.roots import Roots
from workloads.hostmemory import available_host_bytes

MIB = 1 << 20
FREE = "MemAvailable: 8192 kB\n"


def machine(folder: Path, membership: str, files: dict[str, str]) -> Roots:
    texts = {"proc/meminfo": FREE, "proc/self/cgroup": membership}
    texts |= {f"cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Roots(proc=folder / "proc", cgroup=folder / "cgroup")


@pytest.mark.parametrize("limited", ["slurm", "slurm/job_7", "slurm/job_7/step_0"])
def test_the_tightest_group_of_version_2_counts(tmp_path: Path, limited: str) -> None:
    files = {f"{limited}/memory.max": f"{3 * MIB}\n", f"{limited}/memory.current": f"{2 * MIB}\n"}
    files["slurm/job_7/step_0/memory.current"] = f"{2 * MIB}\n"
    files.setdefault("slurm/job_7/step_0/memory.max", "max\n")
    roots = machine(tmp_path, "0::/slurm/job_7/step_0\n", files)
    assert available_host_bytes(roots) == MIB


def test_pages_of_files_that_are_not_in_use_can_be_reclaimed(tmp_path: Path) -> None:
    files = {
        "job/memory.max": f"{3 * MIB}",
        "job/memory.current": f"{3 * MIB}",
        "job/memory.stat": f"anon 5\ninactive_file {MIB}\n",
    }
    assert available_host_bytes(machine(tmp_path, "0::/job\n", files)) == MIB


def test_version_1_has_its_own_hierarchy_and_its_own_word_for_no_limit(tmp_path: Path) -> None:
    files = {
        "memory/slurm/job_7/memory.limit_in_bytes": f"{4 * MIB}\n",
        "memory/slurm/job_7/memory.usage_in_bytes": f"{3 * MIB}\n",
        "memory/slurm/job_7/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}\n",
        "memory/slurm/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/slurm/memory.usage_in_bytes": "0\n",
    }
    membership = "5:cpu,cpuacct:/\n4:memory:/slurm/job_7\n0::/\n"
    assert available_host_bytes(machine(tmp_path, membership, files)) == 2 * MIB


@pytest.mark.parametrize("broken", ["", "\n\n", "4:memory\n", "0::/../../..\n", "\x00::/x"])
def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path, broken: str) -> None:
    assert available_host_bytes(machine(tmp_path, broken, {})) == 8 * MIB
