"""Measure what the agent takes from a job: the same work with and without it, in pairs.

A compute-bound and a memory-bound program do a fixed amount of work on all CPUs, once with the
agent sampling every second and once without, in random order. What counts is the difference within
each pair, and a confidence interval of its mean by the bootstrap (Efron 1979).
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contenders import Agent
from tests.benchmarks.overhead import machine

PROGRAM = """\
import sys, time, torch
kind, amount = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
if kind == "compute":
    left = torch.randn(1024, 1024)
    work = lambda: left @ left
else:
    source, target = torch.ones(32 << 20), torch.empty(32 << 20)
    work = lambda: target.copy_(source)
for _ in range(5):
    work()
begin, count = time.perf_counter(), 0
while time.perf_counter() - begin < amount:
    work()
    count += 1
print(count, flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    for _ in range(count):
        work()
    print(time.perf_counter() - begin, flush=True)
"""
KINDS = ("compute", "memory")
RESAMPLES = 10_000
SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Effect:
    """How much longer the work took beside the agent, as a share: mean and 95 % interval."""

    mean: float
    low: float
    high: float
    pairs: int


class Worker:
    """A program that does the same work again and again, when told."""

    def __init__(self, kind: str, seconds: float) -> None:
        command = [sys.executable, "-c", PROGRAM, kind, str(seconds)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._read()

    def work(self) -> float:
        """Return the seconds that the work took."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> float:
        assert self._process.stdout
        return float(self._process.stdout.readline())


def beside_agent(worker: Worker, folder: Path) -> float:
    """Return the seconds of the work while a new agent samples each second."""
    agent = Agent(folder)
    agent.start()
    try:
        time.sleep(SETTLE_SECONDS)  # imports and the first tick are no sampling
        return worker.work()
    finally:
        agent.kill()


def differences(kind: str, pairs: int, seconds: float, folder: Path) -> list[float]:
    """Return by which share the work took longer beside the agent, for each pair."""
    chance = random.Random(0)
    worker = Worker(kind, seconds)
    found = []
    try:
        for number in range(pairs):
            first = chance.random() < 0.5
            times = {}
            for with_agent in (first, not first):
                place = folder / f"{kind}-{number}"
                times[with_agent] = beside_agent(worker, place) if with_agent else worker.work()
            found.append(times[True] / times[False] - 1.0)
    finally:
        worker.close()
    return found


def effect(found: Sequence[float]) -> Effect:
    """Return the mean of paired differences with its bootstrap interval."""
    chance = random.Random(0)
    means = sorted(statistics.fmean(chance.choices(found, k=len(found))) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]
    return Effect(statistics.fmean(found), low, high, len(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of work in each half of a pair"
    )
    arguments = parser.parse_args()
    print("| program | longer beside the agent | 95 % interval | pairs |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            found = differences(kind, arguments.pairs, arguments.seconds, Path(folder))
            result = effect(found)
            print(
                f"| {kind}-bound | {result.mean:+.2%} | {result.low:+.2%} to {result.high:+.2%} "
                f"| {result.pairs} |",
                flush=True,
            )
    print(f"\n{machine()}; {arguments.seconds:.0f} s of work in each half of a pair.")


if __name__ == "__main__":
    main()
