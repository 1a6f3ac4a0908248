import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ledger import Reason
from agent.quarantine import Quarantine
from agent.segments import Segment
from agent.shipper import MOST_COMPLAINTS, Shipper
from agent.spool import Spool
from agent.stores.store import Rejected, Row, Select, StoreRefused, StoreUnreachable, Windows
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
        self.takes_seconds = 0.0
        self.asked_at: list[float] = []
        self.clock: ManualClock | None = None

    def write(self, database: Database, lines: bytes) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error:
            raise error
        if database in self.refused_databases:
            raise StoreRefused("no such database", keep=True)
        self.taken.append((database, lines))
        if self.clock:
            self.asked_at.append(self.clock.now)
            self.clock.now += self.takes_seconds
        self.arrived.set()

    def rows(self, select: Select) -> list[Row]:
        raise StoreRefused("a test does not read", keep=True)

    def windows(self, asked: Windows) -> list[Row]:
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
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shipper(spool: Spool, store: ScriptedStore, clock: ManualClock) -> Shipper:
    """A shipper whose random pauses are always the longest, driven by hand."""
    return Shipper(spool, store, flush_seconds=10, clock=clock, jitter=lambda low, high: high)


def ship(shipper: Shipper, clock: ManualClock, times: int = 1) -> list[float]:
    """Ship, and wait for as long as the shipper wants to; return how long that was each time."""
    pauses = []
    for _ in range(times):
        pauses.append(shipper.ship())
        clock.now += pauses[-1]
    return pauses


def sent(store: ScriptedStore, database: Database = METRICS) -> list[bytes]:
    return [lines for each, lines in store.taken if each is database]


def test_all_segments_are_sent_oldest_first_and_deleted(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    for lines in (b"a\n", b"b\nc\n"):
        spool.append(METRICS, lines)
        spool.close_segment(METRICS)
    spool.append(METRICS, b"d\n")
    spool.append(JOBS, b"j\n")
    assert shipper.ship() == 10
    assert sent(store) == [b"a\n", b"b\nc\n", b"d\n"]
    assert sent(store, JOBS) == [b"j\n"]
    assert (shipper.shipped_points, spool.lost, shipper.store_errors) == (5, {}, 0)
    assert spool.segments == 0


def test_an_unreachable_store_is_given_more_and_more_time(
    spool: Spool,
    store: ScriptedStore,
    shipper: Shipper,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "rooflight")
    store.errors = [StoreUnreachable("connection refused") for _ in range(5)]
    spool.append(METRICS, b"a\n")
    assert ship(shipper, clock, 5) == [20, 40, 60, 60, 60]
    assert spool.segments == 1
    assert len(caplog.records) == 1
    for _ in range(3):
        spool.append(METRICS, b"b\n")  # an outage makes one segment of many ticks
    assert shipper.ship() == 10
    assert sent(store) == [b"a\n", b"b\nb\nb\n"]
    assert caplog.messages[1:] == ["metrics: the store takes data again"]
    assert (shipper.store_errors, shipper.shipped_points) == (5, 4)


def test_a_store_that_answers_nobody_is_asked_once_for_both_databases(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    store.errors = [StoreUnreachable("timed out"), StoreUnreachable("timed out")]
    spool.append(METRICS, b"m\n")
    spool.append(JOBS, b"j\n")
    assert shipper.ship() == 20
    assert len(store.errors) == 1


def test_the_stores_wish_is_respected(spool: Spool, store: ScriptedStore, shipper: Shipper) -> None:
    store.errors = [StoreUnreachable("busy", retry_after=30)]
    spool.append(METRICS, b"a\n")
    assert shipper.ship() == 30 + 20


def test_a_backlog_is_sent_piece_by_piece(
    spool: Spool, store: ScriptedStore, shipper: Shipper, clock: ManualClock
) -> None:
    """As long as the server takes time for it: the pauses are in proportion."""
    store.takes_seconds = 0.5
    store.clock = clock
    for number in range(3):
        spool.append(METRICS, b"%d\n" % number)
        spool.close_segment(METRICS)
    spool.append(METRICS, b"now\n")
    ship(shipper, clock, 15)
    assert sent(store) == [b"0\n", b"1\n", b"2\n", b"now\n"]
    assert store.asked_at == [0, 0.5 + 40, 41 + 40, 81.5]


def test_what_an_admin_can_mend_waits_and_does_not_hold_up_the_other_database(
    spool: Spool,
    store: ScriptedStore,
    shipper: Shipper,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "rooflight")
    store.refused_databases = {JOBS}
    for _ in range(5):
        spool.append(JOBS, b"j\n")
        spool.append(METRICS, b"m\n")
        assert ship(shipper, clock) == [10]  # measurements come as ever
    assert sent(store) == [b"m\n"] * 5
    assert caplog.messages == ["jobs: the data is kept: no such database"]
    store.refused_databases = set()
    ship(shipper, clock, 6)
    assert b"".join(sent(store, JOBS)) == b"j\n" * 5
    assert (shipper.shipped_points, spool.lost) == (10, {})


def test_a_store_of_many_words_does_not_fill_the_log(
    spool: Spool,
    store: ScriptedStore,
    shipper: Shipper,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.errors = [StoreUnreachable(f"error {number}") for number in range(100)]
    spool.append(METRICS, b"m\n")
    ship(shipper, clock, 100)
    assert len(caplog.messages) == MOST_COMPLAINTS


def test_what_the_store_never_takes_is_put_aside_and_counted(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    rejected = [Rejected("field type\nconflict", b"bad\n"), Rejected("too old", b"x\ny\n")]
    store.errors = [StoreRefused("field type conflict", keep=False, rejected=rejected)]
    spool.append(METRICS, b"good\nbad\nx\ny\n")
    spool.close_segment(METRICS)
    spool.append(METRICS, b"next\n")
    assert shipper.ship() == 10
    assert (shipper.shipped_points, spool.lost) == (2, {Reason.REFUSED: 3})
    quarantine = spool.directory / "quarantine.lp"
    assert quarantine.read_bytes() == b"# field type conflict\nbad\n# too old\nx\ny\n"
    assert spool.segments == 0


def test_a_segment_that_someone_deleted_is_counted_and_does_not_block_the_rest(
    spool: Spool, store: ScriptedStore, shipper: Shipper
) -> None:
    spool.append(METRICS, b"a\na\n")
    spool.close_segment(METRICS)
    spool.closed(METRICS)[0].path.unlink()
    spool.append(METRICS, b"b\n")
    assert shipper.ship() == 10
    assert sent(store) == [b"b\n"]
    assert spool.lost == {Reason.UNREADABLE: 2}


def test_a_segment_that_cannot_be_read_is_tried_again_before_it_is_given_up(
    spool: Spool,
    store: ScriptedStore,
    shipper: Shipper,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(segment: Segment) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool.append(METRICS, b"a\n")
    with monkeypatch.context() as patched:  # no file can be made that reads as a dying disk does
        patched.setattr(Segment, "lines", unreadable)
        ship(shipper, clock, 2)
        assert (spool.segments, spool.lost) == (1, {})
    ship(shipper, clock)
    assert sent(store) == [b"a\n"]
    spool.append(METRICS, b"b\n")
    monkeypatch.setattr(Segment, "lines", unreadable)
    ship(shipper, clock, 9)
    assert (spool.segments, spool.lost) == (0, {Reason.UNREADABLE: 1})


def test_the_quarantine_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.lp", 400)
    for number in range(100):
        quarantine.add([Rejected("words", b"line %02d\n" % number)])
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        assert sum(sizes) <= 400
    files = [
        path for path in (quarantine.path.with_suffix(".old"), quarantine.path) if path.exists()
    ]
    lines = b"".join(path.read_bytes() for path in files).split(b"\n")[:-1]
    assert lines[0::2] == [b"# words"] * (len(lines) // 2)
    kept = len(lines) // 2
    assert lines[1::2] == [b"line %02d" % number for number in range(100 - kept, 100)]
    assert kept >= 12


def test_of_a_huge_rejection_the_first_lines_are_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.lp", 100)
    quarantine.add([Rejected("no", b"0123456789\n" * 1000), Rejected("nor", b"this\n")])
    assert quarantine.path.with_suffix(".old").read_bytes() == b"# no\n" + b"0123456789\n" * 4
    assert quarantine.path.read_bytes() == b"# nor\nthis\n"


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
        spool.close_segment(METRICS)
    shipper.start()
    assert shipper.stop(10.0)
    assert len(slow.taken) == 3
    assert spool.segments == 2
