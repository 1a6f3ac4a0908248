"""What Slurm knows of a job: from slurmdbd (sacct), or from slurmctld's memory (squeue).

Source: `man 1 sacct`, `man 1 squeue`. SLURM_TIME_FORMAT=%s makes both print seconds since 1970.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from agent.slurm.answers import (
    SACCT_COLUMNS,
    SQUEUE_COLUMNS,
    SlurmJob,
    from_sacct,
    from_squeue,
)

__all__ = ["Ask", "SlurmJob", "SlurmUnreachable", "jobs", "jobs_of", "latest", "run_command"]

TIMEOUT_SECONDS = 10.0
REQUEUE_MS = 10 * 60_000
"""How long after the end of a run the requeued one may be queued."""

Ask = Callable[[Sequence[str]], str]
"""Runs a command of Slurm and returns what it prints."""

JOBID = re.compile(r"(\d+)(_\d+|\+\d+)?")
"""What Slurm's users write: 123, 123_4 (array), 123+1 (heterogeneous)."""


class SlurmUnreachable(Exception):
    """Slurm's commands are not here or do not answer; the message carries their words."""


def run_command(command: Sequence[str]) -> str:
    """Run one of Slurm's commands.

    Raises:
        SlurmUnreachable: it is not here, takes too long, or fails.

    """
    if shutil.which(command[0]) is None:
        raise SlurmUnreachable(f"{command[0]} is not on PATH")
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmUnreachable(f"{command[0]} does not answer") from error
    words = done.stderr.decode(errors="replace").strip()
    if done.returncode != 0 or "accounting storage is disabled" in words:
        last = words.splitlines()[-1] if words else str(done.returncode)
        raise SlurmUnreachable(f"{command[0]}: {last.removeprefix(f'{command[0]}: ')}")
    return done.stdout.decode(errors="replace")


def jobs(jobid: str, ask: Ask = run_command) -> list[SlurmJob]:
    """Return every run of a job, oldest first: all tasks of an array, all components, requeues.

    Args:
        jobid: 123, 123_4 or 123+1.
        ask: how to run a command.

    Raises:
        SlurmUnreachable: neither slurmdbd nor slurmctld answers.

    """
    if not JOBID.fullmatch(jobid):
        return []
    asked = (f"--jobs={jobid}",)
    found = _from_either(lambda: _recorded(asked, ask), lambda: _remembered(asked, ask))
    if jobid.isdigit():
        return found
    return [job for job in found if job.jobid == jobid]  # squeue gives all components at once


def jobs_of(user: str, since_ms: int, ask: Ask = run_command) -> list[SlurmJob]:
    """Return the runs of a user's jobs that waited or ran since a moment, oldest first.

    Without slurmdbd those that slurmctld remembers.

    Raises:
        SlurmUnreachable: neither slurmdbd nor slurmctld answers.

    """
    whose = f"--user={user}"
    recorded = (whose, f"--starttime={_sacct_time(since_ms)}")
    found = _from_either(lambda: _recorded(recorded, ask), lambda: _remembered((whose,), ask))
    recent = [job for job in found if job.end_ms is None or job.end_ms >= since_ms]
    return sorted(recent, key=lambda job: job.submit_ms)


Source = Callable[[], list[SlurmJob]]


def _from_either(recorded: Source, remembered: Source) -> list[SlurmJob]:
    """Return what slurmdbd and slurmctld say together, or one of them if the other does not."""
    try:
        known = recorded()
    except SlurmUnreachable as disabled:
        try:
            return remembered()
        except SlurmUnreachable as error:
            raise SlurmUnreachable(f"{disabled}; {error}") from error
    try:
        return fresher(known, remembered())
    except SlurmUnreachable:
        return known


def _recorded(asked: Sequence[str], ask: Ask) -> list[SlurmJob]:
    """Return what slurmdbd has: allocations only, earlier runs of requeued jobs too."""
    delimiter = _delimiter()
    columns = ",".join(SACCT_COLUMNS)
    options = ("--noheader", "--allocations", "--duplicates", "--parsable")
    answer = ask(["sacct", *options, f"--delimiter={delimiter}", f"--format={columns}", *asked])
    return numbered(from_sacct(answer, delimiter))


def _remembered(asked: Sequence[str], ask: Ask) -> list[SlurmJob]:
    """Return what slurmctld has in memory: jobs that wait, run, or ended some minutes ago."""
    delimiter = _delimiter()
    columns = ",".join(f"{column}:{delimiter}" for column in SQUEUE_COLUMNS)
    options = ("--noheader", "--all", "--states=all")
    try:
        answer = ask(["squeue", *options, f"--Format={columns}", *asked])
    except SlurmUnreachable as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return from_squeue(answer, delimiter)


def _delimiter() -> str:
    """Return what no job's name can hold: the name is anything, lines of our own form included."""
    return f"\x1f{os.urandom(8).hex()}\x1f"


def _sacct_time(moment_ms: int) -> str:
    """Return a moment as sacct reads it: whole seconds in this machine's time zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment_ms / 1000))


def fresher(recorded: Sequence[SlurmJob], remembered: Sequence[SlurmJob]) -> list[SlurmJob]:
    """Return slurmdbd's runs, those that slurmctld remembers in its words: the other lags."""
    newest = {job.raw: job for job in remembered}  # a task may still stand there as its array

    def is_stale(run: SlurmJob) -> bool:
        known = newest.get(run.raw)
        return known is not None and (run.end_ms is None or run.start_ms == known.start_ms)

    return [*(run for run in recorded if not is_stale(run)), *remembered]


def numbered(runs: Iterable[SlurmJob]) -> list[SlurmJob]:
    """Return slurmdbd's runs with how often each was requeued, which it does not say.

    A requeued run is queued when the one before it ends. Between two jobs that got the same id,
    because ids were used up, lies more time.
    """
    found: list[SlurmJob] = []
    last: dict[str, SlurmJob] = {}
    for run in runs:
        before = last.get(run.jobid)
        again = before is not None and run.submit_ms - (before.end_ms or 0) <= REQUEUE_MS
        restart = before.restart + 1 if before is not None and again else 0
        last[run.jobid] = msgspec.structs.replace(run, restart=restart)
        found.append(last[run.jobid])
    return found


def latest(runs: Iterable[SlurmJob]) -> list[SlurmJob]:
    """Return the last run of each job: earlier ones were requeued."""
    last = {run.jobid: run for run in runs}
    return list(last.values())
