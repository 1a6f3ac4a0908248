"""Agents that Slurm's prolog starts, and disks that are full: the job comes first."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.commands import Site, usage
from tests.integration.test_slurm import (
    BURN,
    agent,
    burned,
    finished,
    hear_from,
    program,
    site_of,
    socket_of,
)
from tests.slurm.bed import Bed
from tests.weather import PATIENCE

pytestmark = pytest.mark.slurm

HOOK_SECONDS = 2.0
"""The hooks' own limit."""

# computes until told to stop, so that no machine is too slow or too fast for what happens meanwhile
WORK = """
import os, resource, sys
while not os.path.exists(sys.argv[1] + "-enough") or resource.getrusage(0).ru_utime < 1.5:
    sum(range(1000))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, file=open(sys.argv[1], "w"))
"""


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def agent_of(site: Site) -> int:
    """Return the process that holds the site's spool, 0 if none does."""
    lock = site.folder / "state" / "spool" / "lock"
    pid = int(lock.read_text() or 0) if lock.exists() else 0
    return pid if pid and is_alive(pid) else 0


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()  # process 1 is slow to reap
    except OSError:
        return False


@pytest.fixture
def own(slurm: Bed, tmp_path: Path) -> Iterator[Site]:
    """A site without a service: prologs start its agent, and the last epilog ends it."""
    site = site_of(tmp_path, 0.5)
    log = tmp_path / "log"
    own = f"ROOFLIGHT_CONFIG={site.file} ROOFLIGHT_OWN_AGENT=0 ROOFLIGHT_LOG={log}"
    hear_from(slurm, site, f"export {own}")
    yield site
    if pid := agent_of(site):
        os.kill(pid, signal.SIGKILL)
    print(log.read_text() if log.exists() else "no log")


def work(slurm: Bed, name: str) -> str:
    return slurm.submit("-wbed1", command=program(WORK, slurm.results / name))


def enough(slurm: Bed, name: str) -> None:
    (slurm.results / f"{name}-enough").touch()


def assert_exact(slurm: Bed, site: Site, jobid: str, name: str) -> None:
    found = usage(finished(site, jobid), "cpu time")["total"]
    assert found == pytest.approx(burned(slurm, name), rel=0.02, abs=0.02)


def assert_detached(pid: int, slurm: Bed, site: Site) -> None:
    """Check that an agent hangs on nothing of the prolog that started it."""
    process, null = Path(f"/proc/{pid}"), Path(os.devnull)
    descriptors = [(process / "fd" / str(number)).readlink() for number in range(3)]
    assert descriptors == [null, null, site.folder / "log"]
    assert (process / "cwd").readlink() == Path("/")
    assert "job_" not in (process / "cgroup").read_text()
    slurmd = int((slurm.folder / "run" / "slurmd.bed1.pid").read_text())
    assert os.getsid(pid) not in (os.getsid(0), os.getsid(slurmd))


def test_one_agent_serves_the_jobs_of_a_node_and_ends_with_the_last(slurm: Bed, own: Site) -> None:
    first, second = work(slurm, "own-first"), work(slurm, "own-second")
    wait_until(lambda: agent_of(own) and socket_of(own).exists())
    pid = agent_of(own)
    assert_detached(pid, slurm, own)
    slurm.wait_for_state(second, "RUNNING")
    enough(slurm, "own-first")
    slurm.wait(first)
    assert is_alive(pid)
    enough(slurm, "own-second")
    slurm.wait(second)
    wait_until(lambda: not is_alive(pid))
    assert not socket_of(own).exists()
    for jobid, name in ((first, "own-first"), (second, "own-second")):
        assert_exact(slurm, own, jobid, name)


def test_a_job_shorter_than_an_agent_s_start_is_exact(slurm: Bed, own: Site) -> None:
    jobid = slurm.submit("-wbed1", command=program(BURN, 1.5, slurm.results / "own-short"))
    slurm.wait(jobid)
    assert_exact(slurm, own, jobid, "own-short")
    assert all(time.is_within(HOOK_SECONDS) for time in slurm.hook_times(jobid))


# 2 s of work, and then still while Slurm looks for how much memory it has: every 5 s
HOLD = """
import time
began = time.monotonic()
held = bytearray(300 << 20)
while time.process_time() < 2:
    sum(range(1000))
time.sleep(max(0, began + 6.5 - time.monotonic()))
"""


def in_sacct(slurm: Bed, jobid: str) -> tuple[float, int]:
    """Return processor seconds and peak bytes of a batch script's step; 0 until they are there."""
    asked = ("sacct", "-nP", "--format=TotalCPU,MaxRSS", f"--jobs={jobid}.batch")
    said = re.fullmatch(r"(\d+):(\d+\.\d+)\|(\d+)K", slurm.run(*asked))
    return (60 * int(said[1]) + float(said[2]), int(said[3]) << 10) if said else (0.0, 0)


def test_figures_are_those_of_sacct(slurm: Bed, own: Site) -> None:
    jobid = slurm.submit("-wbed1", "--mem=500", command=program(HOLD))
    slurm.wait(jobid)
    report = finished(own, jobid)
    wait_until(lambda: in_sacct(slurm, jobid)[0])  # slurmdbd lags
    seconds, peak = in_sacct(slurm, jobid)
    assert usage(report, "cpu time")["total"] == pytest.approx(seconds, rel=0.02, abs=0.02)
    assert usage(report, "memory")["peak"] == pytest.approx(peak, rel=0.02)


def test_the_next_prolog_replaces_an_agent_that_was_killed(slurm: Bed, own: Site) -> None:
    first = work(slurm, "own-orphan")
    wait_until(lambda: (own.folder / "state" / "jobs" / f"{first}.json").exists())
    killed = agent_of(own)
    os.kill(killed, signal.SIGKILL)
    second = work(slurm, "own-heir")
    wait_until(lambda: agent_of(own) not in (0, killed))
    for jobid, name in ((first, "own-orphan"), (second, "own-heir")):
        enough(slurm, name)
        slurm.wait(jobid)
    for jobid, name in ((first, "own-orphan"), (second, "own-heir")):
        assert_exact(slurm, own, jobid, name)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB; give the file that fills it up."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", "size=1m,mode=755")
    subprocess.run(["mount", *options, "rooflight-test", folder], check=True)
    try:
        yield folder / "filler"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(4096))
            except OSError:
                return


def test_a_disk_that_fills_up_costs_no_job_anything(slurm: Bed, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as filler:
        site = site_of(tmp_path / "disk", 0.5)
        hear_from(slurm, site)
        with agent(site):
            fill(filler)
            jobid = slurm.submit("-wbed1", command=program(BURN, 1, slurm.results / "full"))
            slurm.wait(jobid)
            assert slurm.state(jobid) == "COMPLETED"
            assert slurm.node_states() == {"idle"}
            assert all(time.is_within(HOOK_SECONDS) for time in slurm.hook_times(jobid))
            filler.unlink()
            assert_exact(slurm, site, jobid, "full")  # it waited in memory


def test_a_job_runs_whose_agent_starts_on_a_full_disk(slurm: Bed, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as filler:
        site, log = site_of(tmp_path / "disk", 0.5), tmp_path / "log"
        own = f"ROOFLIGHT_CONFIG={site.file} ROOFLIGHT_OWN_AGENT=0 ROOFLIGHT_LOG={log}"
        hear_from(slurm, site, f"export {own}")
        fill(filler)
        jobid = slurm.submit("-wbed1", command=program(BURN, 0, slurm.results / "on-full"))
        slurm.wait(jobid)
        assert slurm.state(jobid) == "COMPLETED"
        assert burned(slurm, "on-full") > 0
        assert slurm.node_states() == {"idle"}
        assert all(time.is_within(HOOK_SECONDS) for time in slurm.hook_times(jobid))
        wait_until(lambda: log.exists() and ": done\n" in log.read_text())
        assert "No space left on device" in log.read_text()
