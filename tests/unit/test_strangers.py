"""What ordinary users may tell the agent: of their own jobs, in their time, and not too much."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.inbox import REST_SECONDS
from agent.listener import AgentSocket, Received
from agent.loop import Loop
from agent.messages import JobEnd, JobStart, Message, Ping, PointMessage, Points, Reply
from agent.quota import MOST_NAMES, POINTS_AT_ONCE
from tests.unit.test_loop import Clock, Sink, make_loop

OWNER, STRANGER = 1000, 1001
NOW_MS = 1_000_000_000


class Told(AgentSocket):
    """A socket in which messages lie, each with the user who sent it."""

    def __init__(self, messages: Sequence[tuple[Message, int]]) -> None:
        self.messages = list(messages)
        self.ready = os.eventfd(1)
        self.replies: list[Reply] = []
        self.most = -1

    def fileno(self) -> int:
        return self.ready

    def receive(self) -> Received | None:
        if not self.messages:
            return None
        message, uid = self.messages.pop(0)
        return Received(message, "", uid, None)

    def is_spent(self) -> bool:
        return len(self.replies) == self.most

    def answer(self, received: Received, reply: Reply) -> None:
        self.replies.append(reply)


def phase(name: str = "prefill", time_ms: int = NOW_MS, jobid: str = "7") -> PointMessage:
    return PointMessage(
        "phase", {"jobid": jobid, "phase": name}, {"duration_seconds": 1.0}, time_ms
    )


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def loop(tmp_path: Path, sink: Sink) -> Iterator[Loop]:
    """A loop in which job 7 of OWNER began a hundred seconds ago."""
    loop = make_loop(tmp_path, [], Clock(), sink)
    loop.start_job(JobStart("7", NOW_MS - 100_000, uid=OWNER))
    sink.points.clear()
    yield loop
    loop.close()


def tell(loop: Loop, message: Message, uid: int = OWNER) -> Reply:
    told = Told([(message, uid)])
    loop.serve(told)
    return told.replies[0]


def test_an_owner_tells_of_his_job_and_nobody_else_does(loop: Loop, sink: Sink) -> None:
    assert tell(loop, Points([phase()])).ok
    assert [point.measurement for point in sink.points] == ["phase"]
    assert "does not own" in tell(loop, Points([phase()]), STRANGER).words
    assert "does not own" in tell(loop, Points([phase(jobid="8")])).words
    assert len(sink.points) == 1


def test_a_user_tells_no_ceilings(loop: Loop, sink: Sink) -> None:
    high = PointMessage("ceiling", {"jobid": "7", "kind": "matmul"}, {"x": 1.0}, NOW_MS)
    assert "does not own" in tell(loop, Points([high])).words
    assert sink.points == []


def test_users_begin_and_end_no_jobs(loop: Loop) -> None:
    assert "permission denied" in tell(loop, JobStart("8", NOW_MS, uid=OWNER)).words
    assert "permission denied" in tell(loop, JobEnd("7")).words
    assert loop.jobs.get("7") is not None
    assert loop.jobs.get("8") is None


@pytest.mark.parametrize("seconds", [-161, 61, 1e12, -1e12])
def test_a_point_outside_the_job_s_time_is_refused(loop: Loop, sink: Sink, seconds: float) -> None:
    assert "outside" in tell(loop, Points([phase(time_ms=NOW_MS + int(seconds * 1000))])).words
    assert sink.points == []


@pytest.mark.parametrize("seconds", [-159, 59])
def test_clocks_may_differ_a_little(loop: Loop, seconds: int) -> None:
    assert tell(loop, Points([phase(time_ms=NOW_MS + seconds * 1000)])).ok


def test_too_many_points_are_refused_and_root_s_are_not(loop: Loop, sink: Sink) -> None:
    many = Points([phase()] * (int(POINTS_AT_ONCE) + 1))
    assert "too much" in tell(loop, many).words
    assert sink.points == []
    assert tell(loop, many, 0).ok


def test_too_many_names_of_phases_are_refused(loop: Loop, sink: Sink) -> None:
    named = [phase(f"step {number}") for number in range(MOST_NAMES + 1)]
    assert "too many names" in tell(loop, Points(named)).words
    assert len({str(point) for point in sink.points}) == MOST_NAMES


def test_a_socket_that_is_flooded_rests_and_is_heard_again(loop: Loop) -> None:
    told = Told([(Ping(), STRANGER)] * 500)
    told.most = 250
    loop.watch(told, lambda: loop.serve(told))
    for _ in range(3):
        loop.serve(told)
    assert len(told.replies) == 250
    assert not watched(loop, told)
    loop.inbox.listen_again()
    assert not watched(loop, told)
    assert isinstance(loop.clock, Clock)
    loop.clock.now += REST_SECONDS
    loop.inbox.listen_again()
    assert watched(loop, told)


def watched(loop: Loop, told: Told) -> bool:
    return any(key.fileobj is told for key in loop._selector.get_map().values())
