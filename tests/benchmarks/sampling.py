"""The agent's loop alone: it samples again and again, makes lines, and throws them away.

    python -m tests.benchmarks.sampling FOLDER [--interval SECONDS] [--jobs slurm|trees --pids N...]

Ends on SIGTERM, and then prints what it saw as JSON. With --jobs it samples the GPU node of
gpu_node.py, with jobs of these processes.
"""

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.daemon import runners
from agent.encoder import Encoder
from agent.jobs import JobTable
from agent.loop import Loop, Pace
from agent.vitals import Vitals
from probes.catalogue import Database
from probes.roots import Roots
from probes.sample import Sample
from tests.benchmarks import gpu_node

HEARTBEAT_SECONDS = 30.0


class CountingSink:
    """Takes lines, counts them, and forgets them."""

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0

    def append(self, database: Database, lines: bytes) -> None:
        self.lines += lines.count(b"\n")
        self.size += len(lines)


class Lateness:
    """Notes at each tick how late it began, in place of the agent's own sample."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, vitals: Vitals) -> Sequence[Sample]:
        self.seconds.append(vitals.lateness_seconds)
        return ()


class Node(NamedTuple):
    """What is sampled: this machine, or the GPU node with jobs of these processes."""

    folder: Path
    jobs: gpu_node.Jobs | None
    pids: Sequence[int]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--jobs", choices=get_args(gpu_node.Jobs))
    parser.add_argument("--pids", type=int, nargs="*", default=[])


@contextlib.contextmanager
def open_loop(
    node: Node, *, interval: float, clock: Clock, deadline: float = 1.0
) -> Iterator[Loop]:
    """Give a loop that samples the node, its jobs begun."""
    folder, kind, pids = node
    roots = gpu_node.make_roots(folder) if kind else Roots()
    loop = Loop(
        pace=Pace(interval=interval, heartbeat=HEARTBEAT_SECONDS, deadline=deadline),
        encoder=Encoder("benchmark", "node1"),
        host="node1",
        runners=runners(Config(), roots),
        jobs=JobTable(folder / "jobs", roots),
        sink=CountingSink(),
        clock=clock,
        own_samples=Lateness(),
    )
    loop.open()
    try:
        for job in gpu_node.jobs_of(folder, kind, pids) if kind else ():
            loop.start_job(job)
        yield loop
    finally:
        loop.close()


def sample_until_stopped(node: Node, interval: float) -> dict[str, object]:
    """Sample until SIGTERM; return lines and bytes per sample, and the lateness of each."""
    with open_loop(node, interval=interval, clock=SystemClock()) as loop:
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        sink, lateness = loop.sink, loop.own_samples
        assert isinstance(sink, CountingSink)
        assert isinstance(lateness, Lateness)
        loop.run()
        ticks = loop.vitals.ticks
        # the ticks that starting a job takes are not on the clock: they repeat the lateness before
        late = lateness.seconds[len(loop.jobs) :]
        return {
            "lines": sink.lines / ticks,
            "bytes": sink.size / ticks,
            "lateness": late,
            "skipped": loop.vitals.skipped,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    told = parser.parse_args()
    found = sample_until_stopped(Node(told.folder, told.jobs, told.pids), told.interval)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
