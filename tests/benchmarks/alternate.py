"""Compare what a tick costs here and in another checkout, tick by tick in turn.

    git worktree add /tmp/before REVISION
    python -m tests.benchmarks.alternate /tmp/before [--jobs slurm|trees] [--ticks N]

A machine's speed changes by the minute: a ratio of neighbouring ticks does not. Each process ticks
once a second, and the two half a second apart.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from tests.benchmarks import gpu_node, ticker
from tests.benchmarks.contenders import REPOSITORY
from tests.benchmarks.overhead import machine
from tests.nvml.build import environment

WARM_UP_TICKS = 5
HALF_A_SECOND = 0.5

Ticker = subprocess.Popen[str]


@contextlib.contextmanager
def running(checkout: Path, words: Sequence[str], variables: Mapping[str, str]) -> Iterator[Ticker]:
    """Give a process that ticks on demand with the code of a checkout."""
    code = Path(ticker.__file__).read_text()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=checkout,
        env={**os.environ, **variables, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()


def tick(process: Ticker, pause: float) -> float:
    """Have a process tick after a pause, and return the CPU time that it took, in milliseconds."""
    assert process.stdin
    assert process.stdout
    time.sleep(pause)
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline()) / 1e6


def measure(
    checkouts: Sequence[Path], jobs: gpu_node.Jobs | None, ticks: int, pause: float
) -> list[list[float]]:
    """Return the milliseconds of each tick of each checkout."""
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pids, variables = [], {}
        if jobs:
            pids = stack.enter_context(gpu_node.running_processes())
            gpu_node.write_trace(top / "trace.csv")
            variables = environment(top / "trace.csv", loop="1", pids=gpu_node.gpus_of(pids))
        processes = []
        for number, checkout in enumerate(checkouts):
            words = [str(top / f"node{number}"), jobs or "", *map(str, pids)]
            processes.append(stack.enter_context(running(checkout, words, variables)))
        rounds = range(WARM_UP_TICKS + ticks)
        rows = [[tick(process, pause) for process in processes] for _ in rounds]
    return [list(column) for column in zip(*rows[WARM_UP_TICKS:], strict=True)]


def words_for(here: Sequence[float], there: Sequence[float]) -> str:
    """Return what was found."""
    ratios = [mine / theirs for mine, theirs in zip(here, there, strict=True)]
    return (
        f"there {statistics.median(there):.2f} ms, here {statistics.median(here):.2f} ms of CPU in "
        f"the median of {len(here)} ticks; here over there, tick by tick: "
        f"{statistics.median(ratios):.3f}; of the means: {sum(here) / sum(there):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--ticks", type=int, default=60)
    parser.add_argument("--jobs", choices=get_args(gpu_node.Jobs), help="measure the GPU node")
    told = parser.parse_args()
    checkouts = [REPOSITORY, told.other.resolve()]
    here, there = measure(checkouts, told.jobs, told.ticks, HALF_A_SECOND)
    print(f"{machine()}: {words_for(here, there)}")


if __name__ == "__main__":
    main()
