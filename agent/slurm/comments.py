"""Comments that Slurm's database keeps with jobs, in a field closed to users (AdminComment).

Seen with Slurm 22.05: a user is refused by `scontrol update`, by `sacctmgr modify job`, and at
submission; operators are not. `sacctmgr` changes the newest record of an id, so the last run of a
requeued job. It takes the number of an array for all its tasks, and that of a heterogeneous job for
all its components: 123_4 and 123+1 are one of them.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

from agent.slurm.accounting import Ask, run_command

COLUMNS = ("JobID", "JobIDRaw", "Start", "AdminComment")


class Comment(NamedTuple):
    """The comment on one run of a job; it may be empty.

    Attributes:
        jobid: as users write it.
        raw: the job's number.
        start_ms: when the run began, in milliseconds since 1970; 0 before.
        text: what stands there.

    """

    jobid: str
    raw: str
    start_ms: int
    text: str


def comments(jobid: str, ask: Ask = run_command) -> list[Comment]:
    """Return the comments on all runs of a job, or of all jobs of an array; only slurmdbd has them.

    Raises:
        SlurmUnreachable: sacct is not here, or slurmdbd does not answer.

    """
    delimiter = f"\x1f{os.urandom(8).hex()}\x1f"  # what others wrote there cannot hold it
    options = ("--noheader", "--allocations", "--duplicates", "--parsable")
    shape = (f"--delimiter={delimiter}", f"--format={','.join(COLUMNS)}")
    return parse(ask(["sacct", *options, *shape, f"--jobs={jobid}"]), delimiter)


def parse(text: str, delimiter: str) -> list[Comment]:
    """Return the comments of sacct's answer; a record of another shape is left out."""
    records = [record.split(delimiter) for record in text.split(f"{delimiter}\n")]
    whole = [record for record in records if len(record) == len(COLUMNS)]
    return [
        Comment(jobid, raw, int(start) * 1000 if start.isdigit() else 0, comment)
        for jobid, raw, start, comment in whole
    ]


def write_comment(jobid: str, text: str, ask: Ask = run_command) -> None:
    """Set the comment on the last run of a job; for operators of Slurm, among them SlurmUser.

    Args:
        jobid: 123, 123_4 or 123+1.
        text: of small letters, digits and few signs: sacctmgr keeps nothing else as it is.
        ask: how to run a command.

    Raises:
        SlurmUnreachable: sacctmgr is not here, slurmdbd does not answer, or it refuses.

    """
    command = ["sacctmgr", "--immediate", "modify", "job", "where", f"jobid={jobid}"]
    ask([*command, "set", f"AdminComment={text}"])


def last_of(found: Sequence[Comment], raw: str) -> Comment | None:
    """Return the comment on the last run of a job's number."""
    own = [comment for comment in found if comment.raw == raw]
    return own[-1] if own else None
