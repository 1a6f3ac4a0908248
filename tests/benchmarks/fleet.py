"""Simulate many nodes that write to one real influxd, and find how many it holds.

Every node writes one body of lines each interval, at a moment of its own, as the agents do. The
schedule is kept whatever the server does: a write is timed from when it was due, so that a queue
shows. The lines are those of a real tick (the golden GPU node with four replayed A100s), with
counters that rise and gauges that move.
"""

import argparse
import asyncio
import gzip
import json
import random
import statistics
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.lineprotocol import Point, encode, parse
from probes.catalogue import CATALOGUE, Kind
from tests.benchmarks.accounting import cpu_seconds, memory
from tests.integration.services import Service, influxd

TESTS = Path(__file__).parents[1]
GPU_TICK = (
    *sorted((TESTS / "golden/expected/gpu_node").glob("*.lp")),
    TESTS / "nvml/expected/four_a100.lp",
)
HOST_PROBES = ("blockdisk", "cpu", "memory", "network", "power", "pressure")
DATABASE = "rooflight"
HOST, TIME = "@host@", 1_234_567_890_123
VARIANTS = 16
CONNECTIONS = 64
LATE_SECONDS = 1.0
"""A fleet is held while 99 of 100 writes end within this of when they were due."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a server did under so many nodes.

    Attributes:
        nodes: simulated.
        lines: written in a second.
        median: seconds from when a write was due to its answer.
        p99: the same, 99 of 100 are earlier.
        failed: writes that were not taken.
        cores: CPUs that the server used.
        resident: bytes of the server in memory.
        series: in the database.

    """

    nodes: int
    lines: float
    median: float
    p99: float
    failed: int
    cores: float
    resident: float
    series: int

    @property
    def good(self) -> bool:
        """Whether the server kept up."""
        return self.failed == 0 and self.p99 < LATE_SECONDS


def bodies(*, with_gpus: bool) -> list[bytes]:
    """Return one tick of a node in several variants; `HOST` and `TIME` stand for the real ones."""
    files = [file for file in GPU_TICK if with_gpus or file.stem in HOST_PROBES]
    points = [point for file in files for point in parse(file.read_text())]
    return [_body(points, number) for number in range(VARIANTS)]


def _body(points: Sequence[Point], number: int) -> bytes:
    chance = random.Random(number)
    return "".join(f"{encode(_moved(point, number, chance))}\n" for point in points).encode()


def _moved(point: Point, number: int, chance: random.Random) -> Point:
    known = CATALOGUE[point.measurement].fields
    fields = {
        name: value
        if isinstance(value, str)
        else value * (1 + number / 100)
        if known[name].kind is Kind.COUNTER
        else round(value * chance.uniform(0.9, 1.0), 3)
        for name, value in point.fields.items()
    }
    tags = tuple((name, HOST if name == "host" else value) for name, value in point.tags)
    return Point(point.measurement, tags, fields, TIME)


class Fleet:
    """Nodes that write to one server at their own moments."""

    def __init__(self, service: Service, nodes: int, interval: float, *, with_gpus: bool) -> None:
        self._port = service.port
        self._nodes = nodes
        self._interval = interval
        self._bodies = bodies(with_gpus=with_gpus)
        self.lines = self._bodies[0].count(b"\n")
        self.latencies: list[float] = []
        self.failed = 0

    async def write(self, seconds: float) -> None:
        """Write for so long."""
        queue: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        workers = [asyncio.create_task(self._work(queue)) for _ in range(CONNECTIONS)]
        begin = asyncio.get_running_loop().time()
        for number, due in self._schedule(begin, seconds):
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            queue.put_nowait((number, due))
        for _ in workers:
            queue.put_nowait(None)
        await asyncio.gather(*workers)

    def _schedule(self, begin: float, seconds: float) -> Iterator[tuple[int, float]]:
        for count in range(int(seconds / self._interval * self._nodes)):
            yield count, begin + count * self._interval / self._nodes

    async def _work(self, queue: "asyncio.Queue[tuple[int, float] | None]") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while (item := await queue.get()) is not None:
            number, due = item
            writer.write(self._request(number))
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            self.failed += status != b"204"
            self.latencies.append(asyncio.get_running_loop().time() - due)
        writer.close()

    def _request(self, count: int) -> bytes:
        host = b"node%05d" % (count % self._nodes)
        now = b"%d" % int(time.time() * 1000)
        lines = self._bodies[(count // self._nodes + count) % VARIANTS]
        lines = lines.replace(HOST.encode(), host).replace(b"%d" % TIME, now)
        body = gzip.compress(lines, compresslevel=1)
        head = (
            b"POST /write?db=%s&precision=ms HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: %d\r\n\r\n"
        )
        return head % (DATABASE.encode(), len(body)) + body


def ask(service: Service, query: str, database: str = DATABASE) -> list[list[object]]:
    """Return the values of the first series that a query gives."""
    words = urllib.parse.urlencode({"q": query, "db": database})
    with urllib.request.urlopen(f"{service.url}/query?{words}", data=b"", timeout=600) as answer:
        series = json.load(answer)["results"][0].get("series", [])
    return list(series[0]["values"]) if series else []


def hold(service: Service, nodes: int, interval: float, seconds: float, *, with_gpus: bool) -> Held:
    """Write as so many nodes for so long, the first interval, in which series are made, aside."""
    ask(service, f"CREATE DATABASE {DATABASE}")
    asyncio.run(Fleet(service, nodes, interval, with_gpus=with_gpus).write(interval))
    fleet = Fleet(service, nodes, interval, with_gpus=with_gpus)
    process = service.pid
    before, begun = cpu_seconds(process), time.monotonic()
    asyncio.run(fleet.write(seconds))
    taken = time.monotonic() - begun
    ((series,),) = ask(service, "SHOW SERIES CARDINALITY")
    return Held(
        nodes=nodes,
        lines=len(fleet.latencies) * fleet.lines / taken,
        median=statistics.median(fleet.latencies),
        p99=statistics.quantiles(fleet.latencies, n=100, method="inclusive")[98],
        failed=fleet.failed,
        cores=(cpu_seconds(process) - before) / taken,
        resident=memory(process).resident,
        series=int(str(series)),
    )


def table(rows: Sequence[Held]) -> str:
    """Return the rows as a Markdown table."""
    head = "| nodes | lines/s | write p50 s | p99 s | failed | server CPUs | RSS MiB | series | |\n"
    lines = [
        f"| {row.nodes} | {row.lines:.0f} | {row.median:.3f} | {row.p99:.3f} | {row.failed} "
        f"| {row.cores:.2f} | {row.resident / 2**20:.0f} | {row.series} "
        f"| {'holds' if row.good else 'falls behind'} |\n"
        for row in rows
    ]
    return "".join([head, "|---" * 9 + "|\n", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two ticks")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of nodes")
    parser.add_argument("--without-gpus", action="store_true", help="nodes of CPUs alone")
    arguments = parser.parse_args()
    with_gpus = not arguments.without_gpus
    rows = []
    for nodes in arguments.nodes:
        with tempfile.TemporaryDirectory() as folder, influxd(Path(folder)) as service:
            row = hold(service, nodes, arguments.interval, arguments.seconds, with_gpus=with_gpus)
            rows.append(row)
        print(table(rows[-1:]), flush=True)
        if not rows[-1].good:
            break
    tick = bodies(with_gpus=with_gpus)[0]
    values = sum(len(point.fields) for point in parse(tick.decode()))
    lines = tick.count(b"\n")
    print(f"{lines} lines, {values} values, {len(tick)} bytes a node and tick\n\n{table(rows)}")


if __name__ == "__main__":
    main()
