"""What each trouble of the proxy looks like to the agent, and what reaches the store."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from agent.stores.influx import InfluxSettings, InfluxStore
from agent.stores.setup import setup_influx
from agent.stores.store import StoreRefused, StoreUnreachable
from probes.catalogue import Database
from tests.faults.proxy import LARGEST_BYTES, Proxy, is_poisoned
from tests.faults.story import STATUSES
from tests.faults.verdict import stored_points
from tests.integration.services import Service

pytestmark = pytest.mark.influxd
METRICS = Database.METRICS
NOW_MS = 1_700_000_000_000
_numbers = count()


@pytest.fixture
def proxy(influxd: Service) -> Iterator[Proxy]:
    proxy = Proxy(influxd.port)
    yield proxy
    proxy.behave("pass")
    proxy.stop()


@pytest.fixture
def database(influxd: Service) -> str:
    number = next(_numbers)
    settings = InfluxSettings(
        url=influxd.url,
        database=f"proxied_{number}",
        jobs_database=f"proxied_jobs_{number}",
        retention_days=0,
    )
    setup_influx(settings)
    return settings.database


@pytest.fixture
def store(proxy: Proxy, database: str) -> Iterator[InfluxStore]:
    store = InfluxStore(InfluxSettings(url=proxy.url, database=database, timeout_seconds=1.0))
    store.write(METRICS, line(0))  # the connection is there when the trouble begins
    yield store
    store.close()


@pytest.fixture
def stored(influxd: Service, database: str) -> Callable[[], int]:
    return lambda: len(dict(stored_points(influxd.url, database)))


def line(second: int) -> bytes:
    return b"cpu,host=n user_seconds=%d.0 %d\n" % (second, NOW_MS + second)


@pytest.mark.parametrize(
    "mode", ["refuse", "cut", "garbage", "hang", "bomb", "page", *map(str, STATUSES)]
)
def test_nothing_reaches_the_store_and_the_agent_knows_it(
    store: InfluxStore, proxy: Proxy, stored: Callable[[], int], mode: str
) -> None:
    proxy.behave(int(mode) if mode.isdigit() else mode)
    with pytest.raises((StoreUnreachable, StoreRefused)) as failed:
        store.write(METRICS, line(1))
    assert getattr(failed.value, "keep", True)
    assert stored() == 1


@pytest.mark.parametrize("mode", ["half_close", "half", "endless", "trickle"])
def test_the_answer_is_lost_and_the_line_is_not(
    store: InfluxStore, proxy: Proxy, stored: Callable[[], int], mode: str
) -> None:
    proxy.behave(mode)
    with pytest.raises((StoreUnreachable, StoreRefused)):
        store.write(METRICS, line(1))
    assert stored() == 2


def test_a_slow_store_is_waited_for(
    store: InfluxStore, proxy: Proxy, stored: Callable[[], int]
) -> None:
    proxy.behave("slow")
    store.write(METRICS, line(1))
    assert stored() == 2


def test_what_is_too_large_comes_in_pieces(
    store: InfluxStore, proxy: Proxy, stored: Callable[[], int]
) -> None:
    proxy.behave("limit")
    lines = b"".join(line(second) for second in range(LARGEST_BYTES))
    store.write(METRICS, lines)
    assert stored() == LARGEST_BYTES
    assert proxy.seen["limit"] > 3


def test_poison_costs_only_the_poisoned(
    store: InfluxStore, proxy: Proxy, stored: Callable[[], int]
) -> None:
    proxy.behave("poison")
    lines = [line(second) for second in range(1, 60)]
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, b"".join(lines))
    rejected = b"".join(each.lines for each in refused.value.rejected).splitlines(keepends=True)
    assert rejected == [each for each in lines if is_poisoned(each.strip())]
    assert len(rejected) == 2
    assert stored() == 1 + 59 - 2
