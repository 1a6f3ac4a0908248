"""This node as `rooflight top` sees it: a fixture machine, and processes that really run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent.config import AgentSection, Config
from agent.top.here import Here
from agent.top.model import Flow, Frame, Process
from agent.top.processes import HIDDEN, Processes
from probes.roots import Roots
from tests.golden.machine import copy_machine, later_files
from tests.weather import PATIENCE

BURN = "import sys; sys.stdin.read(1)\nwhile True: pass"
HOLD = "import sys; held = bytearray(64 << 20); print(flush=True); sys.stdin.read()"


@dataclass
class Clock:
    now: float = 1_760_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Callable[[], Frame]]:
    """Two looks at the fixture machine, ten seconds apart, as a frame."""
    folder = tmp_path / "gpu_node"
    roots = copy_machine("gpu_node", folder)
    agent = AgentSection(state_directory=str(tmp_path / "state"))
    clock = Clock()
    here = Here(Config(host="gpu07", agent=agent), roots, PATIENCE, clock)

    def second_look() -> Frame:
        here.read()
        later_files("gpu_node", folder)
        clock.now += 10.0
        return here.read()

    yield second_look
    here.close()


def test_a_look_tells_what_the_probes_read(look: Callable[[], Frame]) -> None:
    frame = look()
    (host,) = frame.hosts
    assert (host.name, frame.at_ms) == ("gpu07", 1_760_000_010_000)
    assert (host.cpu, host.busiest_core, host.load) == (0.2475, 0.97, 2.31)
    assert host.memory_used == 101124345856.0
    assert dict(host.waits) == {"cpu": 0.125, "memory": 0.0325, "io": 0.2}
    assert dict(host.watts)["node"] == 912.0
    # eth0 and ib0, by /proc/net/dev before and after; loopback and docker0 are no network
    assert host.network == Flow((1.25e9 + 100) / 10, (1.25e8 + 100) / 10)
    # port_rcv_data counts words of four bytes: mlx5_0, mlx5_1 and hfi1_0
    assert host.infiniband is not None
    words = 250_000_000 + 250_000 + 500
    assert host.infiniband.into == pytest.approx(4 * words / 10, rel=1e-6)
    assert frame.limits
    assert frame.limits[0].startswith("no GPU: ")


def test_looking_writes_nothing(look: Callable[[], Frame], tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    look()
    later = {path for path in tmp_path.rglob("*") if path not in before}
    assert not (tmp_path / "state").exists()
    # the fixture's later files are laid over it by the test itself, and none comes anew
    assert {path.relative_to(tmp_path).parts[0] for path in later} <= {"gpu_node"}


def test_a_disabled_probe_is_not_asked(tmp_path: Path) -> None:
    config = Config(agent=AgentSection(state_directory=str(tmp_path / "state")))
    disabled = msgspec.structs.replace(config.probes, disabled=("memory", "gpu"))
    here = Here(msgspec.structs.replace(config, probes=disabled), Roots(), PATIENCE)
    frame = here.read()
    here.close()
    assert frame.hosts[0].memory_used is None
    assert not any("GPU" in limit for limit in frame.limits)


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(text: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", text, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()
        each.communicate()


def found(processes: list[Process], pid: int) -> Process:
    return next(each for each in processes if each.pid == pid)


def test_a_process_has_its_memory_its_time_and_its_command(
    program: Callable[..., subprocess.Popen[bytes]],
) -> None:
    holding = program(HOLD, "--model", "llama")
    assert holding.stdout is not None
    holding.stdout.readline()  # it has its memory
    seen = found(Processes().read(0.0, {}), holding.pid)
    assert 64 << 20 < seen.resident < 256 << 20
    assert seen.command.endswith("--model llama")
    assert seen.cpu is None
    assert seen.user
    assert seen.state in "RSD"


def test_the_share_of_a_cpu_is_that_since_the_last_look(
    program: Callable[..., subprocess.Popen[bytes]],
) -> None:
    burning = program(BURN)
    assert burning.stdin is not None
    processes = Processes()
    first = found(processes.read(0.0, {}), burning.pid)
    burning.stdin.write(b"x")
    burning.stdin.flush()
    deadline = time.monotonic() + PATIENCE
    seconds = first.seconds
    while seconds < first.seconds + 0.3:  # of processor time, however busy the machine is
        assert time.monotonic() < deadline
        stat = Path(f"/proc/{burning.pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.01)
    second = found(processes.read(1.0, {}), burning.pid)
    assert second.cpu is not None
    assert second.cpu == pytest.approx(second.seconds - first.seconds)
    assert second.cpu >= 0.3


def test_a_process_that_became_another_program_is_asked_again(
    program: Callable[..., subprocess.Popen[bytes]],
) -> None:
    text = "import os, sys; sys.stdin.read(1); os.execv(sys.executable, sys.argv[1:])"
    after = "import sys; print(flush=True); sys.stdin.read()"
    changing = program(text, "python", "-I", "-S", "-c", after, "second")
    assert changing.stdin is not None
    assert changing.stdout is not None
    processes = Processes()
    processes.read(0.0, {})
    assert "os.execv" in found(processes.read(1.0, {}), changing.pid).command
    changing.stdin.write(b"x")
    changing.stdin.flush()
    changing.stdout.readline()
    assert "os.execv" not in found(processes.read(200.0, {}), changing.pid).command


def test_those_that_hold_a_gpu_are_marked_and_one_that_hides_is_shown() -> None:
    hidden = 2**22 + 7  # above the highest process id of any Linux
    own = os.getpid()
    seen = Processes().read(0.0, {"0": [own, hidden], "3": [own], "4": []})
    assert found(seen, own).gpus == ["0", "3"]
    assert found(seen, hidden) == Process(hidden, "?", HIDDEN, gpus=["0"])
    assert not any(each.gpus for each in seen if each.pid not in (own, hidden))


def test_a_process_that_has_ended_has_no_command_and_is_no_error(
    program: Callable[..., subprocess.Popen[bytes]],
) -> None:
    ended = program("pass")
    deadline = time.monotonic() + PATIENCE
    while "Z" not in Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seen = found(Processes().read(0.0, {}), ended.pid)
    assert seen.state == "Z"
    assert seen.command.startswith("[python")
