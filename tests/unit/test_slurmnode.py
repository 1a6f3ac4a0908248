"""Jobs that come and go untold, with a clock of our own and a fixture's control groups."""

import select
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.messages import JobStart
from agent.slurm.node import (
    BEGIN_SECONDS,
    EPILOG_SECONDS,
    FIRST_JOB_SECONDS,
    PROLOG_SECONDS,
    SlurmNode,
)
from probes.roots import Roots
from tests.unit.test_loop import Clock, Sink, make_loop

BOOTED = 1_700_000_000
STAT = "41 (python3) S 1 41 41 0 -1 4194304 0 0 0 0 1 2 0 0 20 0 1 0 {started} 1000 10 " + "0 " * 30


@dataclass
class Node:
    folder: Path
    until_idle: float | None = None
    folders: bool = True
    clock: Clock = field(default_factory=Clock)
    sink: Sink = field(default_factory=Sink)

    def __post_init__(self) -> None:
        self.loop = make_loop(self.folder, [], self.clock, self.sink)
        self.roots = Roots(proc=self.folder / "proc", cgroup=self.folder / "cgroup")
        if self.folders:
            (self.cgroup / "slurm" / "uid_65534").mkdir(parents=True)
        self.slurm = SlurmNode(self.loop, self.roots, until_idle=self.until_idle)
        self.slurm.follow()

    @property
    def cgroup(self) -> Path:
        return self.roots.cgroup / "cpuacct"

    def make_job(self, jobid: str, nanoseconds: int, *pids: int) -> Path:
        job = self.cgroup / "slurm" / "uid_65534" / f"job_{jobid}"
        job.mkdir(exist_ok=True)
        (job / "cpuacct.usage").write_text(f"{nanoseconds}\n")
        (job / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return job

    def make_process(self, pid: int, started: int) -> None:
        (self.roots.proc / str(pid)).mkdir(parents=True)
        (self.roots.proc / str(pid) / "stat").write_text(STAT.format(started=started))
        (self.roots.proc / str(pid) / "status").write_text("Uid:\t65534\t65534\t65534\t65534\n")
        (self.roots.proc / "stat").write_text(f"cpu 1 2 3\nbtime {BOOTED}\n")

    def start_job(self, jobid: str) -> None:
        now = int(self.clock.now * 1000)
        self.loop.start_job(JobStart(jobid, now, source="slurm", user="someone"))

    def remove(self, job: Path) -> None:
        for file in job.iterdir():
            file.unlink()
        job.rmdir()

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.slurm.refresh()

    def is_heard(self) -> bool:
        """Tell whether the kernel has said that a folder has changed."""
        return bool(select.select([self.slurm.folders.fileno()], [], [], 0)[0])

    def jobs(self) -> list[str]:
        return [running.job.jobid for running in self.loop.jobs]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_group_that_comes_after_the_prolog_is_read(node: Node) -> None:
    node.start_job("7")
    node.make_job("7", 2_000_000_000, 41)
    node.after(10)
    node.loop.tick(int(node.clock.now * 1000))
    assert node.sink.last("job_cgroup").fields["cpu_seconds"] == 2.0


def test_a_job_that_is_told_of_late_is_read_at_once(node: Node) -> None:
    node.make_job("7", 2_000_000_000, 41)
    node.start_job("7")
    assert node.sink.last("job_cgroup").fields["cpu_seconds"] == 2.0


def test_the_first_job_of_a_slurmd_that_came_after_the_agent_is_heard(tmp_path: Path) -> None:
    node = Node(tmp_path, folders=False)
    (node.cgroup / "slurm").mkdir(parents=True)
    node.start_job("7")
    assert not node.is_heard()
    (node.cgroup / "slurm" / "uid_65534").mkdir()
    assert node.is_heard()


def test_the_end_of_a_task_is_heard_and_the_job_read_at_once(node: Node) -> None:
    node.start_job("7")
    job = node.make_job("7", 1_000_000_000, 41)
    node.after(1)
    step, task = job / "step_0", job / "step_0" / "task_0"
    step.mkdir()
    node.slurm._react()
    task.mkdir()
    node.slurm._react()
    node.make_job("7", 2_500_000_000, 41)
    task.rmdir()
    node.slurm._react()
    step.rmdir()
    node.remove(job)
    node.clock.now += 1
    node.loop.end_job("7", 0)
    assert node.sink.last("job_footprint").fields["cpu_seconds"] == 2.5


def test_a_job_whose_prolog_was_missed_is_taken_on(node: Node) -> None:
    node.make_process(41, 12_345)
    node.make_job("7", 3_000_000_000, 41)
    node.after(0)
    assert node.jobs() == []  # its prolog may be on the way
    node.after(PROLOG_SECONDS)
    assert node.jobs() == ["7"]
    running = node.loop.jobs.get("7")
    assert running is not None
    assert running.job.start_ms == BOOTED * 1000 + 123_450
    assert (running.job.uid, running.job.user, running.job.source) == (65534, "nobody", "slurm")
    assert running.job.gpus_by_use  # nobody said which it was given


def test_a_prolog_that_is_heard_late_adds_to_what_was_found(node: Node) -> None:
    node.make_process(41, 12_345)
    node.make_job("7", 3_000_000_000, 41)
    node.after(0)
    node.after(PROLOG_SECONDS)
    node.loop.start_job(JobStart("7", int(node.clock.now * 1000), source="slurm", partition="main"))
    rows = [point for point in node.sink.points if point.measurement == "job"]
    assert {row.time_ms for row in rows} == {BOOTED * 1000 + 123_450}  # one job, not two
    assert rows[-1].fields["partition"] == "main"
    assert node.sink.last("job_footprint").fields["cpu_seconds"] == 3.0


def test_a_group_without_a_process_is_no_job(node: Node) -> None:
    node.make_job("7", 3_000_000_000)
    node.after(0)
    node.after(1000)
    assert node.jobs() == []


def test_a_job_whose_epilog_was_missed_is_ended(node: Node) -> None:
    node.start_job("7")
    job = node.make_job("7", 2_000_000_000, 41)
    node.after(1)
    node.loop.tick(int(node.clock.now * 1000))
    node.remove(job)
    node.after(1)
    gone = node.clock.now
    node.after(EPILOG_SECONDS - 1)
    assert node.jobs() == ["7"]
    node.after(1)
    assert node.jobs() == []
    row = node.sink.last("job").fields
    assert (row["state"], row["end_epoch_milliseconds"]) == ("UNKNOWN", gone * 1000)
    assert "exit_code_total" not in row
    assert node.sink.last("job_footprint").fields["cpu_seconds"] == 2.0


def test_a_job_that_other_prologs_hold_up_is_not_ended(node: Node) -> None:
    node.start_job("7")
    node.after(0)
    node.after(BEGIN_SECONDS - 1)
    assert node.jobs() == ["7"]
    node.after(1)
    assert node.jobs() == []


def test_without_control_groups_only_an_epilog_ends_a_job(node: Node) -> None:
    (node.cgroup / "slurm" / "uid_65534").rmdir()
    (node.cgroup / "slurm").rmdir()
    node.start_job("7")
    node.after(0)
    node.after(10 * BEGIN_SECONDS)
    assert node.jobs() == ["7"]


def test_a_requeued_job_whose_end_was_missed_begins_anew(node: Node) -> None:
    node.start_job("7")
    node.clock.now += 10
    node.loop.start_job(JobStart("7", int(node.clock.now * 1000), source="slurm", restart=1))
    rows = [point for point in node.sink.points if point.measurement == "job"]
    assert [(row.fields["restart_total"], row.fields["state"]) for row in rows] == [
        (0.0, "RUNNING"),
        (0.0, "UNKNOWN"),
        (1.0, "RUNNING"),
    ]


def test_an_agent_for_jobs_only_ends_when_there_is_none(tmp_path: Path) -> None:
    node = Node(tmp_path, until_idle=60.0)
    node.start_job("7")
    node.after(100)
    assert not node.loop._stopping
    node.loop.end_job("7", 0)
    node.after(59)
    assert not node.loop._stopping
    node.after(1)
    assert node.loop._stopping


def test_an_agent_may_end_with_the_last_job_and_waits_for_the_first(tmp_path: Path) -> None:
    node = Node(tmp_path, until_idle=0.0)
    node.after(FIRST_JOB_SECONDS - 1)
    for jobid in "78":
        node.start_job(jobid)
    for jobid in "78":
        assert not node.loop._stopping
        node.loop.end_job(jobid, 0)
        node.slurm._stop_when_idle()
    assert node.loop._stopping


def test_an_agent_whose_first_job_never_comes_ends(tmp_path: Path) -> None:
    node = Node(tmp_path, until_idle=0.0)
    node.after(FIRST_JOB_SECONDS)
    assert node.loop._stopping


def test_a_requeued_job_does_not_end_the_agent(tmp_path: Path) -> None:
    node = Node(tmp_path, until_idle=0.0)
    node.start_job("7")
    node.clock.now += 10
    node.loop.start_job(JobStart("7", int(node.clock.now * 1000), source="slurm", restart=1))
    node.slurm._stop_when_idle()
    assert not node.loop._stopping
