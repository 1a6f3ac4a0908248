"""The health check drains a node of a real Slurm that is below its kind, and only such a one."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from agent.config import load
from agent.workload.check import history_file
from probes.roots import Roots
from tests.integration.commands import BIN, Site
from tests.slurm.bed import REPOSITORY, Bed
from tests.weather import PATIENCE
from workloads.device import device_identity, device_model
from workloads.history import Reading, append

pytestmark = [pytest.mark.slurm, pytest.mark.workloads]
SCRIPT = REPOSITORY / "deploy" / "slurm" / "healthcheck.sh"


@dataclass(frozen=True)
class Node:
    """The node bed4 as its slurmd would check it."""

    slurm: Bed
    settings: Path

    def check(self) -> None:
        mine = {"ROOFLIGHT_HOOK_CONF": str(self.settings), "SLURMD_NODENAME": "bed4"}
        environment = {**os.environ, **self.slurm.variables(), **mine}
        subprocess.run([SCRIPT], env=environment, cwd="/", check=True, timeout=PATIENCE)

    def state(self) -> str:
        return self.slurm.run("sinfo", "--noheader", "--nodes=bed4", "--format=%T %E")


@pytest.fixture
def node(slurm: Bed, tmp_path: Path) -> Iterator[Node]:
    settings = tmp_path / "hook.conf"
    settings.write_text(
        f"export ROOFLIGHT_HOME={BIN.parent} ROOFLIGHT_CONFIG={Site(tmp_path).file}\n"
        f"ROOFLIGHT_STAMP={tmp_path}/stamp\n"
        f"ROOFLIGHT_CHECK_SECONDS={PATIENCE:.0f}\n"  # Slurm's minute is for a node that is idle
    )
    yield Node(slurm, settings)
    if "drain" in slurm.run("sinfo", "--noheader", "--nodes=bed4", "--format=%T"):
        slurm.run("scontrol", "update", "nodename=bed4", "state=resume")


def test_a_node_below_its_own_past_is_drained_and_not_measured_again_that_day(
    node: Node, tmp_path: Path
) -> None:
    device = torch.device("cpu")
    was = (device_identity(device), device_model(device, Roots()), "", "matmul", "fp32", 1e15)
    history = history_file(load(tmp_path / "rooflight.toml").config)
    append(history, [Reading("node1", *was, time.time() - 86400)])
    node.check()
    assert node.state().startswith("drained rooflight: cpu matmul fp32: ")
    assert "of 1 PFLOP/s, its own best" in node.state()

    measured = history.read_bytes()
    node.check()
    assert history.read_bytes() == measured


def test_a_node_that_cannot_be_measured_is_left_in_service(node: Node, tmp_path: Path) -> None:
    node.settings.write_text(f"ROOFLIGHT_HOME={tmp_path}/none\nROOFLIGHT_STAMP={tmp_path}/stamp\n")
    node.check()
    assert node.state().startswith("idle")
