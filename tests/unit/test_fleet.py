"""The parts of the benchmarks that play many nodes: what these write, when, and what is counted."""

import gzip
import random
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from agent.lineprotocol import Point, parse
from probes.catalogue import CATALOGUE, Database
from tests.benchmarks import fleet, kept
from tests.benchmarks.bodies import Size, all_bodies, merged, request, schedule, values_per_tick
from tests.benchmarks.node_ticks import NUMBER, Course, Line, Play, lines_of, plays, recorded
from tests.benchmarks.writers import Turn, writers

BEGIN_MS = 1_790_000_000_000
HOSTED = "cluster=test,host=recorded-node"


def tick(number: int, *more: str) -> dict[Database, str]:
    """A tick of a node with two parts, of which a plain one has the first."""
    lines = [
        f"network,{HOSTED},interface=eth0 receive_bytes={100.0 * number} {number}",
        f"network,{HOSTED},interface=ib0 receive_bytes=5.0 {number}",
        *more,
    ]
    return {Database.METRICS: "".join(f"{line}\n" for line in lines)}


PROBE = f"agent_probe,{HOSTED},probe=cpu errors_total=0.0 0"
JOB = f'job,{HOSTED},jobid=987654321 state="RUNNING" 77\n'
TICKS = [
    tick(number, *([PROBE] if number % 3 == 0 else []))
    | ({Database.JOBS: JOB} if number == 3 else {})
    for number in range(1, 11)
]


def points(text: str) -> list[Point]:
    return list(parse(text))


def test_what_stood_still_stands_still() -> None:
    course = Course(CATALOGUE["memory"].fields["total_bytes"], [(1, 8.0), (9, 8.0)])
    assert not course.moves
    assert course.after(1, random.Random(1)) == 8.0


def test_a_text_stays_as_it_was_last() -> None:
    course = Course(CATALOGUE["bound"].fields["bound"], [(1, "idle"), (9, "memory")])
    assert course.after(1, random.Random(1)) == "memory"


def test_a_counter_grows_by_its_step_more_or_less() -> None:
    course = Course(CATALOGUE["network"].fields["receive_bytes"], [(1, 100.0), (5, 500.0)])
    chance, before = random.Random(1), 500.0
    for _ in range(50):
        now = course.after(1, chance)
        assert isinstance(now, float)
        assert 49.0 <= now - before <= 151.0  # a hundred a tick, and both are rounded
        assert now == int(now)
        before = now


def test_a_gauge_stays_where_it_was_seen_with_as_many_digits() -> None:
    course = Course(CATALOGUE["cpu"].fields["utilization_ratio"], [(1, 0.25), (2, 0.75), (3, 0.5)])
    values = [course.after(1, random.Random(number)) for number in range(50)]
    assert all(isinstance(value, float) and 0.25 <= value <= 0.75 for value in values)
    assert len(set(values)) > 10
    assert all(value == round(float(value), 2) for value in values)


def test_a_kind_of_node_has_its_own_parts() -> None:
    assert [line.key for line in lines_of(TICKS, "cpu")] == [
        f"network,cluster=test,host=node{NUMBER},interface=eth0",
        f"agent_probe,cluster=test,host=node{NUMBER},probe=cpu",
        f"job,cluster=test,host=node{NUMBER},jobid=77{NUMBER}",
    ]
    assert len(lines_of(TICKS, "fabric")) == 4


def test_slow_rows_and_rows_of_jobs_are_told_from_those_of_each_tick() -> None:
    network, probe, job = lines_of(TICKS, "cpu")
    assert [network.slow, probe.slow, job.slow] == [False, True, True]
    assert [network.start_ms, probe.start_ms, job.start_ms] == [None, None, 77]


def made() -> list[Line]:
    return lines_of(TICKS, "cpu")


def test_the_first_tick_has_all_series_and_slow_rows_come_every_third() -> None:
    play = Play(made(), BEGIN_MS, 1)
    counts = [sum(map(len, map(points, play.tick(count).values()))) for count in range(7)]
    assert counts == [3, 1, 3, 1, 1, 3, 1]


def test_ticks_have_their_time_and_jobs_that_of_their_start() -> None:
    texts = [Play(made(), BEGIN_MS, 0).tick(count) for count in (0, 3)]
    assert {point.time_ms for point in points(texts[0][Database.METRICS])} == {BEGIN_MS}
    assert {point.time_ms for point in points(texts[1][Database.METRICS])} == {BEGIN_MS + 30_000}
    assert {point.time_ms for text in texts for point in points(text[Database.JOBS])} == {77}


def test_a_way_to_go_on_is_the_same_each_time_and_another_by_another_number() -> None:
    texts = [Play(made(), BEGIN_MS, number).tick(0) for number in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


def test_values_are_counted_with_the_slow_rows_in_their_share() -> None:
    def make(number: int) -> Play:
        return Play(made(), BEGIN_MS, number)

    # one value a tick, and two in every third; of the other kind the same
    assert values_per_tick({"cpu": make}, ["cpu"]) == pytest.approx(1 + 2 / 3)
    assert values_per_tick({"cpu": make, "gpu": make}, ["gpu", "cpu"]) == pytest.approx(1 + 2 / 3)


def test_an_agent_that_ships_each_minute_gathers_six_ticks() -> None:
    size = Size("cpu", nodes=3, ticks=12, ticks_per_write=6)
    assert size.turns() == [range(1, 7), range(7, 13)]
    cold = Size("cpu", nodes=3, ticks=7, first=0, ticks_per_write=6)
    assert cold.turns() == [range(6), range(6, 8)]


def test_a_relay_gathers_nodes() -> None:
    size = Size("cpu", nodes=5, ticks=1, nodes_per_write=2)
    assert size.writers == 3
    assert [list(size.nodes_of(writer)) for writer in range(3)] == [[0, 1], [2, 3], [4]]


def test_one_node_in_ten_of_a_mixed_fleet_has_gpus() -> None:
    size = Size("mixed", nodes=100, ticks=1)
    kinds = [size.kind(node) for node in range(100)]
    assert (kinds.count("gpu"), kinds.count("fabric")) == (10, 90)


def unpacked(sent: bytes) -> str:
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert f"Content-Length: {len(body)}".encode() in head
    return gzip.decompress(body).decode()


def test_a_request_is_what_the_agent_sends() -> None:
    sent = request("rooflight", "cpu,host=a idle_seconds=1.0 0\n")
    assert sent.startswith(b"POST /write?db=rooflight&precision=ms HTTP/1.1\r\n")
    assert unpacked(sent) == "cpu,host=a idle_seconds=1.0 0\n"


def test_texts_are_put_together_database_by_database() -> None:
    texts: list[dict[Database, str]] = [
        {Database.METRICS: "a\n"},
        {Database.METRICS: "b\n", Database.JOBS: "c\n"},
    ]
    assert merged(texts) == {Database.METRICS: "a\nb\n", Database.JOBS: "c\n"}


NAMES = {Database.METRICS: "m", Database.JOBS: "j"}


class Maker:
    """Makes plays; a class of its own, because other processes are given it."""

    def __call__(self, number: int) -> Play:
        return Play(made(), BEGIN_MS, number)


def test_every_node_sends_its_own_lines_and_those_of_its_job_after_them() -> None:
    size = Size("cpu", nodes=3, ticks=3)
    found = all_bodies(size, {"cpu": Maker()}, NAMES)
    assert [[len(turn) for turn in node] for node in found] == [[1, 1, 2], [1, 2, 1], [2, 1, 1]]
    for number, turns in enumerate(found):
        sent = [unpacked(each) for turn in turns for each in turn]
        hosts = {dict(point.tags)["host"] for text in sent for point in points(text)}
        assert hosts == {f"node{number:06}"}
    first, second = found[2][0]
    assert first.startswith(b"POST /write?db=m&")
    assert [point.measurement for point in points(unpacked(second))] == ["job"]


def test_every_writer_keeps_its_moment_in_each_period() -> None:
    size = Size("cpu", nodes=20, ticks=12, ticks_per_write=6)
    turns = schedule(size, [[(b"first",), (b"second",)]] * 20)
    assert [turn.due for turn in turns] == sorted(turn.due for turn in turns)
    for writer in range(20):
        first, second = [turn for turn in turns if turn.writer == writer]
        assert 0 <= first.due < 60
        assert second.due == pytest.approx(first.due + 60)
        assert (first.requests, second.requests) == ((b"first",), (b"second",))


def held(**values: float) -> fleet.Held:
    names = ("values", "writes", "median", "p99", "longest", "server", "generator", "others")
    known = {**dict.fromkeys(names, 0.5), "failed": 0, "resident": 2.0**21, "most": 2.0**22}
    size = Size("cpu", nodes=7, ticks=1, ticks_per_write=6)
    return fleet.Held(size, series=9, **{**known, **values})  # type: ignore[arg-type]


def test_a_fleet_is_held_while_writes_are_early_and_none_is_lost() -> None:
    assert held().good
    assert not held(p99=1.01).good
    assert not held(failed=1).good


def test_the_table_tells_of_server_and_generator_apart() -> None:
    head, _, row = fleet.table([held(server=1.25, generator=0.06)]).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert (cells["server CPUs"], cells["generator"]) == ("1.25", "0.06")
    assert (cells["shipped every s"], cells["RSS MiB"], cells["most MiB"]) == ("60", "2", "4")


def test_days_end_in_the_middle_only_if_asked() -> None:
    noon = 1_795_867_200.0  # 2026-11-28 12:00 UTC
    midnight_ms = 1_795_824_000_000
    assert fleet.begin_ms(noon, 12, midnight=True) == midnight_ms - 60_000
    assert fleet.begin_ms(noon, 12, midnight=False) == midnight_ms - 43_200_000


class Answers(threading.Thread):
    """A server that gives each request the next of these answers."""

    def __init__(self, answers: Sequence[bytes], seconds: float, port: int = 0) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._answers = answers
        self._seconds = seconds
        self.heard: list[bytes] = []

    def run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            for answer in self._answers:
                self.heard.append(connection.recv(1000))
                threading.Event().wait(self._seconds)
                connection.sendall(b"HTTP/1.1 " + answer + b"\r\n\r\n")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Answers]:
    thread = Answers(*request.param)
    thread.start()
    yield thread
    thread.join(5)


@pytest.mark.parametrize("server", [([b"204 No Content"] * 3, 0.1)], indirect=True)
def test_a_write_is_timed_from_when_it_was_due(server: Answers) -> None:
    turns = [Turn(0.0, 0, (b"one", b"two")), Turn(0.01, 0, (b"three",))]
    with writers(server.port, 1) as connected:
        sent = connected.write(turns)
    assert server.heard == [b"one", b"two", b"three"]  # each when the one before was answered
    assert sent.failed == 0
    for latency, least in zip(sent.latencies, (0.1, 0.2, 0.29), strict=True):
        assert least <= latency < least + 0.09


@pytest.mark.parametrize("server", [([b"204 No Content", b"500 No"], 0.0)], indirect=True)
def test_what_is_refused_or_not_answered_has_failed(server: Answers) -> None:
    turns = [Turn(0.0, 0, (b"one", b"two"))]
    with writers(server.port, 1) as connected:
        sent = connected.write(turns)
    assert (sent.failed, len(sent.latencies)) == (1, 2)
    assert sent.words.startswith("HTTP/1.1 500 No")


@pytest.mark.parametrize("server", [([b"204 No Content"], 0.0)], indirect=True)
def test_a_connection_that_was_closed_meanwhile_is_opened_anew(server: Answers) -> None:
    with writers(server.port, 1) as connected:
        assert connected.write([Turn(0.0, 0, (b"one",))]).failed == 0
        server.join(5)  # it has closed the connection
        again = Answers([b"204 No Content"], 0.0, port=server.port)
        again.start()
        sent = connected.write([Turn(0.1, 0, (b"two",))])
    again.join(5)
    assert (sent.failed, again.heard) == (0, [b"two"])


@pytest.mark.parametrize("server", [([b"204 No Content"], 0.5)], indirect=True)
def test_answers_are_waited_for_only_so_long(server: Answers) -> None:
    with writers(server.port, 1) as connected:
        sent = connected.write([Turn(0.0, 0, (b"one",))], patience=0.1)
    assert (sent.failed, sent.latencies) == (1, [])


@pytest.mark.parametrize(
    "kind",
    ["cpu", "fabric", pytest.param("gpu", marks=pytest.mark.cc)],
)
def test_what_nodes_write_is_what_the_agent_wrote(kind: str) -> None:
    play = plays(kind, BEGIN_MS)(0)
    first = play.tick(0)
    found = [point for text in first.values() for point in points(text)]
    measurements = {point.measurement for point in found}
    there = {"cpu", "memory", "tempdisk", "agent", "agent_probe", "job_cgroup", "job_footprint"}
    assert there <= measurements
    assert ("infiniband" in measurements) == (kind != "cpu")
    assert ("gpu" in measurements) == ("job_gpu_footprint" in measurements) == (kind == "gpu")
    for point in found:
        assert dict(point.tags)["host"] == f"node{NUMBER}"
        assert point.fields.keys() <= CATALOGUE[point.measurement].fields.keys()
    once = points(play.tick(1)[Database.METRICS])
    assert {"agent_probe", "job"}.isdisjoint(point.measurement for point in once)


def test_a_recording_has_the_fields_of_the_agents_tick() -> None:
    text = recorded("cpu", BEGIN_MS)[0][Database.METRICS]
    (memory,) = [point for point in points(text) if point.measurement == "memory"]
    assert memory.fields["total_bytes"] == 540660543488.0  # the fixture machine's
    assert memory.time_ms == BEGIN_MS + 10_000


def test_disk_is_counted_by_node_and_day() -> None:
    row = kept.Kept("cpu", 10, 0.5, 1e6, 8_000_000, 2_000_000, 500_000, 1_000_000)
    cells = kept.table([row]).splitlines()[2].split(" | ")
    assert cells[1:] == ["200,000", "0.40", "2.00", "0.10", "0.10", "1.60 |"]
