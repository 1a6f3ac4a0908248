"""`make faults`: an hour's worth of ticks while everything goes wrong, and what became of each."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.run import run

HOUR_OF_TICKS = 3600


def main() -> None:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--ticks", type=int, default=HOUR_OF_TICKS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rooflight-faults-") as folder:
        done = run(Path(folder), arguments.seed, arguments.ticks)
    print(done)
    sys.exit(1 if done.verdict.faults or done.verdict.unaccounted else 0)


if __name__ == "__main__":
    main()
