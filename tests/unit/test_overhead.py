"""What the overhead benchmark is made of: its arithmetic, and what it reads of other programs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.jobs import Accounting
from probes.cgroup import CgroupPaths, processes_of
from probes.roots import Roots
from tests.benchmarks import gpu_node, instructions, pcp, under_load
from tests.benchmarks.accounting import cpu_seconds, family, memory, memory_of_one, usage, waits
from tests.benchmarks.back_to_back import Clock
from tests.benchmarks.instructions import Count
from tests.benchmarks.slurm_groups import NAMES, write_job
from tests.benchmarks.tables import Figures, loaded_table, percentile, table

WAITS = 30
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
print("begun", flush=True)
for _ in range({WAITS}):
    sys.stdin.readline()
    sum(range(100_000))
    time.sleep(0.001)
    print("done", flush=True)
sys.stdin.read()
child.kill()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process with a child, which works and sleeps a little for each line that it reads."""
    command = [sys.executable, "-c", PARENT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.communicate()


def test_usage_grows_by_what_a_process_does(parent: subprocess.Popen[str]) -> None:
    before = usage([parent.pid])
    assert parent.stdin is not None
    assert parent.stdout is not None
    for _ in range(WAITS):
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "done\n"
    after = usage([parent.pid])
    # each sleep is one; where the next line is not there yet, so is that
    assert WAITS <= after.wakeups - before.wakeups <= 3 * WAITS
    assert after.cpu_seconds - before.cpu_seconds > WAITS * 0.0005  # a sum takes milliseconds


def test_children_belong_to_the_account(parent: subprocess.Popen[str]) -> None:
    pid, child = family(parent.pid)
    assert pid == parent.pid
    both = memory(parent.pid)
    assert both.resident > memory_of_one(pid).resident > memory_of_one(child).resident
    assert both.proportional <= both.resident
    assert cpu_seconds(child) < cpu_seconds(pid)


def test_waits_are_those_that_a_task_chose() -> None:
    status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"
    assert waits(status) == 150
    assert waits("Name:\tx\n") == 0


def test_a_job_has_the_groups_and_the_files_that_slurm_makes(tmp_path: Path) -> None:
    write_job(tmp_path / "job_7", script=[11, 12], ranks=[13, 14])
    groups = [path for path in (tmp_path / "job_7").rglob("*") if path.is_dir()]
    assert len(groups) == 13  # as counted in a real one, less the job's own
    for group in (tmp_path / "job_7", *groups):
        assert len([path for path in group.iterdir() if path.is_file()]) == 44
    assert len(set(NAMES)) == 44
    assert processes_of(CgroupPaths(tmp_path / "job_7")) == {11, 12, 13, 14}


@pytest.mark.parametrize(("kind", "source"), [("slurm", "cgroup2"), ("trees", "processes")])
def test_a_job_is_read_by_its_group_or_by_its_processes(
    tmp_path: Path, kind: gpu_node.Jobs, source: str
) -> None:
    with gpu_node.running_processes() as pids:
        assert len(pids) == 16
        jobs = gpu_node.jobs_of(tmp_path, kind, pids)
        assert [job.gpus for job in jobs] == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]
        accounting = Accounting(jobs[0], Roots())
        sample = accounting.sample()
        assert sample is not None
        assert sample.fields["source"] == source
        assert sample.fields["processes_total"] == 4
        assert accounting.pids() == set(pids[:4])


def test_each_gpu_has_a_process_of_its_job() -> None:
    pids = list(range(100, 116))
    assert gpu_node.gpus_of(pids) == "0:102 1:103 2:106 3:107 4:110 5:111 6:114 7:115"


def test_the_clock_stands_still_between_steps() -> None:
    clock = Clock()
    before = clock.time(), clock.monotonic()
    assert (clock.time(), clock.monotonic()) == before
    clock.step(10)
    assert (clock.time() - before[0], clock.monotonic() - before[1]) == (10, 10)


@pytest.mark.parametrize(
    "said",
    [
        "==7== \n==7== I   refs:      1,067,974,676\n",  # 3.19
        "==7== I refs:        1,067,974,676\n",  # 3.22
    ],
)
def test_total_of_instructions(said: str) -> None:
    assert instructions.parse_total(said) == 1_067_974_676


def test_no_total_of_instructions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no total: Killed"):
        instructions.parse_total("Killed")


def test_how_far_counts_lie_apart() -> None:
    assert Count([190.0, 210.0]).mean == 200
    assert Count([190.0, 210.0]).spread == pytest.approx(0.1)


def test_the_agents_priority_is_that_of_its_unit_file(tmp_path: Path) -> None:
    unit = tmp_path / "agent.service"
    unit.write_text("[Unit]\nDescription=Nice=3\n[Service]\nNice=5\nCPUWeight=200\nUser=x\n")
    priority = under_load.unit_priority(unit)
    assert priority.niceness == 5
    assert str(priority) == "the agent at niceness 5; its unit file says Nice=5, CPUWeight=200"
    unit.write_text("[Service]\nUser=x\n")
    assert under_load.unit_priority(unit).niceness == 0
    assert "sets no priority" in str(under_load.unit_priority(unit))


def test_pcp_writes_only_into_its_folder(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "own"
    (root / "usr/bin").mkdir(parents=True)
    text = "# PCP\nPCP_BIN_DIR=/usr/bin\n\nPCP_RUN_DIR=/run/pcp\nPCP_PS_PROG=ps\nPCP_X=/not/there\n"
    assert pcp.settings(pcp.own_settings(text, root, folder)) == {
        "PCP_BIN_DIR": f"{root}/usr/bin",
        "PCP_PS_PROG": "ps",
        "PCP_X": "/not/there",
        **dict.fromkeys(pcp.OWN_FOLDERS, str(folder)),
    }


def test_samples_and_values_of_an_archive_of_pcp() -> None:
    of_itself = "17:35:49.328421 1 metrics\n    2.0.23 (pmcd.pid): value 28961\n\n"
    sample = (
        "17:35:{second}.348812 3 metrics\n"
        "    60.93.0 (kernel.all.pressure.irq.full.avg): No values returned!\n"
        "    60.28.9 (mem.vmstat.pswpout): value 0\n"
        '    60.0.5 (disk.dev.write): inst [0 or "vda"] value 441177\n'
        "    60.3.11 (network.interface.out.drops):\n"
        '        inst [0 or "lo"] value 0\n        inst [3 or "eth0"] value 0\n\n'
    )
    samples = [sample.format(second=second) for second in range(50, 54)]
    assert pcp.archived(of_itself + "".join(samples) + of_itself) == (4, 4)


def test_percentiles() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile(list(map(float, range(101))), 99) == 99.0
    assert percentile([1.0, 2.0, 9.0], 50) == 2.0


def test_a_table_tells_means_and_ratios() -> None:
    ours = [
        Figures(1.0, 4.0, 30.0, 20.0, 7.0, 2400.0, [0.1, 0.2], 0),
        Figures(3.0, 6.0, 32.0, 22.0, 7.0, 2600.0, [0.3], 0),
    ]
    theirs = [Figures(5.0, 1.0, 3.0, 1.0, 120.0, 3000.0)]
    rows = table({"ours": ours, "theirs": theirs}, "ours", {"ours": 1.5e6}).splitlines()
    assert (
        rows[2]
        == "| ours | 2.00 (1.00-3.00) | 1.00 | 1.50 | 31 | 21 | 7 | 2500 | 5.0 | 0.20 | 0.30 |"
    )
    assert rows[3] == "| theirs | 5.00 (5.00-5.00) | 2.50 |  | 3 | 1 | 120 | 3000 | 1.0 |  |  |"


def test_lateness_on_a_loaded_machine_is_told_with_what_was_skipped() -> None:
    late = [float(number) for number in range(101)]
    rows = loaded_table({("agent", "busy"): [Figures(2.5, 4, 30, 20, 7, 2400, late, 3)]})
    assert rows.splitlines()[2] == "| agent | busy | 101 | 50.00 | 99.00 | 100.00 | 3 | 2.50 |"
