"""A node that is not there: the real agent on a fixture machine, its clock moved by hand.

    python -m tests.integration.simulated SPEC.json

Kernel files grow from tick to tick as they do between the fixture machine's two states; GPUs are
replayed through NVML's own interface (`tests/nvml`), for which this is a process of its own.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.client import ENVIRONMENT, send_points
from agent.config import Config, load
from agent.daemon import Daemon, daemon
from agent.messages import JobStart, PointMessage
from agent.relay import Relay
from agent.runner import Runner, open_all, runner
from probes.probe import Context
from probes.registry import PROBES
from probes.roots import Roots
from probes.sample import Sample, tags
from tests.golden.machine import MACHINES, copy_machine

TICK_SECONDS = 10
NUMBER = re.compile(r"(\d+)")


class SimulatedJob(msgspec.Struct):
    """A job on this node; ticks count from 0, and -1 is never."""

    job: JobStart
    begins: int
    ends: int = -1
    exit_code: int = 0
    cpus_used: float = 3.0


class Simulation(msgspec.Struct):
    """What is played."""

    config: str
    folder: str
    begin_ms: int
    ticks: int
    machine: str = "gpu_node"
    jobs: list[SimulatedJob] = []
    points: list[PointMessage] = []


@dataclass
class Clock:
    """The machine's clock, moved ahead by hand; never behind that of the workers' deadlines."""

    begin_ms: int
    ahead: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def time(self) -> float:
        return self.begin_ms / 1000 + self.ahead

    def monotonic(self) -> float:
        return self.started + self.ahead


class Machine:
    """A copy of a fixture machine whose counters grow."""

    def __init__(self, name: str, folder: Path) -> None:
        self.roots = copy_machine(name, folder)
        # the agent's own memory, which no fixture machine has
        shutil.copy("/proc/self/statm", self.roots.proc / "self" / "statm")
        later = MACHINES / name / "later"
        self._texts = {
            folder / path.relative_to(later): (
                (folder / path.relative_to(later)).read_text(),
                path.read_text(),
            )
            for path in later.rglob("*")
            if path.is_file()
        }

    def move(self, tick: int) -> None:
        """Write the state after so many ticks."""
        for path, (first, second) in self._texts.items():
            path.write_text(grown(first, second, tick))


def grown(first: str, second: str, ticks: int) -> str:
    """Return a text whose numbers grew as often as ticks passed; what fell goes up and down."""
    parts = list(zip(NUMBER.split(first), NUMBER.split(second), strict=False))
    if NUMBER.sub("", first) != NUMBER.sub("", second):
        return second if ticks % 2 else first
    return "".join(_grown(before, after, ticks) for before, after in parts)


def _grown(before: str, after: str, ticks: int) -> str:
    if not before.isdigit() or int(after) <= int(before):
        return after if ticks % 2 else before
    return str(int(before) + (int(after) - int(before)) * ticks)


def runners(config: Config, roots: Roots, clock: Clock) -> Iterator[Runner]:
    """Yield the agent's probes, on the clock that is moved by hand."""
    paths = tuple(map(Path, config.probes.tempdisk_paths))
    context = Context(roots, monotonic=clock.monotonic, tempdisk_paths=paths)
    made = [runner(kind, context) for kind in PROBES]
    open_all(made, Relay(10.0), time.monotonic() + 10)
    yield from made


def write_cgroup(folder: Path, cpu_seconds: float) -> None:
    """Write the control group of a job, as cgroup v2 has it."""
    microseconds = int(cpu_seconds * 1e6)
    files = {
        "cgroup.procs": "",
        "cpu.stat": f"usage_usec {microseconds}\nuser_usec {microseconds}\nsystem_usec 0\n",
        "memory.current": f"{8 << 30}\n",
        "memory.peak": f"{9 << 30}\n",
        "memory.max": f"{16 << 30}\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
        "io.stat": f"259:0 rbytes={microseconds} wbytes={microseconds} rios=9 wios=9\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def play(simulation: Simulation) -> None:
    config = load(Path(simulation.config), environment={}).config
    folder = Path(simulation.folder)
    machine = Machine(simulation.machine, folder / "machine")
    clock = Clock(simulation.begin_ms)
    socket = folder / "agent.sock"
    off = msgspec.structs.replace(config.probes, disabled=tuple(kind.name for kind in PROBES))
    bare = msgspec.structs.replace(config, probes=off)
    nvml_clock = folder / "nvml-clock"
    nvml_clock.write_text("0")
    with daemon(
        bare, spool_directory=folder / "spool", socket=socket, roots=machine.roots, clock=clock
    ) as running:
        running.loop.runners = list(runners(config, machine.roots, clock))
        for tick in range(simulation.ticks):
            clock.ahead = float(TICK_SECONDS * tick)
            nvml_clock.write_text(str(clock.ahead))
            machine.move(tick)
            step(running, simulation, tick, clock)
        tell(running, simulation.points, socket)
    shutil.rmtree(folder / "machine")


def step(running: Daemon, simulation: Simulation, tick: int, clock: Clock) -> None:
    """Let jobs begin and end, which takes a sample, or else take one."""
    begun = time.perf_counter()
    now_ms = round(clock.time() * 1000)
    taken = False
    for job in simulation.jobs:
        cgroup = Path(simulation.folder) / job.job.jobid
        write_cgroup(cgroup, job.cpus_used * TICK_SECONDS * max(0, tick - job.begins))
        if tick == job.begins:
            start = msgspec.structs.replace(job.job, start_ms=now_ms, cgroup_v2=str(cgroup))
            running.loop.start_job(start)
        elif tick == job.ends:
            running.loop.end_job(job.job.jobid, job.exit_code, now_ms)
        taken = taken or tick in (job.begins, job.ends)
    if not taken:
        running.loop.tick(now_ms)
    running.loop.vitals.tick_seconds = time.perf_counter() - begun
    running.loop.vitals.lateness_seconds = 0.001


def tell(running: Daemon, points: Sequence[PointMessage], socket: Path) -> None:
    """Tell the agent what programs measured, as they do."""
    samples = [
        (Sample(each.measurement, tags(**each.tags), each.fields), each.time_ms) for each in points
    ]
    assert send_points(samples, {ENVIRONMENT: str(socket)})
    running.loop.inbox.drain()


if __name__ == "__main__":
    play(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Simulation))
