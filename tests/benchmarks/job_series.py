"""What many jobs cost a real influxd: series, memory, disk, its start, and whoever asks for a job.

    python -m tests.benchmarks.job_series [--jobs 1000 100000] [--days 20]

Each job ran on one host for 20 s, three samples; every fifth held four GPUs. Its rows are folded
and encoded by the agent's own code; its `job_cgroup` samples lie in the database of measurements.
The jobs' starts lie evenly over the days up to now, so that the databases have as many shards as a
site's. `jobinspect` runs as a new process, and every query of every dashboard is asked by itself.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from agent.config import Config, load
from agent.dashboards.cli import asking
from agent.encoder import Encoder
from agent.stores.influx import InfluxStore
from agent.stores.setup import setup_store
from dashboards.expand import View
from probes.catalogue import Database
from tests.benchmarks.accounting import memory
from tests.benchmarks.bodies import merged
from tests.benchmarks.dashboards import Timed, report, timings
from tests.benchmarks.jobinspect_scale import time_of
from tests.benchmarks.overhead import machine
from tests.benchmarks.server import INFLUXD, series_in, version
from tests.integration.commands import BIN, Site
from tests.integration.services import Service, influxd
from tests.made_up_jobs import CLUSTER, STEP_SECONDS, SimulatedHost, job_start

HOSTS = 1000
GPUS = (0.9, 0.8, 0.7, 0.6)
JOB_SECONDS = 20
JOBS_AT_ONCE = 500
DAY_MS = 86_400_000
RUNS = 15


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many jobs cost.

    Attributes:
        jobs: that ended.
        series: in the databases of measurements and of jobs.
        disk: bytes of both, log and indexes included.
        resident: bytes of the server in memory, after the jobs were written.
        fresh: the same, just after its start.
        start: seconds of a start of the server, until it answers.
        inspect: seconds of `jobinspect`, median.
        queries: of all dashboards, slowest first: over the last day, and over all days.

    """

    jobs: int
    series: tuple[int, int]
    disk: int
    resident: float
    fresh: float
    start: float
    inspect: float
    queries: Sequence[Sequence[Timed]]


def write_jobs(store: InfluxStore, numbers: range, until_ms: int, span_ms: int) -> None:
    """Write jobs of these numbers, which began at even distances in the time up to now."""
    last_ms = until_ms - JOB_SECONDS * 1000
    for first in range(numbers.start, numbers.stop, JOBS_AT_ONCE):
        some = range(first, min(first + JOBS_AT_ONCE, numbers.stop))
        back = [(numbers.stop - number) / len(numbers) for number in some]
        starts = [last_ms - round(share * span_ms) for share in back]
        texts = merged(map(job_lines, some, starts))
        for database, text in texts.items():
            store.write(database, text.encode())


def job_lines(number: int, start_ms: int) -> dict[Database, str]:
    """Return what the agent of a job's host wrote of it."""
    loads = GPUS if number % 5 == 0 else ()
    name = f"n{number % HOSTS}"
    job = job_start(str(number), start_ms=start_ms, node=name, nodes=name)
    host = SimulatedHost(job, name, cpus=1.0 + number % 8, loads=loads)
    host.run(JOB_SECONDS)
    rows = host.lines("COMPLETED", (start_ms + JOB_SECONDS * 1000, 0)).decode()
    return {Database.METRICS: "".join(_samples(host)), Database.JOBS: rows}


def _samples(host: SimulatedHost) -> Iterator[str]:
    encoder = Encoder(CLUSTER, host.host)
    for passed in range(0, JOB_SECONDS + 1, round(STEP_SECONDS)):
        own = [each for each in host.samples(float(passed)) if each.measurement == "job_cgroup"]
        yield encoder.lines(own, host.job.start_ms + passed * 1000)[Database.METRICS].decode()


def restarted(service: Service) -> float:
    """Start the server anew and return how long it took to answer."""
    service.stop()
    begun = time.perf_counter()
    service.start()
    return time.perf_counter() - begun


def cost(service: Service, site: Site, config: Config, jobs: int, views: Sequence[View]) -> Cost:
    """Return what is there now, after a restart of the server."""
    resident = memory(service.pid).resident
    start = restarted(service)
    fresh = memory(service.pid).resident
    environment = {**os.environ, "PATH": str(site.folder), "ROOFLIGHT_CONFIG": str(site.file)}
    taken = time_of((BIN / "jobinspect", str(jobs // 2)), environment, RUNS)
    names = config.influx.names()
    with asking(config) as ask:
        queries = [sorted(timings(ask, view), reverse=True) for view in views]
    return Cost(
        jobs=jobs,
        series=(
            series_in(service, names[Database.METRICS]),
            series_in(service, names[Database.JOBS]),
        ),
        disk=_size(site.folder.parent / "influxd"),
        resident=resident,
        fresh=fresh,
        start=start,
        inspect=statistics.median(each.wall for each in taken),
        queries=queries,
    )


def _size(folder: Path) -> int:
    """Return the bytes on disk: the files of series are made large and stay empty."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def table(costs: Sequence[Cost]) -> str:
    """Return the costs as a Markdown table."""
    columns = (
        *("jobs", "series of measurements", "of jobs", "disk MiB", "RSS MiB", "after a start"),
        *("start s", "jobinspect s", "slowest query of a day, s", "of all days, s"),
    )
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    return head + "".join(f"| {' | '.join(_cells(each))} |\n" for each in costs)


def _cells(each: Cost) -> list[str]:
    sizes = [f"{size / 2**20:.0f}" for size in (each.disk, each.resident, each.fresh)]
    seconds = [each.start, each.inspect, *(queries[0].seconds for queries in each.queries)]
    counts = [each.jobs, *each.series]
    return [*map(str, counts), *sizes, *(f"{second:.2f}" for second in seconds)]


def measure(counts: Sequence[int], days: float) -> list[Cost]:
    """Write so many jobs, one number after the other, and say what each cost."""
    until_ms = int(time.time() * 1000)
    span_ms = round(days * DAY_MS)
    views = [View(until_ms - each, until_ms, {"cluster": CLUSTER}) for each in (DAY_MS, span_ms)]
    costs = []
    with tempfile.TemporaryDirectory() as top:
        data, folder = Path(top) / "influxd", Path(top) / "site"
        data.mkdir()
        folder.mkdir()
        with influxd(data) as service:
            site = Site(folder, f'store = "influx"\n[influx]\nurl = "{service.url}"\n')
            config = load(site.file, environment={}).config
            setup_store(config)
            for before, jobs in pairwise((0, *counts)):
                begun = time.perf_counter()
                store = InfluxStore(config.influx)
                write_jobs(store, range(before + 1, jobs + 1), until_ms, span_ms)
                store.close()
                print(f"{jobs} jobs written after {time.perf_counter() - begun:.0f} s", flush=True)
                costs.append(cost(service, site, config, jobs, views))
                for queries in costs[-1].queries:
                    report(queries)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--days", type=float, default=20.0, help="over which they began")
    words = parser.parse_args()
    costs = measure(sorted(words.jobs), words.days)
    print(f"\n{machine()}, {version(INFLUXD)}.\n\n{table(costs)}")


if __name__ == "__main__":
    main()
