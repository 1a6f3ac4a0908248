"""Real servers on loopback, each with its data in a temporary folder."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

START_SECONDS = 20.0
DROP_IN = Path(__file__).parents[2] / "deploy" / "influxdb" / "rooflight.conf"


class Missing(Exception):
    """The server's program is not on PATH."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """One server process that can be paused, killed and started again on the same data."""

    def __init__(
        self, command: list[str], port: int, log: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        program = shutil.which(command[0])
        if program is None:
            raise Missing(f"{command[0]} is not installed")
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command = [program, *command[1:]]
        self._log = log
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the service was never started"
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = self._spawn(log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start: {self._log.read_text()}")
            time.sleep(0.05)

    def pause(self) -> None:
        """Stop the server, and wait until each of its threads has: a signal takes a moment."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + START_SECONDS
        while not self._stopped():
            assert time.monotonic() < deadline, f"{self._command[0]} does not stop"
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._signal(signal.SIGTERM)
            self._wait()

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**own, **self._settings}
        return subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status in (200, 204)
        except OSError:
            return False
        finally:
            connection.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the service was never started"
        self._process.send_signal(number)

    def _stopped(self) -> bool:
        assert self._process is not None
        stats = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)

    def _wait(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def influxd(
    directory: Path, *, auth: bool = False, body_limit: int = 25_000_000
) -> Iterator[Service]:
    """Run InfluxDB 1.x with the settings of deploy/influxdb."""
    port = free_port()
    config = directory / "influxdb.conf"
    config.write_text(
        f"""
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = {str(auth).lower()}
max-body-size = {body_limit}
"""
    )
    command = ["influxd", "-config", str(config)]
    service = Service(command, port, directory / "influxd.log", advised_settings())
    with _running(service):
        yield service


def advised_settings() -> dict[str, str]:
    """Return what the drop-in for InfluxDB's unit puts into its environment."""
    text = DROP_IN.read_text()
    return dict(re.findall(r"^Environment=(\w+)=(\S+)$", text, re.MULTILINE))


@contextlib.contextmanager
def victoria(directory: Path) -> Iterator[Service]:
    """Run VictoriaMetrics, which takes InfluxDB's v2 writes."""
    port = free_port()
    command = [
        "victoria-metrics",
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={directory}/data",
        "-retentionPeriod=100y",
        "-memory.allowedBytes=256MB",
    ]
    service = Service(command, port, directory / "victoria.log")
    with _running(service):
        yield service


@contextlib.contextmanager
def _running(service: Service) -> Iterator[None]:
    service.start()
    try:
        yield
    finally:
        service.stop()
