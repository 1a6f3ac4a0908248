"""How long the queries of the dashboards take on a large cluster.

    python -m tests.benchmarks.dashboards [NODES] [HOURS]

Fills a real InfluxDB with what the agents of so many nodes write in so long, with four GPUs each,
one job over all of them and many others, and times every query of every panel by itself. 64 nodes
and 24 hours, the default, take a quarter of an hour.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.config import load
from agent.dashboards.cli import asking, view_of_job
from agent.stores.connection import InfluxConnection
from agent.stores.settings import InfluxSettings
from dashboards.expand import View, expand
from dashboards.frames import Ask, opened
from dashboards.pages import all_dashboards
from dashboards.query import Query
from probes.catalogue import BOUNDS, CATALOGUE, Database, Kind, Measurement
from tests.integration import services

STEP_SECONDS = 10
OTHER_JOBS = 20_000
LINES_AT_ONCE = 5_000
BUDGET_SECONDS = 1.0

DEVICES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "gpu": [{"gpu": str(n), "uuid": f"GPU-{n}", "model": "H100"} for n in range(4)],
    "bound": [{"gpu": str(n)} for n in range(4)],
    "power": [{"domain": name} for name in ("package-0", "package-1", "dram-0", "node")],
    "infiniband": [{"device": f"mlx5_{n}", "port": "1"} for n in range(2)],
    "network": [{"interface": name} for name in ("lo", "eth0")],
    "blockdisk": [{"device": "nvme0n1"}],
    "tempdisk": [{"path": "/tmp", "type": "xfs"}],
    "filesystem": [{"mount": mount, "type": "lustre"} for mount in ("/home", "/scratch")],
    "memory_traffic": [{"cache": f"L3_0{n}"} for n in range(2)],
    "agent_probe": [{"probe": name} for name in ("cpu", "memory", "gpu", "infiniband")],
    "job_cgroup": [{"jobid": "1"}],
}
ONLY_MEASURED = ("phase", "ceiling")
TEXTS = {"bound": BOUNDS[:4], "version": ("0.1.0",), "state": ("RUNNING",)}


class Timed(NamedTuple):
    """One query and how long it took."""

    seconds: float
    where: str
    text: str


def used_fields() -> set[str]:
    """Return the names of all fields that any query asks for."""
    texts = [
        query.text
        for dashboard in all_dashboards()
        for _, panel in dashboard.panels()
        for query in panel.queries
        if isinstance(query, Query)
    ]
    return set(re.findall(r'"(\w+)"', " ".join(texts)))


def fields_at(measurement: Measurement, used: set[str], tick: int) -> str:
    """Return the fields of a sample: counters grow, gauges swing, texts change."""
    parts = []
    for field in measurement.fields.values():
        if field.name not in used:
            continue
        if field.kind is Kind.TEXT:
            words = TEXTS.get(field.name, ("x",))
            parts.append(f'{field.name}="{words[tick // 60 % len(words)]}"')
        elif field.kind is Kind.COUNTER:
            parts.append(f"{field.name}={tick * 1.5}")
        else:
            parts.append(f"{field.name}={(tick % 100) / 100 * min(1.0, field.high)}")
    return ",".join(parts)


def keys(measurement: Measurement, hosts: Sequence[str]) -> list[str]:
    """Return the series of a measurement on all hosts."""
    devices = DEVICES.get(measurement.name, [{}])
    return [
        f"{measurement.name},cluster=big,host={host}"
        + "".join(f",{name}={value}" for name, value in device.items())
        for host in hosts
        for device in devices
    ]


def samples(hosts: Sequence[str], begin_ms: int, ticks: int) -> Iterator[str]:
    """Yield every line that the agents of the hosts write into the database of metrics."""
    used = used_fields()
    sampled = [
        (each, keys(each, hosts))
        for each in CATALOGUE.values()
        if each.database is Database.METRICS and each.name not in ONLY_MEASURED
    ]
    for tick in range(ticks):
        at = begin_ms + tick * STEP_SECONDS * 1000
        for measurement, series in sampled:
            rest = f" {fields_at(measurement, used, tick)} {at}\n"
            yield from (key + rest for key in series)


def jobs(hosts: Sequence[str], begin_ms: int, until_ms: int) -> Iterator[str]:
    """Yield the rows of one job on all hosts that still runs, and of many that ended."""
    yield from _job("1", hosts, begin_ms, until_ms, "RUNNING")
    for number in range(2, OTHER_JOBS):
        at = until_ms - number * 30_000
        yield from _job(str(number), [hosts[number % len(hosts)]], at, at + 600_000, "COMPLETED")


def _job(jobid: str, hosts: Sequence[str], begin_ms: int, end_ms: int, state: str) -> Iterator[str]:
    running = state == "RUNNING"
    ended = "" if running else f",end_epoch_milliseconds={end_ms}.0,exit_code_total=0.0"
    for host in hosts:
        where = f"cluster=big,host={host},jobid={jobid}"
        facts = f'user="ann",account="a",partition="p",name="n",state="{state}",nodes_total=1.0'
        facts += f",cpus_total=8.0,gpus_total=4.0,start_epoch_milliseconds={begin_ms}.0{ended}"
        yield f"job,{where} {facts} {begin_ms}\n"
        used = "elapsed_seconds=600.0,samples_total=60.0,samples_expected_total=60.0,cpus_total=8.0"
        used += ",cpu_utilization_mean_ratio=0.5,memory_peak_bytes=1e9"
        used += f",final_state={float(not running)},updated_epoch_milliseconds={end_ms}.0"
        yield f"job_footprint,{where} {used} {begin_ms}\n"
        for gpu in range(4):
            bounds = ",".join(f"{bound}_bound_seconds=100.0" for bound in BOUNDS)
            means = "utilization_mean_ratio=0.5,energy_joules=1e6,memory_used_peak_bytes=1e9"
            yield (
                f"job_gpu_footprint,{where},gpu={gpu} {bounds},{means},memory_total_bytes=8e10"
                f" {begin_ms}\n"
            )


def write(connection: InfluxConnection, database: str, lines: Iterable[str]) -> int:
    """Send lines in large batches; return how many there were."""
    count, batch = 0, list[str]()
    for line in lines:
        batch.append(line)
        if len(batch) >= LINES_AT_ONCE:
            count += _send(connection, database, batch)
    return count + _send(connection, database, batch)


def _send(connection: InfluxConnection, database: str, batch: list[str]) -> int:
    reply = connection.write(database, "".join(batch).encode())
    assert reply.status == 204, reply.words()
    count = len(batch)
    batch.clear()
    return count


def timings(ask: Ask, view: View) -> Iterator[Timed]:
    """Time each query of each panel by itself, the better of two."""
    for dashboard in all_dashboards():
        seen = view_of_job(ask, view, "1") if dashboard.page == "job" else view
        assert seen is not None
        here = opened(dashboard, seen, ask)
        for _, panel in dashboard.panels():
            for query in panel.queries:
                if isinstance(query, Query):
                    text = expand(query.text, here, panel.points)
                    took = min(_timed(ask, query.database, text) for _ in range(2))
                    yield Timed(took, f"{dashboard.title} / {panel.title}", text)


def _timed(ask: Ask, database: Database, text: str) -> float:
    begun = time.perf_counter()
    ask(database, text)
    return time.perf_counter() - begun


def main(nodes: int = 64, hours: float = 24.0) -> None:
    """Fill, ask, and print the slowest."""
    with (
        tempfile.TemporaryDirectory(prefix="rooflight-dashboards-") as folder,
        services.influxd(Path(folder)) as service,
    ):
        file = Path(folder) / "rooflight.toml"
        influx = f'[influx]\nurl = "{service.url}"\ntimeout_seconds = 120\n'
        file.write_text(f'cluster = "big"\nstore = "influx"\n{influx}')
        config = load(file, environment={}).config
        until_ms = int(time.time()) // STEP_SECONDS * STEP_SECONDS * 1000
        view = View(until_ms - int(hours * 3_600_000), until_ms, {"cluster": "big"})
        begun = time.perf_counter()
        count = fill(config.influx, [f"node{number:04}" for number in range(nodes)], view)
        print(f"{count:,} points of {nodes} nodes in {time.perf_counter() - begun:.0f} s")
        with asking(config) as ask:
            report(sorted(timings(ask, view), reverse=True))


def fill(settings: InfluxSettings, hosts: Sequence[str], view: View) -> int:
    """Write what the hosts' agents write in the view's time; return how many points."""
    connection = InfluxConnection(settings)
    for database in settings.names().values():
        connection.request("POST", "/query", {"q": f'CREATE DATABASE "{database}"'})
    ticks = (view.until_ms - view.since_ms) // (STEP_SECONDS * 1000)
    sampled = samples(hosts, view.since_ms, ticks)
    count = write(connection, settings.database, sampled)
    count += write(connection, settings.jobs_database, jobs(hosts, view.since_ms, view.until_ms))
    connection.close()
    return count


def report(found: Sequence[Timed]) -> None:
    """Print the slowest queries, and whether the budget holds."""
    for timed in found[:10]:
        print(f"{timed.seconds:6.2f} s  {timed.where}")
    over = [timed for timed in found if timed.seconds > BUDGET_SECONDS]
    total = sum(timed.seconds for timed in found)
    print(f"{len(found)} queries, {total:.1f} s in all; over {BUDGET_SECONDS:g} s: {len(over)}")
    for timed in over:
        print(timed.text)


if __name__ == "__main__":
    numbers = [float(word) for word in sys.argv[1:]]
    main(int(numbers[0]) if numbers else 64, numbers[1] if len(numbers) > 1 else 24.0)
