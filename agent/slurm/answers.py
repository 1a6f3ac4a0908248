"""What sacct and squeue print, as runs of jobs. No command is run here.

Both end each field with a delimiter of ours, and each record with a line end. The name of a job
comes last and may be anything, line ends included: only the delimiter, which its owner cannot have
known, tells where it ends.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from agent.slurm.hostlist import expand_hosts

SACCT_COLUMNS = (
    *("JobID", "JobIDRaw", "User", "Account", "Partition", "State", "NodeList", "AllocCPUS"),
    *("AllocTRES", "Submit", "Start", "End", "TimelimitRaw", "ExitCode", "Reason", "JobName"),
)
SQUEUE_COLUMNS = (
    *("JobID", "ArrayJobID", "ArrayTaskID", "HetJobID", "HetJobOffset", "UserName", "Account"),
    *("Partition", "State", "NodeList", "NumCPUs", "tres-alloc", "SubmitTime", "StartTime"),
    *("EndTime", "TimeLimit", "exit_code", "Reason", "restartcnt", "Name"),
)
PENDING = "PENDING"
GOES_ON = (PENDING, "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STAGE_OUT", "RESIZING")
NOTHING = ("(null)", "None", "Unknown", "N/A", "NONE", "Not Set")
YEAR_SECONDS = 365 * 86_400.0
"""What Slurm's backfill scheduler writes down as the limit of a job without any."""


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
        submit_ms: when it was queued, for a requeued run the requeue; 0 if unknown.
        restart: how often it was requeued before this run.
        expected_start_ms: when Slurm means to start a pending job; 0 if it does not say.
        memory_bytes: allocated on all its nodes; 0 if unknown.

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
    submit_ms: int = 0
    restart: int = 0
    expected_start_ms: int = 0
    memory_bytes: float = 0.0


def from_sacct(text: str, delimiter: str) -> list[SlurmJob]:
    """Return the jobs of sacct's answer."""
    return [_from_sacct(row) for row in _rows(text, delimiter, SACCT_COLUMNS)]


def from_squeue(text: str, delimiter: str) -> list[SlurmJob]:
    """Return the jobs of squeue's answer."""
    return [_from_squeue(row) for row in _rows(text, delimiter, SQUEUE_COLUMNS)]


def _rows(text: str, delimiter: str, columns: Sequence[str]) -> list[Mapping[str, str]]:
    """Return the records by column; one with fewer fields, of another version, is left out."""
    records = [record.split(delimiter) for record in text.split(f"{delimiter}\n")]
    whole = [record for record in records if len(record) == len(columns)]
    return [dict(zip(columns, record, strict=True)) for record in whole]


def _from_sacct(row: Mapping[str, str]) -> SlurmJob:
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
        hosts=hosts_of(row["NodeList"]),
        cpus=_whole(row["AllocCPUS"]),
        gpus=gpus_of(row["AllocTRES"]),
        start_ms=_milliseconds(row["Start"]) or 0,
        end_ms=end,
        time_limit_seconds=_limit(_whole(row["TimelimitRaw"]) * 60.0),
        exit_code=exit_code(row["ExitCode"]) if end else None,
        reason=_known(row["Reason"]) if state == PENDING else "",
        submit_ms=_milliseconds(row["Submit"]) or 0,
        memory_bytes=memory_of(row["AllocTRES"]),
    )


def _from_squeue(row: Mapping[str, str]) -> SlurmJob:
    state = row["State"]
    pending, ended = state == PENDING, state not in GOES_ON
    start = _milliseconds(row["StartTime"]) or 0
    return SlurmJob(
        jobid=_squeue_id(row),
        raw=row["JobID"],
        user=row["UserName"],
        account=_known(row["Account"]),
        partition=row["Partition"],
        name=row["Name"],
        state=state,
        hosts=hosts_of(_known(row["NodeList"])),
        cpus=_whole(row["NumCPUs"]),
        gpus=gpus_of(row["tres-alloc"]),
        start_ms=0 if pending else start,
        end_ms=_milliseconds(row["EndTime"]) if ended else None,
        time_limit_seconds=_limit(_clock_seconds(row["TimeLimit"])),
        exit_code=exit_code(row["exit_code"]) if ended else None,
        reason=_known(row["Reason"]) if pending else "",
        submit_ms=_milliseconds(row["SubmitTime"]) or 0,
        restart=_whole(row["restartcnt"]),
        expected_start_ms=start if pending else 0,
        memory_bytes=memory_of(row["tres-alloc"]),
    )


def _squeue_id(row: Mapping[str, str]) -> str:
    if task := _known(row["ArrayTaskID"]):
        return f"{row['ArrayJobID']}_{task if task.isdigit() else f'[{task}]'}"
    if het := _known(row["HetJobID"]):
        return f"{het}+{row['HetJobOffset']}"
    return row["JobID"]


def hosts_of(nodes: str) -> list[str]:
    """Return the hosts of `n[1-3,7]`; none for a pending job, and for what is no list of nodes."""
    if "assigned" in nodes:
        return []
    try:
        return expand_hosts(nodes)
    except ValueError:
        return []


def gpus_of(tres: str) -> int:
    """Return the GPUs of `cpu=4,gres/gpu=2,gres/gpu:a100=2`: the total where it is given."""
    counts = _counts(tres)
    if "gres/gpu" in counts:
        return _whole(counts["gres/gpu"])
    return sum(_whole(count) for name, count in counts.items() if name.startswith("gres/gpu:"))


def memory_of(tres: str) -> float:
    """Return the bytes of `cpu=4,mem=1000M`; 0 without memory, and for what is not written so."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", _counts(tres).get("mem", ""))
    return float(match[1]) * 1024.0 ** " KMGTP".index(match[2] or " ") if match else 0.0


def _counts(tres: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in tres.split(",") if "=" in part)


def exit_code(text: str) -> int | None:
    """Return the code of `code:signal`, or of a wait status; 128 + N for signal N.

    squeue prints the status that wait(2) gave, sacct the two parts of it.
    """
    code, _, signal = text.partition(":")
    if not code.isdigit():
        return None
    number, killed = int(code), _whole(signal)
    if not signal:
        number, killed = number >> 8, number & 0x7F
    return 128 + killed if killed else number


def _known(text: str) -> str:
    return "" if text in NOTHING else text


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _milliseconds(text: str) -> int | None:
    return _whole(text) * 1000 or None


def _limit(seconds: float | None) -> float | None:
    return seconds if seconds and seconds < YEAR_SECONDS else None


def _clock_seconds(text: str) -> float | None:
    """Return the seconds of `D-HH:MM:SS`, the front of which may be absent; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
