"""A bare machine in a temporary folder, to which a test adds the files it is about."""

from pathlib import Path

from probes.probe import Context
from probes.roots import Roots
from tests.golden.machine import SteppedClock


class BareMachine:
    """Folders proc and sys, and a clock.

    Attributes:
        context: what a probe of this machine gets.
        clock: the context's clock.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SteppedClock()
        roots = Roots(folder / "proc", folder / "sys", folder / "cgroup", folder / "run")
        self.context = Context(roots=roots, monotonic=self.clock)

    def write(self, path: str, text: str) -> None:
        """Write a file, the path below the machine's top; its folders are made."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
