"""A socket as the agent has it, for tests of what programs tell."""

import socket
from pathlib import Path

from agent.messages import PointMessage, Points, decode


class Listener:
    """Takes what programs tell, and keeps the points."""

    def __init__(self, path: Path) -> None:
        self.datagrams = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def received(self) -> list[PointMessage]:
        """Return all points since the last call."""
        points: list[PointMessage] = []
        while True:
            try:
                message = decode(self._socket.recv(65536))
            except BlockingIOError:
                return points
            assert isinstance(message, Points)
            self.datagrams += 1
            points += message.points

    def phases(self) -> dict[str, PointMessage]:
        """Return the last point of each phase since the last call."""
        return {point.tags["phase"]: point for point in self.received()}

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()
