"""So many ticks of the agent's loop, one right after the other, on a clock that is moved by hand.

    python -m tests.benchmarks.back_to_back FOLDER --ticks N [options of sampling.py]

Between two ticks an interval passes on that clock, so that what is read seldom is read as seldom
as it is by an agent that waits, and nothing depends on how fast the machine is.
"""

import argparse
from unittest.mock import patch

BEGIN_SECONDS = 1.8e9
PATIENCE_SECONDS = 60.0
"""How long a tick may take under valgrind before a probe counts as hanging."""


class Clock:
    """Stands still, but for `step`."""

    def __init__(self) -> None:
        self.passed = 0.0

    def step(self, seconds: float) -> None:
        self.passed += seconds

    def time(self) -> float:
        return BEGIN_SECONDS + self.passed

    def monotonic(self) -> float:
        return self.passed


def tick(clock: Clock) -> None:
    """Open the loop and take the ticks. Imported here: by now the time is ours."""
    from tests.benchmarks.sampling import Node, add_options, open_loop

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--ticks", type=int, required=True)
    told = parser.parse_args()
    node = Node(told.folder, told.jobs, told.pids)
    interval: float = told.interval
    with open_loop(node, interval=interval, clock=clock, deadline=PATIENCE_SECONDS) as loop:
        for _ in range(told.ticks):
            clock.step(interval)
            loop.tick(round(clock.time() * 1000))


def main() -> None:
    clock = Clock()
    # not every part of the agent is given its clock by the loop; most take this one when imported
    with patch("time.monotonic", clock.monotonic):
        tick(clock)


if __name__ == "__main__":
    main()
