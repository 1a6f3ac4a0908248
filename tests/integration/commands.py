"""Run the real commands as a user would."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.weather import PATIENCE

BIN = Path(sys.executable).parent
NO_SLURM = '[slurm]\nnode = "a-node-without-jobs"'
"""Settings of an agent that follows none of the jobs that other tests run on Slurm meanwhile."""


@dataclass(frozen=True)
class Site:
    """A configuration in a folder of its own, and the commands that use it."""

    folder: Path
    text: str = ""
    agent: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1
    cwd: Path | None = None
    programs: Path = BIN

    @property
    def file(self) -> Path:
        file = self.folder / "rooflight.toml"
        if not file.exists():
            agent = f'[agent]\nstate_directory = "state"\nflush_seconds = 0.2\n{self.agent}\n'
            slurm = "" if "[slurm]" in self.text else NO_SLURM
            file.write_text(f'cluster = "test"\nhost = "node1"\n{self.text}\n{agent}{slurm}\n')
        return file

    def variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "ROOFLIGHT_CONFIG": str(self.file)}

    def call(self, command: str, *arguments: str, check: int | None = 0) -> str:
        done = self.complete(command, *arguments)
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done.stdout

    def complete(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / command, *arguments],
            env=self.variables(),
            umask=self.umask,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def start(
        self, command: str, *arguments: str, group: bool = False, as_unit: bool = False
    ) -> subprocess.Popen[str]:
        """Start a command.

        Args:
            group: in a process group of its own, as a terminal's are.
            as_unit: with the precedence that our unit gives the agent.

        """
        process = subprocess.Popen(
            [self.programs / command, *arguments],
            env=self.variables(),
            umask=self.umask,
            cwd=self.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
            start_new_session=as_unit,
        )
        if as_unit and os.geteuid() == 0:
            give_precedence(process.pid)
        return process

    def report(self, jobid: str = "last") -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.call("jobinspect", jobid, "--json"))
        return report


def give_precedence(pid: int) -> None:
    """Let a process go first, as Nice=-5 and CPUWeight=500 do: also among sessions (sched(7))."""
    os.setpriority(os.PRIO_PROCESS, pid, -5)
    with contextlib.suppress(OSError):  # a kernel without groups by session
        Path(f"/proc/{pid}/autogroup").write_text("-7")  # a weight of 4.8: see sched_prio_to_weight


def usage(report: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the line of the first node's utilisation table."""
    lines = [line for line in report["nodes"][0]["usage"] if line["what"] == what]
    assert len(lines) == 1, f"{what}: {lines}"
    found: dict[str, Any] = lines[0]
    return found
