"""A job over time, from a real embedded store into which known samples were written."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from agent.inspect.model import Gpu, JobHeader, JobReport, Node, Outlier
from agent.inspect.series import (
    HOSTS_AT_ONCE,
    MOST_HOSTS,
    MOST_LINES,
    MOST_WINDOWS,
    Line,
    Point,
    Timelines,
    timelines,
    window_ms,
)
from agent.lineprotocol import Point as Written
from agent.lineprotocol import encode
from agent.stores.guarded import GuardedStore
from agent.stores.local import LocalStore
from agent.stores.store import Row, Select, StoreUnreachable, Windows
from probes.catalogue import Database
from probes.sample import Value
from workloads.roofline import Bound

BEGIN_MS = 1_700_000_000_000
SECONDS = 20
END_MS = BEGIN_MS + 1000 * SECONDS
NOW_MS = END_MS + 86_400_000
JOBID = "42"
DAY = 86_400_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "rooflight.db", 1e6)
    yield store
    store.close()


class Recorded:
    """The store, and the hosts that were asked for."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.hosts: set[str] = set()
        self.write, self.rows, self.close = store.write, store.rows, store.close

    def windows(self, asked: Windows) -> Sequence[Row]:
        assert len(asked.where["host"]) <= HOSTS_AT_ONCE
        self.hosts |= set(asked.where["host"])
        return self._store.windows(asked)


def line(
    measurement: str, second: float, host: str, tags: Mapping[str, str], **fields: Value
) -> str:
    all_tags = {"cluster": "c", "host": host, **tags}
    time_ms = BEGIN_MS + round(1000 * second)
    return encode(Written(measurement, tuple(sorted(all_tags.items())), fields, time_ms)) + "\n"


def write(store: LocalStore, *lines: str) -> None:
    store.write(Database.METRICS, "".join(lines).encode())


def busy(host: str, cpus: float) -> list[str]:
    """Return samples of a job that uses so many CPUs, each second."""
    return [
        line(
            "job_cgroup",
            second,
            host,
            {"jobid": JOBID},
            cpu_seconds=cpus * second,
            memory_bytes=4.0,
        )
        for second in range(SECONDS + 1)
    ]


def report(*hosts: str, gpus: int = 0, cpus: float = 4.0) -> JobReport:
    job = JobHeader(JOBID, "c", "COMPLETED", start_ms=BEGIN_MS, end_ms=END_MS)
    held = [Gpu(str(number)) for number in range(gpus)]
    nodes = [
        Node(host, SECONDS, SECONDS, SECONDS, END_MS, True, "cgroup2", (), gpus=held, cpus=cpus)
        for host in hosts
    ]
    return JobReport(job, nodes, (), (), ())


def panel_lines(drawn: Timelines, title: str) -> dict[str, list[Point]]:
    found = [panel for panel in drawn.panels if panel.title == title]
    return {each.name: list(each.points) for panel in found for each in panel.lines}


def test_processor_time_becomes_the_share_of_the_job_s_cpus(store: LocalStore) -> None:
    write(store, *busy("n1", 3.0))
    drawn = timelines(store, report("n1"), NOW_MS)
    assert drawn.every_ms == 1000
    job = panel_lines(drawn, "CPU")["job"]
    assert [point.end_ms for point in job] == [BEGIN_MS + 1000 * s for s in range(1, SECONDS + 1)]
    assert {point.mean for point in job} == {0.75}
    assert panel_lines(drawn, "Memory")["job"][0].mean == 4.0
    assert "InfiniBand" in drawn.absent
    assert "GPU power" not in drawn.absent
    assert drawn.words == ""


def test_hosts_are_one_line_with_its_range(store: LocalStore) -> None:
    write(store, *busy("n1", 1.0), *busy("n2", 3.0), *busy("n3", 4.0))
    drawn = timelines(store, report("n1", "n2"), NOW_MS)
    assert {point[1:] for point in panel_lines(drawn, "CPU")["job"]} == {(0.5, 0.25, 0.75)}
    assert next(panel.several for panel in drawn.panels if panel.title == "CPU") == "2 hosts"


def test_what_a_host_has_several_of_is_added_up_and_loopback_left_out(store: LocalStore) -> None:
    write(
        store,
        *busy("n1", 1.0),
        *(
            line("network", second, "n1", {"interface": name}, receive_bytes=rate * second)
            for second in range(SECONDS + 1)
            for name, rate in (("eth0", 100.0), ("eth1", 50.0), ("lo", 7.0))
        ),
    )
    drawn = timelines(store, report("n1"), NOW_MS)
    assert {point.mean for point in panel_lines(drawn, "Network")["received"]} == {150.0}


def gpu_lines(host: str, gpus: int) -> list[str]:
    bounds = {0: Bound.COMPUTE, 1: Bound.MEMORY}
    return [
        each
        for second in range(SECONDS + 1)
        for gpu in range(gpus)
        for tags in [{"gpu": str(gpu)}]
        for each in (
            line("gpu", second, host, {**tags, "uuid": "u"}, power_watts=100.0 * (gpu + 1)),
            line(
                "bound",
                second,
                host,
                tags,
                bound=bounds.get(gpu, Bound.IDLE).value,
                compute_ratio=0.9,
                memory_ratio=0.3,
            ),
        )
    ]


def test_each_gpu_of_the_job_has_a_line_and_those_of_others_none(store: LocalStore) -> None:
    write(store, *busy("n1", 1.0), *gpu_lines("n1", 4))
    drawn = timelines(store, report("n1", gpus=2), NOW_MS)
    power = panel_lines(drawn, "GPU power")
    watts = {name: {point.mean for point in points} for name, points in power.items()}
    assert watts == {"gpu 0": {100.0}, "gpu 1": {200.0}}
    assert drawn.bounds.keys() == {"gpu 0", "gpu 1"}
    assert all(shares == {Bound.MEMORY: 1.0} for shares in drawn.bounds["gpu 1"].values())
    assert {fraction[1:] for fraction in drawn.roofs["gpu 0"]} == {(0.9, 0.3)}


def test_many_gpus_are_one_line_with_its_range(store: LocalStore) -> None:
    write(store, *busy("n1", 1.0), *gpu_lines("n1", MOST_LINES + 1))
    drawn = timelines(store, report("n1", gpus=MOST_LINES + 1), NOW_MS)
    power = panel_lines(drawn, "GPU power")
    assert {point[1:] for point in power["mean"]} == {(500.0, 100.0, 900.0)}
    assert len(drawn.bounds) == MOST_LINES + 1


def test_gpus_of_several_hosts_are_named_with_their_host(store: LocalStore) -> None:
    write(store, *busy("n1", 1.0), *gpu_lines("n1", 1), *busy("n2", 1.0), *gpu_lines("n2", 1))
    drawn = timelines(store, report("n1", "n2", gpus=1), NOW_MS)
    assert panel_lines(drawn, "GPU power").keys() == {"n1 gpu 0", "n2 gpu 0"}


def test_another_job_of_the_same_host_is_not_drawn(store: LocalStore) -> None:
    others = [
        line("job_cgroup", second, "n1", {"jobid": "7"}, cpu_seconds=9.0 * second)
        for second in range(SECONDS + 1)
    ]
    write(store, *busy("n1", 2.0), *others)
    drawn = timelines(store, report("n1"), NOW_MS)
    assert {point.mean for point in panel_lines(drawn, "CPU")["job"]} == {0.5}


def test_very_many_hosts_are_drawn_in_part_and_it_is_said(store: LocalStore) -> None:
    hosts = [f"n{number:03}" for number in range(2 * MOST_HOSTS + 1)]
    write(store, *(each for host in hosts for each in busy(host, 1.0)[:3]))
    slow = Outlier("cpu", "ratio", hosts[-1], 0.1, 0.9)
    many = msgspec.structs.replace(report(*hosts), outliers=[slow])
    asked = Recorded(store)
    drawn = timelines(asked, many, NOW_MS)
    assert drawn.words == (
        f"44 of {len(hosts)} hosts are drawn, those unlike the others among them"
    )
    assert panel_lines(drawn, "CPU")["job"]
    assert len(asked.hosts) == 44
    assert {hosts[0], hosts[-1]} <= asked.hosts


def test_of_a_long_job_fewer_hosts_are_drawn(store: LocalStore) -> None:
    hosts = [f"n{number:02}" for number in range(MOST_HOSTS)]
    write(store, *(each for host in hosts for each in busy(host, 1.0)[:3]))
    day = report(*hosts)
    day = msgspec.structs.replace(day, job=msgspec.structs.replace(day.job, end_ms=BEGIN_MS + DAY))
    drawn = timelines(store, day, NOW_MS)
    assert drawn.words.startswith("8 of 64 hosts are drawn")
    assert drawn.every_ms == 480_000


def test_through_the_guard_the_owner_sees_the_same(store: LocalStore) -> None:
    """The guard shows hosts and GPUs in the time of a job that was asked for."""
    ended: dict[str, Value] = {"user": "alice", "end_epoch_milliseconds": float(END_MS)}
    jobs = [line("job", 0, "n1", {"jobid": JOBID}, **ended)]
    jobs += [
        line("job_gpu_footprint", 0, "n1", {"jobid": JOBID, "gpu": gpu}, samples_total=1.0)
        for gpu in ("0", "1")
    ]
    write(store, *busy("n1", 2.0), *gpu_lines("n1", 4))
    store.write(Database.JOBS, "".join(jobs).encode())
    asked = Select("job", {"cluster": "c", "jobid": JOBID})
    alice = GuardedStore(store, lambda job: job.get("user") == "alice")
    assert alice.rows(asked)
    given = report("n1", gpus=2)
    assert timelines(alice, given, NOW_MS) == timelines(store, given, NOW_MS)
    mallory = GuardedStore(store, lambda job: job.get("user") == "mallory")
    assert mallory.rows(asked) == []
    assert timelines(mallory, given, NOW_MS).panels == ()


def test_a_job_of_one_sample_is_too_short(store: LocalStore) -> None:
    write(store, *busy("n1", 1.0)[:1])
    short = report("n1")
    node = msgspec.structs.replace(short.nodes[0], samples=1)
    words = timelines(store, msgspec.structs.replace(short, nodes=[node]), NOW_MS).words
    assert words.startswith("the job was too short")


def test_samples_that_are_gone_are_said_to_be_gone(store: LocalStore) -> None:
    store.prepare()
    assert "no samples of this job's time any more: it began 1 days ago" in (
        timelines(store, report("n1"), NOW_MS).words
    )


def test_a_store_that_went_away_is_words_and_no_error(tmp_path: Path) -> None:
    gone = LocalStore.read_only(tmp_path / "nowhere.db")
    with pytest.raises(StoreUnreachable):
        gone.rows(Select("cpu", {"host": "n1"}))
    words = timelines(gone, report("n1"), NOW_MS).words
    assert words.startswith("the store could not be asked what happened when: ")
    assert "nowhere.db" in words


def test_a_job_that_no_agent_saw_asks_nothing(tmp_path: Path) -> None:
    gone = LocalStore.read_only(tmp_path / "nowhere.db")
    assert "no host of this job was sampled" in timelines(gone, report(), NOW_MS).words


@pytest.mark.parametrize("span_s", [0, 1, 179, 180, 181, 3600, 86_400, 10_000_000])
@pytest.mark.parametrize("interval_ms", [20, 1000, 10_000])
def test_windows_are_whole_intervals_and_never_too_many(span_s: int, interval_ms: int) -> None:
    every_ms = window_ms(interval_ms, 1000 * span_s)
    assert every_ms % interval_ms == 0
    assert 1000 * span_s <= every_ms * MOST_WINDOWS
    if 1000 * span_s <= interval_ms * MOST_WINDOWS:
        assert every_ms == interval_ms


def test_a_line_is_broken_where_samples_are_missing() -> None:
    points = [Point(1000 * second, 1.0, 1.0, 1.0) for second in (1, 2, 3, 4, 9, 10, 12)]
    pieces = Line("cpu", points).pieces()
    assert [[point.end_ms // 1000 for point in piece] for piece in pieces] == [
        [1, 2, 3, 4],
        [9, 10, 12],
    ]
    assert Line("cpu", []).pieces() == [[]]
