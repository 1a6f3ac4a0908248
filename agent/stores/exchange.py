"""One exchange with a server: bounded in time and in bytes, whatever the server does.

The connections here are urllib3's, and influxdb_client's pool takes them as well. An answer is read
as a whole, as far as its bound lets it be, before anybody sees it. So no caller can wait for
ever, or be given more than it has room for.
"""

import io
import threading
import time
import zlib
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from probes.timedhttp import TimedResponse

_PIECE = 1 << 16
_GZIP = 31
"""The window of `zlib`, and gzip's frame around it."""


class Exchange:
    """The bounds of what this thread asks while `with` lasts.

    Args:
        seconds: for all of it: connecting, sending, and the answer to its last byte.
        most_bytes: of an answer; one byte more is read, by which a longer one is known.

    """

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> "Exchange":
        """Begin."""
        _here.exchange = self
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        del _here.exchange

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() >= self._deadline

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none.

        """
        if (seconds := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return seconds


class _Here(threading.local):
    exchange: Exchange


_here = _Here()


class _Answer(TimedResponse):
    def left(self) -> float:
        return _here.exchange.left()


class BoundedConnection(HTTPConnection):
    """A connection whose requests are parts of an `Exchange`."""

    response_class = _Answer

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        """Send within what is left of the time."""
        if self.sock is not None:
            self.sock.settimeout(_here.exchange.left())
        super().send(data)

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ANN401
        """Send a request whose answer is not read before `getresponse` bounds it."""
        super().request(method, url, *args, **{**options, "preload_content": False})

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Return an answer that is whole, or longer than its bound by a byte."""
        answer = super().getresponse()
        most = _here.exchange.most_bytes
        body = _read(answer, most + 1)
        if len(body) > most:
            self.close()
        if answer.headers.get("Content-Encoding", "").lower() == "gzip":
            body = _expanded(body, most + 1)
        return HTTPResponse(
            io.BytesIO(body),
            answer.headers,
            answer.status,
            version=answer.version,
            reason=answer.reason,
            decode_content=False,
            enforce_content_length=False,  # it was, where it could be
        )

    def _new_conn(self) -> Any:  # noqa: ANN401 - a socket, in words of each version's own
        """Connect, and leave what is left of the time to TLS."""
        self.timeout = _here.exchange.left()
        sock = super()._new_conn()
        sock.settimeout(_here.exchange.left())
        return sock


class BoundedTlsConnection(BoundedConnection, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = BoundedConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = BoundedTlsConnection


def bounded(pool: PoolManager) -> PoolManager:
    """Return the pool, with connections that heed an `Exchange`."""
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pool


def _read(answer: HTTPResponse, most: int) -> bytes:
    body = bytearray()
    while len(body) < most and (
        piece := answer.read(min(_PIECE, most - len(body)), decode_content=False)
    ):
        body += piece
    return bytes(body)


def _expanded(body: bytes, most: int) -> bytes:
    """Return as much of a gzipped body as there may be; itself if it is none."""
    try:
        return zlib.decompressobj(_GZIP).decompress(body, most)
    except zlib.error:
        return body
