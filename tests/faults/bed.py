"""Agent, proxy, store and disk of one run, and the hands that break them."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.stores.influx import InfluxSettings
from agent.stores.setup import setup_influx
from tests.faults.clock import step_to
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.proxy import Proxy
from tests.faults.story import Episode
from tests.faults.witness import Record, Tail, read_records
from tests.integration.services import Service
from tests.weather import PATIENCE

DISK_MEBIBYTES = 16
SPOOL_MEBIBYTES = 6
FULL_BYTES = 2 << 20
"""A spool with so much in it is emptied first: an outage shall lose nothing for want of room."""

LITTLE_BYTES = 30_000
"""What a flush interval may have left in a spool that is emptied."""

SMALL_SPOOL_BYTES = 150_000
INTERVAL_SECONDS = 0.02

Place = tuple[int, int]
"""An agent, counted from 1, and one of its records, counted from 0."""

STILL_UNSHIPPED = 30
"""Records from before a trouble that may share its fate."""

CONFIG = """
cluster = "faults"
host = "node1"
store = "influx"
[agent]
state_directory = "{state}"
interval_seconds = {interval}
flush_seconds = 0.1
heartbeat_seconds = 0.3
spool_mebibytes = {spool}
[slurm]
node = "a-node-without-jobs"
[influx]
url = "{url}"
retention_days = 0
jobs_retention_days = 0
timeout_seconds = 0.5
"""


class Bed:
    """One agent at a time; whatever is broken can be mended again.

    Attributes:
        lives: agents that were started.
        kills: agents that were killed.
        windows: (begin, end) of the times in which ticks may be lost, if they are counted.

    """

    def __init__(self, folder: Path, server: Service, proxy: Proxy, disk: SmallDisk) -> None:
        self.lives = self.kills = 0
        self.windows: list[tuple[Place, Place]] = []
        self.folder, self.server, self.proxy, self.disk = folder, server, proxy, disk
        self.spool = disk.folder / "spool"
        self._offset = 0.0
        self._tails: dict[int, Tail] = {}
        self._agent: subprocess.Popen[bytes] | None = None
        self._log = folder / "agent.log"
        text = CONFIG.format(
            state=disk.folder, interval=INTERVAL_SECONDS, spool=SPOOL_MEBIBYTES, url=proxy.url
        )
        self.config = folder / "rooflight.toml"
        self.config.write_text(text)
        step_to(folder / "clock", 0.0)

    def start_agent(self, spool_bytes: int | None = None) -> None:
        self.lives += 1
        command = [sys.executable, "-m", "tests.faults.agent"]
        command += [str(self.config), str(self.folder / "clock")]
        command += [str(self._witness(self.lives))]
        command += ["--spool-bytes", str(spool_bytes)] if spool_bytes else []
        with self._log.open("ab") as log:
            self._agent = subprocess.Popen(command, stdout=log, stderr=log)

    def kill_agent(self) -> None:
        assert self._agent
        self.kills += 1
        self._agent.kill()
        self._agent.wait()

    def stop_agent(self) -> None:
        """End it as systemd does, and see that it ends well."""
        assert self._agent
        self._agent.terminate()
        assert self._agent.wait(PATIENCE) == 0, self._words()

    def step_clock(self, seconds: float) -> None:
        """Step the agent's clock, an hour away from the right time at most."""
        offset = self._offset + seconds
        self._offset = offset if abs(offset) < 5000 else self._offset - seconds
        step_to(self.folder / "clock", self._offset)

    def records(self, life: int) -> list[Record]:
        path = self._witness(life)
        return list(read_records(path.read_bytes())) if path.exists() else []

    def now(self, before: int = 0) -> Place:
        """Return where the witness is, or was so many records before."""
        life, number = self.lives, len(self.records(self.lives)) - before
        while number < 0 and life > 1:
            life -= 1
            number += len(self.records(life))
        return life, number

    def ticks(self, life: int) -> int:
        """Return how many ticks an agent has finished."""
        return self._tails.setdefault(life, Tail(self._witness(life))).ticks()

    def wait_ticks(self, number: int) -> None:
        """Wait until this agent has finished so many ticks more."""
        goal = self.ticks(self.lives) + number
        self.wait_until(lambda: self.ticks(self.lives) >= goal)

    def empty_spool(self) -> None:
        """Let an agent that knows no trouble ship all but what was just appended."""
        self.kill_agent()
        self.start_agent()
        self.wait_ticks(1)
        self.wait_until(lambda: self.spool_bytes() < LITTLE_BYTES)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self._words()
            assert self._agent is None or self._agent.poll() is None, self._words()
            time.sleep(0.02)

    def spool_bytes(self) -> int:
        sizes = []
        for path in self.spool.glob("*-*.lp"):
            with contextlib.suppress(FileNotFoundError):  # it was shipped just now
                sizes.append(path.stat().st_size)
        return sum(sizes)

    def close(self) -> None:
        if self._agent and self._agent.poll() is None:
            self._agent.kill()
            self._agent.wait()
        self.proxy.stop()

    def _witness(self, life: int) -> Path:
        return self.folder / f"witness-{life}"

    def _words(self) -> str:
        code = self._agent.poll() if self._agent else None
        return f"agent {self.lives} (exit code {code}):\n{self._log.read_text()[-3000:]}"


@contextlib.contextmanager
def bed(folder: Path, server: Service) -> Iterator[Bed]:
    """Give a running agent that ships through a proxy to a server, from a small disk."""
    setup_influx(InfluxSettings(url=server.url, retention_days=0, jobs_retention_days=0))
    with small_disk(folder / "state", DISK_MEBIBYTES) as disk:
        made = Bed(folder, server, Proxy(server.port), disk)
        try:
            made.start_agent()
            # the ledger has its place on the disk: from now on losses can be counted
            made.wait_ticks(1)
            yield made
        finally:
            made.close()


def live_through(bed: Bed, episode: Episode) -> None:
    """Let an episode happen, and its calm afterwards."""
    overflow = episode.trouble == "overflow"
    if overflow or bed.spool_bytes() > FULL_BYTES:
        bed.empty_spool()
    begin = bed.now(before=STILL_UNSHIPPED)
    if overflow:
        bed.kill_agent()
        bed.start_agent(SMALL_SPOOL_BYTES)
        bed.wait_ticks(1)
    if episode.step:
        bed.step_clock(episode.step)
    _begin(bed, episode)
    if episode.kill_after is None:
        bed.wait_ticks(episode.ticks)
    else:
        bed.wait_ticks(episode.kill_after)
        bed.kill_agent()
        bed.start_agent(SMALL_SPOOL_BYTES if overflow else None)
        bed.wait_ticks(max(1, episode.ticks - episode.kill_after))
    _end(bed, episode)
    bed.wait_ticks(1)
    if overflow or episode.disk_full:
        bed.windows.append((begin, bed.now()))
    if episode.trouble == "poison":
        bed.empty_spool()  # what is refused late shall not meet a full disk
    bed.wait_ticks(episode.calm)


def settle(bed: Bed) -> None:
    """Let an agent that knows no trouble ship what is left, and end."""
    bed.stop_agent()
    for _ in range(5):  # at its end an agent ships for 5 s, which a busy machine may not have
        bed.start_agent()
        bed.wait_ticks(5)
        bed.wait_until(lambda: bed.spool_bytes() < LITTLE_BYTES)
        bed.stop_agent()
        if bed.spool_bytes() == 0:
            return
    raise AssertionError("the last agent left something in its spool")


def _begin(bed: Bed, episode: Episode) -> None:
    if episode.disk_full:
        bed.disk.fill()
    if episode.trouble == "kill":
        bed.server.kill()
    elif episode.trouble == "pause":
        bed.server.pause()
    elif episode.trouble == "overflow":
        bed.proxy.behave("refuse")
    else:
        bed.proxy.behave(episode.status or episode.trouble)


def _end(bed: Bed, episode: Episode) -> None:
    if episode.trouble == "kill":
        bed.server.start()
    elif episode.trouble == "pause":
        bed.server.resume()
    bed.proxy.behave("pass")
    bed.disk.free()
    if episode.trouble == "overflow":
        bed.kill_agent()
        bed.start_agent()
