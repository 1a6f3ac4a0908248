"""Where the agent listens, and what it is sent: JSON datagrams, by hand.

Neither `json` nor `socket` is imported: both take longer than all that is done here, and a program
may have a `json.py` of its own. The other end is `agent/messages.py`; a test holds them together.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator, Mapping, Sequence

    Point = tuple[Mapping[str, str], float, int, int]
    """Tags, seconds, calls, and the first start in milliseconds since 1970."""

SYSTEM_SOCKET = "/run/rooflight/agent.sock"
LONGEST_PATH = 107
"""Bytes of a socket's path (`man 7 unix`: sun_path)."""

MOST_POINTS = 20
"""Of a datagram."""

FULL = (errno.EAGAIN, errno.ENOBUFS)
"""The agent is there, and its queue is full: nobody waits for it."""

LONGEST_RANK = 20

_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 0x22, 0x5C)}


def socket_of(environment: Mapping[str, str]) -> str:
    """Return the socket of the agent that watches this program's job; empty if there is no job."""
    system = SYSTEM_SOCKET if "SLURM_JOB_ID" in environment else ""
    return environment.get("ROOFLIGHT_SOCKET") or system


def jobid_of(environment: Mapping[str, str]) -> str:
    """Return the job that this program belongs to, "none" if it runs outside of any."""
    return environment.get("ROOFLIGHT_JOBID") or environment.get("SLURM_JOB_ID") or "none"


def rank(environment: Mapping[str, str]) -> str:
    """Return "rank N" for one of several processes that torchrun or srun began on this host.

    Ranks begin a phase at the same time; without this, one would overwrite the other.
    """
    number = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID")
    return f"rank {number[:LONGEST_RANK]}" if number else ""


def ways(path: str, uid: int) -> tuple[str, str]:
    """Return the sockets by which a user reaches the agent: first the one of his own."""
    own = "root.sock" if uid == 0 else f"users/{uid}.sock"
    return (os.path.join(os.path.dirname(path), own), path)


def points(told: Sequence[Point]) -> Iterator[bytes]:
    """Yield datagrams of 20 points at most."""
    for start in range(0, len(told), MOST_POINTS):
        inside = ",".join(_point(*point) for point in told[start : start + MOST_POINTS])
        yield f'{{"type":"points","points":[{inside}]}}'.encode("utf-8", "replace")


def send(path: str, datagram: bytes) -> bool:
    """Send without waiting; False if nobody listens, the queue is full, or nothing can be sent."""
    try:
        from _socket import AF_UNIX, SOCK_DGRAM, socket

        connection = socket(AF_UNIX, SOCK_DGRAM)
        try:
            connection.setblocking(False)
            return _sent(connection, ways(path, os.getuid()), datagram)
        finally:
            connection.close()
    except (ImportError, OSError):  # no descriptor left, or somebody closed ours
        return False


def _sent(connection: socket, where: Sequence[str], datagram: bytes) -> bool:
    for address in where:
        try:
            _send_to(connection, address, datagram)
        except OSError as error:
            if error.errno in FULL:
                return False
        else:
            return True
    return False


def _send_to(connection: socket, path: str, datagram: bytes) -> None:
    """Send; a path that is too long for an address goes through its folder."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        connection.sendto(datagram, path)
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.sendto(datagram, f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _point(tags: Mapping[str, str], seconds: float, calls: int, time_ms: int) -> str:
    named = ",".join(f"{_quoted(name)}:{_quoted(text)}" for name, text in tags.items())
    fields = f'"duration_seconds":{seconds!r},"calls_total":{calls}.0,"bound":"unknown"'
    return f'{{"measurement":"phase","tags":{{{named}}},"fields":{{{fields}}},"time_ms":{time_ms}}}'


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
