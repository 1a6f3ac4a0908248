"""What another release left is taken over: the state of 0.1.0, and what a newer one added to it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.jobs import JobTable, Tick
from agent.labels import gpuroofs
from agent.ledger import Ledger, Reason, read_numbers
from agent.spool import Spool
from probes.catalogue import Database
from probes.roots import Roots
from probes.sample import Sample, tags

OLD = Path(__file__).parents[1] / "data" / "state_0_1"
FOURTH_MS = 1_764_000_030_000
"""Ten seconds after the last sample that the old release took."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "state"))


def contents(spool: Spool, database: Database) -> bytes:
    return b"".join(segment.lines() for segment in spool.closed(database))


def gpu(index: str, joules: float, utilization: float) -> Sample:
    named = tags(gpu=index, uuid=f"GPU-{index}", model="NVIDIA H100")
    return Sample("gpu", named, {"energy_joules": joules, "utilization_ratio": utilization})


def test_each_line_of_the_old_spool_waits_and_the_torn_one_does_not(state: Path) -> None:
    spool = Spool(state / "spool", 1 << 20)
    metrics, jobs = (contents(spool, database) for database in Database)
    assert (metrics.count(b"\n"), jobs.count(b"\n")) == (17, 6)
    assert metrics.endswith(b"1764000020000\n")
    assert spool.newest_ms >= 1_764_000_020_000
    spool.close()


def test_the_old_ledger_and_quarantine_are_kept(state: Path) -> None:
    quarantine = (state / "spool" / "quarantine.lp").read_bytes()
    spool = Spool(state / "spool", 1 << 20)
    assert spool.lost == {Reason.SPOOL_FULL: 7, Reason.REFUSED: 2}
    spool.remove(spool.closed(Database.JOBS)[0], 1)
    spool.close()
    assert read_numbers(state / "spool" / "ledger")["refused"] == 3
    assert (state / "spool" / "quarantine.lp").read_bytes() == quarantine


def footprints(jobs: JobTable) -> dict[str, dict[str, Any]]:
    """Return the rows of both jobs, after a fourth sample of the first."""
    running = jobs.get("4711")
    assert running is not None
    node = [gpu("0", 9000.0, 0.0), gpu("1", 1700.0, 0.0)]
    node.append(Sample("blockdisk", tags(device="sda"), {"read_bytes": 2600.0}))
    fields = {"cpu_seconds": 130.0, "memory_bytes": 4e9}
    running.fold(Tick(node), FOURTH_MS, [Sample("job_cgroup", tags(jobid="4711"), fields)])
    return {
        "-".join(text for _, text in row.tags): dict(row.fields)
        for each in jobs
        for row in each.rows(10.0, final=False)
    }


def assert_sums_go_on(rows: dict[str, dict[str, Any]]) -> None:
    """Check sums over both releases; for the three samples before see the folder's README."""
    job = rows["4711"]
    assert job["cpu_seconds"] == 130.0
    assert job["cpu_utilization_mean_ratio"] == pytest.approx(130 / 30 / 8)
    assert job["memory_mean_bytes"] == (3e9 + 2e9 + 4e9) / 3  # the first stands for no time
    assert job["memory_peak_bytes"] == 4e9
    assert job["node_blockdisk_read_bytes"] == 2500.0
    assert (job["samples_total"], job["samples_expected_total"]) == (4.0, 4.0)
    first, second = rows["0-4711"], rows["1-4711"]
    assert (first["energy_joules"], second["energy_joules"]) == (8000.0, 1200.0)
    assert first["utilization_mean_ratio"] == (0.5 + 1.0 + 0.0) / 3
    assert first["compute_bound_seconds"] == 20.0
    assert rows["4712_3"]["cpu_seconds"] == 16.0


def test_footprints_of_running_jobs_go_on_over_an_upgrade(state: Path) -> None:
    jobs = JobTable(state / "jobs", Roots())
    assert [running.job.user for running in jobs] == ["alice", "bob"]
    assert_sums_go_on(footprints(jobs))


def test_what_a_newer_release_added_to_a_job_costs_nothing_after_a_rollback(state: Path) -> None:
    file = state / "jobs" / "4711.json"
    saved = json.loads(file.read_bytes())
    for part in (saved, saved["job"], saved["node"], saved["gpus"]["0"]):
        part["future"] = {"a": [1]}
    file.write_text(json.dumps(saved))
    assert_sums_go_on(footprints(JobTable(state / "jobs", Roots())))


def test_a_job_that_one_release_cannot_read_waits_for_one_that_can(state: Path) -> None:
    file = state / "jobs" / "4711.json"
    good = file.read_bytes()
    file.write_bytes(good.replace(b'"source":"slurm"', b'"source":"flux"'))
    jobs = JobTable(state / "jobs", Roots())
    assert [running.job.jobid for running in jobs] == ["4712_3"]
    jobs.close()

    aside = state / "jobs" / "4711.unreadable"
    assert b'"flux"' in aside.read_bytes()
    aside.write_bytes(good)  # as it looks to a release that knows the word
    jobs = JobTable(state / "jobs", Roots())
    assert_sums_go_on(footprints(jobs))
    jobs.close()
    jobs.end("4711")
    assert [path.name for path in (state / "jobs").iterdir()] == ["4712_3.json"]


def test_a_job_that_began_again_meanwhile_is_not_replaced_by_what_was_put_aside(
    state: Path,
) -> None:
    file = state / "jobs" / "4711.json"
    later = json.loads(file.read_bytes())
    later["node"]["values"]["cpu_seconds"] = 5.0
    shutil.copy(file, file.with_suffix(".unreadable"))
    file.write_text(json.dumps(later))
    jobs = JobTable(state / "jobs", Roots())
    running = jobs.get("4711")
    assert running is not None
    assert running.saved.node.values["cpu_seconds"] == 5.0
    jobs.end("4711")
    assert not file.with_suffix(".unreadable").exists()


def test_numbers_of_a_newer_ledger_outlive_a_rollback(state: Path) -> None:
    path = state / "spool" / "ledger"
    lines = path.read_text().splitlines(keepends=True)
    lines.insert(2, f"{'evaporated':<12} {4:020d}\n")
    path.write_text("".join(lines))
    spool = Spool(state / "spool", 1 << 20)
    spool.append(Database.METRICS, b"cpu idle_seconds=1 1764000030000\n")
    now = spool.newest_ms
    spool.close()
    numbers = read_numbers(path)
    assert (numbers["evaporated"], numbers["spool_full"], numbers["newest_ms"]) == (4, 7, now)
    assert Ledger(path).lost[Reason.REFUSED] == 2


def test_readings_of_reference_phases_are_kept(state: Path) -> None:
    (found,) = gpuroofs.load(state / "gpu-roofs.json").values()
    assert found.tops == {"tensor_active_ratio": 0.91}
    assert found.memory is not None
    assert found.memory.memory_utilization_ratio == 0.95


def test_readings_that_this_release_cannot_read_are_not_written_over(state: Path) -> None:
    file = state / "gpu-roofs.json"
    file.write_text('{"NVIDIA H100": {"tops": [1]}}')
    assert gpuroofs.load(file) == {}
    gpuroofs.save(file, {})
    assert file.with_suffix(".unreadable").read_text() == '{"NVIDIA H100": {"tops": [1]}}'
