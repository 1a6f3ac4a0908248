"""Run the agent at 20 ticks a second for half an hour: does it grow, does it leak, does it tire?

It ships to a real InfluxDB where there is one, else to the embedded store. Memory and descriptors
are read from the kernel once a second; how late each tick was, from the store.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.config import load
from agent.stores.opening import open_for_reading
from agent.stores.store import Select
from tests.benchmarks import contenders
from tests.benchmarks.accounting import cpu_seconds
from tests.benchmarks.contenders import ROOFLIGHT, Agent, Contender, ShippingAgent
from tests.benchmarks.overhead import machine
from tests.benchmarks.trend import Trend, drift, means, trend
from tests.integration.services import influxd

HERTZ = 20.0
TICKS_IN_A_SHIPMENT = 10
"""As at a tick a second and the usual 10 s: a heap stays as large as its largest body made it."""

MINUTES = 30.0
WARM_UP_SHARE = 0.2
"""Of the run; caches fill and lazy imports happen in it, which is growth, but none for ever."""

KIBIBYTE = 1024
HOUR = 3600.0


@dataclass
class FastAgent(Agent):
    """The agent with the embedded store, many times a second."""

    hertz: float = HERTZ

    @property
    def settings(self) -> str:
        """Configuration of its own: jobs that Slurm runs here would be work that comes and goes."""
        return super().settings + '\n[slurm]\nnode = "a-node-without-jobs"'

    @property
    def flush_seconds(self) -> float:
        """How often it ships."""
        return TICKS_IN_A_SHIPMENT / self.hertz

    @property
    def command(self) -> list[str]:
        """What to run."""
        return [ROOFLIGHT, "agent", "--interval", f"{1 / self.hertz:g}"]


@dataclass
class FastShippingAgent(FastAgent, ShippingAgent):
    """The same, shipping to InfluxDB."""

    def __init__(self, folder: Path, hertz: float, url: str) -> None:
        super().__init__(folder, hertz)
        self.url = url


class Reading(NamedTuple):
    """What the kernel says of the agent at one moment."""

    hours: float
    resident_kibibytes: float
    descriptors: float
    threads: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run showed.

    Attributes:
        readings: one a second, from the end of the warm-up.
        late: (hours, milliseconds) of each tick.
        skipped: ticks that were left out.
        cpu: milliseconds of CPU per tick.

    """

    readings: Sequence[Reading]
    late: Sequence[tuple[float, float]]
    skipped: int
    cpu: float

    def trends(self) -> dict[str, tuple[Sequence[float], Trend]]:
        """Return values and trend of each thing that must not grow, by its name and unit."""
        hours = [each.hours for each in self.readings]
        columns: dict[str, Sequence[float]] = {
            "resident memory, KiB": [each.resident_kibibytes for each in self.readings],
            "descriptors": [each.descriptors for each in self.readings],
            "threads": [each.threads for each in self.readings],
        }
        found = {name: (values, drift(hours, values)) for name, values in columns.items()}
        late = [milliseconds for _, milliseconds in self.late]
        found["lateness, ms"] = (late, trend([when for when, _ in self.late], late))
        return found


@contextlib.contextmanager
def agent(folder: Path, hertz: float) -> Iterator[Contender]:
    """Give a running agent."""
    with contextlib.ExitStack() as stack:
        running = FastAgent(folder / "agent", hertz)
        if contenders.find("influxd"):
            (folder / "influxd").mkdir()
            server = stack.enter_context(influxd(folder / "influxd"))
            running = FastShippingAgent(folder / "agent", hertz, server.url)
        stack.callback(running.kill)
        running.start()
        wait_until_sampling(running)
        yield running


def wait_until_sampling(running: Contender) -> None:
    """Return when the agent has finished a tick: until then it has neither files nor threads."""
    spool = running.folder / "state" / "spool"
    while not any(spool.glob("*-metrics.lp")):
        running.check()
        time.sleep(0.05)


def watch(running: Contender, seconds: float) -> list[Reading]:
    """Return a reading for each second."""
    begun = time.monotonic()
    readings = []
    while (passed := time.monotonic() - begun) < seconds:
        running.check()
        readings.append(read(running.process.pid, passed / HOUR))
        time.sleep(1.0 - (time.monotonic() - begun) % 1.0)
    return readings


def read(pid: int, hours: float) -> Reading:
    """Return what the kernel says now. Source: proc_pid_status(5), proc_pid_fd(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Reading(
        hours, float(status["VmRSS"][0]), float(descriptors), float(status["Threads"][0])
    )


def measure(folder: Path, minutes: float, hertz: float) -> Figures:
    """Run the agent and return what it showed."""
    with agent(folder, hertz) as running:
        watch(running, minutes * 60 * WARM_UP_SHARE)
        used, begun_ms = cpu_seconds(running.process.pid), time.time() * 1000
        readings = watch(running, minutes * 60 * (1 - WARM_UP_SHARE))
        used = cpu_seconds(running.process.pid) - used
        running.stop()
        store = open_for_reading(load(running.folder / "rooflight.toml").config)
        rows = store.rows(Select("agent", {}, since_ms=int(begun_ms)))
        store.close()
    late = [
        ((float(row["time_ms"]) - begun_ms) / 1000 / HOUR, 1e3 * float(row["lateness_seconds"]))
        for row in rows
    ]
    skipped = float(rows[-1]["ticks_skipped_total"]) - float(rows[0]["ticks_skipped_total"])
    return Figures(readings, late, int(skipped), 1e3 * used / len(rows))


def table(figures: Figures) -> str:
    """Return the figures as a Markdown table, with a verdict for each."""
    rows = [
        "| what | first tenth | last tenth | highest | slope per hour | noise (95 %) | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (values, grown) in figures.trends().items():
        tenth = max(1, len(values) // 10)
        first, last = statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])
        verdict = "flat" if grown.flat else "falls" if grown.slope < 0 else "GROWS"
        cells = [f"{first:.2f}", f"{last:.2f}", f"{max(values):.2f}"]
        cells += [f"{grown.slope:+.3f}", f"{grown.noise:.3f}", verdict]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    late = sorted(milliseconds for _, milliseconds in figures.late)
    p99 = late[int(0.99 * (len(late) - 1))]
    memory = [each.resident_kibibytes for each in figures.readings]
    shape = ", ".join(f"{mean:.0f}" for mean in means(memory, 10))
    rows.append(f"\nResident memory over ten parts of the time, KiB: {shape}.")
    rows.append(
        f"\n{len(late)} ticks, {figures.skipped} skipped; lateness p50 {late[len(late) // 2]:.2f} "
        f"ms, p99 {p99:.2f} ms; {figures.cpu:.2f} ms of CPU per tick."
    )
    return "\n".join(rows)


def grown(figures: Figures) -> list[str]:
    """Return the names of what grew beyond its noise."""
    return [
        name for name, (_, found) in figures.trends().items() if found.slope > 0 and not found.flat
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--hertz", type=float, default=HERTZ)
    parser.add_argument("--output", type=Path, help="write the table to a file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.minutes, arguments.hertz)
    pace = f"{arguments.minutes:g} minutes at {arguments.hertz:g} ticks a second"
    text = f"{machine()}. {pace}.\n\n{table(figures)}\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)
    sys.exit(1 if grown(figures) else 0)


if __name__ == "__main__":
    main()
