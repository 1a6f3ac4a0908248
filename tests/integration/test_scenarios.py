"""Jobs of every shape on a real Slurm, and whether `jobinspect` is right about each.

All run at the same time, on four nodes of which three have an agent; the agents see replayed GPUs
and write to a real InfluxDB.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import Site
from tests.integration.services import Service, free_port
from tests.integration.test_slurm import BURN, agent, program
from tests.nvml.build import environment
from tests.slurm.bed import Bed
from tests.weather import PATIENCE

pytestmark = [pytest.mark.slurm, pytest.mark.influxd, pytest.mark.cc]

MEBIBYTE = 1 << 20
WATTS = 388.0
FIRST_SAMPLE_SECONDS = 0.25  # after a job's start, on a machine that does other things too
HELD_MEBIBYTES = 150
NAME = "a,b=c d\"e'f[bold]\\ ;DROP TABLE job\nJobId=99 JobName=x UserId=root(0) <script>"

WORK = f"""
import os, pathlib, sys, time
held = bytearray({HELD_MEBIBYTES} << 20)
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    sum(range(1000))
deadline = time.monotonic() + {PATIENCE}
while not os.path.exists(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(0.1)
node = os.environ["SLURMD_NODENAME"]
job = f"slurm_{{node}}/uid_{{os.getuid()}}/job_{{os.environ['SLURM_JOB_ID']}}"
read = lambda controller, file: pathlib.Path("/sys/fs/cgroup", controller, job, file).read_text()
seconds = int(read("cpuacct", "cpuacct.usage")) / 1e9
print(seconds, read("memory", "memory.max_usage_in_bytes"), file=open(sys.argv[3] + node, "w"))
"""


def work(seconds: float, result: Path, until: Path = Path("/")) -> str:
    """Return the command that works, waits for a file, and writes what the kernel counted."""
    return program(WORK, seconds, until, result)


def write_trace(target: Path) -> Path:
    """Write four GPUs that draw the same power for an hour."""
    columns = "t_seconds,gpu,utilization_percent,memory_used_mib,power_mw,energy_mj"
    heads = [
        f"# device {gpu} uuid=GPU-{gpu} memory_mib=81920 power_limit_mw=400000"
        " name=NVIDIA A100-SXM4-80GB"
        for gpu in range(4)
    ]
    rows = [
        f"{seconds},{gpu},97,70000,{WATTS * 1e3:.0f},{WATTS * 1e3 * seconds:.0f}"
        for seconds in (0, 3600)
        for gpu in range(4)
    ]
    target.write_text("\n".join([*heads, columns, *rows]) + "\n")
    return target


@dataclass(frozen=True)
class Scenarios:
    """The jobs, after their end, and who can be asked about them.

    Attributes:
        site: asks Slurm and the store.
        running: the report on the wide job while it ran.

    """

    bed: Bed
    site: Site
    wide: str
    array: str
    het: str
    half_seen: str
    waiting: str
    running: Mapping[str, Any]

    def counted(self, name: str, node: str) -> tuple[float, float]:
        """Return CPU seconds and peak memory that the kernel counted for a job on a node."""
        seconds, peak = (self.bed.results / f"{name}-{node}").read_text().split()
        return float(seconds), float(peak)


def lines(report: Mapping[str, Any], host: str) -> dict[str, dict[str, Any]]:
    (node,) = [each for each in report["nodes"] if each["host"] == host]
    return {line["what"]: line for line in node["usage"]}


def site_of(folder: Path, influxd: Service, node: str) -> Site:
    folder.mkdir()
    names = 'database = "scenarios"\njobs_database = "scenarios_jobs"\nretention_days = 0'
    store = f'store = "influx"\n[influx]\nurl = "{influxd.url}"\n{names}\n'
    agent = "interval_seconds = 0.5\nheartbeat_seconds = 0.5"
    gpus = environment(write_trace(folder / "gpus.csv"))
    site = Site(folder, f'{store}[slurm]\nnode = "{node}"', agent, gpus)
    site.file.write_text(site.file.read_text().replace('"node1"', f'"{node}"'))
    return site


def told(site: Site, jobid: str, *, nodes: int, final: bool) -> dict[str, Any]:
    """Return the report on a job as soon as so many nodes have told of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = site.complete("jobinspect", jobid, "--json")
        if done.returncode == 0:
            report = site.report(jobid)
            if [node["final"] for node in report["nodes"]].count(final) == nodes:
                return report
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)


@pytest.fixture(scope="module")
def scenarios(
    slurm: Bed, influxd: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    folder = tmp_path_factory.mktemp("scenarios")
    sites = [site_of(folder / node, influxd, node) for node in ("bed1", "bed2", "bed3")]
    sites[0].call("rooflight", "store", "setup")
    slurm.settings(f"export ROOFLIGHT_SOCKET={folder}/$SLURMD_NODENAME/state/agent.sock\n")
    variables = {"SLURM_CONF": slurm.variables()["SLURM_CONF"]}
    site = replace(sites[0], environment={**sites[0].environment, **variables})
    with contextlib.ExitStack() as stack:
        for each in sites:
            stack.enter_context(agent(each))
        yield run_jobs(slurm, site)


def run_jobs(slurm: Bed, site: Site) -> Scenarios:
    results, release = slurm.results, slurm.results / "release"
    one = ("--ntasks=1", "--mem=300")
    wide = slurm.submit(
        *("--nodelist=bed1,bed2", "--nodes=2", "--ntasks-per-node=1", "--mem=300", "--time=60"),
        "--gres=gpu:2",
        command=f"srun {work(3.0, results / 'wide-', release)}",
    )
    array = slurm.submit(
        *("--array=1-2", "--nodelist=bed3", *one),
        command=f"{work(1.0, results / 'array-')}$SLURM_ARRAY_TASK_ID;"
        " exit $((SLURM_ARRAY_TASK_ID * 3 - 3))",
    )
    het = slurm.submit(
        *("--nodelist=bed1", *one, ":", "--nodelist=bed2", *one),
        command=f"srun --het-group=1 {program(BURN, 1.0, results / 'het')}",
    )
    half_seen = slurm.submit(
        *(f"--job-name={NAME}", "--nodelist=bed3,bed4", "--nodes=2", "--ntasks-per-node=1"),
        command="sleep 1.5",
        user=None,
    )
    waiting = slurm.submit("--begin=now+1hour", "--requeue", command="true")
    running = told(site, wide, nodes=2, final=False)
    release.touch()
    for jobid in (wide, f"{array}_1", f"{array}_2", str(int(het) + 1), half_seen):
        slurm.wait(jobid)
    told(site, wide, nodes=2, final=True)
    told(site, half_seen, nodes=1, final=True)
    return Scenarios(slurm, site, wide, array, het, half_seen, waiting, running)


def test_a_job_of_two_nodes_and_four_gpus(scenarios: Scenarios) -> None:
    report = told(scenarios.site, scenarios.wide, nodes=2, final=True)
    job = report["job"]
    assert (job["state"], job["exit_code"], job["user"]) == ("COMPLETED", 0, "nobody")
    assert (job["account"], job["partition"], job["hosts"]) == ("testing", "main", ["bed1", "bed2"])
    assert (job["nodes"], job["cpus"], job["gpus"]) == (2, 2, 4)
    assert job["memory_bytes"] == 2 * 300 * MEBIBYTE
    assert job["time_limit_seconds"] == 3600
    assert 0 <= job["wait_seconds"] < 60
    for host in job["hosts"]:
        of_host = lines(report, host)
        seconds, peak = scenarios.counted("wide", host)
        assert of_host["cpu time"]["total"] == pytest.approx(seconds, rel=0.02, abs=0.02)
        assert of_host["memory"]["peak"] == pytest.approx(peak, rel=0.02)
        assert of_host["memory"]["available"] == 300 * MEBIBYTE
        assert {what.split()[1] for what in of_host if what.startswith("gpu ")} == {"0", "1"}
    for node in report["nodes"]:
        for gpu in ("0", "1"):
            energy = lines(report, node["host"])[f"gpu {gpu} energy"]["total"]
            expected = WATTS * node["elapsed_seconds"]
            assert energy == pytest.approx(expected, rel=0.02, abs=WATTS * FIRST_SAMPLE_SECONDS)
    summary = {line["what"]: line for line in report["summary"]}
    assert summary["gpu energy"]["members"] == 4
    elapsed = sum(node["elapsed_seconds"] for node in report["nodes"])
    whole, slack = 2 * WATTS * elapsed, 4 * WATTS * FIRST_SAMPLE_SECONDS
    assert summary["gpu energy"]["total"] == pytest.approx(whole, rel=0.02, abs=slack)
    assert not {"hosts-missing", "idle-gpu", "samples-missing"} & findings(report)


def findings(report: Mapping[str, Any]) -> set[str]:
    return {finding["id"] for finding in report["findings"]}


def test_cpu_seconds_agree_with_sacct(scenarios: Scenarios) -> None:
    """Slurm counts each step; a job's own account also has what begins and ends the steps."""
    asked = ("sacct", "--noheader", "--parsable2", "--format=TotalCPU")
    deadline = time.monotonic() + PATIENCE
    while not (words := scenarios.bed.run(*asked, f"--jobs={scenarios.wide}")).strip("0:.\n"):
        assert time.monotonic() < deadline, words
        time.sleep(0.5)
    minutes, seconds = words.split("\n")[0].split(":")[-2:]  # the job's line, then its steps'
    total = 60 * float(minutes) + float(seconds)
    report = scenarios.site.report(scenarios.wide)
    ours = next(line["total"] for line in report["summary"] if line["what"] == "cpu time")
    assert ours == pytest.approx(total, rel=0.02, abs=0.1)


def test_while_it_runs_a_job_is_running(scenarios: Scenarios) -> None:
    job = scenarios.running["job"]
    assert (job["state"], job.get("end_ms"), job["exit_code"]) == ("RUNNING", None, None)
    assert job["start_ms"] > 0
    assert [node["final"] for node in scenarios.running["nodes"]] == [False, False]


def test_the_page_of_a_job_of_two_nodes(scenarios: Scenarios) -> None:
    text = scenarios.site.call("jobinspect", scenarios.wide, "--per-node")
    assert "Utilisation: footprints from 2 of 2 nodes" in text
    assert "2 nodes: bed1, bed2 (2 CPUs, 600 MiB memory, 4 GPUs (NVIDIA A100" in text
    rows = [line.split()[:2] for line in text.splitlines()]
    for host in ("bed1", "bed2"):
        assert [host, "0"] in rows
        assert [host, "1"] in rows


def test_an_array_and_its_tasks(scenarios: Scenarios) -> None:
    array = scenarios.array
    whole = scenarios.site.report(array)
    states = {task["jobid"]: (task["state"], task["exit_code"]) for task in whole["tasks"]}
    assert states == {f"{array}_1": ("COMPLETED", 0), f"{array}_2": ("FAILED", 3)}
    for number in (1, 2):
        task = scenarios.site.report(f"{array}_{number}")
        seconds, _ = scenarios.counted("array", f"{number}bed3")
        assert task["job"]["jobid"] == f"{array}_{number}"
        ours = lines(task, "bed3")["cpu time"]["total"]
        assert ours == pytest.approx(seconds, rel=0.02, abs=0.08)
    text = scenarios.site.call("jobinspect", array)
    assert "1 COMPLETED, 1 FAILED" in text


def test_a_heterogeneous_job_and_its_components(scenarios: Scenarios) -> None:
    whole = scenarios.site.report(scenarios.het)
    hosts = {task["jobid"]: task["hosts"] for task in whole["tasks"]}
    assert hosts == {f"{scenarios.het}+0": ["bed1"], f"{scenarios.het}+1": ["bed2"]}
    first, second = (scenarios.site.report(f"{scenarios.het}+{n}") for n in (0, 1))
    burned = float((scenarios.bed.results / "het").read_text())
    ours = lines(second, "bed2")["cpu time"]["total"]
    assert ours == pytest.approx(burned, rel=0.02, abs=0.1)
    assert lines(first, "bed1")["cpu time"]["total"] < burned


def test_a_node_without_an_agent_is_missing_and_named(scenarios: Scenarios) -> None:
    report = scenarios.site.report(scenarios.half_seen)
    assert [node["host"] for node in report["nodes"]] == ["bed3"]
    (missing,) = [each for each in report["findings"] if each["id"] == "hosts-missing"]
    assert missing["words"] == "footprints from 1 of 2 nodes: nothing is known of bed4"


def test_a_hostile_name_is_that_job_s_name_and_no_other_job(scenarios: Scenarios) -> None:
    report = scenarios.site.report(scenarios.half_seen)
    assert report["job"]["name"] == NAME
    assert (report["job"]["jobid"], report["tasks"]) == (scenarios.half_seen, [])
    text = scenarios.site.call("jobinspect", scenarios.half_seen)
    assert NAME.replace("\n", "\\n") in " ".join(text.split()).replace(" \\n", "\\n")


def test_a_job_that_waits_says_why(scenarios: Scenarios) -> None:
    report = scenarios.site.report(scenarios.waiting)
    job = report["job"]
    assert (job["state"], job["reason"], job["nodes"]) == ("PENDING", "BeginTime", 0)
    text = scenarios.site.call("jobinspect", scenarios.waiting)
    assert "not begun: BeginTime; Slurm means to start it" in text
    scenarios.bed.run("scancel", scenarios.waiting)


def only(scenarios: Scenarios, *programs: str) -> Site:
    """Return a site whose PATH holds only some of Slurm's commands."""
    folder = scenarios.site.folder / ("-".join(programs) or "none")
    if not folder.exists():
        folder.mkdir()
        for program in programs:
            (folder / program).symlink_to(shutil.which(program) or program)
    variables = {**scenarios.site.environment, "PATH": str(folder)}
    return replace(scenarios.site, environment=variables)


@pytest.mark.parametrize("programs", [(), ("squeue",), ("sacct",)], ids=" ".join)
def test_with_less_of_slurm_the_figures_are_the_same(
    scenarios: Scenarios, programs: tuple[str, ...]
) -> None:
    site = only(scenarios, *programs)
    whole, partly = scenarios.site.report(scenarios.wide), site.report(scenarios.wide)
    assert partly["summary"] == whole["summary"]
    for name in ("hosts", "nodes", "user", "account", "partition", "cpus", "gpus"):
        assert partly["job"][name] == whole["job"][name], name
    assert bool(partly["notes"]) == (not programs)
    component = f"{scenarios.het}+1"
    assert site.report(component)["summary"] == scenarios.site.report(component)["summary"]


def test_with_the_store_down_what_slurm_knows_is_printed(scenarios: Scenarios) -> None:
    down = scenarios.site.folder / "down.toml"
    text = scenarios.site.file.read_text().splitlines()
    url = f'url = "http://127.0.0.1:{free_port()}"'
    down.write_text("\n".join(url if line.startswith("url") else line for line in text))
    done = scenarios.site.complete("jobinspect", scenarios.wide, "--config", str(down))
    assert done.returncode == 3
    assert "COMPLETED, exit code 0" in done.stdout
    assert "nobody / testing / main" in done.stdout
    assert done.stderr.startswith("rooflight: the store does not answer: http://127.0.0.1:")
    assert done.stderr.count("\n") == 1
    array = scenarios.site.complete("jobinspect", scenarios.array, "--config", str(down))
    assert (array.returncode, f"{scenarios.array}_2" in array.stdout) == (3, True)


def test_an_unknown_job_says_what_was_asked_where(scenarios: Scenarios) -> None:
    done = scenarios.site.complete("jobinspect", "4711")
    assert done.returncode == 1
    assert done.stderr == (
        "rooflight: no job 4711 of cluster test in the influx store;"
        " sacct and squeue do not know it either\n"
    )


def test_a_user_s_own_jobs_of_late(scenarios: Scenarios) -> None:
    done = scenarios.site.complete("jobinspect", "--since", "1h", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    mine = {task["jobid"]: task for task in report["tasks"]}
    assert scenarios.half_seen in mine
    assert not {scenarios.wide, f"{scenarios.array}_1"} & mine.keys()
    assert "hosts-missing" in mine[scenarios.half_seen]["findings"]
    text = scenarios.site.call("jobinspect", "--since", "1h")
    assert scenarios.half_seen in text
