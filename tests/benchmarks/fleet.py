"""Play many nodes that write to one real influxd, and find how many it holds.

    python -m tests.benchmarks.fleet --nodes 5000 10000 --kind mixed --flush 60

Every node writes what its agent would (`node_ticks.py`), as with the defaults of the configuration:
a tick every ten seconds, and a body of what has gathered, gzipped, each time that it ships, at a
moment of its own, over a connection that stays open; after it the rows of its job, every thirty
seconds. All bodies are made before the time that is measured (`bodies.py`), so that the server has
the CPUs for itself.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil

from agent.config import Config
from agent.dashboards.cli import asking
from agent.stores.influx import InfluxStore
from agent.stores.settings import InfluxSettings
from dashboards.expand import View
from probes.catalogue import Database
from tests.benchmarks.accounting import cpu_seconds, memory
from tests.benchmarks.bodies import FLEETS, Makers, Size, all_bodies, schedule, values_per_tick
from tests.benchmarks.dashboards import Timed, report, timings
from tests.benchmarks.node_ticks import plays
from tests.benchmarks.overhead import machine
from tests.benchmarks.server import INFLUXD, SERVERS, most_memory, prepare, series, version
from tests.benchmarks.writers import Sent, Turn, writers
from tests.integration.services import Service
from tests.integration.simulated import TICK_SECONDS
from tests.made_up_jobs import CLUSTER, SimulatedHost, job_start

LATE_SECONDS = 1.0
"""A fleet is held while 99 of 100 writes end within this of when they were due."""

NODES_AT_FIRST = 100
FIRST_SECONDS = 120.0
SETTLE_SECONDS = 5.0
"""Left to the server after it made the series."""

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Held:
    """What a server did under so many nodes.

    Attributes:
        size: what was played.
        values: field values written in a second.
        writes: in a second.
        median: seconds from when a write was due to its answer.
        p99: the same, 99 of 100 are earlier.
        longest: the same, all are.
        failed: writes that were not taken.
        server: CPUs that the server used.
        generator: CPUs that this process used meanwhile.
        others: CPUs that all else on the machine used meanwhile.
        resident: bytes of the server in memory at the end.
        most: the most that it ever had in memory.
        series: in both databases.
        words: of the server on the first write that it refused.

    """

    size: Size
    values: float
    writes: float
    median: float
    p99: float
    longest: float
    failed: int
    server: float
    generator: float
    others: float
    resident: float
    most: float
    series: int
    words: str = ""

    @property
    def good(self) -> bool:
        """Whether the server kept up."""
        return self.failed == 0 and self.p99 < LATE_SECONDS


class Used(NamedTuple):
    """Seconds of CPU that a server used, and the whole machine."""

    server: float
    machine: float

    @classmethod
    def now(cls, pid: int) -> "Used":
        """Return what was used up to now, by a server and by all."""
        times = psutil.cpu_times()
        return cls(cpu_seconds(pid), sum(times) - times.idle - times.iowait - times.guest)

    def __sub__(self, before: "Used") -> "Used":
        """Return what was used since then."""
        return Used(self.server - before.server, self.machine - before.machine)


def hold(service: Service, size: Size, server: str = INFLUXD) -> Held:
    """Write as the size says, and say how that went."""
    prepare(server, service)
    makers = {kind: plays(kind, size.begin_ms) for kind in sorted({*FLEETS[size.fleet]})}
    if size.first == 1:
        make_series(service, replace(size, first=0, ticks=0, ticks_per_write=1), makers)
    turns = schedule(size, all_bodies(size, makers, InfluxSettings().names()))
    with writers(service.port, size.writers) as open_writers:
        time.sleep(SETTLE_SECONDS)
        before = Used.now(service.pid)
        sent = open_writers.write(turns)
        used = Used.now(service.pid) - before
    values = values_per_tick(makers, FLEETS[size.fleet])
    return _held(service, size, sent, used, values, series(server, service))


def make_series(service: Service, size: Size, makers: Makers) -> None:
    """Write one tick of every node, in large writes."""
    gathered = replace(size, nodes_per_write=NODES_AT_FIRST)
    made = all_bodies(gathered, makers, InfluxSettings().names())
    turns = [Turn(0.0, number % 2, requests) for number, (requests,) in enumerate(made)]
    with writers(service.port, 2) as open_writers:
        sent = open_writers.write(turns, patience=FIRST_SECONDS)
    assert not sent.failed, sent.words


def _held(service: Service, size: Size, sent: Sent, used: Used, values: float, known: int) -> Held:
    return Held(
        size=size,
        values=values * size.nodes * (size.ticks + 1 - size.first) / sent.seconds,
        writes=len(sent.latencies) / sent.seconds,
        median=statistics.median(sent.latencies),
        p99=statistics.quantiles(sent.latencies, n=100, method="inclusive")[98],
        longest=max(sent.latencies),
        failed=sent.failed,
        server=used.server / sent.seconds,
        generator=sent.cpu_seconds / sent.seconds,
        others=(used.machine - used.server - sent.cpu_seconds) / sent.seconds,
        resident=memory(service.pid).resident,
        most=most_memory(service.pid),
        series=known,
        words=sent.words,
    )


def table(rows: Sequence[Held]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "| nodes | kind | shipped every s | writes/s | values/s | write p50 s | p99 s | longest s "
        "| failed | server CPUs | generator | others | RSS MiB | most MiB | series | |\n"
    )
    line = "|---" * (head.count("|") - 1) + "|\n"
    return head + line + "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)


def _cells(row: Held) -> list[str]:
    size = row.size
    names = [str(size.nodes), size.fleet, str(TICK_SECONDS * size.ticks_per_write)]
    rates = [f"{row.writes:.0f}", f"{row.values:.0f}"]
    seconds = [f"{each:.3f}" for each in (row.median, row.p99, row.longest)]
    cores = [f"{each:.2f}" for each in (row.server, row.generator, row.others)]
    sizes = [f"{each / 2**20:.0f}" for each in (row.resident, row.most)]
    verdict = "holds" if row.good else "falls behind"
    return [*names, *rates, *seconds, str(row.failed), *cores, *sizes, str(row.series), verdict]


def begin_ms(now: float, ticks: int, *, midnight: bool) -> int:
    """Return the time of the first tick: yesterday's noon, or so that a day ends in the middle."""
    today = int(now) // DAY_SECONDS * DAY_SECONDS
    back = TICK_SECONDS * (ticks // 2) if midnight else DAY_SECONDS // 2
    return (today - back) * 1000


def run(size: Size, server: str, *, asked: bool) -> Held:
    """Measure one size on a new server."""
    with tempfile.TemporaryDirectory() as folder, SERVERS[server](Path(folder)) as service:
        row = hold(service, size, server)
        print(table([row]), row.words, flush=True)
        if asked:
            report(dashboards(service, size))
    return row


def dashboards(service: Service, size: Size) -> list[Timed]:
    """Ask every query of the dashboards about the time that was played, slowest first."""
    config = Config(store="influx", influx=InfluxSettings(url=service.url, timeout_seconds=120.0))
    job = SimulatedHost(job_start("1", start_ms=size.begin_ms), "node000000", loads=(0.9,))
    job.run(size.ticks * TICK_SECONDS)
    InfluxStore(config.influx).write(Database.JOBS, job.lines("RUNNING", None))
    span_ms = size.ticks * TICK_SECONDS * 1000
    view = View(size.begin_ms, size.begin_ms + span_ms, {"cluster": CLUSTER})
    with asking(config) as ask_dashboards:
        return sorted(timings(ask_dashboards, view), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000, 10000])
    parser.add_argument("--kind", choices=FLEETS, default="mixed")
    parser.add_argument(
        "--seconds", type=int, default=120, help="measured for each number of nodes"
    )
    parser.add_argument("--flush", type=int, default=10, help="as agent.flush_seconds")
    parser.add_argument("--nodes-per-write", type=int, default=1, help="as if through a relay")
    parser.add_argument("--cold", action="store_true", help="all agents start now, no series yet")
    parser.add_argument("--midnight", action="store_true", help="a new shard begins halfway")
    parser.add_argument("--server", choices=SERVERS, default=INFLUXD)
    parser.add_argument("--ask", action="store_true", help="time the dashboards' queries, too")
    words = parser.parse_args()
    ticks = words.seconds // TICK_SECONDS - words.cold  # then tick 0 is measured, too
    begun = begin_ms(time.time(), ticks, midnight=words.midnight)
    gathered = (words.flush // TICK_SECONDS, words.nodes_per_write)
    rows = []
    for nodes in words.nodes:
        size = Size(words.kind, nodes, ticks, int(not words.cold), *gathered, begun)
        rows.append(run(size, words.server, asked=words.ask))
        if not rows[-1].good:
            break
    print(f"{machine()}, {version(words.server)}.\n\n{table(rows)}")


if __name__ == "__main__":
    main()
