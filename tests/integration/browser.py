"""A real Chromium without a window, spoken to in its DevTools protocol over a pipe."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.integration.services import Missing

ANSWER_SECONDS = 60.0
FIRST_HIGH = 200
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")

Message = dict[str, Any]


class Browser:
    """One Chromium with one page in it.

    Attributes:
        events: what it told since the last page was opened.

    """

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, from_: int) -> None:
        self.events: list[Message] = []
        self._process = process
        self._to, self._from = to, from_
        self._buffer = b""
        self._last_id = 0
        self._session = ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, file: Path) -> None:
        """Load a page from disk, and wait until it and all that it asks for is there."""
        self.events.clear()
        self.ask("Page.navigate", url=file.absolute().as_uri())
        self._wait_for("Page.loadEventFired")

    def look(self, *, width: int, height: int = 800, dark: bool = False, media: str = "") -> None:
        """Choose the size of the window, in pixels, the colours, and screen or print."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the script returns
        """Return the value of a script in the page; the page's own policy does not hold it up."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Write the whole page as a picture, also what is below the window."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        file.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"])

    def complaints(self) -> list[Message]:
        """Return what the page wrote to the console: errors, refused requests, exceptions."""
        return [event for event in self.events if event["method"] in COMPLAINTS]

    def requests(self) -> list[str]:
        """Return every address that was asked for, the page itself included."""
        return [
            str(event["params"]["request"]["url"])
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def ask(self, method: str, **parameters: object) -> Message:
        """Send a command and return its result."""
        self._last_id += 1
        command: Message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            message = self._read(deadline, method)
            if message.get("id") == self._last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                result: Message = message["result"]
                return result
            self.events.append(message)

    def _wait_for(self, event: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not any(each["method"] == event for each in self.events):
            self.events.append(self._read(deadline, event))

    def _read(self, deadline: float, awaited: str) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer within {ANSWER_SECONDS:.0f} s: {awaited}"
            received = os.read(self._from, 1 << 16)
            assert received, f"Chromium ended, code {self._process.wait(10)}: {awaited}"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: Message = json.loads(message)
        return decoded


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Run Chromium with a profile of its own."""
    program = shutil.which("chromium")
    if program is None:
        raise Missing("chromium is not installed")
    with (directory / "chromium.log").open("wb") as log:
        process, to, from_ = _started(
            [program, *FLAGS, f"--user-data-dir={directory}/profile"], log
        )
    try:
        yield Browser(process, to, from_)
    finally:
        os.close(to)
        os.close(from_)
        _stop(process)


def _started(command: Sequence[str], log: IO[bytes]) -> tuple["subprocess.Popen[bytes]", int, int]:
    """Start Chromium; return it with the pipes to it and from it, its descriptors 3 and 4."""
    (reads, to), (from_, writes) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, FIRST_HIGH) for end in (reads, writes)]  # not 3 or 4
    moved = f'exec "$@" 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-'
    process = subprocess.Popen(
        ["bash", "-c", moved, "bash", *command],
        pass_fds=high,
        env=_environment(Path(log.name).parent),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    for end in (reads, writes, *high):
        os.close(end)
    return process, to, from_


def _environment(directory: Path) -> Mapping[str, str]:
    """Return a home of its own: nothing of the user's is read, nothing is left there."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End Chromium, which ends by itself when its pipe is closed, and all that it started."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
