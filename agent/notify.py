"""Tell systemd how the agent is (`man 3 sd_notify`); nothing happens outside systemd."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state to the socket named by $NOTIFY_SOCKET.

    Attributes:
        watchdog_seconds: how often systemd wants a sign of life, or None if it does not ask.
        is_heard: whether this is a service of systemd's that tells how it is.

    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.is_heard = bool(self._address)
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() else None

    def ready(self, status: str) -> None:
        """Say that the agent samples, with a line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def waiting(self, status: str, seconds: float) -> None:
        """Say what the agent waits for before it can sample, and that it may take so long."""
        self._send(f"STATUS=waiting: {status}\nEXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def alive(self) -> None:
        """Give the sign of life."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the agent ships what it has and ends."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@name" is the abstract namespace
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.connect(address)
            connection.send(state.encode())
