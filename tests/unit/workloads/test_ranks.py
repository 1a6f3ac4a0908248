"""Who torchrun and srun say that a process is, and where it meets the others."""

import pytest

pytest.importorskip("torch")

from workloads.ranks import Rank, rank_of, rendezvous, tasks_on_first_node
from workloads.setting import SettingError

pytestmark = pytest.mark.workloads

STEP = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_JOB_ID": "4711",
}


def test_torchrun_says_it_all() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert rank_of(said) == Rank(3, 4, 1, 2)
    assert rank_of(STEP | said) == Rank(3, 4, 1, 2)


def test_srun_says_it_in_other_words() -> None:
    assert rank_of(STEP) == Rank(5, 8, 1, 4)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "1"},
    ],
    ids=["alone", "a batch script", "a step of one task"],
)
def test_a_process_without_fellows_has_no_rank(environment: dict[str, str]) -> None:
    assert rank_of(environment) is None


def test_ranks_meet_at_a_port_of_their_job_and_where_the_user_says() -> None:
    one_node = STEP | {"SLURM_STEP_NUM_NODES": "1"}
    assert rendezvous(one_node) == {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "19711"}
    said = {"MASTER_ADDR": "n1", "MASTER_PORT": "1234"}
    assert rendezvous(STEP | said) == said
    with pytest.raises(SettingError, match="export MASTER_ADDR="):
        rendezvous(STEP)


@pytest.mark.parametrize(("words", "tasks"), [("4(x2),3", 4), ("16", 16), ("", 1), ("x", 1)])
def test_tasks_per_node_are_read_from_slurms_short_form(words: str, tasks: int) -> None:
    assert tasks_on_first_node(words) == tasks


def test_a_rank_computes_where_it_is_local() -> None:
    assert Rank(5, 8, 1, 4).device("cpu") == "cpu"
