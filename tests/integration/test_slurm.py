"""Jobs of a real Slurm, from its prolog to `jobinspect`, against independent readings."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.client import ask
from agent.messages import Ping
from agent.slurm.hook import REPLY_SECONDS
from tests.integration.commands import Site, usage
from tests.slurm.bed import Bed
from tests.weather import PATIENCE

pytestmark = pytest.mark.slurm

MEBIBYTE = 1 << 20
PYTHON = "/usr/bin/python3"  # jobs run as nobody, who may not enter every place where one can be
HOOK_STARTS = 6
"""A hook's budget is 60 ms: so many starts of a shell and an interpreter that do nothing."""

BURN = """
import resource, sys, time
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    sum(range(1000))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, file=open(sys.argv[2], "w"))
"""

HOLD = """
import sys, time
held = bytearray(int(sys.argv[1]) << 20)
time.sleep(float(sys.argv[2]))
"""


def program(text: str, *arguments: object) -> str:
    return shlex.join([PYTHON, "-I", "-S", "-c", text, *map(str, arguments)])


def site_of(folder: Path, interval: float) -> Site:
    agent = f"interval_seconds = {interval}\nheartbeat_seconds = 1.0"
    return Site(folder, text='[slurm]\nnode = "bed1"', agent=agent)


def socket_of(site: Site) -> Path:
    return site.folder / "state" / "agent.sock"


def hear_from(slurm: Bed, site: Site, more: str = "") -> None:
    slurm.settings(f"export ROOFLIGHT_SOCKET={socket_of(site)}\n{more}\n")


@contextmanager
def agent(site: Site) -> Iterator[subprocess.Popen[str]]:
    process = site.start("rooflight", "agent", as_unit=True)
    deadline = time.monotonic() + PATIENCE
    while ask(str(socket_of(site)), Ping()) is None:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def site(tmp_path: Path, slurm: Bed) -> Site:
    made = site_of(tmp_path, 0.5)
    hear_from(slurm, made)
    return made


def finished(site: Site, jobid: str) -> dict[str, Any]:
    """Return the report on a job once the agent has written its last row."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = site.complete("jobinspect", jobid, "--json")
        if done.returncode == 0 and (report := site.report(jobid))["nodes"][0]["final"]:
            return report
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)


def burned(slurm: Bed, name: str) -> float:
    return float((slurm.results / name).read_text())


@pytest.mark.parametrize("interval", [0.5, 10.0])
def test_cpu_seconds_of_a_three_second_job_are_exact(
    slurm: Bed, tmp_path: Path, interval: float
) -> None:
    site, result = site_of(tmp_path, interval), slurm.results / f"burn{interval}"
    hear_from(slurm, site)
    with agent(site):
        jobid = slurm.submit("-wbed1", "--mem=300", command=program(BURN, 2.5, result))
        slurm.wait(jobid)
        report = finished(site, jobid)
    expected = burned(slurm, result.name)
    assert usage(report, "cpu time")["total"] == pytest.approx(expected, rel=0.02, abs=0.02)
    job = report["job"]
    assert (job["user"], job["partition"], job["state"]) == ("nobody", "main", "COMPLETED")
    assert job["elapsed_seconds"] == pytest.approx(slurm.elapsed_seconds(jobid), abs=1.5)
    assert usage(report, "memory")["available"] == 300 * MEBIBYTE


def test_two_jobs_on_one_node_do_not_see_each_other(slurm: Bed, site: Site) -> None:
    result = slurm.results / "busy"
    with agent(site):
        idle = slurm.submit("-wbed1", "--mem=400", command=program(HOLD, 200, 4))
        busy = slurm.submit("-wbed1", "--mem=400", command=program(BURN, 2, result))
        slurm.wait(busy)
        slurm.wait(idle)
        reports = {name: finished(site, name) for name in (idle, busy)}
    seconds = {name: usage(report, "cpu time")["total"] for name, report in reports.items()}
    assert seconds[busy] == pytest.approx(burned(slurm, "busy"), rel=0.02, abs=0.02)
    # its own is that of Python's start, 0.1 to 0.6 s; with the other's it would be above 2
    assert seconds[idle] < seconds[busy] / 2
    shares = {name: usage(report, "cpu")["peak"] for name, report in reports.items()}
    assert shares[idle] < shares[busy]
    peaks = {name: usage(report, "memory")["peak"] for name, report in reports.items()}
    assert peaks[idle] == pytest.approx(200 * MEBIBYTE, rel=0.15)
    assert peaks[busy] < 100 * MEBIBYTE


def test_a_requeued_job_is_counted_from_its_last_start(slurm: Bed, site: Site) -> None:
    result = slurm.results / "again"
    with agent(site):
        jobid = slurm.submit("-wbed1", "--requeue", command=program(BURN, 1.5, result))
        slurm.wait_for_state(jobid, "RUNNING")
        time.sleep(0.7)
        slurm.run("scontrol", "requeue", jobid)
        slurm.wait_for_state(jobid, "PENDING")
        asking = replace(site, environment={"SLURM_CONF": slurm.variables()["SLURM_CONF"]})
        waits = asking.report(jobid)
        slurm.wait(jobid)
        report = finished(asking, jobid)
    assert (waits["job"]["state"], waits["nodes"]) == ("PENDING", [])
    assert waits["notes"] == ["it was requeued: --restart 0 shows the run before"]
    assert (report["job"]["restart"], report["job"]["state"]) == (1, "COMPLETED")
    assert usage(report, "cpu time")["total"] == pytest.approx(
        burned(slurm, "again"), rel=0.02, abs=0.02
    )
    first = json.loads(asking.call("jobinspect", jobid, "--restart", "0", "--json"))
    assert (first["job"]["restart"], first["job"]["state"]) == (0, "REQUEUED")
    assert first["job"]["end_ms"] < report["job"]["start_ms"]
    assert usage(first, "cpu time")["total"] < usage(report, "cpu time")["total"]


def test_a_killed_agent_goes_on_where_it_was(slurm: Bed, site: Site) -> None:
    result = slurm.results / "through"
    with agent(site) as first:
        jobid = slurm.submit("-wbed1", command=program(BURN, 5, result))
        slurm.wait_for_state(jobid, "RUNNING")
        time.sleep(1.5)
        first.kill()
        first.wait()
        with agent(site):
            slurm.wait(jobid)
            report = finished(site, jobid)
    assert usage(report, "cpu time")["total"] == pytest.approx(
        burned(slurm, "through"), rel=0.02, abs=0.02
    )
    assert report["job"]["user"] == "nobody"


def test_a_job_whose_prolog_nobody_heard_is_found(slurm: Bed, site: Site) -> None:
    result = slurm.results / "unheard"
    slurm.settings("export ROOFLIGHT_SOCKET=/nowhere")
    with agent(site):
        jobid = slurm.submit("-wbed1", command=program(BURN, 5, result))
        slurm.wait_for_state(jobid, "RUNNING")
        hear_from(slurm, site)  # the epilog is heard
        slurm.wait(jobid)
        report = finished(site, jobid)
    assert report["job"]["user"] == "nobody"
    assert usage(report, "cpu time")["total"] == pytest.approx(
        burned(slurm, "unheard"), rel=0.02, abs=0.02
    )


MISSING = {
    "no agent": "export ROOFLIGHT_SOCKET=/nowhere/agent.sock",
    "no interpreter": "export ROOFLIGHT_HOME=/nowhere",
    "no module": "export ROOFLIGHT_HOOK=/nowhere.py",
    "settings that are no shell": "if then (",
    "settings that hang": "sleep 1000",
}


@pytest.mark.parametrize("what", MISSING)
def test_a_job_runs_whatever_is_missing(slurm: Bed, what: str) -> None:
    slurm.settings(MISSING[what])
    result = slurm.results / what.replace(" ", "-")
    jobid = slurm.submit("-wbed1", command=program(BURN, 0, result))
    slurm.wait(jobid)
    assert slurm.state(jobid) == "COMPLETED"
    assert burned(slurm, result.name) > 0
    times = slurm.hook_times(jobid)
    assert [(time.name, time.exit_code) for time in times] == [("prolog", 0), ("epilog", 0)]
    assert all(time.is_within(2.0) for time in times), times  # the hooks' own limit
    assert slurm.node_states() == {"idle"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_runs_while_its_agent_is_dead_or_deaf(
    slurm: Bed, site: Site, number: signal.Signals
) -> None:
    result = slurm.results / number.name
    with agent(site) as process:
        process.send_signal(number)
        jobid = slurm.submit("-wbed1", command=program(BURN, 0, result))
        slurm.wait(jobid)
        process.send_signal(signal.SIGCONT)
    assert slurm.state(jobid) == "COMPLETED"
    assert burned(slurm, result.name) > 0
    times = slurm.hook_times(jobid)
    assert all(time.is_within(REPLY_SECONDS) for time in times), times
    assert slurm.node_states() == {"idle"}


def test_hooks_take_no_time(slurm: Bed, site: Site) -> None:
    with agent(site):
        jobids = [slurm.submit("-wbed1", command="true") for _ in range(5)]
        for jobid in jobids:
            slurm.wait(jobid)
    times = [time for jobid in jobids for time in slurm.hook_times(jobid)]
    nothing = min(time.nothing for time in times)
    for name in ("prolog", "epilog"):
        taken = sorted(time.seconds for time in times if time.name == name)
        print(name, *(f"{seconds * 1e3:.0f}" for seconds in taken), "ms; nothing", nothing)
        assert taken[0] < HOOK_STARTS * nothing
