"""Fixture machines: copies of them to work on, and their clock."""

import shutil
from pathlib import Path

from probes.roots import Roots

MACHINES = Path(__file__).parent / "machines"


class SteppedClock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def copy_machine(machine: str, to: Path) -> Roots:
    shutil.copytree(MACHINES / machine, to, ignore=shutil.ignore_patterns("later"))
    return Roots(proc=to / "proc", sys=to / "sys", cgroup=to / "cgroup", run=to / "run")


def later_files(machine: str, copy: Path) -> None:
    """Lay the machine's later state over a copy of it."""
    later = MACHINES / machine / "later"
    if later.exists():
        shutil.copytree(later, copy, dirs_exist_ok=True)
