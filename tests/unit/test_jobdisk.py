"""Temp disk of jobs: which folders are theirs, and how they are measured beside the sampling."""

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import ConfigError, read_layer
from agent.jobdisk import (
    FIND_SECONDS,
    LEAST_REST_SECONDS,
    MOST_WALK_SECONDS,
    REST,
    SILENT_SECONDS,
    JobDisk,
    JobDisks,
    JobFolder,
    Place,
    place_of,
    private_folders,
)
from agent.messages import JobStart
from probes.roots import Roots
from probes.sample import Sample, Value, tags
from tests.weather import PATIENCE

ME = os.geteuid()


@dataclass
class Clock:
    """A clock that moves a little whenever it is looked at."""

    now: float = 1000.0
    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@dataclass
class Job:
    """A job of Slurm with processes that the test lays down."""

    job: JobStart = field(
        default_factory=lambda: JobStart("7", 0, uid=ME, user="eve", source="slurm", node="n1")
    )
    processes: set[int] = field(default_factory=set)

    def pids(self) -> set[int]:
        return self.processes


def job(**values: object) -> JobStart:
    known = {"uid": 1000, "user": "eve", "node": "n1", "source": "slurm"} | values
    return JobStart("7", 0, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "started", "place"),
    [
        ("/tmp/slurm.%j", job(), "/tmp/slurm.7"),
        ("/local/%u/%j", job(), "/local/eve/7"),
        ("/local/%n/%U/job_%j/tmp", job(), "/local/n1/1000/job_7/tmp"),
        ("/local/%u/%j", job(user=""), None),
        ("/local/%u/%j", job(user=".."), None),
        ("/local/%u/%j", job(user="eve/../bob"), None),
        ("/local/x%u/%j", job(user=".."), "/local/x../7"),
    ],
)
def test_a_pattern_names_a_job_s_folder(pattern: str, started: JobStart, place: str | None) -> None:
    found = place_of(pattern, started)
    assert (None if found is None else str(found)) == place
    if found is not None:
        assert not {"%", "7"} & set(str(found.top))
        assert found.owners == {0, 1000}


@pytest.mark.parametrize("pattern", ["tmp/%j", "/tmp/%u", "/tmp/%j/%a", "/tmp/%%j", "/tmp/"])
def test_a_pattern_that_is_no_job_s_own_is_refused(tmp_path: Path, pattern: str) -> None:
    file = tmp_path / "rooflight.toml"
    file.write_text(f'[slurm]\njob_tempdisk = ["{pattern}"]\n')
    with pytest.raises(ConfigError, match="job_tempdisk"):
        read_layer(file)


# as job_container/tmpfs of Slurm 22.05.8 makes them
OF_NODE = """\
28 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
29 28 259:5 / /local rw - xfs /dev/nvme0n1p5 rw
31 28 0:25 / /dev/shm rw - tmpfs tmpfs rw
"""
OF_JOB = """\
128 1 8:2 / / rw,relatime master:1 - ext4 /dev/sda2 rw
129 128 259:5 / /local rw - xfs /dev/nvme0n1p5 rw
131 128 0:25 / /dev/shm rw - tmpfs tmpfs rw
140 128 259:5 /jobtmp/n1/35/.35 /tmp rw - xfs /dev/nvme0n1p5 rw
141 128 8:2 /var/jobs/35\\040x /var/tmp rw - ext4 /dev/sda2 rw
142 131 0:99 / /dev/shm rw - tmpfs tmpfs rw
143 128 259:5 /home/eve /home/eve rw - xfs /dev/nvme0n1p5 rw
"""


def test_what_is_mounted_for_a_job_alone_is_found_on_the_node() -> None:
    assert list(map(str, private_folders(OF_JOB, OF_NODE))) == [
        "/local/jobtmp/n1/35/.35",
        "/var/jobs/35 x",
    ]
    assert list(private_folders(OF_NODE, OF_NODE)) == []


@pytest.mark.parametrize(
    "line",
    [
        "140 128 0:98 / /tmp rw - tmpfs tmpfs rw",  # of no folder of the node's
        "140 128 259:5 /jobtmp/35//deleted /tmp rw - xfs /dev/nvme0n1p5 rw",
        "140 128 259:5",
        "",
    ],
)
def test_a_mount_that_the_node_cannot_reach_is_left_out(line: str) -> None:
    assert list(private_folders(f"{OF_NODE}{line}\n", OF_NODE)) == []


def make(folder: Path, files: int = 10) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        (folder / f"file{number}").write_bytes(b"x" * 4096)
    return folder


def held(folder: Path) -> float:
    everything = [folder, *folder.rglob("*")]
    return float(sum(path.lstat().st_blocks for path in everything) * 512)


def measured(path: Path, clock: Clock, kind: str = "ext4", owner: int = ME) -> JobFolder:
    return JobFolder(Place(path.parent, (path.name,), frozenset({owner})), kind, clock)


def finish(folder: JobFolder, seconds: float = 1.0) -> None:
    folder.step(seconds)
    while folder.is_walking():
        folder.step(seconds)


def test_a_folder_is_walked_through_and_looked_at_again(tmp_path: Path) -> None:
    clock, path = Clock(), make(tmp_path / "job")
    folder = measured(path, clock)
    finish(folder)
    assert folder.usage == (held(path), "walk", True)
    assert folder.due == clock.now + LEAST_REST_SECONDS
    make(path / "more")
    finish(folder)
    assert folder.usage == (held(path), "walk", True)


def test_a_folder_that_goes_tells_nothing_and_may_come_back(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "job"
    folder = measured(path, clock)
    finish(folder)
    assert (folder.usage, folder.trouble) == (None, "")
    make(path)
    finish(folder)
    assert folder.usage is not None


def test_a_long_walk_is_told_as_at_least_and_followed_by_a_long_rest(tmp_path: Path) -> None:
    clock = Clock(step=0.01)
    folder = measured(make(tmp_path / "job", files=300), clock)
    folder.step(0.001)
    folder.step(0.001)
    begun = folder.usage
    assert begun is not None
    assert not begun.whole
    finish(folder, 0.001)
    assert folder.usage is not None
    assert folder.usage.whole
    assert folder.usage.held_bytes > begun.held_bytes
    assert folder.due - clock.now >= LEAST_REST_SECONDS


def test_the_rest_grows_with_the_work(tmp_path: Path) -> None:
    clock = Clock(step=1.0)  # every look at the clock costs a second
    folder = measured(make(tmp_path / "job"), clock)
    finish(folder)
    assert folder.due - clock.now >= 3 * REST


def test_a_walk_ends_when_its_time_is_over(tmp_path: Path) -> None:
    clock = Clock(step=MOST_WALK_SECONDS)
    folder = measured(make(tmp_path / "job", files=1000), clock)
    folder.step(0.0)
    folder.step(0.0)
    assert not folder.is_walking()
    assert folder.usage is not None
    assert not folder.usage.whole


def test_a_walk_that_has_found_less_so_far_hides_no_earlier_figure(tmp_path: Path) -> None:
    clock = Clock(step=0.001)
    folder = measured(make(tmp_path / "job", files=300), clock)
    finish(folder, 1.0)
    complete = folder.usage
    folder.step(0.0)
    folder.step(0.0)
    assert folder.is_walking()
    assert folder.usage == complete
    folder.close()


def test_somebody_else_s_folder_is_not_the_job_s(tmp_path: Path) -> None:
    folder = measured(make(tmp_path / "job"), Clock(), owner=ME + 1)
    finish(folder)
    assert (folder.usage, folder.trouble) == (None, f"belongs to user {ME}")


def test_shared_file_systems_are_not_walked_through(tmp_path: Path) -> None:
    folder = measured(make(tmp_path / "job"), Clock(), kind="lustre")
    finish(folder)
    assert folder.usage is None
    assert folder.trouble.startswith("is on lustre")


def roots(tmp_path: Path) -> Roots:
    (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/self/mountinfo").write_text("28 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
    return Roots(proc=tmp_path / "proc")


def see(tmp_path: Path, pid: int, mounts: str) -> None:
    (tmp_path / f"proc/{pid}").mkdir()
    (tmp_path / f"proc/{pid}/mountinfo").write_text(mounts)


def settle(disk: JobDisk) -> None:
    while disk.step(1.0):
        pass


def test_a_job_s_folders_are_summed_each_once(tmp_path: Path) -> None:
    clock, running = Clock(), Job(processes={40, 41})
    scratch, private = make(tmp_path / "scratch.7"), make(tmp_path / "jobtmp" / ".7", files=20)
    of_node = roots(tmp_path)
    own = (of_node.proc / "self/mountinfo").read_text()
    see(tmp_path, 40, own)  # slurmstepd sees what the node sees
    see(tmp_path, 41, f"{own}140 128 8:2 {private} /tmp rw - ext4 /dev/sda2 rw\n")
    patterns = [f"{tmp_path}/scratch.%j", f"{tmp_path}/jobtmp/.%j", f"{tmp_path}/none.%j"]
    disk = JobDisk(running, patterns, of_node, clock)
    settle(disk)
    assert disk.fields() == {
        "tempdisk_used_bytes": held(scratch) + held(private),
        "tempdisk_source": "walk",
    }


def test_a_private_folder_that_comes_later_is_found(tmp_path: Path) -> None:
    clock, running, of_node = Clock(), Job(), roots(tmp_path)
    disk = JobDisk(running, [], of_node, clock)
    settle(disk)
    assert disk.fields() == {}
    private, own = make(tmp_path / "private"), (of_node.proc / "self/mountinfo").read_text()
    running.processes = {41}
    see(tmp_path, 41, f"{own}140 128 8:2 {private} /tmp rw - ext4 /dev/sda2 rw\n")
    clock.now += FIND_SECONDS
    settle(disk)
    assert disk.fields()["tempdisk_used_bytes"] == held(private)


def test_what_cannot_be_measured_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    running = Job(JobStart("7", 0, uid=ME + 1, source="slurm"))
    make(tmp_path / "private")
    see_mounts = f"28 1 8:2 / / rw - ext4 x rw\n29 28 8:2 {tmp_path}/private /tmp rw - ext4 x rw\n"
    of_node = roots(tmp_path)
    see(tmp_path, 41, see_mounts)
    running.processes = {41}
    disk = JobDisk(running, [], of_node, clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            settle(disk)
            clock.now += 100
    words = f"temp disk of job 7: {tmp_path}/private is not measured: belongs to user {ME}"
    assert caplog.messages == [words]


def test_not_all_seen_is_said(tmp_path: Path) -> None:
    clock = Clock(step=MOST_WALK_SECONDS)
    make(tmp_path / "scratch.7", files=1000)
    disk = JobDisk(Job(), [f"{tmp_path}/scratch.%j"], roots(tmp_path), clock)
    settle(disk)
    assert disk.fields()["tempdisk_source"] == "walk, at least"


SAMPLES = [
    Sample("job_cgroup", tags(jobid="7"), {"cpu_seconds": 1.0}),
    Sample("other", (), {"value": 1.0}),
]


def told(disks: JobDisks) -> dict[str, Value]:
    own, other = disks.complete("7", SAMPLES)
    assert other == SAMPLES[1]
    return {name: value for name, value in own.fields.items() if name != "cpu_seconds"}


def test_figures_reach_the_job_s_sample_from_a_thread_of_their_own(tmp_path: Path) -> None:
    scratch = make(tmp_path / "scratch.7")
    disks = JobDisks([f"{tmp_path}/scratch.%j"], roots(tmp_path))
    assert told(disks) == {}
    disks.follow([Job()])
    deadline = time.monotonic() + PATIENCE
    while told(disks).get("tempdisk_source") != "walk":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert told(disks)["tempdisk_used_bytes"] == held(scratch)
    disks.follow([])
    assert told(disks) == {}
    disks.close()


def test_only_jobs_of_slurm_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "scratch.7")
    disks = JobDisks([f"{tmp_path}/scratch.%j"], roots(tmp_path))
    disks.follow([Job(JobStart("7", 0))])
    disks.step()
    assert told(disks) == {}


class Parked(JobDisks):
    """Without its thread: the test takes the steps."""

    def _work(self) -> None:
        pass

    def let_go(self) -> None:
        self.follow([])
        self.step()


def test_a_requeued_job_begins_anew_and_an_ended_one_is_let_go(tmp_path: Path) -> None:
    clock = Clock()
    make(tmp_path / "scratch.7", files=300)
    disks = Parked([f"{tmp_path}/scratch.%j"], roots(tmp_path), clock)
    disks.follow([Job()])
    disks.step()
    disks.step()
    first = told(disks)
    assert first
    disks.follow([Job(JobStart("7", 5000, uid=ME, source="slurm", restart=1))])
    assert told(disks) == {}
    disks.step()
    disks.step()
    assert told(disks) == first
    disks.let_go()


def test_a_file_system_that_hangs_silences_old_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    make(tmp_path / "scratch.7")
    disks = Parked([f"{tmp_path}/scratch.%j"], roots(tmp_path), clock)
    disks.follow([Job()])
    disks.step()
    disks.step()
    assert told(disks)
    clock.now += SILENT_SECONDS + 1
    with caplog.at_level(logging.WARNING):
        assert told(disks) == told(disks) == {}
    assert len(caplog.messages) == 1
    disks.step()
    assert told(disks)
    disks.let_go()
