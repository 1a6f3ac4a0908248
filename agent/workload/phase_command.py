"""`rooflight phase NAME -- CMD`: run a command and mark its whole time."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import rooflight
from agent.launcher import NOT_EXECUTABLE, NOT_FOUND

PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends them to the command as well, whose decision it is what to do."""


def run_phase(name: str, command: Sequence[str]) -> int:
    """Run the command as one call of a phase.

    Returns:
        its exit code; 128 + N for signal N; 127 or 126 where it cannot be started.

    """
    with rooflight.phase(name):
        return _run(command)


def _run(command: Sequence[str]) -> int:
    signals = Signals()  # before there is a command: none that comes now may end this process alone
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        print(f"rooflight: {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    signals.pass_to(process)
    code = process.wait()
    return code if code >= 0 else 128 - code


class Signals:
    """Takes this process's signals and passes them on, once there is a command, to the command.

    They are handled and not ignored, because what is ignored stays so in the command; and what was
    ignored when this began (`nohup`) stays so.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        for number in (*PASSED_ON, *OF_THE_TERMINAL):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._received)

    def pass_to(self, process: subprocess.Popen[bytes]) -> None:
        """Pass on what came too early, and all that comes."""
        self._process = process
        while self._early:
            process.send_signal(self._early.pop(0))

    def _received(self, number: int, _: object) -> None:
        if number in OF_THE_TERMINAL:
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)
