"""Which GPUs a job of a real Slurm was given, on a node whose list has an order of its own.

NVML is replayed; positions, device files and control groups are Slurm's.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import Site
from tests.integration.test_slurm import agent, finished, hear_from
from tests.nvml.build import TRACES, environment
from tests.slurm.bed import Bed
from tests.weather import PATIENCE

pytestmark = [pytest.mark.slurm, pytest.mark.cc]


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Say which processes NVML shows: a file that the test may change."""
    file = tmp_path / "pids"
    file.write_text("\n")
    return file


@pytest.fixture
def site(slurm: Bed, tmp_path: Path, pids: Path) -> Site:
    """An agent on bed4, where Slurm's list is /dev/nvidia3, 1, 2, 0."""
    made = Site(
        tmp_path,
        text=f'[slurm]\nnode = "bed4"\ngres_conf = "{slurm.folder}/etc/gres.conf"',
        agent="interval_seconds = 0.5\nheartbeat_seconds = 0.5",
        environment=environment(TRACES / "four_a100.csv", loop="1", pids=str(pids)),
    )
    hear_from(slurm, made)
    return made


def gpus_of(report: dict[str, Any]) -> set[str]:
    """Return the GPUs on a job's page."""
    lines = [line["what"] for line in report["nodes"][0]["usage"] if line["scope"] == "gpu"]
    return {" ".join(line.split()[:2]) for line in lines}


def rows(site: Site, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds; nothing as long as the agent has not made the table."""
    with closing(sqlite3.connect(site.folder / "state" / "rooflight.db")) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_positions_in_slurm_s_list_become_the_right_gpus(slurm: Bed, site: Site) -> None:
    with agent(site):
        first = slurm.submit("-wbed4", "--gres=gpu:1", command="sleep 4")
        slurm.wait_for_state(first, "RUNNING")
        second = slurm.submit("-wbed4", "--gres=gpu:1", command="sleep 2")
        for jobid in (first, second):
            slurm.wait(jobid)
        reports = [finished(site, jobid) for jobid in (first, second)]
    assert [gpus_of(report) for report in reports] == [{"gpu 3"}, {"gpu 1"}]
    assert [report["job"]["gpus"] for report in reports] == [1, 1]


def test_a_job_on_a_gpu_that_it_was_not_given_is_told(slurm: Bed, site: Site, pids: Path) -> None:
    told = slurm.results / "pid"
    with agent(site):
        jobid = slurm.submit("-wbed4", "--gres=gpu:1", command=f"echo $$ > {told}; sleep 30")
        wait_until(lambda: told.exists() and told.read_text().strip())
        pid = told.read_text().strip()
        pids.write_text(f"3:{pid} 0:{pid}\n")
        strays = f"SELECT max(gpus_not_given) FROM job_footprint WHERE jobid = '{jobid}'"
        wait_until(lambda: rows(site, strays) == [("0",)])
        slurm.run("scancel", jobid)
        slurm.wait(jobid)
        finished(site, jobid)
    on_its_own = "SELECT gpu, max(job_processes_peak_total) FROM job_gpu_footprint GROUP BY gpu"
    assert rows(site, on_its_own) == [("3", 1.0)]
