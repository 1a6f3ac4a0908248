"""The whole way from spool to a store that means harm, on a real connection: nothing is lost."""

import logging
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from agent.shipper import Shipper
from agent.spool import Spool
from agent.stores.connection import LARGEST_ANSWER, LONGEST_REPLY
from agent.stores.influx import InfluxSettings, InfluxStore
from agent.stores.store import Select, StoreRefused, StoreUnreachable
from probes.catalogue import Database
from tests.hostile import LATE, MODES, TAKEN, Hostile

METRICS = Database.METRICS
LINES = b"".join(b"cpu,host=n user_seconds=%d.0 %d\n" % (each, 1000 + each) for each in range(9))
TOO_LONG = b'cpu v="%s" 1\n' % random.Random(1).randbytes(2_000_000).hex().encode()
"""A line that does not fit into the kernel's buffers."""

SHORT_SECONDS, LONG_SECONDS = 0.5, 20.0
Api = Literal["v1", "v2"]


@pytest.fixture
def server() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


def opened(server: Hostile, api: Api, timeout_seconds: float = LONG_SECONDS) -> InfluxStore:
    settings = InfluxSettings(url=server.url, api=api, timeout_seconds=timeout_seconds)
    return InfluxStore(settings)


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost_and_it_is_said_once(
    server: Hostile, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, api: Api
) -> None:
    spool = Spool(tmp_path, 1 << 24)
    store = opened(server, api, SHORT_SECONDS if mode in LATE else LONG_SECONDS)
    shipper = Shipper(spool, store, flush_seconds=0.0, jitter=lambda low, high: 0.0)
    lines = TOO_LONG if mode == "deaf" else LINES
    spool.append(METRICS, lines)
    server.mode = mode
    caplog.set_level(logging.WARNING, "rooflight")
    for _ in range(2):
        shipper.ship()
    assert spool.depth_bytes == len(lines)
    assert (shipper.shipped_points, shipper.store_errors) == (0, 2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert server.url in said
    assert said.isprintable()
    server.mode = "good"
    deadline = time.monotonic() + LONG_SECONDS
    while spool.depth_bytes and time.monotonic() < deadline:
        shipper.ship()
    assert set(server.stored) == {lines}
    assert (spool.depth_bytes, shipper.shipped_points) == (0, lines.count(b"\n"))
    assert spool.lost == {}
    store.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("name", TAKEN)
def test_what_a_database_says_is_delivered_is_delivered(
    server: Hostile, name: str, api: Api
) -> None:
    store = opened(server, api)
    for mode in (name, "good", name):
        server.mode = mode
        store.write(METRICS, LINES)
    assert server.stored == [LINES]
    store.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_page_is_told_from_a_database(server: Hostile, api: Api) -> None:
    store = opened(server, api)
    server.mode = "html"
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, LINES)
    assert str(refused.value) == (
        f"{server.url}: HTTP 200 with text/html, which is not InfluxDB: check influx.url"
    )
    store.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["moved", "moved_same"])
def test_a_redirection_is_not_followed_with_our_credentials(
    server: Hostile, monkeypatch: pytest.MonkeyPatch, api: Api, mode: str
) -> None:
    monkeypatch.setenv("ROOFLIGHT_INFLUX_TOKEN", "secret")
    store = opened(server, api)
    server.mode = mode
    with pytest.raises(StoreRefused, match=r"points to .*not followed: check influx\.url"):
        store.write(METRICS, LINES)
    with pytest.raises(StoreRefused, match="points to"):
        store.rows(Select("cpu", {}))
    assert len(server.seen) == 2
    store.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("mode", LATE)
def test_one_deadline_holds_for_the_whole_exchange(server: Hostile, api: Api, mode: str) -> None:
    server.period = SHORT_SECONDS / 5  # no single read takes too long
    store = opened(server, api, SHORT_SECONDS)
    server.mode = mode
    begun = time.monotonic()
    with pytest.raises(StoreUnreachable, match=r"no whole answer in 0\.5 s$"):
        store.write(METRICS, TOO_LONG if mode == "deaf" else LINES)
    assert time.monotonic() - begun < 20 * SHORT_SECONDS
    store.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["endless", "endless_error", "large", "bomb", "bomb_error"])
def test_an_answer_to_a_write_takes_no_memory(server: Hostile, api: Api, mode: str) -> None:
    store = opened(server, api)
    store.write(METRICS, LINES)  # libraries are loaded
    server.mode = mode
    before = resident_bytes()
    highest = before
    for _ in range(5):
        with pytest.raises((StoreRefused, StoreUnreachable)):
            store.write(METRICS, LINES)
        highest = max(highest, resident_bytes())
    assert highest - before < 64 * LONGEST_REPLY
    store.close()


@pytest.mark.parametrize("mode", ["endless", "large", "bomb"])
def test_an_answer_to_a_query_has_its_bound_too(server: Hostile, mode: str) -> None:
    store = opened(server, "v1")
    server.mode = mode
    before = resident_bytes()
    with pytest.raises(StoreRefused, match="more than 64 MiB: ask for less"):
        store.rows(Select("cpu", {}))
    assert resident_bytes() - before < 2 * LARGEST_ANSWER
    store.close()


def test_a_query_to_no_database_says_what_answered(server: Hostile) -> None:
    store = opened(server, "v1")
    server.mode = "html"
    with pytest.raises(StoreRefused, match=f"^{server.url}: HTTP 200 with text/html, not an"):
        store.rows(Select("cpu", {}))
    store.close()


@pytest.mark.parametrize("mode", ["slow_body", "deaf", "silent"])
def test_stopping_is_not_held_up_by_a_store(server: Hostile, tmp_path: Path, mode: str) -> None:
    spool, store = Spool(tmp_path, 1 << 24), opened(server, "v1", 3.0)
    shipper = Shipper(spool, store, flush_seconds=60.0, jitter=lambda low, high: 0.0)
    server.mode = mode
    spool.append(METRICS, LINES)
    shipper.start()
    time.sleep(0.1)
    begun = time.monotonic()
    shipper.stop(0.5)
    assert time.monotonic() - begun < 2.5
    assert spool.depth_bytes == len(LINES)
    for thread in threading.enumerate():
        if thread.name == "shipper":
            thread.join(20)
