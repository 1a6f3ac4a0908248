"""How much disk a node takes a day: what its agent writes in a day, in a real influxd, compacted.

    python -m tests.benchmarks.kept [--kinds cpu fabric gpu] [--nodes 10] [--hours 24]

The server is then started anew with times of a second after which it compacts what nobody writes
to any more, where its own settings have ten minutes and four hours.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.stores.influx import InfluxStore
from agent.stores.settings import InfluxSettings
from agent.stores.setup import setup_influx
from probes.catalogue import Database
from tests.benchmarks.bodies import merged, values_per_tick
from tests.benchmarks.fleet import DAY_SECONDS
from tests.benchmarks.node_ticks import KINDS, NUMBER, Play, plays
from tests.benchmarks.overhead import machine
from tests.benchmarks.server import INFLUXD, version
from tests.integration.services import Service, advised_settings, influxd
from tests.integration.simulated import TICK_SECONDS

TICKS_AT_ONCE = 60
COLD = {
    "INFLUXDB_DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "1s",
    "INFLUXDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION": "1s",
}
QUIET_SECONDS = 15.0
"""Files that did not change for so long are compacted: the server looks every second."""
LONGEST_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What nodes left on disk, in bytes.

    Attributes:
        values: field values that were written.
        fresh: data of both databases as they were written, without the write-ahead log.
        measurements: the same compacted: data of the database of measurements.
        jobs: of the database of jobs.
        indexes: of series, of both.

    """

    kind: str
    nodes: int
    days: float
    values: float
    fresh: int
    measurements: int
    jobs: int
    indexes: int

    def per_node_day(self, size: float) -> float:
        """Return a size by node and day."""
        return size / self.nodes / self.days


def write(store: InfluxStore, made: Sequence[Play], ticks: int) -> None:
    """Write so many ticks of nodes, many at once."""
    for first in range(0, ticks, TICKS_AT_ONCE):
        some = range(first, min(first + TICKS_AT_ONCE, ticks))
        texts = merged(
            named(play.tick(tick), node) for node, play in enumerate(made) for tick in some
        )
        for database, text in texts.items():
            store.write(database, text.encode())


def named(texts: Mapping[Database, str], node: int) -> dict[Database, str]:
    """Return lines with the number of their node."""
    return {database: text.replace(NUMBER, f"{node:06}") for database, text in texts.items()}


@contextmanager
def cold(folder: Path, port: int) -> Iterator[None]:
    """Run the server of a folder so that it compacts at once what nobody writes to."""
    command = ["influxd", "-config", str(folder / "influxdb.conf")]
    service = Service(command, port, folder / "influxd.log", {**advised_settings(), **COLD})
    service.start()
    try:
        yield
    finally:
        service.stop()


def sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of every file, as the disk has them: some are made large and stay empty."""
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                found[path] = path.stat().st_blocks * 512
        except FileNotFoundError:  # a compaction has just replaced it
            continue
    return found


def data_of(found: Mapping[Path, int], database: str = "") -> int:
    """Return the bytes of all values, or of those of one database."""
    return sum(
        size
        for path, size in found.items()
        if path.suffix == ".tsm" and database in ("", *path.parts)
    )


def settled(folder: Path) -> dict[Path, int]:
    """Return the sizes once they no longer change."""
    deadline = time.monotonic() + LONGEST_SECONDS
    before, since = sizes(folder), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < deadline:
        time.sleep(1)
        now = sizes(folder)
        if now != before:
            before, since = now, time.monotonic()
    return before


def keep(kind: str, nodes: int, hours: float) -> Kept:
    """Write so many hours of nodes of a kind, compact them, and measure."""
    ticks = round(hours * 3600 / TICK_SECONDS)
    begin_ms = (int(time.time()) // DAY_SECONDS - 1) * DAY_SECONDS * 1000
    make = plays(kind, begin_ms)
    with tempfile.TemporaryDirectory() as top, influxd(Path(top)) as service:
        folder, settings = Path(top), InfluxSettings(url=service.url)
        setup_influx(settings)
        store = InfluxStore(settings)
        write(store, [make(number) for number in range(nodes)], ticks)
        store.close()
        fresh = data_of(sizes(folder / "data"))
        service.stop()
        with cold(folder, service.port):
            found = settled(folder / "data")
    names = settings.names()
    return Kept(
        kind=kind,
        nodes=nodes,
        days=hours / 24,
        values=values_per_tick({kind: make}, [kind]) * ticks * nodes,
        fresh=fresh,
        measurements=data_of(found, names[Database.METRICS]),
        jobs=data_of(found, names[Database.JOBS]),
        indexes=sum(found.values()) - data_of(found),
    )


def table(rows: Sequence[Kept]) -> str:
    """Return the rows as a Markdown table."""
    columns = (
        *("kind", "values a node and day", "MB a node and day", "bytes a value"),
        *("MB of jobs", "MB of indexes a node", "before compaction, MB"),
    )
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    return head + "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)


def _cells(row: Kept) -> list[str]:
    def megabytes(size: float) -> str:
        return f"{row.per_node_day(size) / 1e6:.2f}"

    return [
        row.kind,
        f"{row.per_node_day(row.values):,.0f}",
        megabytes(row.measurements),
        f"{row.measurements / row.values:.2f}",
        megabytes(row.jobs),
        f"{row.indexes / row.nodes / 1e6:.2f}",
        megabytes(row.fresh),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--hours", type=float, default=24.0)
    words = parser.parse_args()
    rows = []
    for kind in words.kinds:
        rows.append(keep(kind, words.nodes, words.hours))
        print(table(rows[-1:]), flush=True)
    print(
        f"{machine()}, {version(INFLUXD)}; {words.nodes} nodes, {words.hours:g} h.\n\n{table(rows)}"
    )


if __name__ == "__main__":
    main()
