"""Ranks that a real Slurm starts, one on each of two nodes."""

import json

import pytest

pytest.importorskip("torch")

from tests.integration.commands import BIN
from tests.integration.services import free_port
from tests.slurm.bed import Bed

pytestmark = [pytest.mark.slurm, pytest.mark.workloads]


def test_srun_starts_ranks_that_meet_and_the_first_one_reports(slurm: Bed) -> None:
    meeting = ("env", "MASTER_ADDR=127.0.0.1", f"MASTER_PORT={free_port()}")
    words = ("workload", "run", "train", "--size=tiny", "--parallel=ddp", "--steps=2", "--json")
    ranks = ("srun", "--nodes=2", "--ntasks-per-node=1", "--mem=3000")
    printed = slurm.run(*ranks, *meeting, str(BIN / "rooflight"), *words)
    phases = {row["phase"]: row for row in json.loads(printed)["phases"]}
    assert phases["train.backward"]["link_bytes"] > 1e6
    assert phases["train.optimizer"]["link_bytes"] == 0


def test_what_the_job_s_memory_does_not_hold_is_refused_and_not_killed(slurm: Bed) -> None:
    run = (str(BIN / "rooflight"), "workload", "run", "train", "--size=small")
    with pytest.raises(AssertionError, match=r"train small needs .* ceilings; \d+ MB free"):
        slurm.run("srun", "--nodes=1", "--mem=900", *run)
