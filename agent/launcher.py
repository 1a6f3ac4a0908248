"""Start a command so that nothing it does goes uncounted.

A small process stands between the agent and the command. It adopts orphans of the command
(PR_SET_CHILD_SUBREAPER, `man 2 prctl`) and reaps everything, so that the kernel adds all finished
processes to its own account, which the agent reads while it is a zombie: exact, down to the last
child, even without a control group.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it


@dataclass(slots=True)
class Launched:
    """A command that waits to be let go.

    Attributes:
        pid: the process in between; root of the job's process tree.

    """

    pid: int
    _gate: int
    _reaped: bool = False

    def go(self) -> None:
        """Let the command start."""
        os.write(self._gate, b"x")

    def terminate(self) -> None:
        """Ask the command to end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def peek(self) -> int:
        """Wait for the end and return the exit code (128 + N for signal N); the zombie stays."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # only with WNOHANG
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    def reap(self) -> None:
        """Wait for the end and free the zombie; a command that was never let go ends now."""
        if not self._reaped:
            os.close(self._gate)
            os.waitpid(self.pid, 0)
            self._reaped = True


def launch(command: Sequence[str], environment: Mapping[str, str]) -> Launched:
    """Fork the process in between; the command itself starts at `Launched.go`.

    Must be called before this process has threads.
    """
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate_in)
        _stand_between(command, environment, gate_out)
    os.close(gate_out)
    return Launched(pid, gate_in)


def exit_code(status: int) -> int:
    """Return a wait status as shells print it: the code, or 128 + the signal's number."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _stand_between(command: Sequence[str], environment: Mapping[str, str], gate: int) -> NoReturn:
    """Wait for the gate, run the command, reap all, and end with the command's exit code."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command as well
    if not os.read(gate, 1):
        os._exit(0)  # the agent went away before the command began
    child = _start(command, environment)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda received, _: _pass_on(child, received))
    while True:
        pid, status = os.wait()
        if pid == child:
            _reap_the_rest()
            os._exit(exit_code(status))


def _start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606 - no shell is meant
    except OSError as error:
        print(f"rooflight: {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _pass_on(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _reap_the_rest() -> None:
    """Take in processes that have ended already; those that go on are not waited for."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
