"""A server that stands in for a DCGM exporter."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Exporter:
    """Serves a page of metrics on a port of its own, and an error while there is none.

    Attributes:
        page: what is served; None for an error.
        requests: how often it was asked for.

    """

    def __init__(self, page: str) -> None:
        self.page: str | None = page
        self.requests = 0
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter.requests += 1
                self.send_response(200 if exporter.page is not None else 500)
                self.end_headers()
                self.wfile.write((exporter.page or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
