"""Speak to the agent's socket. Light enough for a prolog: no import beyond messages."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from agent.messages import LARGEST, Message, PointMessage, Points, Reply
from probes.sample import Sample
from rooflight._wire import jobid_of, socket_of, ways

__all__ = [
    "ENVIRONMENT",
    "ask",
    "jobid_of",
    "reachable",
    "send",
    "send_points",
    "socket_of",
    "ways",
]

ENVIRONMENT = "ROOFLIGHT_SOCKET"
"""Set by `rooflight run` for the job's programs."""

LONGEST_PATH = 107
"""Bytes of a socket's path (`man 7 unix`: sun_path)."""


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """Give a name of the socket that fits its address: a long one goes through its folder.

    Raises:
        OSError: the folder is not there.

    """
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def send(path: str, message: Message) -> bool:
    """Send without waiting for an answer; False if no agent listens or its queue is full."""
    with _connection() as connection:
        connection.setblocking(False)
        try:
            _send_to(connection, path, message)
        except OSError:
            return False
    return True


def ask(path: str, message: Message, timeout_seconds: float = 2.0) -> Reply | None:
    """Send and wait for the answer; None if no agent answers in time."""
    with _connection() as connection:
        connection.settimeout(timeout_seconds)
        connection.bind("")  # Linux gives an abstract address to answer to
        try:
            _send_to(connection, path, message)
            return msgspec.json.decode(connection.recv(LARGEST), type=Reply)
        except (OSError, msgspec.DecodeError):
            return None


def _connection() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _send_to(connection: socket.socket, path: str, message: Message) -> None:
    """Send by the first way that is there.

    Raises:
        OSError: no agent listens, or its queue is full.

    """
    data = msgspec.json.encode(message)
    own, everybodys = ways(path, os.getuid())
    try:
        with reachable(own) as address:
            connection.sendto(data, address)
    except (FileNotFoundError, PermissionError, ConnectionRefusedError):
        with reachable(everybodys) as address:
            connection.sendto(data, address)


def send_points(
    points: Sequence[tuple[Sample, int]], environment: Mapping[str, str] = os.environ
) -> bool:
    """Hand samples with their times (ms since 1970) to the agent of this job.

    Returns:
        False if the program does not run under an agent, or the agent does not listen.

    """
    path = socket_of(environment)
    messages = [
        PointMessage(sample.measurement, dict(sample.tags), dict(sample.fields), time_ms)
        for sample, time_ms in points
    ]
    return bool(path) and all(send(path, Points(part)) for part in _parts(messages))


def _parts(messages: list[PointMessage], most: int = 20) -> Iterator[list[PointMessage]]:
    """Cut into datagrams that fit."""
    for start in range(0, len(messages), most):
        yield messages[start : start + most]
