"""`rooflight phase NAME -- CMD`: run a command and mark its whole time."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from agent.launcher import NOT_EXECUTABLE, NOT_FOUND
from agent.phase import phase


def run_phase(name: str, command: Sequence[str]) -> int:
    """Run the command as one call of a phase.

    Returns:
        its exit code; 128 + N for signal N; 127 or 126 where it cannot be started.

    """
    with phase(name):
        return _run(command)


def _run(command: Sequence[str]) -> int:
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        print(f"rooflight: {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    # a terminal sends SIGINT to the command as well, whose decision it is what to do
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: process.send_signal(received))
    code = process.wait()
    return code if code >= 0 else 128 - code
