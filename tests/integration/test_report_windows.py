"""Fields over time, thinned out by the store: InfluxDB and SQLite answer alike, and right."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from statistics import fmean

import pytest

from agent.inspect.model import Gpu, JobHeader, JobReport, Node
from agent.inspect.series import Timelines, timelines
from agent.lineprotocol import Point, encode
from agent.stores.influx import InfluxStore
from agent.stores.local import LocalStore
from agent.stores.settings import InfluxSettings
from agent.stores.setup import setup_influx
from agent.stores.store import Row, Store, Windows
from probes.catalogue import Database
from probes.sample import Value
from tests.integration.services import Service

pytestmark = pytest.mark.influxd

BEGIN_MS = 1_700_000_000_000
END_MS = BEGIN_MS + 300_000
HOSTS = ("n1", "n2", "o'brien \"\\n3")
_numbers = count()

Reading = tuple[int, float]


@pytest.fixture
def stores(tmp_path: Path, influxd: Service) -> Iterator[tuple[Store, Store]]:
    name = f"windows_{next(_numbers)}"
    settings = InfluxSettings(
        url=influxd.url, database=name, jobs_database=f"{name}_jobs", retention_days=0
    )
    setup_influx(settings)
    pair = InfluxStore(settings), LocalStore(tmp_path / "rooflight.db", 1e6)
    yield pair
    for store in pair:
        store.close()


def write(stores: Sequence[Store], points: Sequence[Point]) -> None:
    lines = "".join(f"{encode(point)}\n" for point in points).encode()
    for store in stores:
        store.write(Database.METRICS, lines)


def point(measurement: str, time_ms: int, tags: dict[str, str], **fields: Value) -> Point:
    return Point(measurement, tuple(sorted({"cluster": "c", **tags}.items())), fields, time_ms)


def readings(seed: int, *, counter: bool) -> list[Reading]:
    """Return a reading about every second, some of them missing; a counter starts anew at times."""
    chance = random.Random(seed)
    found, value = [], 0.0
    for second in range(-5, 305):
        grown = chance.choice((0.0, 1.5, 1e6))
        value = 0.0 if chance.random() < 0.03 else value + grown
        if chance.random() < 0.9:
            jitter = chance.choice((0, 0, 0, 7, 450))
            shown = value if counter else chance.uniform(0, 1)
            found.append((BEGIN_MS + 1000 * second + jitter, shown))
    return found


def asked(measurement: str, field: str, every_ms: int, *by: str, text: str = "") -> Windows:
    where = {"cluster": ["c"], "host": HOSTS}
    return Windows(measurement, field, where, by, BEGIN_MS, END_MS, every_ms, text)


def by_series(rows: Sequence[Row], *by: str) -> dict[tuple[str, ...], dict[int, Row]]:
    found: dict[tuple[str, ...], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        found[tuple(str(row.get(tag, "")) for tag in by)][int(float(row["time_ms"]))] = row
    return found


def window_of(time_ms: int, every_ms: int) -> int:
    return ((time_ms - 1) // every_ms + 1) * every_ms


def within(series: Sequence[Reading], begin_ms: int) -> list[Reading]:
    return [(time_ms, value) for time_ms, value in series if begin_ms <= time_ms <= END_MS]


@pytest.mark.parametrize("every_ms", [1000, 10_000, 37_000])
def test_gauges_have_mean_low_and_high(stores: tuple[Store, Store], every_ms: int) -> None:
    played = {host: readings(number, counter=False) for number, host in enumerate(HOSTS)}
    points = [
        point("cpu", time_ms, {"host": host}, utilization_ratio=value)
        for host, series in played.items()
        for time_ms, value in series
    ]
    write(stores, points)
    for store in stores:
        found = by_series(
            store.windows(asked("cpu", "utilization_ratio", every_ms, "host")), "host"
        )
        assert len(found) == len(HOSTS)
        for host, series in played.items():
            windows = defaultdict(list)
            for time_ms, value in within(series, BEGIN_MS + 1):
                windows[window_of(time_ms, every_ms)].append(value)
            rows = next(rows for (name,), rows in found.items() if name[:2] == host[:2])
            assert rows.keys() == windows.keys()
            for end_ms, values in windows.items():
                expected = {"mean": fmean(values), "low": min(values), "high": max(values)}
                shown = {name: rows[end_ms][name] for name in expected}
                assert shown == pytest.approx(expected)


def grown(series: Sequence[Reading], every_ms: int) -> dict[int, float]:
    """Return the growth per second by window; a step that goes back counts as time alone."""
    amounts: dict[int, list[float]] = defaultdict(list)
    passed: dict[int, int] = defaultdict(int)
    for (before_ms, before), (time_ms, now) in pairwise(within(series, BEGIN_MS)):
        window = window_of(time_ms, every_ms)
        passed[window] += time_ms - before_ms
        if now >= before:
            amounts[window].append(now - before)
    return {window: 1000 * sum(steps) / passed[window] for window, steps in amounts.items()}


@pytest.mark.parametrize("every_ms", [1000, 10_000, 37_000])
def test_counters_become_rates_also_where_they_start_anew(
    stores: tuple[Store, Store], every_ms: int
) -> None:
    series = {
        (host, device): readings(10 * number + part, counter=True)
        for number, host in enumerate(HOSTS[:2])
        for part, device in enumerate(("sda", "sdb"))
    }
    points = [
        point("blockdisk", time_ms, {"host": host, "device": device}, read_bytes=value)
        for (host, device), played in series.items()
        for time_ms, value in played
    ]
    write(stores, points)
    question = asked("blockdisk", "read_bytes", every_ms, "host", "device")
    for store in stores:
        found = by_series(store.windows(question), "host", "device")
        assert found.keys() == series.keys()
        for names, played in series.items():
            rates = {end_ms: row["mean"] for end_ms, row in found[names].items()}
            assert rates == pytest.approx(grown(played, every_ms))


def test_texts_are_counted(stores: tuple[Store, Store]) -> None:
    chance = random.Random(3)
    points: list[Point] = []
    played: dict[tuple[str, int], int] = defaultdict(int)
    for second in range(300):
        bound = chance.choice(("compute", "memory", "o'b"))
        time_ms = BEGIN_MS + 1000 * (second + 1)
        points.append(point("bound", time_ms, {"host": "n1", "gpu": "0"}, bound=bound))
        played[bound, window_of(time_ms, 30_000)] += 1
    write(stores, points)
    for store in stores:
        for bound in ("compute", "memory", "o'b", "idle"):
            rows = store.windows(asked("bound", "bound", 30_000, "host", "gpu", text=bound))
            found = {(bound, int(float(row["time_ms"]))): row["count"] for row in rows}
            assert found == {key: number for key, number in played.items() if key[0] == bound}
            assert all((row["host"], row["gpu"]) == ("n1", "0") for row in rows)


def test_nothing_known_is_no_row(stores: tuple[Store, Store]) -> None:
    write(stores, [point("cpu", BEGIN_MS + 5, {"host": "n1"}, user_seconds=3.0)])
    for store in stores:
        assert store.windows(asked("cpu", "user_seconds", 1000, "host")) == []
        assert store.windows(asked("cpu", "utilization_ratio", 1000, "host")) == []
        assert store.windows(asked("gpu", "power_watts", 1000, "host", "gpu")) == []


def test_a_job_is_drawn_alike_from_both_stores(stores: tuple[Store, Store]) -> None:
    chance = random.Random(4)
    points = []
    for time_ms, host in itertools.product(range(BEGIN_MS, END_MS + 1, 1000), ("n1", "n2")):
        used = float(time_ms - BEGIN_MS) * chance.random()  # now and then it starts anew
        of_job = {"host": host, "jobid": "7"}
        points.append(point("job_cgroup", time_ms, of_job, cpu_seconds=used, memory_bytes=used))
        points.append(point("power", time_ms, {"host": host, "domain": "node"}, power_watts=used))
        for gpu in ("0", "1"):
            shares = {"compute_ratio": chance.random(), "memory_ratio": chance.random()}
            bound = chance.choice(("compute", "memory", "idle"))
            tags = {"host": host, "gpu": gpu}
            points.append(point("bound", time_ms, tags, bound=bound, **shares))
            points.append(point("gpu", time_ms, {**tags, "uuid": "u"}, power_watts=used))
    write(stores, points)
    job = JobHeader("7", "c", "COMPLETED", start_ms=BEGIN_MS, end_ms=END_MS)
    nodes = [
        Node(host, 300, 300, 300, END_MS, True, "", (), gpus=[Gpu("0"), Gpu("1")], cpus=4.0)
        for host in ("n1", "n2")
    ]
    report = JobReport(job, nodes, (), (), ())
    one, other = (timelines(store, report, END_MS) for store in stores)
    assert [panel.title for panel in one.panels] == [
        "CPU",
        "Memory",
        "GPU power",
        "Power of the node",
    ]
    assert flat(one) == pytest.approx(flat(other))
    assert one.bounds == other.bounds
    assert one._replace(panels=(), roofs={}) == other._replace(panels=(), roofs={})


def flat(drawn: Timelines) -> dict[str, float]:
    """Return every number of the lines and roofs by its place."""
    lines = {
        f"{panel.title} {line.name} {point.end_ms} {number}": part
        for panel in drawn.panels
        for line in panel.lines
        for point in line.points
        for number, part in enumerate(point[1:])
    }
    roofs = {
        f"{name} {fraction.end_ms} {number}": part
        for name, fractions in drawn.roofs.items()
        for fraction in fractions
        for number, part in enumerate(fraction[1:])
    }
    assert len(lines) > 1000
    assert len(roofs) > 1000
    return {**lines, **roofs}
