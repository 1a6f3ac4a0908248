import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.shipper import Shipper, append_bounded
from agent.spool import Spool
from agent.stores.store import Row, Select, StoreRefused, StoreUnreachable
from probes.catalogue import Database

METRICS, JOBS = Database.METRICS, Database.JOBS


class ScriptedStore:
    """Takes lines, or raises what the test has put in its way."""

    def __init__(self) -> None:
        self.taken: list[tuple[Database, bytes]] = []
        self.errors: list[Exception | None] = []
        self.refused_databases: set[Database] = set()
        self.closed = False
        self.arrived = threading.Event()

    def write(self, database: Database, lines: bytes) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error:
            raise error
        if database in self.refused_databases:
            raise StoreRefused("no such database", keep=True)
        self.taken.append((database, lines))
        self.arrived.set()

    def rows(self, select: Select) -> list[Row]:
        raise StoreRefused("a test does not read", keep=True)

    def close(self) -> None:
        self.closed = True


class ManualClock:
    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", 1 << 20)
    yield spool
    spool.close()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def shipper(spool: Spool, store: ScriptedStore) -> Shipper:
    """A shipper whose random pauses are always the longest, driven by hand."""
    return Shipper(spool, store, flush_seconds=10, jitter=lambda low, high: high)


def test_all_segments_are_sent_oldest_first_and_deleted(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    for lines in (b"a\n", b"b\nc\n"):
        spool.append(METRICS, lines)
        spool.close_segments()
    spool.append(JOBS, b"j\n")
    assert shipper.ship() == 10
    assert store.taken == [(METRICS, b"a\n"), (METRICS, b"b\nc\n"), (JOBS, b"j\n")]
    assert (shipper.shipped_points, shipper.dropped_points, shipper.store_errors) == (4, 0, 0)
    assert spool.segments == 0


def test_an_unreachable_store_is_given_more_and_more_time(
    spool: Spool, store: ScriptedStore, shipper: Shipper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "rooflight")
    store.errors = [StoreUnreachable("connection refused") for _ in range(8)]
    spool.append(METRICS, b"a\n")
    assert [shipper.ship() for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert spool.segments == 1
    assert len(caplog.records) == 1
    spool.append(METRICS, b"b\n")
    assert shipper.ship() == 10
    assert store.taken == [(METRICS, b"a\n"), (METRICS, b"b\n")]
    assert [record.getMessage() for record in caplog.records][1:] == ["the store takes data again"]
    assert (shipper.store_errors, shipper.shipped_points) == (8, 2)


def test_the_pause_is_random_between_a_second_and_its_ceiling(
    spool: Spool, store: ScriptedStore
) -> None:
    asked: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    shipper = Shipper(spool, store, flush_seconds=10, jitter=jitter)
    store.errors = [StoreUnreachable("away") for _ in range(3)]
    spool.append(METRICS, b"a\n")
    assert [shipper.ship() for _ in range(3)] == [1, 1, 1]
    assert asked == [(1, 2), (1, 4), (1, 8)]


@pytest.mark.parametrize(("asked", "given"), [(30.0, 30), (0.5, 2), (1e9, 600)])
def test_the_stores_wish_is_respected_within_reason(
    spool: Spool, store: ScriptedStore, shipper: Shipper, asked: float, given: float
) -> None:
    store.errors = [StoreUnreachable("busy", retry_after=asked)]
    spool.append(METRICS, b"a\n")
    assert shipper.ship() == given


def test_what_an_admin_can_mend_waits_and_does_not_hold_up_the_other_database(
    spool: Spool, store: ScriptedStore, shipper: Shipper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "rooflight")
    store.refused_databases = {JOBS}
    for _ in range(2):
        spool.append(JOBS, b"j\n")
        spool.append(METRICS, b"m\n")
        assert shipper.ship() in (2, 4)
    assert store.taken == [(METRICS, b"m\n")] * 2
    assert len(caplog.records) == 1
    assert "no such database" in caplog.text
    store.refused_databases = set()
    shipper.ship()
    assert store.taken[2:] == [(JOBS, b"j\n")] * 2
    assert (shipper.shipped_points, shipper.dropped_points) == (4, 0)


def test_what_the_store_never_takes_is_put_aside_and_counted(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    store.errors = [StoreRefused("field type\nconflict", keep=False, points_lost=1)]
    spool.append(METRICS, b"good\nbad\n")
    spool.close_segments()
    spool.append(METRICS, b"next\n")
    assert shipper.ship() == 10
    assert (shipper.shipped_points, shipper.dropped_points) == (2, 1)
    quarantine = spool.directory / "quarantine.lp"
    assert quarantine.read_bytes() == b"# field type conflict\ngood\nbad\n"
    assert spool.segments == 0


@pytest.mark.parametrize(("told", "counted"), [(0, 1), (9, 2)])
def test_losses_are_counted_between_one_and_all(
    spool: Spool, store: ScriptedStore, shipper: Shipper, told: int, counted: int
) -> None:
    store.errors = [StoreRefused("no", keep=False, points_lost=told)]
    spool.append(METRICS, b"a\nb\n")
    shipper.ship()
    assert (shipper.shipped_points, shipper.dropped_points) == (2 - counted, counted)


def test_a_segment_that_someone_deleted_does_not_block_the_rest(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    spool.append(METRICS, b"a\n")
    spool.close_segments()
    spool.closed()[0].path.unlink()
    spool.append(METRICS, b"b\n")
    assert shipper.ship() == 10
    assert store.taken == [(METRICS, b"b\n")]
    assert shipper.store_errors == 1


def test_the_quarantine_file_loses_its_older_half(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.lp"
    for number in range(100):
        append_bounded(path, b"line %02d\n" % number, 80)
        assert path.stat().st_size <= 80
    lines = path.read_bytes().split(b"\n")[:-1]
    assert lines == [b"line %02d" % number for number in range(100 - len(lines), 100)]
    assert len(lines) >= 4


def test_the_thread_ships_when_woken_and_once_more_when_stopped(
    spool: Spool, store: ScriptedStore
) -> None:
    shipper = Shipper(spool, store, flush_seconds=3600)
    assert not shipper.alive
    shipper.start()
    spool.append(METRICS, b"a\n")
    shipper.wake()
    assert store.arrived.wait(10)
    assert shipper.alive
    spool.append(METRICS, b"b\n")
    assert shipper.stop(10)
    assert b"".join(lines for _, lines in store.taken) == b"a\nb\n"
    assert store.closed
    assert not shipper.alive


def test_stopping_ends_a_backoff_and_leaves_the_rest_in_the_spool(
    spool: Spool, store: ScriptedStore
) -> None:
    shipper = Shipper(spool, store, flush_seconds=3600)
    store.errors = [StoreUnreachable("away", retry_after=600) for _ in range(9)]
    spool.append(METRICS, b"a\n")
    shipper.start()
    shipper.wake()
    assert shipper.stop(10)
    assert shipper.store_errors >= 1
    assert spool.depth_bytes == 2


def test_nothing_is_sent_after_the_deadline(spool: Spool, store: ScriptedStore) -> None:
    clock = ManualClock()

    class SlowStore(ScriptedStore):
        def write(self, database: Database, lines: bytes) -> None:
            super().write(database, lines)
            clock.now += 4.0

    slow = SlowStore()
    shipper = Shipper(spool, slow, flush_seconds=3600, clock=clock)
    for number in range(5):
        spool.append(METRICS, b"%d\n" % number)
        spool.close_segments()
    shipper.start()
    assert shipper.stop(10.0)
    assert len(slow.taken) == 3
    assert spool.segments == 2
