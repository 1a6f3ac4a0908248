"""From tick to store while the server dies, comes back, or does not answer."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.shipper import Shipper
from agent.spool import Spool
from agent.stores.influx import InfluxSettings, InfluxStore
from agent.stores.setup import setup_influx
from agent.stores.store import Row, Select
from probes.catalogue import Database
from tests.integration.services import Service

pytestmark = pytest.mark.influxd
NOW_MS = 1_700_000_000_000
LINES = 5


def tick(number: int) -> bytes:
    lines = (f"cpu,host=n{line} user_seconds={number}.5 {NOW_MS + number}" for line in range(LINES))
    return "".join(f"{line}\n" for line in lines).encode()


def everything(store: InfluxStore) -> list[tuple[object, object, object]]:
    rows: list[Row] = list(store.rows(Select("cpu", {})))
    return sorted((row["time_ms"], row["host"], row["user_seconds"]) for row in rows)


def expected(ticks: int) -> list[tuple[object, object, object]]:
    return sorted((NOW_MS + n, f"n{line}", n + 0.5) for n in range(ticks) for line in range(LINES))


Outage = Callable[[Service], None]


@pytest.mark.parametrize(
    ("begin", "end"), [(Service.kill, Service.start), (Service.pause, Service.resume)]
)
def test_an_outage_loses_nothing_and_doubles_nothing(
    own_influxd: Service, tmp_path: Path, begin: Outage, end: Outage
) -> None:
    settings = InfluxSettings(url=own_influxd.url, retention_days=0, timeout_seconds=0.3)
    setup_influx(settings)
    spool = Spool(tmp_path / "spool", 1 << 24, segment_bytes=2000)
    store = InfluxStore(settings)
    shipper = Shipper(spool, store, flush_seconds=0.02, jitter=lambda low, high: min(high, 0.05))
    shipper.start()
    for number in range(300):
        spool.append(Database.METRICS, tick(number))
        shipper.wake()
        if number == 100:
            begin(own_influxd)
        if number == 250:
            wait_until(lambda: shipper.store_errors > 0)
            end(own_influxd)
    assert shipper.stop(20)
    assert (spool.depth_bytes, spool.lost) == (0, {})
    assert shipper.shipped_points == 300 * LINES
    spool.close()
    reader = InfluxStore(InfluxSettings(url=own_influxd.url))
    assert everything(reader) == expected(300)
    reader.close()


def test_an_agent_that_ends_in_an_outage_leaves_its_ticks_to_the_next(
    own_influxd: Service, tmp_path: Path
) -> None:
    settings = InfluxSettings(url=own_influxd.url, retention_days=0)
    setup_influx(settings)
    own_influxd.kill()
    for first in (0, 50):
        spool = Spool(tmp_path / "spool", 1 << 24)
        shipper = Shipper(spool, InfluxStore(settings), flush_seconds=3600)
        shipper.start()
        for number in range(first, first + 50):
            spool.append(Database.METRICS, tick(number))
        if first == 50:
            own_influxd.start()
        assert shipper.stop(20)
        spool.close()
    store = InfluxStore(settings)
    assert everything(store) == expected(100)
    store.close()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
