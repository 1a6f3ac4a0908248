"""A whole node in a virtual machine: systemd, nothing but cgroup v2, a real Slurm, Soft-RoCE."""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration import machine
from tests.integration.commands import usage

FOLDER = machine.REPOSITORY / "tests" / "vm"
STORY = FOLDER / "story.sh"
LIMIT_SECONDS = 1500  # about 70 alone; every instruction is emulated, and others may work here too

CONFIGURATION = """\
[agent]
interval_seconds = 1.0
heartbeat_seconds = 2.0
flush_seconds = 0.5
state_directory = "/var/lib/rooflight"
socket = "/run/rooflight/agent.sock"
"""

IMPATIENT = """\
[Service]
RestartSec=1
"""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1800),  # the first run makes the machine
    pytest.mark.skipif(os.geteuid() != 0, reason="a virtual machine of ours needs root"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="it is made for x86_64"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap"),
]


def told_by(folder: Path, story: Path) -> machine.Told:
    """Run a story in the virtual machine."""
    machine.build()
    configuration, impatient = folder / "rooflight.toml", folder / "impatient.conf"
    configuration.write_text(CONFIGURATION)
    impatient.write_text(IMPATIENT)
    hooks = machine.REPOSITORY / "deploy" / "slurm"
    placed = {
        **machine.install(folder / "rooflight"),
        configuration: "/etc/rooflight/rooflight.toml",
        impatient: "/etc/systemd/system/rooflight-agent.service.d/impatient.conf",
        hooks / "prolog.sh": "/etc/slurm/prolog.d/50-rooflight.sh",
        hooks / "epilog.sh": "/etc/slurm/epilog.d/50-rooflight.sh",
        FOLDER / "slurm.conf": "/etc/slurm/slurm.conf",
        FOLDER / "cgroup.conf": "/etc/slurm/cgroup.conf",
        FOLDER / "job.py": "/opt/job.py",
        FOLDER / "remote-memory.sh": "/opt/remote-memory.sh",
        FOLDER / "inspect_jobs.py": "/opt/inspect_jobs.py",
    }
    return machine.run("qemu", story, placed, LIMIT_SECONDS)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    """Return what the story said."""
    return told_by(tmp_path_factory.mktemp("vm"), STORY)


@pytest.fixture(autouse=True)
def _shown(told: machine.Told) -> None:
    """Show, where a test fails, what the agents said and how long the story took."""
    print(told.facts, told.sections["journal"], told.sections["log"], sep="\n")


def read(told: machine.Told, name: str) -> dict[str, Any]:
    """Return what a job said (results/NAME) or what jobinspect said of it (told/NAME)."""
    said: dict[str, Any] = json.loads(told.sections[name])
    return said


BUSY = ("busy", "own")
"""The jobs that compute: under the service, which is killed meanwhile, and under an own agent."""

JOBS = (*BUSY, "idle", "other")


@pytest.mark.parametrize("job", BUSY)
def test_cpu_seconds_are_those_of_the_job(told: machine.Told, job: str) -> None:
    """Read while the job rested: between what it read of itself before and after."""
    said, left = read(told, f"results/{job}"), read(told, f"results/{job}-left")
    found = usage(read(told, f"told/{job}-resting"), "cpu time")["total"]
    assert said["cpu"] <= found <= left["cpu"]
    # the kernel counts to the job what Slurm's own processes in it use, and its extern step
    assert said["getrusage"] <= found <= 1.02 * left["getrusage"] + left["slurm_cpu"] + 1.0


@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_counted_twice(told: machine.Told, job: str) -> None:
    """The end of a job costs some tenths of a second more here; counted twice it would be twice."""
    left = read(told, f"results/{job}-left")["cpu"]
    assert left <= usage(read(told, f"told/{job}"), "cpu time")["total"] < 1.5 * left + 1.0


@pytest.mark.parametrize("job", JOBS)
def test_the_memory_peak_is_that_of_the_control_group(told: machine.Told, job: str) -> None:
    said, found = read(told, f"results/{job}"), usage(read(told, f"told/{job}"), "memory")
    assert found["peak"] == pytest.approx(said["memory_peak"], rel=0.02)
    assert found["available"] == said["memory_limit"]


@pytest.mark.parametrize("what", ["cpu", "memory", "disk"])
@pytest.mark.parametrize("job", BUSY)
def test_a_job_is_told_how_long_it_waited(told: machine.Told, job: str, what: str) -> None:
    name = f"{what.replace('disk', 'io')}_pressure"
    said, left = (read(told, f"results/{job}{when}")[name] for when in ("", "-left"))
    found = usage(read(told, f"told/{job}-resting"), f"job waited for {what}")["total"]
    assert said <= found <= left
    if what == "cpu":  # two processes shared a CPU, so that one always waited
        assert found > 0.4 * usage(read(told, f"told/{job}-resting"), "cpu time")["total"]


@pytest.mark.parametrize(("job", "neighbour"), [("idle", "busy"), ("other", "own")])
def test_an_idle_job_does_not_see_its_neighbour(
    told: machine.Told, job: str, neighbour: str
) -> None:
    seconds, peak = (usage(read(told, f"told/{job}"), what) for what in ("cpu time", "memory"))
    own, others = (read(told, f"results/{name}-left") for name in (job, neighbour))
    assert seconds["total"] < own["cpu"] + 0.3 * others["cpu"]
    assert peak["peak"] < own["memory_peak"] + 0.3 * others["memory_peak"]


def test_a_killed_agent_goes_on_where_it_was(told: machine.Told) -> None:
    assert told.facts["state_at_restart"] == "RUNNING"
    assert int(told.facts["restarts"]) == 1


@pytest.mark.parametrize("job", BUSY)
def test_a_report_is_there_while_the_job_runs_and_after_it(told: machine.Told, job: str) -> None:
    assert told.facts[f"{job}_resting"] == "RUNNING"
    resting, ended = (read(told, f"told/{job}{when}") for when in ("-resting", ""))
    states = [(report["job"]["state"], report["nodes"][0]["final"]) for report in (resting, ended)]
    assert states == [("RUNNING", False), ("COMPLETED", True)]
    assert ended["nodes"][0]["source"] == "cgroup2"
    header = ended["job"]
    assert (header["user"], header["partition"], header["exit_code"]) == ("nobody", "main", 0)


def test_rdma_of_the_job_is_in_its_page(told: machine.Told) -> None:
    sent = int(told.sections["results/remote"])
    assert sent > 100 * 64  # each write of 64 KiB is 64 packets of 1 KiB
    found = usage(read(told, "told/remote"), "infiniband packets out")
    assert found["total"] == pytest.approx(sent, rel=0.02)
    assert "infiniband packets out" in told.sections["told/page"]


def test_the_prolog_starts_one_agent_for_all_jobs_and_the_last_epilog_ends_it(
    told: machine.Told,
) -> None:
    facts: Mapping[str, str] = told.facts
    assert facts["own_agents"] == "1"
    assert facts["own_agent_after_one"] == "runs"
    assert facts["own_agent_after_all"] == "ended"


def test_an_agent_that_the_prolog_started_hangs_on_nothing_of_it(told: machine.Told) -> None:
    assert "job_" not in told.facts["own_group"]
    assert told.facts["own_parent"] == "1"
    log = "/var/log/rooflight-agent.log"
    assert told.facts["own_descriptors"].split() == ["/dev/null", "/dev/null", log]


def test_no_node_was_drained(told: machine.Told) -> None:
    assert told.facts["nodes"] == "idle"
