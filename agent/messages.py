"""What prolog, epilog, `rooflight run` and phase marks say to the agent, as JSON datagrams."""

import re
from typing import Annotated, Literal

import msgspec

LARGEST = 60_000
"""Bytes of a datagram that the agent takes."""

JOBID = re.compile(r"[0-9A-Za-z_.+-]{1,64}")
"""What a job id looks like; anything else is refused, because ids become file names."""

JobId = Annotated[str, msgspec.Meta(pattern=f"^{JOBID.pattern}$")]


class JobStart(msgspec.Struct, frozen=True, tag="job_start", forbid_unknown_fields=True):
    """A job begins on this host.

    Attributes:
        pid: root of the job's process tree, or 0 if only its cgroup is known.
        gpus: its GPUs, as Slurm and CUDA name them (positions in Slurm's list, indices, UUIDs);
            None for all of this host.
        gpus_by_use: it is not known which it was given: those on which its processes run are its.
        cpus: CPUs that it may use; 0 for all of this host.
        start_ms: milliseconds since 1970.
        node: this host's name in Slurm; `nodes` are all of the job, as `n[1-2]`.
        het_jobid: of a component of a heterogeneous job, the id of the whole.

    """

    jobid: JobId
    start_ms: int
    pid: int = 0
    uid: int = 0
    user: str = ""
    account: str = ""
    partition: str = ""
    name: str = ""
    command: str = ""
    gpus: tuple[str, ...] | None = None
    gpus_by_use: bool = False
    cpus: float = 0.0
    restart: int = 0
    source: Literal["local", "slurm"] = "local"
    node: str = ""
    nodes: str = ""
    het_jobid: str = ""
    cgroup_v2: str = ""
    cgroup_v1: dict[str, str] = {}


class JobEnd(msgspec.Struct, frozen=True, tag="job_end", forbid_unknown_fields=True):
    """A job ended on this host; `exit_code` is 128 + N for signal N."""

    jobid: JobId
    exit_code: int = 0


TOLD = ("phase", "ceiling")
"""Measurements that a program may report by itself; all others the agent measures."""


class PointMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One point that a program measured: of a measurement in `TOLD`."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | str]
    time_ms: int


class Points(msgspec.Struct, frozen=True, tag="points", forbid_unknown_fields=True):
    """Points of a program that runs in a job."""

    points: list[PointMessage]


class Ping(msgspec.Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    """Ask whether the agent is there."""


Message = JobStart | JobEnd | Points | Ping


class Reply(msgspec.Struct, frozen=True):
    """The agent's answer, sent only to those who wait for one."""

    ok: bool
    words: str = ""


_decoder = msgspec.json.Decoder(Message)


def decode(data: bytes) -> Message:
    """Return the message.

    Raises:
        ValueError: it is not one; the words say why.

    """
    message: Message = _decoder.decode(data)
    return message
