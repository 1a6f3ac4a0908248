"""The agent under test: the real one, but with a clock that can be stepped, and with a witness.

Run as `python -m tests.faults.agent CONFIG CLOCK WITNESS [--spool-bytes N]`; ends on SIGTERM.
"""

import argparse
import logging
import signal
import time
from pathlib import Path

import msgspec

from agent.config import load
from agent.daemon import daemon
from agent.messages import JobStart
from tests.faults.clock import SteppedClock
from tests.faults.witness import WitnessedSink

JOB_START_MS = 1_700_000_000_000
"""Every agent takes up the same job: its rows are written again and again, the newest must win."""


def run(config_file: Path, clock_file: Path, witness: Path, spool_bytes: int | None) -> None:
    """Sample until SIGTERM, as `agent.daemon.run_agent` does."""
    config = load(config_file).config
    if spool_bytes:
        small = msgspec.structs.replace(config.agent, spool_mebibytes=spool_bytes / 2**20)
        config = msgspec.structs.replace(config, agent=small)
    state = config.state_directory()
    with daemon(
        config,
        spool_directory=state / "spool",
        socket=config.socket_path(),
        clock=SteppedClock(clock_file),
    ) as running:
        loop = running.loop
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        loop.sink = WitnessedSink(running.spool, witness)
        loop.start_job(JobStart("1", JOB_START_MS, user="somebody"))
        loop.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("clock", type=Path)
    parser.add_argument("witness", type=Path)
    parser.add_argument("--spool-bytes", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s rooflight: %(message)s", level=logging.INFO)
    logging.Formatter.converter = time.gmtime
    run(arguments.config, arguments.clock, arguments.witness, arguments.spool_bytes)


if __name__ == "__main__":
    main()
