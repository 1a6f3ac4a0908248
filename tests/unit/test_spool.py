import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spool import Spool, SpoolLocked
from probes.catalogue import Database

METRICS, JOBS = Database.METRICS, Database.JOBS


class FakeClock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@contextmanager
def open_spool(
    directory: Path,
    limit: int = 1 << 20,
    segment: int = 1 << 20,
    memory: int = 1 << 20,
    clock: FakeClock | None = None,
) -> Iterator[Spool]:
    spool = Spool(directory, limit, segment, memory, clock or FakeClock())
    try:
        yield spool
    finally:
        spool.close()


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the kernel refuse writes as a full disk does: in the middle of a write, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(spool: Spool, database: Database = METRICS) -> bytes:
    return b"".join(each.lines() for each in spool.closed() if each.database is database)


def test_ticks_come_back_in_order_and_by_database(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"a\nb\n")
        spool.append(JOBS, b"j\n")
        spool.append(METRICS, b"c\n")
        assert spool.closed() == []
        spool.close_segments()
        assert contents(spool) == b"a\nb\nc\n"
        assert contents(spool, JOBS) == b"j\n"
        assert spool.segments == 2
        assert spool.depth_bytes == 8


def test_names_tell_age_and_database_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    clock = FakeClock(1000.0)
    with open_spool(tmp_path, clock=clock) as spool:
        for now, lines in ((1000.0, b"first\n"), (500.0, b"second\n")):
            clock.now = now
            spool.append(METRICS, lines)
            spool.close_segments()
        names = [each.path.name for each in spool.closed()]
    assert names == ["0000001000000-000001-metrics.lp", "0000001000000-000002-metrics.lp"]
    clock.now = 10.0
    with open_spool(tmp_path, clock=clock) as spool:
        spool.append(METRICS, b"third\n")
        spool.close_segments()
        assert contents(spool) == b"first\nsecond\nthird\n"
        assert sorted(names := [each.path.name for each in spool.closed()]) == names


def test_a_segment_that_is_large_enough_closes_itself(tmp_path: Path) -> None:
    with open_spool(tmp_path, segment=10) as spool:
        spool.append(METRICS, b"12345678\n")
        assert spool.closed() == []
        spool.append(METRICS, b"9\n")
        assert [each.size for each in spool.closed()] == [11]


def test_removed_segments_are_gone(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"a\n")
        spool.close_segments()
        (segment,) = spool.closed()
        assert spool.remove(segment)
        assert not spool.remove(segment)
        assert (spool.depth_bytes, spool.segments) == (0, 0)
        assert not segment.path.exists()


def test_what_a_killed_agent_left_is_taken_over_without_its_torn_line(tmp_path: Path) -> None:
    (tmp_path / "0000000000001-000001-metrics.open").write_bytes(b"a\nb\ntor")
    (tmp_path / "0000000000001-000002-jobs.open").write_bytes(b"torn")
    (tmp_path / "0000000000000-000001-metrics.lp").write_bytes(b"older\n")
    (tmp_path / "something else").write_bytes(b"not ours")
    with open_spool(tmp_path) as spool:
        assert contents(spool) == b"older\na\nb\n"
        assert spool.depth_bytes == 10
        assert contents(spool, JOBS) == b""
    assert (tmp_path / "something else").exists()
    assert not list(tmp_path.glob("*.open"))


def test_a_full_spool_drops_its_oldest_and_counts_points(tmp_path: Path) -> None:
    with open_spool(tmp_path, limit=12, segment=3) as spool:
        for tick in (b"a\na\n", b"b\nb\n", b"c\nc\n", b"d\nd\n"):
            spool.append(METRICS, tick)
        assert contents(spool) == b"b\nb\nc\nc\nd\nd\n"
        assert spool.dropped_points == 2
        assert spool.depth_bytes == 12


def test_the_newest_is_kept_however_small_the_spool(tmp_path: Path) -> None:
    with open_spool(tmp_path, limit=1) as spool:
        spool.append(METRICS, b"long tick\n")
        assert contents(spool) == b"long tick\n"
        spool.append(METRICS, b"next tick\n")
        assert contents(spool) == b"next tick\n"
        assert spool.dropped_points == 1


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200), st.integers(1, 50))
def test_every_point_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, segment: int
) -> None:
    with open_spool(tmp_path_factory.mktemp("spool"), limit=limit, segment=segment) as spool:
        for number, size in enumerate(sizes):
            spool.append(METRICS, b"%d\n" % number * size)
        spool.close_segments()
        kept = contents(spool)
        assert kept.count(b"\n") + spool.dropped_points == sum(sizes)
        newest = b"".join(b"%d\n" % number * size for number, size in enumerate(sizes))
        assert newest.endswith(kept)
        assert spool.depth_bytes == len(kept)


def test_half_a_line_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool, pytest.raises(ValueError, match="whole lines"):
        spool.append(METRICS, b"half")


def test_a_full_disk_is_waited_out_in_memory(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"before\n")
        with no_file_above(10):  # room for a part of the next tick
            spool.append(METRICS, b"during 1\n")
            spool.append(METRICS, b"during 2\n")
            assert next(tmp_path.glob("*.open")).read_bytes() == b"before\n"
            assert spool.depth_bytes == 7 + 9 + 9
        spool.append(METRICS, b"after\n")
        spool.close_segments()
        assert contents(spool) == b"before\nduring 1\nduring 2\nafter\n"
        assert spool.dropped_points == 0


def test_memory_is_bounded_too(tmp_path: Path) -> None:
    with open_spool(tmp_path, memory=8) as spool:
        with no_file_above(0):
            for tick in (b"a\na\n", b"b\nb\n", b"c\nc\n"):
                spool.append(METRICS, tick)
        assert spool.dropped_points == 2
        spool.close_segments()
        assert contents(spool) == b"b\nb\nc\nc\n"


def test_two_agents_cannot_share_a_spool(tmp_path: Path) -> None:
    refused = pytest.raises(SpoolLocked, match=f"{tmp_path}.*process {os.getpid()}")
    with open_spool(tmp_path), refused:
        Spool(tmp_path, 1 << 20)
    with open_spool(tmp_path):
        pass


def test_one_thread_appends_while_another_takes(tmp_path: Path) -> None:
    ticks = [b"%d\n" % number for number in range(3000)]
    taken: list[bytes] = []
    done = threading.Event()

    def take() -> None:
        last_round = False
        while not last_round:
            last_round = done.is_set()
            spool.close_segments()
            for segment in spool.closed():
                taken.append(segment.lines())
                spool.remove(segment)

    with open_spool(tmp_path, segment=64) as spool:
        thread = threading.Thread(target=take)
        thread.start()
        for tick in ticks:
            spool.append(METRICS, tick)
        done.set()
        thread.join()
    assert b"".join(taken) == b"".join(ticks)


APPENDER = """
import sys
from pathlib import Path
from agent.spool import Spool
from probes.catalogue import Database
spool = Spool(Path(sys.argv[1]), 1 << 30, segment_bytes=20_000)
for tick in range(10**9):
    spool.append(Database.METRICS, b"".join(b"m v=%d.0 %d\\n" % (line, tick) for line in range(20)))
    sys.stdout.write(f"{tick}\\n")
    sys.stdout.flush()
"""


def test_a_killed_process_loses_no_finished_tick(tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPENDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        finished = [int(child.stdout.readline()) for _ in range(500)]
        child.kill()
        finished += [int(line) for line in child.stdout.read().split(b"\n")[:-1]]
    with open_spool(tmp_path) as spool:
        lines = contents(spool).splitlines()
    ticks = len(lines) // 20
    assert ticks - finished[-1] in (1, 2)  # the last one may not have been told
    assert lines == [b"m v=%d.0 %d" % (line, tick) for tick in range(ticks) for line in range(20)]
