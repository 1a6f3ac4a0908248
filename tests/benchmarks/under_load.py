"""A machine that is busy: stress-ng on all CPUs and on the disk; and the agent's priority there."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.accounting import cpu_seconds
from tests.benchmarks.contenders import REPOSITORY

COMMAND = ("stress-ng", "--cpu", "0", "--io", "2", "--hdd", "1", "--hdd-bytes", "64m")
"""As many workers on the CPUs as there are, two that call sync(2), one that writes and reads."""

UNIT = REPOSITORY / "deploy/systemd/rooflight-agent.service"
SCHEDULING = ("Nice", "CPUWeight", "CPUSchedulingPolicy", "CPUSchedulingPriority")


@dataclass(frozen=True, slots=True)
class Priority:
    """What the unit file says of the agent's share of the CPUs: setting -> value."""

    settings: dict[str, str]

    @property
    def niceness(self) -> int:
        """What this benchmark gives to the agent: negative ones only root may."""
        told = int(self.settings.get("Nice", "0"))
        return told if told > 0 or os.geteuid() == 0 else 0

    def __str__(self) -> str:
        given = f"the agent at niceness {self.niceness}"
        if not self.settings:
            return f"{given}, because its unit file sets no priority"
        told = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{given}; its unit file says {told}"


def unit_priority(unit: Path = UNIT) -> Priority:
    """Return what a unit file says (systemd.exec(5), systemd.resource-control(5))."""
    lines = (line.partition("=") for line in unit.read_text().splitlines())
    return Priority({name: value.strip() for name, _, value in lines if name in SCHEDULING})


@dataclass(slots=True)
class Stress:
    """stress-ng that runs."""

    process: subprocess.Popen[bytes]
    begun: float
    used: float

    def share(self) -> float:
        """Return which part of all CPUs it got so far.

        Raises:
            RuntimeError: it has ended.

        """
        if self.process.poll() is not None:
            raise RuntimeError(f"stress-ng ended with {self.process.returncode}")
        used = cpu_seconds(self.process.pid) - self.used
        return used / (time.monotonic() - self.begun) / (os.cpu_count() or 1)


@contextlib.contextmanager
def stress(folder: Path) -> Iterator[Stress]:
    """Keep the machine busy; files go into `folder`."""
    process = subprocess.Popen(
        [*COMMAND, "--temp-path", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        time.sleep(1.0)  # its workers begin
        yield Stress(process, time.monotonic(), cpu_seconds(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
