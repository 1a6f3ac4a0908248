"""The programs that are measured: each samples this machine once a second, in its usual way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import load
from agent.stores.opening import open_for_reading
from agent.stores.store import Select
from tests.benchmarks import gpu_node
from tests.integration.services import free_port
from tests.nvml.build import environment

ROOFLIGHT = str(Path(sys.executable).with_name("rooflight"))
REPOSITORY = Path(__file__).parents[2]
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Output:
    """What came out of a program.

    Attributes:
        lines: per sample; of line protocol, of CSV, or of the exposition format.
        size: bytes per sample.
        lateness: seconds that each sample was late, where the program says so.

    """

    lines: float
    size: float
    lateness: Sequence[float] = ()


@dataclass
class Contender(ABC):
    """One program: how it is started, watched and stopped. Used once.

    Attributes:
        folder: a new folder of its own.

    """

    folder: Path
    process: subprocess.Popen[str] = field(init=False)

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables to add."""
        return {}

    @abstractmethod
    def output(self) -> Output:
        """Return what came out; asked once, at the end of the measured time."""

    def each_second(self) -> None:  # noqa: B027 - most need nothing
        """Called once a second while the program is measured."""

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Write what the program needs into its folder."""

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        self.prepare()
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.variables},
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def check(self) -> None:
        """Raise if the program has ended by itself; its log tells why."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command} ended: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """Make sure that nothing is left of it."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """End the program and return what it printed."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=30)[0]


class Agent(Contender):
    """`rooflight agent` with the embedded store."""

    @property
    def settings(self) -> str:
        return 'store = "local"'

    @property
    def command(self) -> list[str]:
        return [ROOFLIGHT, "agent", "--interval", "1"]

    @property
    def variables(self) -> Mapping[str, str]:
        return {"ROOFLIGHT_CONFIG": str(self.folder / "rooflight.toml")}

    def prepare(self) -> None:
        self._write_config(self.folder, self.settings)

    def output(self) -> Output:
        self.stop()
        store = open_for_reading(load(self.folder / "rooflight.toml").config)
        late = [float(row["lateness_seconds"]) for row in store.rows(Select("agent", {}))]
        store.close()
        tick = self._one_tick()
        return Output(tick.count("\n"), len(tick), late)

    def _one_tick(self) -> str:
        """Return the lines of one tick, as the agent ships them."""
        folder = self.folder / "once"
        folder.mkdir()
        self._write_config(folder, 'store = "stdout"')
        command = [ROOFLIGHT, "agent", "--once", "--config", str(folder / "rooflight.toml")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _write_config(self, folder: Path, store: str) -> None:
        text = (
            f'cluster = "benchmark"\nhost = "node1"\n{store}\n[agent]\nstate_directory = "state"\n'
        )
        (folder / "rooflight.toml").write_text(text)


@dataclass
class ShippingAgent(Agent):
    """`rooflight agent` that ships to InfluxDB 1.x, whose own CPU time is not counted."""

    url: str = ""

    @property
    def settings(self) -> str:
        return f'store = "influx"\n[influx]\nurl = "{self.url}"\nretention_days = 0'

    def prepare(self) -> None:
        super().prepare()
        command = [ROOFLIGHT, "store", "setup"]
        subprocess.run(
            command, check=True, env={**os.environ, **self.variables}, stdout=subprocess.DEVNULL
        )


class Sampling(Contender):
    """The agent's loop alone, without a store; see sampling.py."""

    options: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        module = "tests.benchmarks.sampling"
        return [sys.executable, "-m", module, str(self.folder), *self.options]

    def output(self) -> Output:
        found = json.loads(self.stop())
        return Output(found["lines"], found["bytes"], found["lateness"])


class SamplingGpuNode(Sampling):
    """The same with eight GPUs, four InfiniBand ports and four jobs; see gpu_node.py."""

    options = ("--gpu-node",)

    @property
    def variables(self) -> Mapping[str, str]:
        return environment(self.folder / "trace.csv", loop="1")

    def prepare(self) -> None:
        gpu_node.write_trace(self.folder / "trace.csv")


class Collectd(Contender):
    """collectd with the plugins for what our host probes read, written as CSV."""

    PLUGINS = ("cpu", "memory", "load", "interface", "disk", "df", "vmem", "swap", "contextswitch")

    @property
    def command(self) -> list[str]:
        return [find("collectd"), "-f", "-C", str(self.folder / "collectd.conf")]

    def prepare(self) -> None:
        loads = "\n".join(f"LoadPlugin {name}" for name in (*self.PLUGINS, "csv"))
        (self.folder / "collectd.conf").write_text(
            f'Hostname "node1"\nInterval 1\nBaseDir "{self.folder}"\n{loads}\n'
            f'PIDFile "{self.folder}/pid"\n<Plugin csv>\nDataDir "{self.folder}/csv"\n</Plugin>\n'
        )

    def output(self) -> Output:
        self.stop()
        texts = [file.read_text() for file in (self.folder / "csv").rglob("*") if file.is_file()]
        rows = [text.partition("\n")[2] for text in texts]  # the first line names the columns
        samples = max(row.count("\n") for row in rows)
        return Output(sum(row.count("\n") for row in rows) / samples, sum(map(len, rows)) / samples)


class NodeExporter(Contender):
    """prometheus-node-exporter with the collectors for what our host probes read."""

    COLLECTORS = (
        *("cpu", "meminfo", "vmstat", "loadavg", "netdev", "diskstats", "filesystem", "pressure"),
        "stat",
    )

    def prepare(self) -> None:
        self._port = free_port()
        self._page = b""

    @property
    def command(self) -> list[str]:
        collectors = [f"--collector.{name}" for name in self.COLLECTORS]
        listen = f"--web.listen-address=127.0.0.1:{self._port}"
        program = find("prometheus-node-exporter")
        return [program, "--collector.disable-defaults", listen, *collectors]

    def each_second(self) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            self._page = answer.read()

    def output(self) -> Output:
        self.stop()
        lines = [line for line in self._page.splitlines() if not line.startswith(b"#")]
        return Output(len(lines), len(self._page))


def find(program: str) -> str:
    """Return the path of a program, which may lie where only root looks; "" if there is none."""
    return shutil.which(program, path=SYSTEM_PATH) or ""
