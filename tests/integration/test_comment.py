"""What jobs did, in AdminComment: written after them by a real controller, and read back."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.inspect.comment import LONGEST, VERSION
from agent.slurm.comments import comments
from tests.integration.commands import NO_SLURM, Site
from tests.integration.services import Missing, Service
from tests.integration.test_influx_job import influx_site
from tests.integration.test_slurm import BURN, agent, program
from tests.slurm.bed import Bed
from tests.slurm.installed import install
from tests.weather import PATIENCE

pytestmark = [pytest.mark.slurm, pytest.mark.influxd]

NODES = ("bed1", "bed2")
FOREIGN = "ticket 42\nand more|"
HOOK = Path(__file__).parents[2] / "deploy" / "slurm" / "epilogslurmctld.sh"


@pytest.fixture(scope="module")
def programs(slurm: Bed) -> Path:
    """Return the folder of an installation that SlurmUser may run too."""
    try:
        return install(slurm.folder / "installed")
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, slurm: Bed, influxd: Service, programs: Path
) -> Iterator[Site]:
    """Two nodes with an agent each, one InfluxDB, and a controller that comments on jobs."""
    folder = tmp_path_factory.mktemp("comments")
    pace = "interval_seconds = 0.5\nheartbeat_seconds = 1.0"
    made = [influx_site(folder / node, influxd, "comments", pace) for node in NODES]
    for node, each in zip(NODES, made, strict=True):
        text = each.file.read_text().replace('host = "node1"', f'host = "{node}"')
        each.file.write_text(text.replace(NO_SLURM, f'[slurm]\nnode = "{node}"'))
    slurm.settings(f"export ROOFLIGHT_SOCKET={folder}/$SLURMD_NODENAME/state/agent.sock\n")
    reading = slurm.controller / "rooflight.toml"
    reading.write_text(made[0].file.read_text())
    with ExitStack() as running:
        for each in made:
            running.enter_context(agent(each))
        with controller_settings(slurm, f"{programs.parent}", f"export ROOFLIGHT_CONFIG={reading}"):
            yield made[0]


@contextmanager
def controller_settings(slurm: Bed, home: str, more: str) -> Iterator[None]:
    """Set up the controller's hook for a while."""
    ended = slurm.controller / "ended"
    ended.mkdir(exist_ok=True)
    ended.chmod(0o777)
    settings = slurm.controller / "settings"
    before = settings.read_text() if settings.exists() else ""
    settings.write_text(
        f"export ROOFLIGHT_HOME={home} ROOFLIGHT_ENDED={ended}\n"
        f"export SLURM_CONF={slurm.variables()['SLURM_CONF']}\n"
        f"{more}\n"
    )
    try:
        yield
    finally:
        settings.write_text(before)


@dataclass(frozen=True)
class Jobs:
    """Jobs that have ended, all of them at about the same time, and their comments."""

    two_nodes: str
    parts: Sequence[str]
    foreign: str
    comments: Mapping[str, str]


@pytest.fixture(scope="module")
def ended(slurm: Bed, site: Site) -> Jobs:
    burn = program(BURN, 2, "/dev/null")
    both = ("--nodes=2", f"--nodelist={','.join(NODES)}", "--ntasks-per-node=1", "--mem=300")
    foreign = slurm.submit("-wbed2", command="sleep 2")
    two_nodes = slurm.submit(*both, command=f"srun {burn}")
    array = slurm.submit("--array=5-6", "-wbed1", command="sleep 1")
    het = slurm.submit("-wbed1", "-n1", ":", "-wbed2", "-n1", command="sleep 1")
    slurm.wait_for_state(foreign, "RUNNING")
    slurm.run("scontrol", "update", f"jobid={foreign}", f"admincomment={FOREIGN}")
    parts = [f"{array}_5", f"{array}_6", f"{het}+0", f"{het}+1"]
    texts = {name: wait_for_comment(slurm, name) for name in (two_nodes, *parts)}
    wait_for_nobody_at_work(slurm)
    return Jobs(two_nodes, parts, foreign, texts)


def text_of(slurm: Bed, jobid: str) -> str:
    """Return the comment as sacct prints it."""
    asked = ("sacct", "-X", "-n", "-P", "--format=AdminComment", f"--jobs={jobid}")
    return slurm.run(*asked)


def wait_for_comment(slurm: Bed, jobid: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while not (text := text_of(slurm, jobid)):
        log = slurm.controller / "ended" / "log"
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "never started"
        time.sleep(0.2)
    return text


def wait_for_nobody_at_work(slurm: Bed) -> None:
    deadline = time.monotonic() + PATIENCE
    while list((slurm.controller / "ended").glob("*.json*")):
        assert time.monotonic() < deadline, (slurm.controller / "ended" / "log").read_text()
        time.sleep(0.2)


def inspected(slurm: Bed, site: Site, jobid: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).parent / "jobinspect", jobid, "--json", *options],
        env={**site.variables(), **slurm.variables(), "ROOFLIGHT_CONFIG": str(site.file)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def numbers(report: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """Return all numbers of all hosts, by host, line and column."""
    return {
        (node["host"], line["what"], name): line[name]
        for node in report["nodes"]
        for line in node["usage"]
        for name in ("mean", "peak", "total", "available")
        if name in line
    }


def test_a_job_on_two_nodes_is_told_alike_by_its_comment_and_by_the_store(
    slurm: Bed, site: Site, ended: Jobs, tmp_path: Path
) -> None:
    text = ended.comments[ended.two_nodes]
    assert text.startswith(f"{VERSION}:")
    assert len(text) <= LONGEST < 4096
    from_store = inspected(slurm, site, ended.two_nodes)
    assert {node["host"] for node in from_store["nodes"]} == set(NODES)

    away = Site(tmp_path, 'store = "influx"\n[influx]\nurl = "http://127.0.0.1:9"\n')
    told = inspected(slurm, away, ended.two_nodes)
    assert numbers(told) == pytest.approx(numbers(from_store), rel=1e-3)
    assert len(numbers(told)) > 40
    assert told["job"] == from_store["job"]
    assert [each["id"] for each in told["findings"]] == [
        each["id"] for each in from_store["findings"]
    ]
    (note,) = (note for note in told["notes"] if "AdminComment" in note)
    assert "127.0.0.1:9" in note


def test_tasks_and_components_have_a_comment_each(slurm: Bed, ended: Jobs) -> None:
    """The first number of an array, or of a heterogeneous job, names all of it at once."""
    kept = {name: text_of(slurm, name) for name in ended.parts}
    assert kept == {name: ended.comments[name] for name in ended.parts}
    assert len(set(kept.values())) == len(ended.parts)


def test_what_another_wrote_there_is_kept(
    slurm: Bed, ended: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.variables()["SLURM_CONF"])
    assert [comment.text for comment in comments(ended.foreign)] == [FOREIGN]


FORGE = """
#define _GNU_SOURCE
#include <dlfcn.h>
/* the third field of job_desc_msg_t is admin_comment: slurm/slurm.h of 22.05 */
int slurm_submit_batch_job(void *description, void **answer) {
  int (*submit)(void *, void **) = dlsym(RTLD_NEXT, "slurm_submit_batch_job");
  char *(*copy)(const char *) = dlsym(RTLD_DEFAULT, "slurm_xstrdup");
  ((char **)description)[2] = copy("rooflight1:forged");
  return submit(description, answer);
}
"""


def refused(slurm: Bed, *command: str) -> str:
    done = subprocess.run(
        command,
        env=slurm.variables(),
        cwd="/",
        user="nobody",
        group="nogroup",
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0, done.stdout
    return done.stderr


@pytest.mark.cc
def test_a_user_cannot_forge_a_comment(slurm: Bed) -> None:
    jobid = slurm.submit("-wbed1", command="sleep 1000")
    slurm.wait_for_state(jobid, "RUNNING")
    update = ("scontrol", "update", f"jobid={jobid}", "admincomment=rooflight1:forged")
    assert "permission denied" in refused(slurm, *update)
    slurm.run("scancel", jobid)
    slurm.wait(jobid)
    modify = ("sacctmgr", "-i", "modify", "job", "where", f"jobid={jobid}", "set")
    assert "privilege" in refused(slurm, *modify, "AdminComment=rooflight1:forged")

    library, source = slurm.results / "forge.so", slurm.results / "forge.c"
    source.write_text(FORGE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=PATIENCE)
    forged = ("env", f"LD_PRELOAD={library}", "sbatch", "--parsable", "--output=/dev/null")
    assert "permission denied" in refused(slurm, *forged, "--wrap=true")
    assert "forged" not in text_of(slurm, jobid)  # our own comment may be there by now
    # the same by root is taken: it was the right field
    taken = slurm.run(*forged, "--chdir=/", "--wrap=true")
    shown = slurm.run("scontrol", "show", "job", taken)
    assert "AdminComment=rooflight1:forged" in shown


def test_the_end_of_a_job_does_not_wait_for_its_comment(slurm: Bed) -> None:
    with controller_settings(slurm, "/nowhere", "sleep 1000"):
        jobid = slurm.submit("-wbed1", command="true")
        slurm.wait(jobid)
    assert slurm.state(jobid) == "COMPLETED"
    times = slurm.hook_times(jobid, slurm.controller)
    assert [(time.name, time.exit_code) for time in times] == [("epilogslurmctld", 0)]
    assert times[0].is_within(2.0)


AWRY = {
    "nothing is set up": "",
    "a folder that is a file": "export ROOFLIGHT_ENDED=/etc/passwd",
    "no program": "export ROOFLIGHT_ENDED={folder} ROOFLIGHT_HOME=/nowhere",
    "settings that are no shell": "if then (",
}


@pytest.mark.parametrize("what", AWRY)
def test_the_hook_ends_well_whatever_is_missing(tmp_path: Path, what: str) -> None:
    settings = tmp_path / "settings"
    settings.write_text(AWRY[what].format(folder=tmp_path))
    variables = {"SLURM_JOB_ID": "7", "ROOFLIGHT_HOOK_CONF": str(settings)}
    begun = time.monotonic()
    done = subprocess.run([HOOK], env=variables, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - begun < 10.0
