"""Files of /proc and /sys that block their reader: the agent goes on without their probe."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from agent.lineprotocol import parse_line
from tests.golden.machine import copy_machine
from tests.integration.commands import Site
from tests.nvml.build import TRACES, environment

PROGRAM = """
import sys
from pathlib import Path
from agent.config import load
from agent.daemon import daemon
from probes.roots import Roots
config, machine, seconds = load(Path(sys.argv[1])).config, Path(sys.argv[2]), float(sys.argv[3])
state = config.state_directory()
roots = Roots(*(machine / name for name in ("proc", "sys", "cgroup", "run")))
with daemon(
    config, spool_directory=state / "spool", socket=state / "agent.sock", roots=roots,
    opening_seconds=0.0,
) as running:
    running.loop.run(seconds)
"""

BLOCKING = {
    "proc/stat": "cpu",
    "proc/diskstats": "blockdisk",
    "proc/meminfo": "memory",
    "proc/net/dev": "network",
    "proc/pressure/io": "pressure",
    "sys/class/net/eth0/speed": "network",
    "sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_data": "infiniband",
    "sys/class/infiniband/mlx5_0/ports/1/state": "infiniband",
    "sys/class/hwmon/hwmon1/device/power1_average": "power",
}
"""File of the fixture machine -> the measurement that has it."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return make_machine(tmp_path)


def make_machine(above: Path) -> Path:
    folder = above / "machine"
    copy_machine("gpu_node", folder)
    (folder / "proc/self/statm").write_text("9000 4000 900 1 0 3000 0\n")
    return folder


def block(machine: Path, name: str) -> None:
    file = machine / name
    file.unlink()
    os.mkfifo(file)


def start(folder: Path, machine: Path, seconds: float) -> subprocess.Popen[str]:
    agent = "interval_seconds = 0.5\ndeadline_seconds = 0.2"
    site = Site(folder, 'store = "stdout"', agent)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, site.file, machine, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ticks(agent: subprocess.Popen[str]) -> tuple[dict[int, set[str]], str]:
    """Return the measurements of each tick, by its time in ms, and what the agent said."""
    printed, said = agent.communicate(timeout=100)
    assert agent.returncode == 0, said
    seen: defaultdict[int, set[str]] = defaultdict(set)
    for line in printed.splitlines():
        point = parse_line(line)
        seen[point.time_ms].add(point.measurement)
    return dict(seen), said


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.Popen[str]]:
    """An agent for each file that blocks: they run side by side, because they mostly wait."""
    started = {}
    for name in BLOCKING:
        folder = tmp_path_factory.mktemp("blocked")
        block(make_machine(folder), name)
        started[name] = start(folder, folder / "machine", 3.0)
    return started


@pytest.mark.parametrize("name", BLOCKING)
def test_a_file_that_blocks_costs_its_probe_and_nothing_else(
    agents: dict[str, subprocess.Popen[str]], name: str
) -> None:
    seen, said = ticks(agents[name])
    others = set(BLOCKING.values()) - {BLOCKING[name]}
    assert len(seen) >= 3
    for found in list(seen.values())[1:]:
        assert others <= found
        assert BLOCKING[name] not in found
    assert said.count("hangs, and is left out") == 1
    assert f"probe {BLOCKING[name]} hangs" in said


def test_all_of_them_at_once(tmp_path: Path, machine: Path) -> None:
    for name in BLOCKING:
        block(machine, name)
    seen, said = ticks(start(tmp_path, machine, 5.0))
    assert len(seen) >= 3
    assert said.count("hangs, and is left out") == len(set(BLOCKING.values()))
    assert all("agent" in found for found in seen.values())


def test_a_file_that_answers_at_last_brings_its_probe_back(tmp_path: Path, machine: Path) -> None:
    stat = (machine / "proc/stat").read_bytes()
    block(machine, "proc/stat")
    running = start(tmp_path, machine, 8.0)
    assert running.stderr is not None
    while "probe cpu hangs" not in running.stderr.readline():
        pass
    (machine / "proc/stat.new").write_bytes(stat)
    # the reader that is stuck gets the pipe's end; whoever opens the path after it gets the file
    with (machine / "proc/stat").open("wb"):
        (machine / "proc/stat.new").rename(machine / "proc/stat")
    printed, _ = running.communicate(timeout=60)
    assert any(line.startswith("cpu,") for line in printed.splitlines())


@pytest.mark.cc
@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_hangs_while_it_is_opened_delays_no_tick(tmp_path: Path, call: str) -> None:
    hanging = environment(TRACES / "two_h100.csv", hang=call)
    agent = "interval_seconds = 1\ndeadline_seconds = 0.2"
    site = Site(tmp_path, 'store = "stdout"', agent, environment=hanging)
    begun = time.time()
    process = site.start("rooflight", "agent", "--for", "4")
    printed, said = process.communicate(timeout=60)
    cpu = [parse_line(line) for line in printed.splitlines() if line.startswith("cpu,")]
    imports = 10.0  # of an interpreter on a busy machine; a hang while opening once took 10 s more
    assert cpu[0].time_ms / 1000 - begun < imports
    assert len(cpu) >= 3
    assert "probe gpu: its source does not answer" in said


@pytest.mark.cc
def test_check_says_which_probe_hangs_and_goes_on(tmp_path: Path) -> None:
    hanging = environment(TRACES / "two_h100.csv", hang="nvmlInitWithFlags")
    site = Site(tmp_path, 'store = "stdout"', environment=hanging)
    printed = site.call("rooflight", "check", check=3).splitlines()
    lines = {line.split()[1]: line for line in printed if line[0] != " "}
    assert lines["gpu"].startswith("bad")
    assert "hangs" in lines["gpu"]
    assert lines["cpu"].startswith("on")
