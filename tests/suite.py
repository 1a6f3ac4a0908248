"""Run every stage of the tests, two side by side, and sum up at the end: `make test`.

    python -m tests.suite              all stages
    python -m tests.suite lint unit    these, and no others

A red stage stops no other one. What a stage prints goes to a file of its own and is shown when the
stage ends, if it is red. Ctrl-C ends all stages, with all that they started.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.verdict import Verdict, closing_line, read, slowest, text_of

REPOSITORY = Path(__file__).parents[1]
LOGS = REPOSITORY / ".cache" / "suite"
LANES = 2
"""How many stages run at once: most of them wait as much as they compute."""

PROGRESS_SECONDS = 30.0
FAREWELL_SECONDS = 25.0
"""How long a stage may take to clean up after Ctrl-C; a Slurm cluster takes some seconds."""

FAREWELLS = 2
"""A test of what Ctrl-C does may have taken the first one for its own."""

REST_SECONDS = 5.0
"""How long what a stage started may outlive it."""

MARK = "ROOFLIGHT_STAGE"
MAKE = ("make", "--no-print-directory", "--old-file=.venv/.developer")  # two may run at once
PYTEST = (".venv/bin/python", "-m", "pytest", "-q", "--durations=10", "--durations-min=1")
MACHINES = "slurm or systemd or vm"


class Stage(NamedTuple):
    """A command, and what `make test` has to know of it.

    Attributes:
        name: one word.
        command: what is run in the repository's top folder; red is an exit code other than 0.
        seconds: how long it takes on two quiet cores beside another stage.
        needs: the stage that must have ended, green or red, before this one begins.
        only_in_ci: it is left out where the environment has no CI=true.

    """

    name: str
    command: Sequence[str]
    seconds: int
    needs: str = ""
    only_in_ci: bool = False


STAGES = (
    Stage("services", ("deploy/bootstrap.sh", "services"), 5),  # a minute where apt installs them
    Stage("code", (*MAKE, "code"), 60),
    Stage("machine", (*MAKE, "machine"), 60, needs="services"),
    Stage("scripts", (*MAKE, "scripts"), 5, needs="services"),
    Stage("unit", (*PYTEST, "tests/unit", "tests/golden"), 100, needs="services"),
    Stage("clusters", (*PYTEST, "tests/integration", "-m", MACHINES), 420, needs="machine"),
    Stage("stores", (*PYTEST, "tests", "--ignore=tests/unit", "--ignore=tests/golden",
                     "-m", f"not ({MACHINES})"), 360, needs="services"),
    Stage("lowest", (*MAKE, "lowest"), 120, only_in_ci=True),
    Stage("pythons", (*MAKE, "pythons"), 220, only_in_ci=True),
)  # fmt: skip
"""In the order in which they begin; a stage is a line here."""


@dataclass
class Running:
    """A stage that has begun, with all that it starts.

    Raises:
        OSError: its command cannot be started.

    """

    stage: Stage
    log: Path
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._mark = f"{self.stage.name}-{os.getpid()}"
        environment = {**os.environ, MARK: self._mark, "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.stage.command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C of the terminal is passed on by us, once
            )

    def left(self) -> dict[int, str]:
        """Return the running processes of this stage, its own apart: the command by process id."""
        entry = f"{MARK}={self._mark}".encode()
        return {
            pid: command
            for pid, command in processes()
            if pid != self.process.pid
            and (session(pid) == self.process.pid or entry in environment_of(pid))
        }

    def verdict(self) -> Verdict:
        """Return what became of it, once it has ended."""
        seconds, text = time.monotonic() - self.begun, text_of(self.log)
        name, command, *_ = self.stage
        return read(name, command, self.process.returncode, seconds, text, self.clear())

    def interrupt(self) -> None:
        """Tell it to end, as Ctrl-C would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)

    def clear(self) -> list[str]:
        """Wait a moment for what the ended stage left, kill the rest, and return its commands."""
        deadline = time.monotonic() + REST_SECONDS
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        found = list(left.values())
        while left:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            left = self.left()  # a process may have started another one meanwhile
        return found


def processes() -> Iterator[tuple[int, str]]:
    """Yield process id and command line of every process that lives; a zombie has none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(words):
                yield int(folder.name), b" ".join(words).decode(errors="replace").strip()


def session(pid: int) -> int:
    """Return the session of a process; 0 if the process is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def environment_of(pid: int) -> list[bytes]:
    """Return the environment that a process was started with; empty if it is not for us."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def say(text: str) -> None:
    """Print a line, at once."""
    print(text, flush=True)


def clock(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def ready(stage: Stage, pending: Sequence[str]) -> bool:
    """Say whether a stage may begin while others wait or run."""
    return stage.needs not in pending


def expected_seconds(stages: Sequence[Stage]) -> float:
    """Return how long all stages take: the plan played through."""
    waiting, ends, now = list(stages), dict[str, float](), 0.0
    while waiting or ends:
        pending = [stage.name for stage in waiting] + list(ends)
        for stage in [stage for stage in waiting if ready(stage, pending)][: LANES - len(ends)]:
            waiting.remove(stage)
            ends[stage.name] = now + stage.seconds
        first = min(ends, key=lambda name: ends[name])
        now = ends.pop(first)
    return now


def announce(stages: Sequence[Stage]) -> None:
    """Say what will be done, and how long it takes."""
    minutes = expected_seconds(stages) / 60
    say(f"{len(stages)} stages, {LANES} at a time: about {minutes:.0f} minutes on two quiet cores")
    for number, stage in enumerate(stages, 1):
        say(f"  {number} {stage.name:10}{clock(stage.seconds):>6}  {shlex.join(stage.command)}")
    say(f"A red stage stops no other one; all failures are summed up at the end. Logs: {LOGS}")


class Suite:
    """The stages on their way.

    Attributes:
        verdicts: of the stages that have ended, in that order.

    """

    def __init__(self, stages: Sequence[Stage], logs: Path) -> None:
        self.verdicts: list[Verdict] = []
        self._total = len(stages)
        self._waiting = list(stages)
        self._running: list[Running] = []
        self._logs = logs
        self._begun = self._shown = time.monotonic()

    def run(self) -> None:
        """Run all of them; on Ctrl-C end all of them.

        Raises:
            KeyboardInterrupt: somebody wants to stop.

        """
        try:
            while self._waiting or self._running:
                self._begin()
                time.sleep(0.1)
                self._collect()
                self._show_progress()
        finally:
            self._stop()

    def _begin(self) -> None:
        pending = [stage.name for stage in self._waiting]
        pending += [running.stage.name for running in self._running]
        able = [stage for stage in self._waiting if ready(stage, pending)]
        for stage in able[: LANES - len(self._running)]:
            self._waiting.remove(stage)
            say(f"{self._passed()}  begins {stage.name}")
            self._running.append(Running(stage, self._logs / f"{stage.name}.log"))

    def _collect(self) -> None:
        for running in [each for each in self._running if each.process.poll() is not None]:
            self._running.remove(running)
            self.verdicts.append(running.verdict())
            self._show(self.verdicts[-1], running.log)

    def _show(self, verdict: Verdict, log: Path) -> None:
        if verdict.red:
            say(f"\n{'-' * 20} what {verdict.name} said {'-' * 20}\n{text_of(log)}\n{'-' * 60}")
        number = f"stage {len(self.verdicts)} of {self._total}"
        say(f"{self._passed()}  ended {verdict.line()}  ({number})")

    def _show_progress(self) -> None:
        if time.monotonic() - self._shown < PROGRESS_SECONDS or not self._running:
            return
        self._shown = time.monotonic()
        parts = [f"{each.stage.name} {percent(text_of(each.log))}" for each in self._running]
        say(f"{self._passed()}  {len(self.verdicts)} of {self._total} ended; {', '.join(parts)}")

    def _passed(self) -> str:
        return clock(time.monotonic() - self._begun)

    def _stop(self) -> None:
        """End what runs: as Ctrl-C would, so that it cleans up, once more if need be; by force."""
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C does not wait
            for _ in range(FAREWELLS):
                self._bid_farewell()
        for running in self._running:
            running.process.kill()
            running.process.wait()
            self.verdicts.append(running.verdict())

    def _bid_farewell(self) -> None:
        alive = [running for running in self._running if running.process.poll() is None]
        for running in alive:
            running.interrupt()
        deadline = time.monotonic() + FAREWELL_SECONDS
        for running in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.0, deadline - time.monotonic()))


def percent(text: str) -> str:
    """Return how far pytest is by its own word; nothing where it has not said so."""
    _, found, after = text.rpartition("[")
    word = after.partition("]")[0].strip()
    return word if found and word.endswith("%") else "runs"


def sum_up(verdicts: Sequence[Verdict], seconds: float) -> None:
    """Print what was slow, what was left out, what failed, and pytest's closing line for all."""
    say("\nThe slowest tests:")
    for line in slowest(verdicts, 10):
        say(f"  {line}")
    for verdict in verdicts:
        for line in verdict.skipped:
            say(f"left out in {verdict.name}: {line}")
    say("\nStages:")
    for verdict in verdicts:
        say(f"  {verdict.line()}")
    for verdict in verdicts:
        if verdict.red:
            say(f"\nRed: {verdict.name}")
            for line in (*verdict.reasons(), f"again: {verdict.again()}"):
                say(f"  {line}")
    say(f"\n{closing_line(verdicts, seconds)}")


def interrupted(number: int, _frame: object) -> NoReturn:
    """Treat every signal to end like Ctrl-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def chosen(names: Sequence[str]) -> list[Stage]:
    """Return the stages of these names, or all that are meant for here."""
    in_ci = os.environ.get("CI") == "true"
    if names:
        return [stage for stage in STAGES if stage.name in names]
    return [stage for stage in STAGES if in_ci or not stage.only_in_ci]


def main(stages: Sequence[Stage], logs: Path = LOGS) -> int:
    """Run stages and return the exit code: 0 all green, 1 something red, 130 stopped."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # SIGINT is ignored by what `&` began
        signal.signal(number, interrupted)
    logs.mkdir(parents=True, exist_ok=True)
    announce(stages)
    suite, begun = Suite(stages, logs), time.monotonic()
    stopped = False
    try:
        suite.run()
    except KeyboardInterrupt:
        stopped = True
    sum_up(suite.verdicts, time.monotonic() - begun)
    if stopped:
        say("Stopped: the other stages were ended, and nothing of them runs any more.")
        return 130
    return 1 if any(verdict.red for verdict in suite.verdicts) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the tests, stage by stage.")
    parser.add_argument("stage", nargs="*", choices=[[], *(stage.name for stage in STAGES)])
    sys.exit(main(chosen(parser.parse_args().stage)))
