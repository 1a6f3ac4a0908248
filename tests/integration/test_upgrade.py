"""Upgrades of a node under systemd, from the bundle, while jobs run and the store is away."""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration import machine
from tests.integration.test_systemd import pytestmark

__all__ = ["pytestmark"]  # what the machine needs

HERE = Path(__file__).parent
SITE = """
cluster = "test"
host = "node1"
store = "influx"

[agent]
interval_seconds = 0.5
heartbeat_seconds = 2.0
flush_seconds = 0.5

[influx]
retention_days = 0
jobs_retention_days = 0
"""
STEPS = ("newer", "dies", "strict", "back")
OLD_POINTS = 23
"""Whole lines that the state of 0.1.0 brings; see tests/data/state_0_1."""


@pytest.fixture(scope="module")
def told(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    """Return what the story said."""
    machine.build()
    folder = tmp_path_factory.mktemp("upgrade")
    shutil.copy(bundle, folder / "bundle.tar.gz")
    shutil.copytree(HERE.parent / "data" / "state_0_1", folder / "state")
    shutil.copy(HERE / "upgrade_stored.py", folder / "stored.py")
    (folder / "site.toml").write_text(SITE)
    folder.chmod(0o755)
    placed = {folder: "/mnt/upgrade"}
    return machine.run("nspawn", HERE / "upgrade_story.sh", placed, 240)


@pytest.fixture
def facts(told: machine.Told) -> Mapping[str, str]:
    """Return what the story said; a failing test shows all of it."""
    print(*(f"{name} {value}" for name, value in told.facts.items()), sep="\n")
    print(told.sections["journal"])
    return told.facts


def test_what_is_rendered_under_umask_077_can_be_read_by_the_service(
    facts: Mapping[str, str],
) -> None:
    assert facts["rendered"] == "755 644 644"
    assert facts["started"] == "active"


def test_a_look_leaves_the_node_alone(facts: Mapping[str, str]) -> None:
    assert facts["look.ticks"] == "1 1"  # root's, and anybody's
    assert facts["look.left"] == "0"
    assert facts["look.away"] == "3"
    assert facts["look.said"].startswith("rooflight: ")
    assert facts["look.gone"].startswith("0 of ")
    assert facts["look.agent"] == "active"


def test_a_running_agent_is_upgraded_and_loses_nothing(facts: Mapping[str, str]) -> None:
    assert facts["newer.code"] == "0"
    assert facts["newer.agent"] == "active"
    assert [name.startswith("9.9.9-") for name in facts["newer.release"].split()] == [True, True]
    assert facts["newer.writable"] == "0"  # under umask 000


def test_a_release_whose_agent_dies_after_its_start_goes_back(facts: Mapping[str, str]) -> None:
    assert facts["dies.code"] == "1"
    assert "does not work here: back to /opt/rooflight-releases/9.9.9-" in facts["dies.said"]
    assert facts["dies.agent"] == "active"
    assert facts["dies.release"] == facts["newer.release"]
    assert facts["proofs"] == "0"  # of what releases were tried with, nothing is left


def test_a_configuration_that_a_release_cannot_read_keeps_the_old_one(
    facts: Mapping[str, str],
) -> None:
    assert (facts["strict.code"], facts["strict.words"]) == ("1", "1")
    assert "stays in use" in facts["strict.said"]
    assert facts["strict.agent"] == "active"
    assert facts["strict.release"] == facts["newer.release"]


def test_a_rollback_brings_the_release_before(facts: Mapping[str, str]) -> None:
    assert facts["back.code"] == "0"
    assert facts["back.agent"] == "active"
    assert [name.startswith("9.9.") for name in facts["back.release"].split()] == [False, False]


def test_releases_in_use_the_one_before_and_those_that_run_are_kept(
    facts: Mapping[str, str],
) -> None:
    version = importlib.metadata.version("rooflight")
    assert facts["kept"].split() == ["0.0.1-run", version, "9.9.9"]


@pytest.mark.parametrize("step", ["look", *STEPS])
def test_no_line_of_the_backlog_is_gone(facts: Mapping[str, str], step: str) -> None:
    lost, lines = facts[f"{step}.gone"].split(" of ")
    assert lost == "0"
    assert int(lines) >= 100
    assert facts[f"{step}.ledger"] == "7 2 "


def test_the_store_gets_all_of_it_when_it_comes_back(facts: Mapping[str, str]) -> None:
    stored, wanted, lines = map(int, facts["stored"].split())
    assert stored == wanted
    assert lines >= wanted > 100 + OLD_POINTS
    assert facts["left"] == "0"
    assert facts["ledger"] == "7 2 "


def row(facts: Mapping[str, str], name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(facts[name])
    return found


def test_the_footprints_of_running_jobs_go_on(facts: Mapping[str, str]) -> None:
    burned = row(facts, "job_footprint.burn")
    assert burned["cpu_seconds"] == pytest.approx(float(facts["burned"]), rel=0.02, abs=0.05)
    assert burned["final_state"] == 1
    old = row(facts, "job_footprint.4711")
    assert (old["cpu_seconds"], old["memory_peak_bytes"], old["final_state"]) == (90, 3e9, 1)
    assert row(facts, "job_footprint.4712_3")["cpu_seconds"] == 16
    gpus = [row(facts, f"job_gpu_footprint.4711{gpu}")["energy_joules"] for gpu in "01"]
    assert gpus == [6000, 1000]
