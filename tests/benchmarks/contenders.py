"""The programs that are measured: each samples this machine again and again, in its usual way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
        skipped: samples that were left out, where it says so.

    """

    lines: float
    size: float
    lateness: Sequence[float] = ()
    skipped: int | None = None


@dataclass
class Contender(ABC):
    """One program, of one or several processes: how it is started, watched, stopped. Used once.

    Attributes:
        folder: a new folder of its own.
        interval: seconds between two samples.
        niceness: by how much it gives way to others; below 0, others give way.
        processes: those that were started, in order; what they start themselves is theirs.
        beside: what it needs and what is not measured, given back when it is killed.

    """

    folder: Path
    interval: float = field(default=1.0, kw_only=True)
    niceness: int = field(default=0, kw_only=True)
    processes: list[subprocess.Popen[str]] = field(init=False, default_factory=list)
    beside: ExitStack = field(init=False, default_factory=ExitStack)

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

    def each_sample(self) -> None:  # noqa: B027 - most need nothing
        """Called at each moment of a sample while the program is measured."""

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Write what the program needs into its folder."""

    def launch(self) -> None:
        """Start its processes."""
        self.spawn(self.command)

    @property
    def process(self) -> subprocess.Popen[str]:
        """The first of its processes, or the only one."""
        return self.processes[0]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        self.prepare()
        self.launch()

    def spawn(self, command: Sequence[str], directory: Path = REPOSITORY) -> None:
        polite = ["nice", "-n", f"{self.niceness}"] if self.niceness else []
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [*polite, *command],
                env={**os.environ, **self.variables},
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes.append(process)

    def check(self) -> None:
        """Raise if a process has ended by itself; the log tells why."""
        for process in self.processes:
            if process.poll() is not None:
                log = (self.folder / "log").read_text()
                raise RuntimeError(f"{process.args!r} ended: {log}")

    def kill(self) -> None:
        """Make sure that nothing is left of it."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.beside.close()

    def stop(self) -> str:
        """End the program, what was started last first; return what its first process printed."""
        said = [self._end(process) for process in reversed(self.processes)]
        return said[-1]

    def _end(self, process: subprocess.Popen[str]) -> str:
        process.send_signal(signal.SIGTERM)
        return process.communicate(timeout=30)[0]


class Agent(Contender):
    """`rooflight agent` with the embedded store."""

    @property
    def settings(self) -> str:
        return 'store = "local"'

    @property
    def flush_seconds(self) -> float:
        return 10.0

    @property
    def command(self) -> list[str]:
        return [ROOFLIGHT, "agent", "--interval", f"{self.interval:g}"]

    @property
    def variables(self) -> Mapping[str, str]:
        return {"ROOFLIGHT_CONFIG": str(self.folder / "rooflight.toml")}

    def prepare(self) -> None:
        self._write_config(self.folder, self.settings)

    def output(self) -> Output:
        self.stop()
        store = open_for_reading(load(self.folder / "rooflight.toml").config)
        rows = store.rows(Select("agent", {}))
        store.close()
        late = [float(row["lateness_seconds"]) for row in rows]
        skipped = max(int(float(row["ticks_skipped_total"])) for row in rows)
        tick = self._one_tick()
        return Output(tick.count("\n"), len(tick), late, skipped)

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
            f"flush_seconds = {self.flush_seconds:g}\n"
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

    @property
    def command(self) -> list[str]:
        module = "tests.benchmarks.sampling"
        pace = ["--interval", f"{self.interval:g}"]
        return [sys.executable, "-m", module, str(self.folder), *pace]

    def output(self) -> Output:
        found = json.loads(self.stop())
        return Output(found["lines"], found["bytes"], found["lateness"], found["skipped"])


class SamplingGpuNode(Sampling):
    """The same with eight GPUs, four InfiniBand ports and four jobs of Slurm; see gpu_node.py."""

    jobs: gpu_node.Jobs = "slurm"

    @property
    def command(self) -> list[str]:
        return [*super().command, "--jobs", self.jobs, "--pids", *map(str, self._working)]

    @property
    def variables(self) -> Mapping[str, str]:
        pids = gpu_node.gpus_of(self._working)
        return environment(self.folder / "trace.csv", loop="1", pids=pids)

    def prepare(self) -> None:
        gpu_node.write_trace(self.folder / "trace.csv")
        self._working = self.beside.enter_context(gpu_node.running_processes())


class SamplingProcessTrees(SamplingGpuNode):
    """The same node, with jobs of which only the first process is known."""

    jobs = "trees"


class Collectd(Contender):
    """collectd with the plugins for what our host probes read, written as CSV."""

    PLUGINS = ("cpu", "memory", "load", "interface", "disk", "df", "vmem", "swap", "contextswitch")

    @property
    def command(self) -> list[str]:
        return [find("collectd"), "-f", "-C", str(self.folder / "collectd.conf")]

    def prepare(self) -> None:
        loads = "\n".join(f"LoadPlugin {name}" for name in (*self.PLUGINS, "csv"))
        (self.folder / "collectd.conf").write_text(
            f'Hostname "node1"\nInterval {self.interval:g}\nBaseDir "{self.folder}"\n{loads}\n'
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

    def each_sample(self) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            self._page = answer.read()

    def output(self) -> Output:
        self.stop()
        lines = [line for line in self._page.splitlines() if not line.startswith(b"#")]
        return Output(len(lines), len(self._page))


def find(program: str) -> str:
    """Return the path of a program, which may lie where only root looks; "" if there is none."""
    return shutil.which(program, path=SYSTEM_PATH) or ""
