"""Many agents' connections to one server, written to on schedule by one cheap loop.

Every writer keeps its connection open, as the agent does. The schedule is kept whatever the server
does: a write is timed from when it was due, so that a queue shows. A writer whose last write has
no answer yet sends the next one when it has. Requests are ready before the first is due.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

PATIENCE_SECONDS = 30.0
"""How long answers are waited for after the last write was due; then they count as failed."""

TAKEN = b"204"


class Turn(NamedTuple):
    """What one writer sends at one moment, one request after the other.

    Attributes:
        due: seconds after the begin.
        writer: its number.
        requests: heads and bodies.

    """

    due: float
    writer: int
    requests: tuple[bytes, ...]


@dataclass(slots=True)
class Sent:
    """What became of the writes.

    Attributes:
        latencies: seconds from when each was due to its answer.
        failed: that were refused, or not answered at all.
        words: of the server on the first that it refused.
        seconds: from the begin to the last answer.
        cpu_seconds: that this process took meanwhile.

    """

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    words: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Writers:
    """Connections to a server on this machine, and what waits for an answer on each.

    A connection is opened when it is first needed, and anew if the server closed it meanwhile.
    """

    def __init__(self, port: int, count: int) -> None:
        self._address = ("127.0.0.1", port)
        self._waiting: list[deque[tuple[float, bytes]]] = [deque() for _ in range(count)]
        self._sockets: dict[int, socket.socket] = {}
        self._writers: dict[int, int] = {}
        self._poll = select.epoll()
        self._open = 0
        self._sent = Sent()

    def write(self, turns: Sequence[Turn], patience: float = PATIENCE_SECONDS) -> Sent:
        """Send what is due when it is due, the turns sorted by that."""
        self._sent, begin = Sent(), time.perf_counter()
        used = time.process_time()
        for turn in turns:
            self._answers(begin + turn.due)
            self._take(turn, begin)
        self._drain(begin + (turns[-1].due if turns else 0.0) + patience)
        self._sent.failed += sum(map(len, self._waiting))
        self._sent.seconds = time.perf_counter() - begin
        self._sent.cpu_seconds = time.process_time() - used
        return self._sent

    def close(self) -> None:
        """Close all connections."""
        for each in self._sockets.values():
            each.close()
        self._poll.close()

    def _take(self, turn: Turn, begin: float) -> None:
        waiting = self._waiting[turn.writer]
        idle = not waiting
        waiting.extend((begin + turn.due, request) for request in turn.requests)
        self._open += len(turn.requests)
        if idle and waiting:
            self._send(turn.writer)

    def _send(self, writer: int) -> None:
        """Send the first request that waits; the kernel's buffers take all but the largest."""
        if writer not in self._sockets:
            connection = socket.create_connection(self._address, timeout=10)
            self._sockets[writer] = connection
            self._writers[connection.fileno()] = writer
            self._poll.register(connection, select.EPOLLIN)
        self._sockets[writer].sendall(self._waiting[writer][0][1])

    def _answers(self, until: float) -> None:
        """Handle answers until a moment, and at least those that are there."""
        while True:
            left = until - time.perf_counter()
            for file, _ in self._poll.poll(max(0.0, left)):
                self._answered(self._writers[file])
            if left <= 0:
                return

    def _drain(self, until: float) -> None:
        while self._open and time.perf_counter() < until:
            for file, _ in self._poll.poll(0.1):
                self._answered(self._writers[file])

    def _answered(self, writer: int) -> None:
        answer = self._sockets[writer].recv(1 << 16)
        waiting = self._waiting[writer]
        if not answer:
            self._closed(writer)
            return
        due, _ = waiting.popleft()
        self._open -= 1
        self._sent.latencies.append(time.perf_counter() - due)
        if answer[9:12] != TAKEN:  # after "HTTP/1.1 "
            self._sent.failed += 1
            self._sent.words = self._sent.words or answer.decode(errors="replace")
        if waiting:
            self._send(writer)

    def _closed(self, writer: int) -> None:
        if self._waiting[writer]:
            raise ConnectionError("the server closed a connection instead of an answer")
        connection = self._sockets.pop(writer)
        self._poll.unregister(connection)
        connection.close()


@contextmanager
def writers(port: int, count: int) -> Iterator[Writers]:
    """Give so many writers to a server on this machine."""
    opened = Writers(port, count)
    try:
        yield opened
    finally:
        opened.close()
