"""The agent's loop alone: it samples once a second, makes lines, and throws them away.

Run as `python -m tests.benchmarks.sampling FOLDER [--gpu-node]`; ends on SIGTERM, and then prints
what it saw as JSON.
"""

import argparse
import contextlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path

from agent.clock import SystemClock
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


def sample_until_stopped(folder: Path, *, with_gpu_node: bool) -> dict[str, object]:
    """Sample until SIGTERM; return lines and bytes per sample, and the lateness of each."""
    sink, lateness = CountingSink(), Lateness()
    roots = gpu_node.make_roots(folder) if with_gpu_node else Roots()
    loop = Loop(
        pace=Pace(interval=1.0, heartbeat=30.0, deadline=1.0),
        encoder=Encoder("benchmark", "node1"),
        host="node1",
        runners=runners(Config(), roots),
        jobs=JobTable(folder / "jobs", roots),
        sink=sink,
        clock=SystemClock(),
        own_samples=lateness,
    )
    loop.open()
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    with contextlib.ExitStack() as stack:
        jobs = stack.enter_context(gpu_node.running_jobs(folder)) if with_gpu_node else ()
        for job in jobs:
            loop.start_job(job)
        loop.run()
    loop.close()
    ticks = loop.vitals.ticks
    # the ticks that starting a job takes are not on the clock: they repeat the lateness before
    late = lateness.seconds[len(jobs) :]
    return {"lines": sink.lines / ticks, "bytes": sink.size / ticks, "lateness": late}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gpu-node", action="store_true")
    arguments = parser.parse_args()
    found = sample_until_stopped(arguments.folder, with_gpu_node=arguments.gpu_node)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
