"""Temp disk and shared memory of jobs of a real Slurm, against what `du` and `df` say inside."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import Site
from tests.integration.test_slurm import agent, finished, hear_from
from tests.slurm.bed import Bed
from tests.weather import PATIENCE

pytestmark = pytest.mark.slurm

MEBIBYTE = 1 << 20

# many files and two names for one of them; what du says, and then a while in which it stays so
FILL = """
mkdir -p {folder}/sub; cd {folder}; ln -s / out
for i in $(seq 300); do head -c 5000 /dev/zero > sub/file$i; done
head -c 20M /dev/zero > big; ln big again
head -c 16M /dev/zero > /dev/shm/rooflight.$SLURM_JOB_ID
du --summarize --block-size=1 . | cut -f1 > {told}.new; mv {told}.new {told}
sleep 30; rm /dev/shm/rooflight.$SLURM_JOB_ID
"""


@pytest.fixture
def site(slurm: Bed, tmp_path: Path) -> Site:
    made = Site(
        tmp_path,
        text=f'[slurm]\nnode = "bed1"\njob_tempdisk = ["{slurm.results}/scratch.%u.%j"]',
        agent="interval_seconds = 0.5\nheartbeat_seconds = 0.5",
    )
    hear_from(slurm, made)
    return made


def last(site: Site, table: str, jobid: str) -> dict[str, Any]:
    """Return the newest row of a job."""
    with closing(sqlite3.connect(site.folder / "state" / "rooflight.db")) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM sqlite_master")
        if table not in {name for (name,) in tables}:
            return {}  # nothing of it was shipped yet
        query = f"SELECT * FROM {table} WHERE jobid = ? ORDER BY time_ms DESC LIMIT 1"
        row = connection.execute(query, (jobid,)).fetchone()
    return dict(row) if row else {}


def test_a_job_s_own_folder_and_shared_memory_are_told(slurm: Bed, site: Site) -> None:
    told = slurm.results / "told"
    with agent(site):
        folder = f"{slurm.results}/scratch.nobody.$SLURM_JOB_ID"
        jobid = slurm.submit("-wbed1", "--mem=300", command=FILL.format(folder=folder, told=told))
        seen: dict[str, Any] = {}
        deadline = time.monotonic() + PATIENCE
        while not (told.exists() and seen.get("tempdisk_used_bytes") == float(told.read_text())):
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)
            seen = last(site, "job_cgroup", jobid)
        slurm.run("scancel", jobid)
        slurm.wait(jobid)
        finished(site, jobid)
    Path(f"/dev/shm/rooflight.{jobid}").unlink(missing_ok=True)
    assert seen["tempdisk_source"] == "walk"
    assert seen["shared_memory_bytes"] == pytest.approx(16 * MEBIBYTE, rel=0.02)
    footprint = last(site, "job_footprint", jobid)
    du = float(told.read_text())
    assert (footprint["tempdisk_job_peak_bytes"], footprint["tempdisk_job_last_bytes"]) == (du, du)
    assert footprint["tempdisk_job_source"] == "walk"
    assert footprint["shared_memory_peak_bytes"] == pytest.approx(16 * MEBIBYTE, rel=0.02)
