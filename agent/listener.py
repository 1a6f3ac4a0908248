"""The agent's unix socket: datagrams in, who sent them known from the kernel."""

import socket
import struct
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.client import reachable
from agent.messages import LARGEST, Message, Reply, decode

_CREDENTIALS = struct.Struct("3i")  # struct ucred of `man 7 unix`: pid, uid, gid


class Received(NamedTuple):
    """A datagram: the message, or the words that say why it is none."""

    message: Message | None
    words: str
    uid: int
    sender: bytes | str | None


class AgentSocket:
    """Listens on a path; every user of the machine may send, the agent decides what counts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # left by an agent that was killed; the spool's lock is held
        self.path = path
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with reachable(str(path)) as address:
            self._socket.bind(address)
        path.chmod(0o666)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def receive(self) -> Received | None:
        """Return the next datagram, or None if there is none."""
        try:
            data, ancillary, flags, sender = self._socket.recvmsg(
                LARGEST, socket.CMSG_SPACE(_CREDENTIALS.size)
            )
        except BlockingIOError:
            return None
        uid = _uid(ancillary)
        if flags & socket.MSG_TRUNC:
            return Received(None, f"longer than {LARGEST} bytes", uid, sender)
        try:
            return Received(decode(data), "", uid, sender)
        except ValueError as error:
            return Received(None, str(error), uid, sender)

    def answer(self, received: Received, reply: Reply) -> None:
        """Answer a sender that has an address; one that is gone or deaf is not waited for."""
        if not received.sender:
            return
        try:
            self._socket.sendto(msgspec.json.encode(reply), received.sender)
        except OSError:
            return

    def close(self) -> None:
        """Stop listening and remove the path."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


def _uid(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the sender's user id as the kernel vouches for it; nobody's if it does not."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1])
    return 65534
