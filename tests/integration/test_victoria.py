"""v2 writes, through influxdb_client, against a real server that takes them: VictoriaMetrics."""

import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lineprotocol import Point, encode, stored_tag
from agent.shipper import Shipper
from agent.spool import Spool
from agent.stores.influx import InfluxSettings, InfluxStore
from probes.catalogue import Database
from tests.integration.services import Service
from tests.weather import PATIENCE

pytestmark = pytest.mark.victoria
NOW_MS = 1_700_000_000_000
HOSTILE = ["plain", "a b", "x,y=z", 'say "hi"', "back\\slash\\", "new\nline", "zoë 💡", "\\,a=b"]


@pytest.fixture
def store(victoria: Service) -> Iterator[InfluxStore]:
    store = InfluxStore(InfluxSettings(url=victoria.url, api="v2"))
    yield store
    store.close()


def exported(service: Service, metric: str) -> list[dict[str, object]]:
    """Return one entry per series: `metric` (labels), `timestamps` in ms, `values`."""
    urllib.request.urlopen(f"{service.url}/internal/force_flush").close()
    query = urllib.parse.urlencode({"match[]": metric})
    with urllib.request.urlopen(f"{service.url}/api/v1/export?{query}") as answer:
        return [json.loads(line) for line in answer]


def test_every_point_and_value_arrives(store: InfluxStore, victoria: Service) -> None:
    values = {NOW_MS + number: math.sqrt(number) for number in range(5000)}
    points = [
        Point("cpu", (("host", "n1"),), {"user_seconds": value}, at) for at, value in values.items()
    ]
    store.write(Database.METRICS, "".join(encode(each) + "\n" for each in points).encode())
    (series,) = exported(victoria, 'cpu_user_seconds{host="n1"}')
    assert series["timestamps"] == list(values)
    assert series["values"] == pytest.approx(list(values.values()), rel=1e-12)


def test_hostile_tags_arrive_as_every_store_keeps_them(
    store: InfluxStore, victoria: Service
) -> None:
    for number, value in enumerate(HOSTILE):
        each = Point("network", (("interface", value),), {"receive_bytes": float(number)}, NOW_MS)
        store.write(Database.METRICS, f"{encode(each)}\n".encode())
    found = {}
    for series in exported(victoria, "network_receive_bytes"):
        labels, values = series["metric"], series["values"]
        assert isinstance(labels, dict)
        assert isinstance(values, list)
        found[labels["interface"]] = values
    assert found == {stored_tag(value): [number] for number, value in enumerate(HOSTILE)}


def test_an_outage_loses_nothing_and_doubles_nothing(tmp_path: Path, victoria: Service) -> None:
    """The v2 way, with influxdb_client's errors: the server hangs, and goes on."""
    spool = Spool(tmp_path / "spool", 1 << 24)
    store = InfluxStore(InfluxSettings(url=victoria.url, api="v2", timeout_seconds=0.3))
    shipper = Shipper(spool, store, flush_seconds=0.02, jitter=lambda low, high: min(high, 0.05))
    shipper.start()
    deadline = time.monotonic() + PATIENCE
    for number in range(90):
        line = f"memory,host=outage free_bytes={number}.5 {NOW_MS + number}\n"
        spool.append(Database.METRICS, line.encode())
        shipper.wake()
        if number == 30:
            victoria.pause()
        if number == 60:
            while not shipper.store_errors:
                assert time.monotonic() < deadline, "the store was not missed"
                time.sleep(0.01)
            victoria.resume()
    assert shipper.stop(20)
    assert (spool.depth_bytes, spool.lost) == (0, {})
    spool.close()
    (series,) = exported(victoria, 'memory_free_bytes{host="outage"}')
    times = series["timestamps"]
    assert isinstance(times, list)
    assert sorted(set(times)) == [NOW_MS + number for number in range(90)]
