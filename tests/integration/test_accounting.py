"""What a real Slurm says of its jobs: by sacct, and by scontrol alone."""

from collections.abc import Sequence

import pytest

from agent.slurm.accounting import SlurmJob, SlurmUnreachable, jobs, latest, run_command
from tests.slurm.bed import Bed

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def on_the_bed(slurm: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.variables()["SLURM_CONF"])


def without_slurmdbd(command: Sequence[str]) -> str:
    if command[0] == "sacct":
        raise SlurmUnreachable("sacct is not to be asked")
    return run_command(command)


def from_both(jobid: str) -> list[list[SlurmJob]]:
    return [latest(jobs(jobid)), latest(jobs(jobid, without_slurmdbd))]


def test_tasks_of_an_array(slurm: Bed) -> None:
    leader = slurm.submit("--array=5-6", "--job-name=a b, c", command="exit $SLURM_ARRAY_TASK_ID")
    for task in (5, 6):
        slurm.wait(f"{leader}_{task}")
    for found in from_both(leader):
        codes = {job.jobid: (job.state, job.exit_code) for job in found}
        assert codes == {f"{leader}_5": ("FAILED", 5), f"{leader}_6": ("FAILED", 6)}
        assert {job.name for job in found} == {"a b, c"}
        assert all(len(job.hosts) == 1 and job.start_ms and job.end_ms for job in found)
    one = latest(jobs(f"{leader}_5"))
    assert [(job.jobid, job.exit_code) for job in one] == [(f"{leader}_5", 5)]


def test_a_pending_job_says_why(slurm: Bed) -> None:
    jobid = slurm.submit("--begin=now+1hour", command="true")
    try:
        for found in from_both(jobid):
            assert [(job.state, job.reason, job.start_ms) for job in found] == [
                ("PENDING", "BeginTime", 0)
            ]
            assert found[0].hosts == []
    finally:
        slurm.run("scancel", jobid)


def test_a_job_on_two_nodes_with_gpus(slurm: Bed) -> None:
    jobid = slurm.submit("--nodes=2", "--gres=gpu:2", "--time=7", command="srun true")
    slurm.wait(jobid)
    for found in from_both(jobid):
        assert [(job.state, len(job.hosts), job.gpus) for job in found] == [("COMPLETED", 2, 4)]
        assert found[0].time_limit_seconds == 420.0


def test_an_unknown_job_is_no_job(slurm: Bed) -> None:
    assert from_both("999999") == [[], []]
