"""How long `jobinspect` takes, from its start as a new process, over a large job in real InfluxDB.

    python -m tests.benchmarks.jobinspect_scale [--hosts 64] [--gpus 4] [--hours 24] [--others 5000]

The job's rows are folded from made-up samples and encoded by the agent's own code; each host writes
them at several heartbeats, as agents do, so that the server has overwritten points to merge. Other
jobs and marked phases of every rank lie beside them. With --profile it prints where the time goes:
modules that take longest to import, and each question to the store.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.config import Config, load
from agent.inspect.ask import inspect
from agent.jobs import Tick
from agent.lineprotocol import Point, encode
from agent.stores.influx import InfluxStore
from agent.stores.settings import InfluxSettings
from agent.stores.store import Row, Select
from probes.catalogue import Database
from probes.sample import Value
from tests.integration.commands import BIN, Site
from tests.integration.services import Service, influxd
from tests.made_up_jobs import CLUSTER, STEP_SECONDS, SimulatedHost, job_start

BUDGET_SECONDS = 0.35
JOBID = "424242"
HEARTBEATS = 5
AT_ONCE = 500
PHASES = ("load", "forward", "backward", "optimizer")
COMMANDS = ((JOBID,), (JOBID, "--per-node"), (JOBID, "--json"))


@dataclass(frozen=True, slots=True)
class Size:
    """How large the job is, and what lies beside it.

    Attributes:
        start_ms: when it began: not before what a database keeps.
        others: jobs beside it.

    """

    hosts: int
    gpus: int
    hours: float
    others: int
    start_ms: int


def write_all(store: InfluxStore, size: Size) -> int:
    """Write the job, other jobs, and phases; return how many points."""
    points = 0
    nodes = f"n[1-{size.hosts}]"
    for number in range(1, size.hosts + 1):
        for lines in heartbeats(f"n{number}", nodes, size):
            store.write(Database.JOBS, lines)
            points += lines.count(b"\n")
    for first in range(0, size.others, AT_ONCE):
        lines = b"".join(other_job(first + number, size) for number in range(AT_ONCE))
        store.write(Database.JOBS, lines)
        points += lines.count(b"\n")
    phases = phase_lines(size)
    store.write(Database.METRICS, phases)
    return points + phases.count(b"\n")


def heartbeats(host: str, nodes: str, size: Size) -> list[bytes]:
    """Return what a host writes of the job at some of its heartbeats, the last one final."""
    loads = tuple(0.95 - 0.01 * gpu for gpu in range(size.gpus))
    gpus = tuple(map(str, range(size.gpus)))
    job = job_start(JOBID, start_ms=size.start_ms, node=host, nodes=nodes, gpus=gpus)
    made = SimulatedHost(job, host, cpus=6.0, loads=loads)
    seconds = int(size.hours * 3600)
    step = round(STEP_SECONDS)
    written = []
    for part in range(HEARTBEATS):
        # a footprint grows by the time between two samples, however long: some samples do
        for passed in (seconds * part // HEARTBEATS, seconds * (part + 1) // HEARTBEATS - step):
            made.running.fold(Tick(made.samples(float(passed))), job.start_ms + passed * 1000)
        written.append(made.lines("RUNNING", None))
    made.running.fold(Tick(made.samples(float(seconds))), job.start_ms + seconds * 1000)
    count_all(made, seconds // step + 1)
    return [*written, made.lines("COMPLETED", (job.start_ms + seconds * 1000, 0))]


def count_all(made: SimulatedHost, samples: int) -> None:
    """Say of all counts that no sample was left out."""
    saved = made.running.saved
    saved.samples = samples
    for totals in (saved.node, *saved.gpus.values()):
        counted = [name for name in totals.values if name.endswith("samples_total")]
        totals.values.update(dict.fromkeys(counted, float(samples)))


def other_job(number: int, size: Size) -> bytes:
    job = job_start(str(500_000 + number), start_ms=size.start_ms + 1000 * number)
    host = SimulatedHost(job, f"n{number % 64 + 1}", loads=(0.5,))
    host.run(20)
    return host.lines("COMPLETED", (job.start_ms + 20_000, 0))


def phase_lines(size: Size) -> bytes:
    """Return the phases that each rank of the job marked."""
    fields: dict[str, Value] = {"duration_seconds": 3600.0, "calls_total": 9e4, "bound": "unknown"}
    lines = [
        encode(
            Point(
                "phase",
                (
                    ("cluster", CLUSTER),
                    ("device", f"rank {gpu}"),
                    ("host", f"n{host}"),
                    ("jobid", JOBID),
                    ("phase", phase),
                    ("workload", "user"),
                ),
                fields,
                size.start_ms + 1000 + host,
            )
        )
        for host in range(1, size.hosts + 1)
        for gpu in range(size.gpus)
        for phase in PHASES
    ]
    return ("\n".join(lines) + "\n").encode()


class Taken(NamedTuple):
    """What one process took, in seconds."""

    wall: float
    cpu: float


def time_of(command: Sequence[str | Path], environment: dict[str, str], runs: int) -> list[Taken]:
    """Return what each of so many new processes took."""
    taken = []
    for _ in range(runs):
        begun, used = time.perf_counter(), children_cpu()
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        taken.append(Taken(time.perf_counter() - begun, children_cpu() - used))
        assert done.returncode == 0, done.stderr.decode()
    return taken


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class TimedStore(InfluxStore):
    """The store, with what it was asked and how long each answer took."""

    def __init__(self, settings: InfluxSettings) -> None:
        super().__init__(settings)
        self.taken: list[tuple[float, Select, int]] = []

    def rows(self, select: Select) -> Sequence[Row]:
        begun = time.perf_counter()
        rows = super().rows(select)
        self.taken.append((time.perf_counter() - begun, select, len(rows)))
        return rows


def profile(config: Config, environment: dict[str, str]) -> None:
    """Print the slowest imports, the questions to the store, and what is done with the answers."""
    words = [sys.executable, "-X", "importtime", str(BIN / "jobinspect"), JOBID]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    found = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| *(\S+)", done.stderr)
    slowest = sorted(found, key=lambda each: -int(each[0]))[:15]
    print("slowest imports, ms without what they import:")
    for own, _, name in slowest:
        print(f"  {int(own) / 1000:6.1f}  {name}")
    print(f"  {sum(int(own) for own, _, _ in found) / 1000:6.1f}  all {len(found)} modules")
    store = TimedStore(config.influx)
    begun = time.perf_counter()
    inspect(store, config, JOBID, int(time.time() * 1000), ask=_no_slurm)
    whole = time.perf_counter() - begun
    for taken, select, rows in store.taken:
        print(f"  {taken * 1000:6.1f} ms  {rows:5} rows of {select.measurement}")
    asked = sum(taken for taken, _, _ in store.taken)
    print(f"  {(whole - asked) * 1000:6.1f} ms  all else, without printing")
    store.close()


def _no_slurm(_: Sequence[str]) -> str:
    from agent.slurm.accounting import SlurmUnreachable

    raise SlurmUnreachable("not asked")


def measure(
    service: Service, folder: Path, size: Size, runs: int, show: Callable[[str], None]
) -> float:
    """Return the median seconds of `jobinspect JOBID`, and show those of all commands."""
    names = 'database = "scale"\njobs_database = "scale_jobs"\nretention_days = 0'
    site = Site(folder, f'store = "influx"\n[influx]\nurl = "{service.url}"\n{names}\n')
    site.call("rooflight", "store", "setup")
    config = load(site.file).config
    store = InfluxStore(config.influx)
    begun = time.perf_counter()
    points = write_all(store, size)
    store.close()
    show(f"{points} points written in {time.perf_counter() - begun:.1f} s")
    environment = {**os.environ, "PATH": str(folder), "ROOFLIGHT_CONFIG": str(site.file)}
    baselines: tuple[tuple[str, Sequence[str | Path]], ...] = (
        ("python -c pass", (sys.executable, "-c", "pass")),
        ("jobinspect --help", (BIN / "jobinspect", "--help")),
    )
    ours = [(f"jobinspect {' '.join(words)}", (BIN / "jobinspect", *words)) for words in COMMANDS]
    medians = {}
    for name, command in (*baselines, *ours):
        taken = time_of(command, environment, runs)
        walls = sorted(each.wall for each in taken)
        cpu = statistics.median(each.cpu for each in taken)
        medians[name] = statistics.median(walls)
        span = f"{walls[0]:.3f} to {walls[-1]:.3f}"
        show(f"{name:30} {medians[name]:.3f} s  ({span}), CPU {cpu:.3f} s")
    return medians[f"jobinspect {JOBID}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--others", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    begun_ms = int((time.time() - (options.hours + 1) * 3600) * 1000)
    size = Size(options.hosts, options.gpus, options.hours, options.others, begun_ms)
    with tempfile.TemporaryDirectory() as folder:
        data, site = Path(folder) / "influxd", Path(folder) / "site"
        data.mkdir()
        site.mkdir()
        with influxd(data) as service:
            median = measure(service, site, size, options.runs, print)
            if options.profile:
                file = site / "rooflight.toml"
                environment = {**os.environ, "PATH": str(site), "ROOFLIGHT_CONFIG": str(file)}
                profile(load(file).config, environment)
    met = "met" if median <= BUDGET_SECONDS else "missed"
    words = f"{size.hosts} hosts x {size.gpus} GPUs x {size.hours:g} h"
    print(f"{words}: {median:.3f} s, budget {BUDGET_SECONDS} s: {met}")


if __name__ == "__main__":
    main()
