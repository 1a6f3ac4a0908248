"""The agent's unix sockets: datagrams in, who sent them known from the kernel.

A socket's queue is short, and whoever fills it deafens it for all others. So root and everybody who
has a job here reach the agent by sockets of their own, which the kernel lets nobody else write to:

    DIRECTORY/root.sock        root, and the agent's own user: prolog, epilog, commands
    DIRECTORY/users/UID.sock   the user with that id, while a job of his runs here
    DIRECTORY/agent.sock       everybody; read last, and no more than so often a second
"""

import errno
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.client import reachable, ways
from agent.config import ConfigError
from agent.messages import LARGEST, Message, Reply, decode
from agent.quota import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, TOO_MANY, Bucket

log = logging.getLogger("rooflight.loop")

NOBODY = 65534

_CREDENTIALS = struct.Struct("3i")  # struct ucred of `man 7 unix`: pid, uid, gid

_UNNAMED = re.compile(rb"\0[0-9a-f]{5}")
"""The address that Linux gives to a socket without a name (`man 7 unix`, autobind)."""

_ACL = "system.posix_acl_access"

Allow = Callable[[int, int], bool]
"""Whether a message of this user, of so many bytes, may be decoded."""


class Received(NamedTuple):
    """A datagram: the message, or the words that say why it is none."""

    message: Message | None
    words: str
    uid: int
    sender: bytes | str | None


def allow_all(uid: int, size: int) -> bool:
    """Allow every message."""
    return True


class AgentSocket:
    """Listens on a path.

    Args:
        path: of the socket; what is there is replaced.
        mode: who may write to it.
        allow: asked before a message is decoded.
        budget: how often it may be read; None for always.

    Raises:
        ConfigError: it cannot be made there.

    """

    def __init__(
        self,
        path: Path,
        mode: int = 0o666,
        allow: Allow = allow_all,
        budget: Bucket | None = None,
    ) -> None:
        self.path = path
        self._allow = allow
        self._budget = budget
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            self._bind(mode)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"{path}: no socket can be made there: {error.strerror}; set agent.socket"
            ) from error

    def _bind(self, mode: int) -> None:
        _make_folder(self.path.parent, 0o755)
        self.path.unlink(missing_ok=True)  # of an agent that was killed; the spool's lock is held
        with reachable(str(self.path)) as address:
            self._socket.bind(address)
        self.path.chmod(mode)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def is_spent(self) -> bool:
        """Tell whether it was read as often as its budget allows."""
        return self._budget is not None and not self._budget.has(1)

    def receive(self) -> Received | None:
        """Return the next datagram, charged to the budget, or None if there is none."""
        try:
            data, ancillary, flags, sender = self._socket.recvmsg(
                LARGEST, socket.CMSG_SPACE(_CREDENTIALS.size)
            )
        except BlockingIOError:
            return None
        if self._budget:
            self._budget.take(1)
        uid = _uid(ancillary)
        if not self._allow(uid, len(data)):
            return Received(None, TOO_MANY, uid, None)
        if flags & socket.MSG_TRUNC:
            return Received(None, f"longer than {LARGEST} bytes", uid, sender)
        try:
            return Received(decode(data), "", uid, sender)
        except ValueError as error:
            return Received(None, str(error), uid, sender)

    def answer(self, received: Received, reply: Reply) -> None:
        """Answer a sender that waits for it; one that is gone or deaf is not waited for.

        A sender with a name gets no answer: a path may have become that of another socket since,
        even of this one.
        """
        if received.sender and is_unnamed(received.sender):
            with suppress(OSError):
                self._socket.sendto(msgspec.json.encode(reply), received.sender)

    def close(self) -> None:
        """Stop listening and remove the path."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Listeners:
    """All sockets of an agent.

    Args:
        path: of everybody's; the others are beside it.
        allow: asked before a message of a user is decoded.
        monotonic: a clock in seconds.

    """

    def __init__(
        self, path: Path, allow: Allow, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._allow = allow
        self._monotonic = monotonic
        self._users: dict[int, AgentSocket] = {}
        self._open_to_all = False
        self.everybody = AgentSocket(path, 0o666, allow, self._budget())
        self.root = AgentSocket(self._of_user(0), 0o600)
        self._has_own = self._prepare(self._of_user(1).parent)

    def __iter__(self) -> Iterator[AgentSocket]:
        return iter((self.root, *self._users.values(), self.everybody))

    def admit(self, uid: int) -> AgentSocket | None:
        """Return a new socket for a user whose job begins; None if he has one, or is root."""
        if not self._has_own or uid in (0, os.geteuid(), *self._users):
            return None
        try:
            own = AgentSocket(self._of_user(uid), 0o600, self._allow, self._budget())
        except (ConfigError, OSError) as error:  # a full disk, say: everybody's is left
            log.warning("no socket for user %d: %s", uid, error)
            return None
        if not give_to(own.path, uid) and not self._open_to_all:
            log.warning("%s: no access control lists here; users can deafen each other", own.path)
            self._open_to_all = True
        self._users[uid] = own
        return own

    def of_user(self, uid: int) -> AgentSocket | None:
        """Return a user's own socket, if he has one."""
        return self._users.get(uid)

    def dismiss(self, uid: int) -> AgentSocket | None:
        """Return the socket of a user whose last job has ended, to be read out and closed."""
        return self._users.pop(uid, None)

    def close(self) -> None:
        """Close all sockets."""
        for each in self:
            each.close()

    def _prepare(self, folder: Path) -> bool:
        """Make the folder of users' sockets; False if others could change what is in it."""
        try:
            _make_folder(folder, 0o711)
            status = folder.lstat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise PermissionError(errno.EPERM, "others may write to it")
            for left in folder.glob("*.sock"):  # by an agent that was killed
                left.unlink()
        except OSError as error:
            log.warning("%s: %s; users can deafen each other", folder, error.strerror)
            return False
        return True

    def _of_user(self, uid: int) -> Path:
        return Path(ways(str(self._path), uid)[0])

    def _budget(self) -> Bucket:
        return Bucket(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, self._monotonic)


def is_unnamed(sender: bytes | str) -> bool:
    """Tell whether an address is one that Linux made up, which nobody else can have."""
    return isinstance(sender, bytes) and _UNNAMED.fullmatch(sender) is not None


def give_to(path: Path, uid: int) -> bool:
    """Let one user write to a socket, and nobody else but root and us; False if all may now.

    Source: `man 5 acl`, and include/uapi/linux/posix_acl_xattr.h for the form.
    """
    with suppress(OSError):
        os.chown(path, uid, -1, follow_symlinks=False)
        return True
    try:
        os.setxattr(path, _ACL, access_list(uid), follow_symlinks=False)
    except OSError:
        path.chmod(0o666)
        return False
    return True


def access_list(uid: int) -> bytes:
    """Return an access control list: owner and one user may read and write, all others nothing."""
    owner, user, group, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    nobody_named = 0xFFFFFFFF
    entries = (
        (owner, 6, nobody_named),
        (user, 6, uid),
        (group, 0, nobody_named),
        (mask, 6, nobody_named),
        (other, 0, nobody_named),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _make_folder(folder: Path, mode: int) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(mode)  # whatever the umask is: users must come through


def _uid(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the sender's user id as the kernel vouches for it; nobody's if it does not."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1])
    return NOBODY
