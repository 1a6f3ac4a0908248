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

from agent.daemon import adopt_leftovers
from agent.ledger import Ledger, Reason, read_numbers
from agent.segments import SpoolLocked, SpoolUnusable
from agent.spool import Spool
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
    spool.close_segment(database)
    return b"".join(each.lines() for each in spool.closed(database))


def names(spool: Spool) -> list[str]:
    return [each.path.name for each in spool.closed(METRICS)]


def test_ticks_come_back_in_order_and_by_database(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"a\nb\n")
        spool.append(JOBS, b"j\n")
        spool.append(METRICS, b"c\n")
        assert spool.closed(METRICS) == spool.closed(JOBS) == []
        assert contents(spool) == b"a\nb\nc\n"
        assert spool.closed(JOBS) == []
        assert contents(spool, JOBS) == b"j\n"
        assert spool.segments == 2
        assert spool.depth_bytes == 8


def test_names_tell_age_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    clock = FakeClock(1000.0)
    with open_spool(tmp_path, clock=clock) as spool:
        for now, lines in ((1000.0, b"first\n"), (500.0, b"second\n")):
            clock.now = now
            spool.append(METRICS, lines)
            spool.close_segment(METRICS)
        assert names(spool) == [
            "0000001000000-000001-metrics.lp",
            "0000001000000-000002-metrics.lp",
        ]
    clock.now = 10.0
    with open_spool(tmp_path, clock=clock) as spool:
        spool.append(METRICS, b"third\n")
        assert contents(spool) == b"first\nsecond\nthird\n"
        assert sorted(names(spool)) == names(spool)
        assert spool.newest_ms > 1_000_000


def test_the_newest_time_is_known_when_all_is_shipped_and_the_agent_was_killed(
    tmp_path: Path,
) -> None:
    clock = FakeClock(1000.0)
    killed = Spool(tmp_path, 1 << 20, clock=clock)
    killed.append(METRICS, b"a\n")
    clock.now = 1007.5
    killed.append(METRICS, b"b\n")
    killed.close_segment(METRICS)
    for segment in killed.closed(METRICS):
        killed.remove(segment)
    os.close(killed._lock_file)
    with open_spool(tmp_path, clock=FakeClock(10.0)) as spool:
        assert spool.newest_ms == 1_007_501


def test_many_segments_of_one_millisecond_keep_their_order(tmp_path: Path) -> None:
    for sequence in (999_999, 1_000_000):
        (tmp_path / f"0000000000001-{sequence}-metrics.lp").write_bytes(b"%d\n" % sequence)
    with open_spool(tmp_path) as spool:
        assert contents(spool) == b"999999\n1000000\n"


def test_a_segment_that_is_large_enough_closes_itself(tmp_path: Path) -> None:
    with open_spool(tmp_path, segment=10) as spool:
        spool.append(METRICS, b"12345678\n")
        assert spool.closed(METRICS) == []
        spool.append(METRICS, b"9\n")
        assert [each.size for each in spool.closed(METRICS)] == [11]


def test_removed_segments_are_gone(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"a\n")
        spool.close_segment(METRICS)
        (segment,) = spool.closed(METRICS)
        assert spool.remove(segment, lost=1)
        assert not spool.remove(segment, lost=1)
        assert (spool.depth_bytes, spool.segments) == (0, 0)
        assert spool.lost == {Reason.REFUSED: 1}
        assert not segment.path.exists()


def test_what_a_killed_agent_left_is_taken_over_without_its_torn_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Versions before 0.2 named the file at hand `.open`; later ones may leave what we know not."""
    (tmp_path / "0000000000001-000001-metrics.open").write_bytes(b"a\nb\ntor")
    (tmp_path / "0000000000001-000002-jobs.open").write_bytes(b"torn")
    (tmp_path / "0000000000000-000001-metrics.lp").write_bytes(b"older\n")
    (tmp_path / "0000000000002-000001-metrics.lp").write_bytes(b"newer\nto")
    (tmp_path / "0000000000003-000001-metrics.zst").write_bytes(b"of the future")
    with open_spool(tmp_path) as spool:
        assert contents(spool) == b"older\na\nb\nnewer\n"
        assert spool.depth_bytes == 16
        assert contents(spool, JOBS) == b""
        for segment in spool.closed(METRICS):
            spool.remove(segment)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"lock", "ledger", "0000000000003-000001-metrics.zst"}
    assert caplog.messages == [
        f"{tmp_path}: left alone, not of this version: 0000000000003-000001-metrics.zst"
    ]


def test_a_full_spool_drops_its_oldest_and_counts_points(tmp_path: Path) -> None:
    with open_spool(tmp_path, limit=12, segment=3) as spool:
        for tick in (b"a\na\n", b"b\nb\n", b"c\nc\n", b"d\nd\n"):
            spool.append(METRICS, tick)
        assert contents(spool) == b"b\nb\nc\nc\nd\nd\n"
        assert spool.lost == {Reason.SPOOL_FULL: 2}
        assert spool.depth_bytes == 12
    with open_spool(tmp_path) as spool:
        assert spool.lost == {Reason.SPOOL_FULL: 2}


def test_the_newest_is_kept_however_small_the_spool(tmp_path: Path) -> None:
    with open_spool(tmp_path, limit=1) as spool:
        spool.append(METRICS, b"long tick\n")
        assert contents(spool) == b"long tick\n"
        spool.append(METRICS, b"next tick\n")
        assert contents(spool) == b"next tick\n"
        assert spool.lost == {Reason.SPOOL_FULL: 1}


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200), st.integers(1, 50))
def test_every_point_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, segment: int
) -> None:
    with open_spool(tmp_path_factory.mktemp("spool"), limit=limit, segment=segment) as spool:
        for number, size in enumerate(sizes):
            spool.append(METRICS, b"%d\n" % number * size)
        kept = contents(spool)
        assert kept.count(b"\n") + sum(spool.lost.values()) == sum(sizes)
        newest = b"".join(b"%d\n" % number * size for number, size in enumerate(sizes))
        assert newest.endswith(kept)
        assert spool.depth_bytes == len(kept)


def test_half_a_line_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool, pytest.raises(ValueError, match="whole lines"):
        spool.append(METRICS, b"half")


def test_a_full_disk_is_waited_out_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"before\n")
        with no_file_above(8):  # room for a part of the next tick
            spool.append(METRICS, b"during 1\n")
            spool.append(METRICS, b"during 2\n")
            (file,) = tmp_path.glob("*.lp")
            assert file.read_bytes() == b"before\n"
            assert spool.depth_bytes == 7 + 9 + 9
        spool.append(METRICS, b"after\n")
        assert contents(spool) == b"before\nduring 1\nduring 2\nafter\n"
        on_disk = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.lp")))
        assert on_disk == contents(spool)
        assert spool.lost == {}
    first, last = caplog.messages
    assert "No space left on device" in first
    assert last.endswith("the disk takes ticks again")


def test_what_a_full_disk_does_not_take_is_shipped_from_memory(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool, no_file_above(0):
        spool.append(METRICS, b"a\n")
        spool.append(JOBS, b"j\n")
        spool.append(METRICS, b"b\n")
        assert contents(spool) == b"a\nb\n"
        assert contents(spool, JOBS) == b"j\n"
        for database in (METRICS, JOBS):
            (segment,) = spool.closed(database)
            assert spool.remove(segment)
        assert (spool.segments, spool.depth_bytes) == (0, 0)
        assert list(tmp_path.glob("*.lp")) == []


def test_memory_is_bounded_too(tmp_path: Path) -> None:
    with open_spool(tmp_path, memory=8) as spool:
        with no_file_above(0):
            for tick in (b"a\na\n", b"b\nb\n", b"c\nc\n"):
                spool.append(METRICS, tick)
        assert spool.lost == {Reason.MEMORY_FULL: 2}
        assert contents(spool) == b"b\nb\nc\nc\n"


def test_what_only_memory_held_is_counted_by_the_next_agent(tmp_path: Path) -> None:
    """The ledger keeps its size and its place: a full disk lets it be written."""
    with open_spool(tmp_path) as spool:
        spool.append(METRICS, b"saved\n")
        with no_file_above(len((tmp_path / "ledger").read_bytes())):
            spool.append(METRICS, b"held\n" * 200)
            assert read_numbers(tmp_path / "ledger")["held"] == 200
            os.close(spool._lock_file)  # as if it had been killed
            with open_spool(tmp_path) as following:
                assert contents(following) == b"saved\n"
                assert following.lost == {Reason.NOT_SAVED: 200}
            spool._lock_file = os.open("/dev/null", os.O_RDONLY)


@given(st.lists(st.sampled_from(["tick", "job", "full", "free", "ship", "kill"]), max_size=60))
def test_whatever_happens_every_point_is_shipped_or_there_or_counted(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    appended = shipped = 0
    spool = Spool(folder, 4000, segment_bytes=300, memory_bytes=600, clock=FakeClock())
    room = 1 << 30
    for event in story:
        with no_file_above(room):
            if event in ("tick", "job"):
                spool.append(METRICS if event == "tick" else JOBS, b"0123456789\n" * 7)
                appended += 7
            elif event in ("full", "free"):
                room = 400 if event == "full" else 1 << 30
            elif event == "ship":
                for database in Database:
                    spool.close_segment(database)
                    for segment in spool.closed(database)[:2]:
                        shipped += segment.lines().count(b"\n")
                        spool.remove(segment)
            else:
                os.close(spool._lock_file)
                spool = Spool(folder, 4000, segment_bytes=300, memory_bytes=600, clock=FakeClock())
    here = b"".join(contents(spool, database) for database in Database)
    assert spool.depth_bytes == len(here)
    assert appended == shipped + here.count(b"\n") + sum(spool.lost.values())
    spool.close()


def test_a_ledger_of_another_version_keeps_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text(f"refused {3:020d}\nfuture {4:020d}\nhe")
    ledger = Ledger(path)
    ledger.lose(Reason.REFUSED, 1)
    ledger.close()
    assert read_numbers(path)["refused"] == 4


def test_two_agents_cannot_share_a_spool(tmp_path: Path) -> None:
    refused = pytest.raises(SpoolLocked, match=f"{tmp_path}.*process {os.getpid()}")
    with open_spool(tmp_path), refused:
        Spool(tmp_path, 1 << 20)
    with open_spool(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("group", [65534, 0])
def test_a_spool_of_another_user_is_an_error_for_a_person(tmp_path: Path, group: int) -> None:
    """As when somebody ran the agent as root, once, and then the service starts."""
    with open_spool(tmp_path / "spool"):
        pass
    script = (
        "import os, sys; from pathlib import Path; from agent.spool import Spool\n"
        f"os.setgroups([]); os.setgid({group}); os.setuid(65534)\n"
        "try: Spool(Path(sys.argv[1]), 1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
    )
    assert told.stdout.startswith(f"SpoolUnusable {tmp_path}/spool: Permission denied; give it")


def test_a_spool_that_cannot_be_made_is_an_error_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match=r"file/spool.*agent\.state_directory"):
        Spool(tmp_path / "file" / "spool", 1)


def test_what_runs_left_is_taken_over_with_its_losses(tmp_path: Path) -> None:
    runs, ours = tmp_path / "runs", tmp_path / "ours"
    for run in ("1", "2"):
        with open_spool(runs / run / "spool", limit=1, clock=FakeClock(5.0)) as spool:
            for lines in (b"lost\n", b"run %s\n" % run.encode()):
                spool.append(METRICS, lines)
                spool.close_segment(METRICS)
    with open_spool(runs / "3" / "spool") as used:
        used.append(METRICS, b"run 3\n")
        adopt_leftovers(runs, ours)
        assert [path.name for path in runs.iterdir()] == ["3"]
    with open_spool(ours) as spool:
        # both were made in the same millisecond, and so have the same name
        assert contents(spool) == b"run 1\nrun 2\n"
        assert spool.lost == {Reason.SPOOL_FULL: 2}
        with pytest.raises(SpoolLocked):
            adopt_leftovers(runs, ours)


def test_one_thread_appends_while_another_takes(tmp_path: Path) -> None:
    ticks = [b"%d\n" % number for number in range(3000)]
    taken: list[bytes] = []
    done = threading.Event()

    def take() -> None:
        last_round = False
        while not last_round:
            last_round = done.is_set()
            spool.close_segment(METRICS)
            for segment in spool.closed(METRICS):
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
