"""Count what a sample costs in instructions: a figure that repeats, however busy the machine is.

    python -m tests.benchmarks.instructions [--quick]

The loop ticks so many times under valgrind, and then some more times; the difference is what the
ticks took, without start and end. Instructions are those of this process alone and outside of the
kernel. Of the GPU node they are with those of the replayed NVML, in place of the driver's.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import gpu_node
from tests.benchmarks.contenders import REPOSITORY, find
from tests.nvml.build import environment

FIRST_TICKS = 30
MORE_TICKS = 180
"""Whole rounds of all that comes up now and then: 9 s, 30 s (the heartbeat) and 60 s."""

REPEATS = 2
TOOL = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")

_TOTAL = re.compile(r"I\s+refs:\s+([\d,]+)")


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions per sample, one figure for each time that it was counted."""

    figures: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.figures) / len(self.figures)

    @property
    def spread(self) -> float:
        """How far the figures lie apart, as a part of their mean."""
        return (max(self.figures) - min(self.figures)) / self.mean


@dataclass(frozen=True, slots=True)
class Load:
    """What is sampled: this machine, or the GPU node with its jobs, and how often."""

    jobs: gpu_node.Jobs | None = None
    interval: float = 1.0


def available() -> bool:
    return bool(find("valgrind"))


def count(
    loads: Sequence[Load],
    *,
    first_ticks: int = FIRST_TICKS,
    more_ticks: int = MORE_TICKS,
    repeats: int = REPEATS,
) -> dict[Load, Count]:
    """Return the instructions per sample of each; as many at a time as there are CPUs."""
    ticks = (first_ticks, first_ticks + more_ticks)
    with gpu_node.running_processes() as pids, ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = {
            load: [[pool.submit(total, load, each, pids) for each in ticks] for _ in range(repeats)]
            for load in loads
        }
        return {
            load: Count([(more.result() - less.result()) / more_ticks for less, more in pairs])
            for load, pairs in totals.items()
        }


def total(load: Load, ticks: int, pids: Sequence[int]) -> int:
    """Return how many instructions a process takes that samples so often."""
    with tempfile.TemporaryDirectory() as folder:
        command = [find("valgrind"), *TOOL, sys.executable, "-m", "tests.benchmarks.back_to_back"]
        options = ["--ticks", f"{ticks}", "--interval", f"{load.interval:g}"]
        options += ["--jobs", load.jobs, "--pids", *map(str, pids)] if load.jobs else []
        done = subprocess.run(
            [*command, folder, *options],
            env={**os.environ, **_variables(Path(folder), load, pids)},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"valgrind ended with {done.returncode}: {done.stderr}")
    return parse_total(done.stderr)


def _variables(folder: Path, load: Load, pids: Sequence[int]) -> Mapping[str, str]:
    fixed = {"PYTHONHASHSEED": "0"}
    if not load.jobs:
        return fixed
    trace = folder / "trace.csv"
    gpu_node.write_trace(trace)
    return {**fixed, **environment(trace, loop="1", pids=gpu_node.gpus_of(pids))}


def parse_total(said: str) -> int:
    """Return the total that cachegrind tells at the end.

    Raises:
        ValueError: it tells none.

    """
    found = _TOTAL.search(said)
    if found is None:
        raise ValueError(f"cachegrind tells no total: {said}")
    return int(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer ticks, counted once")
    quick = parser.parse_args().quick
    loads = {"sampling only": Load(), "8 GPUs, 4 jobs": Load("slurm"), "by trees": Load("trees")}
    amount = {"more_ticks": FIRST_TICKS, "repeats": 1} if quick else {}
    counts = count(list(loads.values()), **amount)
    for name, load in loads.items():
        figures = ", ".join(f"{figure / 1e6:.4f}" for figure in counts[load].figures)
        print(f"{name:16} {figures} million a sample, {counts[load].spread:.2%} apart")


if __name__ == "__main__":
    if not available():
        sys.exit("valgrind is not installed")
    main()
