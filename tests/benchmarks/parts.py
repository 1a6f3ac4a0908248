"""Where the time of a tick goes: CPU of each part, with caches cold and warm.

    python -m tests.benchmarks.parts [--jobs slurm|trees] [--ticks N]

The loop of sampling.py ticks once a second, when other work and sleep have emptied the caches, and
then as often without a pause. Between two ticks nothing else runs, so that the whole process's CPU
clock can be read around each part; of probes in threads of their own it counts where they are
waited for. Reading the clock so often takes some 5 us of a tick.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from agent import loop as loop_module
from agent.clock import SystemClock
from agent.encoder import Encoder
from agent.gpus import GpuBook
from agent.jobs import RunningJob, Tick
from agent.labels.bounds import Labeller
from agent.labels.cpu import CpuLabeller
from agent.loop import Loop
from agent.runner import Runner, Worker
from probes.cgroup import Cgroup
from probes.processes import ProcessTree
from tests.benchmarks import gpu_node
from tests.benchmarks.overhead import machine
from tests.benchmarks.sampling import Node, open_loop
from tests.benchmarks.tables import markdown
from tests.nvml.build import environment

PARTS: tuple[tuple[object, str, str], ...] = (
    (Runner, "sample", "probe {}"),
    (Worker, "begin", "probe {}"),
    (Worker, "finish", "probe {}"),
    (Cgroup, "read", "control groups of jobs"),
    (ProcessTree, "read", "process trees of jobs"),
    (GpuBook, "attribute", "whose a GPU is"),
    (Labeller, "label", "labels"),
    (CpuLabeller, "label", "labels"),
    (loop_module, "plausible", "range check"),
    (Tick, "__init__", "footprints"),
    (RunningJob, "fold", "footprints"),
    (Encoder, "lines", "line protocol"),
)
"""Owner, name of a function, and what its time is counted as; `{}` is the probe's name."""

WARM_UP_TICKS = 3
REST = "all else"
TOTAL = "a tick"

Spent = Counter[str]


def cpu_nanoseconds() -> int:
    return time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)


def timed(function: Callable[..., Any], label: str, spent: Spent) -> Callable[..., Any]:
    """Return the function, with its CPU time added to what was spent under its label."""

    def measured(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
        owner = arguments[0] if arguments else None
        name = label.format(owner.health.name) if isinstance(owner, Runner) else label
        begun, counted = cpu_nanoseconds(), spent.total()
        try:
            return function(*arguments)
        finally:  # a part within a part has its own
            spent[name] += cpu_nanoseconds() - begun - (spent.total() - counted)

    return measured


@contextlib.contextmanager
def watched(spent: Spent) -> Iterator[None]:
    """Time all parts."""
    with contextlib.ExitStack() as stack:
        for owner, name, label in PARTS:
            function = timed(getattr(owner, name), label, spent)
            stack.enter_context(patch.object(owner, name, function))
        yield


def measure(loop: Loop, ticks: int, pause: float, spent: Spent) -> dict[str, float]:
    """Return the microseconds of each part of a tick: means, the first ticks left out."""
    found: list[Spent] = []
    for _ in range(WARM_UP_TICKS + ticks):
        time.sleep(pause)
        spent.clear()
        begun = cpu_nanoseconds()
        loop.tick(int(time.time() * 1000))
        whole = cpu_nanoseconds() - begun
        found.append(Counter({**spent, REST: whole - spent.total(), TOTAL: whole}))
    kept = found[WARM_UP_TICKS:]
    names = {name for each in kept for name in each}
    return {name: statistics.fmean(each[name] for each in kept) / 1e3 for name in names}


def table(cold: Mapping[str, float], warm: Mapping[str, float]) -> str:
    """Return the parts, the dearest first, and the whole last."""
    names = sorted(cold.keys() - {REST, TOTAL}, key=lambda name: -cold[name])
    rows = [
        [name, f"{cold[name]:.0f}", f"{warm.get(name, 0.0):.0f}"] for name in (*names, REST, TOTAL)
    ]
    return markdown(["part", "once a second, us", "without a pause, us"], rows)


def run(node: Node, ticks: int) -> str:
    """Measure a node, and return the table."""
    spent: Spent = Counter()
    with open_loop(node, interval=1.0, clock=SystemClock()) as loop, watched(spent):
        cold = measure(loop, ticks, 1.0, spent)
        return table(cold, measure(loop, ticks, 0.0, spent))


def run_gpu_node(kind: gpu_node.Jobs, ticks: int) -> str:
    """Measure the GPU node in a process that finds the replayed driver's library."""
    with tempfile.TemporaryDirectory() as top, gpu_node.running_processes() as pids:
        trace = Path(top) / "trace.csv"
        gpu_node.write_trace(trace)
        variables = environment(trace, loop="1", pids=gpu_node.gpus_of(pids))
        options = ["--folder", f"{top}/node", "--ticks", f"{ticks}", "--jobs", kind]
        command = [sys.executable, "-m", "tests.benchmarks.parts", *options, "--pids"]
        return subprocess.run(
            [*command, *map(str, pids)],
            env={**os.environ, **variables},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--jobs", choices=get_args(gpu_node.Jobs), help="measure the GPU node")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pids", type=int, nargs="*", default=[], help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.folder:
        print(run(Node(told.folder, told.jobs, told.pids), told.ticks))
        return
    with tempfile.TemporaryDirectory() as top:
        here = Node(Path(top) / "node", None, [])
        found = run_gpu_node(told.jobs, told.ticks) if told.jobs else run(here, told.ticks)
    print(f"{machine()}\n\n{found}")


if __name__ == "__main__":
    main()
