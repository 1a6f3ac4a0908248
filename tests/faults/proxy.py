"""A proxy between agent and store that can be told to misbehave."""

import contextlib
import gzip
import http.client
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.weather import PATIENCE

SLOW_SECONDS = 0.2
LARGEST_BYTES = 1000
"""What a request may have under `limit`: less than one tick, gzipped."""

BOMB = gzip.compress(bytes(100 << 20), 9)
"""100 MiB in 100 kB."""

_POISONED = re.compile(rb"^cpu,.*[24]0$", re.MULTILINE)
"""Lines that `poison` refuses: of the measurement cpu, some ticks (their times end so)."""

_SENT_BACK = ("Content-Type", "X-Influxdb-Version", "Retry-After")


def is_poisoned(line: bytes) -> bool:
    """Tell whether `poison` refuses a line."""
    return _POISONED.fullmatch(line) is not None


class Proxy:
    """Passes requests on to a port of this machine, or does what `mode` says.

    Attributes:
        url: where it listens.
        mode: `pass`, one of `MODES`, or the HTTP status to answer with.
        seen: requests by what was done with them.

    """

    def __init__(self, target_port: int) -> None:
        self.mode: str | int = "pass"
        self.seen: dict[str, int] = {}
        self.target_port = target_port
        self._server: _Server | None = None
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.proxy = self
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def behave(self, mode: str | int) -> None:
        """Do from now on what `mode` says; `refuse` is to listen no more."""
        self.mode = mode
        if mode == "refuse":
            self.stop()
        elif self._server is None:
            self.start()

    def upstream(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        """Return the store's answer to a request; 502 if it has none, as proxies say."""
        connection = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=PATIENCE)
        headers = {name: value for name, value in handler.headers.items() if name != "Host"}
        try:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 502, b"<html>Bad Gateway</html>"
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        proxy, mode = self.server.proxy, self.server.proxy.mode
        proxy.seen[str(mode)] = proxy.seen.get(str(mode), 0) + 1
        length = int(self.headers.get("Content-Length") or 0)
        if mode in ("cut", "refuse"):  # `refuse`: a connection from before
            self.rfile.read(length // 2)
            self.drop()
            return
        body = self.rfile.read(length)
        if isinstance(mode, int):
            retry = {"Retry-After": "1"} if mode in (429, 503) else {}
            self.answer(mode, b'{"error":"as the test wants it"}', retry)
        else:
            MODES.get(mode, _pass)(self, body)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.close()

    def handle(self) -> None:
        # the client may have gone, or `drop` have closed the connection
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _pass(handler: _Handler, body: bytes) -> None:
    handler.answer(*handler.server.proxy.upstream(handler, body))


def _hang(handler: _Handler, body: bytes) -> None:
    """Take the request and say nothing, until the trouble is over; then it is too late."""
    while handler.server.proxy.mode == "hang":
        time.sleep(0.02)
    handler.drop()


def _slow(handler: _Handler, body: bytes) -> None:
    """Take time for it, and send the answer in small pieces."""
    time.sleep(SLOW_SECONDS)
    status, answer = handler.server.proxy.upstream(handler, body)
    text = f"HTTP/1.1 {status} Slowly\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer
    for start in range(0, len(text), 16):
        handler.wfile.write(text[start : start + 16])
        time.sleep(SLOW_SECONDS / 20)


def _half_close(handler: _Handler, body: bytes) -> None:
    """Let the store have it, and lose the answer: the agent cannot know."""
    handler.server.proxy.upstream(handler, body)
    handler.connection.shutdown(socket.SHUT_WR)
    handler.close_connection = True


def _garbage(handler: _Handler, body: bytes) -> None:
    handler.wfile.write(b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n")
    handler.drop()


def _endless(handler: _Handler, body: bytes) -> None:
    """Let the store have it, and answer without end."""
    handler.server.proxy.upstream(handler, body)
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    while handler.server.proxy.mode == "endless":
        handler.wfile.write(b" " * 65536)
    handler.drop()


def _trickle(handler: _Handler, body: bytes) -> None:
    """Let the store have it, and answer a byte at a time, for as long as the trouble lasts."""
    handler.server.proxy.upstream(handler, body)
    handler.wfile.write(b"HTTP/1.1 204 No Content\r\nX: ")
    while handler.server.proxy.mode == "trickle":
        handler.wfile.write(b"y")
        time.sleep(SLOW_SECONDS / 10)
    handler.drop()


def _bomb(handler: _Handler, body: bytes) -> None:
    handler.answer(200, BOMB, {"Content-Encoding": "gzip", "Content-Type": "application/json"})


def _page(handler: _Handler, body: bytes) -> None:
    """Answer as a proxy does that wants somebody to log in."""
    handler.answer(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})


def _half(handler: _Handler, body: bytes) -> None:
    """Let the store have it, and break off in the middle of the answer."""
    handler.server.proxy.upstream(handler, body)
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
    handler.close_connection = True


def _limit(handler: _Handler, body: bytes) -> None:
    if len(body) > LARGEST_BYTES:
        handler.answer(413, b'{"error":"Request Entity Too Large"}')
    else:
        _pass(handler, body)


def _poison(handler: _Handler, body: bytes) -> None:
    """Refuse a batch with a bad line as a whole, as 2.x does, and do not say which it was."""
    if _POISONED.search(gzip.decompress(body)):
        told = {"code": "invalid", "message": "bad timestamp"}
        handler.answer(400, json.dumps(told).encode())
    else:
        _pass(handler, body)


MODES: dict[str, Callable[[_Handler, bytes], None]] = {
    "hang": _hang,
    "slow": _slow,
    "half_close": _half_close,
    "garbage": _garbage,
    "endless": _endless,
    "trickle": _trickle,
    "bomb": _bomb,
    "page": _page,
    "half": _half,
    "limit": _limit,
    "poison": _poison,
}
"""Beside `pass`, `refuse` and `cut`."""
