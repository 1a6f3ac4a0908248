"""An answer by HTTP that ends in time, and whose head is short, whatever the server sends.

The time limit of a socket is for each single read: a server that sends a byte now and then is never
too late. Here every read has what is left of the whole answer's time.
"""

import http.client
import io
import math
import socket
from collections.abc import Callable
from typing import IO, cast

LONGEST_HEAD = 1 << 16
"""Bytes of status and headers."""


class _Timed(io.RawIOBase):
    """What comes from a socket, each read within what is left of the time."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._raw = raw
        self._socket = sock
        self._left = left

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, into: bytearray | memoryview) -> int | None:  # type: ignore[override]
        """Read what has come.

        Raises:
            TimeoutError: nothing came in time.

        """
        self._socket.settimeout(self._left())
        return self._raw.readinto(into)

    def close(self) -> None:
        """Close what is read from."""
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Lines that are not endless, and that tell whether the last one was whole.

    Attributes:
        room: bytes that may still come.
        whole: whether the last line had its end.

    """

    room: float = math.inf
    whole = True

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line.

        Raises:
            http.client.LineTooLong: there is no room for it.

        """
        line = super().readline(-1 if size is None else size)
        self.room -= len(line)
        if self.room < 0:
            raise http.client.LineTooLong("head of an answer")
        self.whole = line.endswith(b"\n")
        return line


class TimedResponse(http.client.HTTPResponse):
    """An answer that comes in time, with a whole head, or not at all."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        raw = cast(IO[bytes], self.fp.detach())
        self.fp = self._lines = _Lines(_Timed(cast(io.RawIOBase, raw), sock, self.left))

    def left(self) -> float:
        """Return the seconds that are left for the answer.

        Raises:
            TimeoutError: none.

        """
        raise NotImplementedError

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.IncompleteRead: it was cut off, which the library takes for its end.

        """
        self._lines.room = LONGEST_HEAD
        super().begin()
        if not self._lines.whole:
            raise http.client.IncompleteRead(b"")
        self._lines.room = math.inf
