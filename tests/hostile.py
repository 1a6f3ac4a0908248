"""An HTTP server that means harm, or is broken: each mode is an answer that no client expects.

It speaks on the socket itself, because no library would send what it sends.
"""

import contextlib
import gzip
import select
import socket
import threading
import time
from collections.abc import Callable

PIECE = bytes(1 << 16)
BOMB = gzip.compress(bytes(200 << 20), 9)
"""200 MiB of zeros in 200 kB."""

PAGE = b"<html><body>Please log in</body></html>"


class Hostile:
    """A server that takes a request as `mode` says; `good` stores lines and answers 204.

    Attributes:
        url: where it listens.
        mode: `good`, or one of `MODES`.
        stored: the bodies that `good` took, gunzipped.
        seen: the whole head of each request.
        period: seconds between the bytes of what is slow.

    """

    def __init__(self, period: float = 0.05) -> None:
        self.mode = "good"
        self.period = period
        self.stored: list[bytes] = []
        self.seen: list[bytes] = []
        self._ending = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # for `deaf`
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listener.close()

    def _serve(self) -> None:
        talks = []
        while not self._ending.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                connection, _ = self._listener.accept()
                talks.append(threading.Thread(target=self._talk, args=(connection,)))
                talks[-1].start()
        for talk in talks:
            talk.join()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(5)
            while not self._ending.is_set():
                if select.select([connection], [], [], 0.02)[0]:
                    if self.mode == "deaf":
                        self._read_slowly(connection)
                        return
                    head, body = _request(connection)
                    self.seen.append(head)
                    if self.mode in TAKEN:
                        connection.sendall(TAKEN[self.mode])
                        continue
                    if self.mode != "good":
                        MODES[self.mode](self, connection)
                        return
                    self.stored.append(gzip.decompress(body))
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _read_slowly(self, connection: socket.socket) -> None:
        while not self._ending.is_set() and connection.recv(1):
            time.sleep(self.period)

    def slowly(self, connection: socket.socket, text: bytes) -> None:
        for byte in text:
            if self._ending.is_set():
                return
            connection.sendall(bytes([byte]))
            time.sleep(self.period)

    def endlessly(self, connection: socket.socket, piece: bytes, most: int = 1 << 40) -> None:
        for _ in range(most // len(piece)):
            if self._ending.is_set():
                return
            connection.sendall(piece)


def _request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return head and body of a request; a ValueError where the client has hung up."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        if not piece:
            raise ValueError("no request")
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    wanted = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    length = int(wanted[0].partition(b":")[2]) if wanted else 0
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def _says(text: bytes) -> Callable[[Hostile, socket.socket], None]:
    """Say this, and hang up."""
    return lambda server, connection: connection.sendall(text)


def answer(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def _answers(status: str, body: bytes, *headers: str) -> Callable[[Hostile, socket.socket], None]:
    return _says(answer(status, body, *headers, "Connection: close"))


def _endless(server: Hostile, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    server.endlessly(connection, PIECE)


def _endless_error(server: Hostile, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.endlessly(connection, b"10000\r\n" + PIECE + b"\r\n")


def _endless_headers(server: Hostile, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 204 No Content\r\n")
    server.endlessly(connection, b"X: " + b"y" * 60_000 + b"\r\n")


def _endless_continue(server: Hostile, connection: socket.socket) -> None:
    server.endlessly(connection, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def _large(server: Hostile, connection: socket.socket) -> None:
    size = 100 << 20
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    server.endlessly(connection, PIECE, size)


def _slow_headers(server: Hostile, connection: socket.socket) -> None:
    server.slowly(connection, b"HTTP/1.1 204 No Content\r\n")
    server.slowly(connection, b"X: y\r\n" * 10_000)


def _slow_body(server: Hostile, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    server.slowly(connection, b"{" + b" " * 99_999)


def _silent(server: Hostile, connection: socket.socket) -> None:
    connection.recv(1)


MODES: dict[str, Callable[[Hostile, socket.socket], None]] = {
    "endless": _endless,
    "endless_error": _endless_error,
    "endless_headers": _endless_headers,
    "endless_continue": _endless_continue,
    "large": _large,
    "slow_headers": _slow_headers,
    "slow_body": _slow_body,
    "silent": _silent,
    "bomb": _answers("200 OK", BOMB, "Content-Encoding: gzip"),
    "bomb_error": _answers("500 Oh", BOMB, "Content-Encoding: gzip"),
    "html": _answers("200 OK", PAGE, "Content-Type: text/html; charset=utf-8"),
    "html_empty": _answers("200 OK", b"", "Content-Type: text/html"),
    "html_created": _answers("201 Created", PAGE),
    "text": _answers("200 OK", b"OK", "Content-Type: text/plain"),
    "list": _answers("200 OK", b"[]", "Content-Type: application/json"),
    "json_error": _answers("200 OK", b'{"error":"database not found"}'),
    "json_error_2": _answers("200 OK", b'{"code":"invalid","message":"no"}'),
    "accepted": _answers("202 Accepted", b""),
    "partial": _answers("206 Partial Content", b"{}"),
    "switch": _says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: close\r\n\r\n"),
    "moved": _answers("302 Found", PAGE, "Location: http://localhost:1/write"),
    "moved_same": _answers("307 Temporary Redirect", b"", "Location: /login"),
    "half_body": _says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
    "half_empty": _says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
    "half_chunk": _says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}"),
    "no_last_chunk": _says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "half_headers": _says(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "no_end_of_headers": _says(b"HTTP/1.1 200 OK\r\nServer: x\r\n"),
    "half_status": _says(b"HTTP/1.1 204"),
    "empty": _says(b""),
    "garbage": _says(b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n"),
    "old": _says(b"<html>what is HTTP?</html>\r\n"),
    "escape": _answers("403 No", '{"error":"\x1b]0;x\x07 \u202e\x9b"}'.encode()),
    "deaf": _silent,
}
"""All but `deaf`, which does not read, take a request first."""

LATE = ("slow_headers", "slow_body", "silent", "deaf")
"""Modes that go on until the client has had enough."""

TAKEN: dict[str, bytes] = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a body": answer("204 No Content", b"surplus"),
    "200 without one": answer("200 OK", b""),
    "200 with JSON": answer("200 OK", b'{"status":"ok"}', "Content-Type: application/json"),
    "201": answer("201 Created", b""),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzipped": answer("200 OK", gzip.compress(b"{}"), "Content-Encoding: gzip"),
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
}
"""Answers by which a database says that it has the lines; modes too."""
