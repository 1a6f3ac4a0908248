"""Tick at every line that is read, and print the CPU time that it took: see alternate.py.

Its text is given to a Python that finds another checkout's modules, so it imports no more than
older ones have.
"""

import sys
import time
from pathlib import Path

from agent.clock import SystemClock
from tests.benchmarks.sampling import Node, open_loop


def main(folder: str, jobs: str, *pids: str) -> None:
    node = Node(Path(folder), jobs or None, [int(pid) for pid in pids])  # type: ignore[arg-type]
    with open_loop(node, interval=1.0, clock=SystemClock()) as loop:
        for _ in sys.stdin:
            begun = time.process_time_ns()
            loop.tick(int(time.time() * 1000))
            print(time.process_time_ns() - begun, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
