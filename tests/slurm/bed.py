"""A real Slurm on this machine, made by bed.sh, and jobs on it."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.integration.commands import BIN
from tests.integration.services import Missing
from tests.weather import PATIENCE

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("bed.sh")
FOLDER = Path("/run/rooflight-bed")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "srun")
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}

STARTS = 20
"""How many starts of a shell and an interpreter a hook may take beside what it waits for."""

# what the site's prolog and epilog are on the bed: ours, with the time that it took, and that of a
# shell and an interpreter that do nothing, just afterwards
HOOK = """\
#!/bin/bash
export ROOFLIGHT_HOOK_CONF={folder}/settings
begun=${{EPOCHREALTIME/./}}
{script}
code=$? ended=${{EPOCHREALTIME/./}}
/bin/bash -c '/usr/bin/python3 -I -S -c pass; exit'
nothing=$((${{EPOCHREALTIME/./}} - ended))
echo "{name} $SLURM_JOB_ID $code $((ended - begun)) $nothing" >>{folder}/times
"""


@dataclass(frozen=True)
class HookTime:
    """One call of a hook, as Slurm made it.

    Attributes:
        nothing: seconds that a shell and an interpreter took just afterwards to do nothing.

    """

    name: str
    jobid: str
    exit_code: int
    seconds: float
    nothing: float

    def is_within(self, limit: float) -> bool:
        """Say whether it took so many seconds at most, its start and end on this machine apart."""
        return self.seconds < limit + STARTS * self.nothing


@dataclass(frozen=True)
class Bed:
    """The cluster `bed`: nodes bed1 to bed4 of 2 CPUs and 4 GPU device files each."""

    folder: Path

    @property
    def hooks(self) -> Path:
        return self.folder / "hooks"

    @property
    def controller(self) -> Path:
        """Where the controller's hook has its settings and its times: it is not root's."""
        return self.hooks / "controller"

    @property
    def results(self) -> Path:
        """Where jobs may write."""
        return self.folder / "results"

    def variables(self) -> dict[str, str]:
        return {**ENVIRONMENT, "SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def run(self, *command: str, user: str | None = None) -> str:
        done = subprocess.run(
            command,
            env=self.variables(),
            cwd="/",
            user=user,
            group="nogroup" if user else None,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *options: str, command: str, user: str | None = "nobody") -> str:
        """Submit a batch job of one shell command, and return its id; root's without a user."""
        words = ("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={command}")
        return self.run(*words, user=user)

    def state(self, jobid: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={jobid}")

    def wait_for_state(self, jobid: str, *states: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.state(jobid) not in states:
            assert time.monotonic() < deadline, f"job {jobid} is {self.state(jobid)}"
            time.sleep(0.05)

    def wait(self, jobid: str) -> None:
        """Wait for the end of a job, its epilogs included."""
        self.wait_for_state(jobid, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")

    def elapsed_seconds(self, jobid: str) -> float:
        """Return what Slurm says; it counts whole seconds."""
        asked = ("squeue", "--noheader", "--states=all", "--format=%S %e", f"--jobs={jobid}")
        start, end = (datetime.fromisoformat(word) for word in self.run(*asked).split())
        return (end - start).total_seconds()

    def node_states(self) -> set[str]:
        return set(self.run("sinfo", "--noheader", "--Node", "--format=%T").split())

    def settings(self, text: str) -> None:
        """Write the hooks' settings, below where this checkout has its programs."""
        common = (
            f"export ROOFLIGHT_HOME={BIN.parent} ROOFLIGHT_HOOK={REPOSITORY}/agent/slurm/hook.py\n"
        )
        (self.hooks / "settings").write_text(common + text)

    @contextmanager
    def configured(self, line: str) -> Iterator[None]:
        """Add a line to slurm.conf for a while."""
        before = (self.folder / "etc" / "slurm.conf").read_text()
        try:
            self._configure(f"{before}{line}\n")
            yield
        finally:
            self._configure(before)

    def _configure(self, text: str) -> None:
        """Put another slurm.conf in place at once: slurmd ends if it reads half of one."""
        file = self.folder / "etc" / "slurm.conf"
        new = file.with_suffix(".new")
        new.write_text(text)
        new.replace(file)
        self.run("scontrol", "reconfigure")

    def hook_times(self, jobid: str, folder: Path | None = None) -> list[HookTime]:
        """Return the calls for a job, of the nodes' hooks or of those in another folder."""
        text = ((folder or self.hooks) / "times").read_text()
        lines = [line.split() for line in text.splitlines()]
        return [
            HookTime(name, job, int(code), int(took) / 1e6, int(nothing) / 1e6)
            for name, job, code, took, nothing in lines
            if job == jobid
        ]


@contextmanager
def bed(folder: Path = FOLDER) -> Iterator[Bed]:
    """Give the running cluster; nothing of it is left afterwards.

    Raises:
        Missing: a program of Slurm is not here, or this is not root.

    """
    if os.geteuid() != 0:
        raise Missing("Slurm's daemons need root")
    for program in PROGRAMS:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            raise Missing(f"{program} is not installed")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its ports and control groups are there once
        yield from _brought_up(folder)


def _brought_up(folder: Path) -> Iterator[Bed]:
    cluster = Bed(folder)
    hooks = {f"{name.upper()}": _hook(cluster.hooks, name) for name in ("prolog", "epilog")}
    hooks["EPILOGSLURMCTLD"] = _hook(cluster.controller, "epilogslurmctld")
    shutil.chown(cluster.controller, "slurm")
    cluster.results.mkdir()
    cluster.results.chmod(0o1777)
    environment = {**ENVIRONMENT, **hooks, "BED": str(folder)}
    subprocess.run([SCRIPT, "up"], env=environment, check=True, timeout=PATIENCE)
    try:
        yield cluster
    finally:
        subprocess.run([SCRIPT, "down"], env=environment, check=True, timeout=PATIENCE)


def _hook(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    hook = folder / name
    script = REPOSITORY / "deploy" / "slurm" / f"{name}.sh"
    hook.write_text(HOOK.format(folder=folder, script=script, name=name))
    hook.chmod(0o755)
    return str(hook)
