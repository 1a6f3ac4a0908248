"""What Slurm knows of a job: from slurmdbd (sacct), or from slurmctld's memory (scontrol).

Source: `man 1 sacct`, `man 1 scontrol`. SLURM_TIME_FORMAT=%s makes both print seconds since 1970.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

SEPARATOR = "\x1f"  # sacct prints job names as they are: no printable character is safe
COLUMNS = (
    *("JobID", "JobIDRaw", "User", "Account", "Partition", "State", "NodeList", "NNodes"),
    *("AllocCPUS", "AllocTRES", "Submit", "Start", "End", "TimelimitRaw", "ExitCode", "Reason"),
    "JobName",
)
TIMEOUT_SECONDS = 10.0
PENDING = "PENDING"

Ask = Callable[[Sequence[str]], str]
"""Runs a command of Slurm and returns what it prints."""

JOBID = re.compile(r"(\d+)(_\d+|\+\d+)?")
"""What Slurm's users write: 123, 123_4 (array), 123+1 (heterogeneous)."""


class SlurmUnreachable(Exception):
    """Slurm's commands are not here or do not answer; the message carries their words."""


class SlurmJob(msgspec.Struct, frozen=True):
    """One run of one job, array task, or component of a heterogeneous job.

    Attributes:
        jobid: as users write it: 123, 123_4, 123+1.
        raw: the number that prolog, cgroup and store know it by.
        state: Slurm's word, without what follows it ("CANCELLED by 0").
        hosts: names of its nodes.
        start_ms: milliseconds since 1970; 0 while it is pending.
        end_ms: milliseconds since 1970; None until it ended.
        time_limit_seconds: None without a limit.
        exit_code: 128 + N for signal N; None until it ended.
        reason: why it is pending.

    """

    jobid: str
    raw: str
    user: str
    account: str
    partition: str
    name: str
    state: str
    hosts: Sequence[str]
    cpus: int
    gpus: int
    start_ms: int
    end_ms: int | None
    time_limit_seconds: float | None
    exit_code: int | None
    reason: str


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
        raise SlurmUnreachable(f"{command[0]}: {words or done.returncode}")
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
    try:
        recorded = from_sacct(ask(sacct_command(jobid)), ask)
    except SlurmUnreachable as disabled:
        try:
            return _remembered(jobid, ask)
        except SlurmUnreachable as error:
            raise SlurmUnreachable(f"{disabled}; {error}") from error
    try:
        return fresher(recorded, _remembered(jobid, ask))
    except SlurmUnreachable:
        return recorded


def _remembered(jobid: str, ask: Ask) -> list[SlurmJob]:
    """Return what slurmctld has in memory: jobs that wait, run, or ended some minutes ago."""
    try:
        return from_scontrol(ask(["scontrol", "-o", "show", "job", jobid]), ask)
    except SlurmUnreachable as error:
        if "Invalid job id" in str(error):
            return []
        raise


def fresher(recorded: Sequence[SlurmJob], remembered: Sequence[SlurmJob]) -> list[SlurmJob]:
    """Return slurmdbd's runs, those that slurmctld remembers in its words: the other lags."""
    newest = {job.raw: job for job in remembered}  # a task may still stand there as its array

    def is_stale(run: SlurmJob) -> bool:
        known = newest.get(run.raw)
        return known is not None and (run.end_ms is None or run.start_ms == known.start_ms)

    return [*(run for run in recorded if not is_stale(run)), *remembered]


def sacct_command(jobid: str) -> list[str]:
    """Return the question to slurmdbd: allocations only, earlier runs of requeued jobs too."""
    return [
        *("sacct", "--noheader", "--allocations", "--duplicates", "--parsable2"),
        *(f"--delimiter={SEPARATOR}", f"--format={','.join(COLUMNS)}", f"--jobs={jobid}"),
    ]


def from_sacct(text: str, ask: Ask) -> list[SlurmJob]:
    """Return the jobs of sacct's answer; a line of another shape is part of a job's name."""
    rows = [line.split(SEPARATOR) for line in text.split("\n")]
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows if len(row) == len(COLUMNS)]
    return [_from_sacct_row(row, ask) for row in found]


def _from_sacct_row(row: Mapping[str, str], ask: Ask) -> SlurmJob:
    state = row["State"].split(" ")[0]
    end = _milliseconds(row["End"])
    return SlurmJob(
        jobid=row["JobID"],
        raw=row["JobIDRaw"],
        user=row["User"],
        account=row["Account"],
        partition=row["Partition"],
        name=row["JobName"],
        state=state,
        hosts=expand(row["NodeList"], ask),
        cpus=_whole(row["AllocCPUS"]),
        gpus=gpus_of(row["AllocTRES"]),
        start_ms=_milliseconds(row["Start"]) or 0,
        end_ms=end,
        time_limit_seconds=_minutes(row["TimelimitRaw"]),
        exit_code=exit_code(row["ExitCode"]) if end else None,
        reason=row["Reason"] if state == PENDING else "",
    )


def from_scontrol(text: str, ask: Ask) -> list[SlurmJob]:
    """Return the jobs of `scontrol -o show job`: one line each."""
    return [_from_scontrol_line(line, ask) for line in text.split("\n") if "JobId=" in line]


def _from_scontrol_line(line: str, ask: Ask) -> SlurmJob:
    """Parse `Key=value Key=value`; the name alone may hold spaces, and stands before UserId."""
    name = re.search(r" JobName=(.*?) UserId=", line)
    rest = line if name is None else line[: name.start()] + " UserId=" + line[name.end() :]
    row = dict(re.findall(r"(\S+?)=(\S*)", rest))
    state = row.get("JobState", "UNKNOWN")
    ended = state not in (PENDING, "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING")
    return SlurmJob(
        jobid=_scontrol_id(row),
        raw=row["JobId"],
        user=row.get("UserId", "").split("(")[0],
        account=_known(row.get("Account", "")),
        partition=row.get("Partition", ""),
        name=name[1] if name else "",
        state=state,
        hosts=expand(_known(row.get("NodeList", "")), ask),
        cpus=_whole(row.get("NumCPUs", "")),
        gpus=gpus_of(row.get("TRES", "")),
        start_ms=0 if state == PENDING else _milliseconds(row.get("StartTime", "")) or 0,
        end_ms=_milliseconds(row.get("EndTime", "")) if ended else None,
        time_limit_seconds=_clock_seconds(row.get("TimeLimit", "")),
        exit_code=exit_code(row.get("ExitCode", "")) if ended else None,
        reason=row.get("Reason", "") if state == PENDING else "",
    )


def _scontrol_id(row: Mapping[str, str]) -> str:
    if row.get("ArrayTaskId", "").isdigit():
        return f"{row['ArrayJobId']}_{row['ArrayTaskId']}"
    if "HetJobId" in row:
        return f"{row['HetJobId']}+{row.get('HetJobOffset', '0')}"
    return row["JobId"]


def expand(nodes: str, ask: Ask) -> list[str]:
    """Return the hosts of `n[1-3,7]`; Slurm itself expands what has brackets."""
    if not nodes or "assigned" in nodes:
        return []
    if "[" not in nodes:
        return nodes.split(",")
    return ask(["scontrol", "show", "hostnames", nodes]).split()


def gpus_of(tres: str) -> int:
    """Return the GPUs of `cpu=4,gres/gpu=2,gres/gpu:a100=2`: the total where it is given."""
    counts = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    if "gres/gpu" in counts:
        return _whole(counts["gres/gpu"])
    return sum(_whole(count) for name, count in counts.items() if name.startswith("gres/gpu:"))


def exit_code(text: str) -> int | None:
    """Return the code of `code:signal`; 128 + N for signal N."""
    code, _, signal = text.partition(":")
    if not code.isdigit():
        return None
    return 128 + int(signal) if signal.isdigit() and int(signal) else int(code)


def latest(runs: Iterable[SlurmJob]) -> list[SlurmJob]:
    """Return the last run of each job: earlier ones were requeued."""
    last = {run.jobid: run for run in runs}
    return list(last.values())


def _known(text: str) -> str:
    return "" if text in ("(null)", "None", "Unknown") else text


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _milliseconds(text: str) -> int | None:
    return int(text) * 1000 if text.isdigit() and int(text) else None


def _minutes(text: str) -> float | None:
    return float(text) * 60 if text.isdigit() else None


def _clock_seconds(text: str) -> float | None:
    """Return the seconds of `D-HH:MM:SS`; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
