"""Pauses of one agent, and what 10,000 of them do to one server."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from agent.pacing import LEISURE, Pacing

AGENTS = 10_000
FLUSH_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0


def longest(low: float, high: float) -> float:
    return high


def test_failures_are_given_more_and_more_time_and_a_year_of_them_no_overflow() -> None:
    pacing = Pacing(1.0, longest)
    assert [pacing.failed() for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert all(pacing.failed() == 60 for _ in range(2000))
    assert pacing.in_trouble
    pacing.sent(0.1)
    assert not pacing.in_trouble
    assert pacing.failed() == 2


@pytest.mark.parametrize(("flush", "shortest"), [(0.2, 0.2), (10, 10), (300, 30)])
def test_an_agent_in_trouble_never_asks_more_often_than_a_healthy_one(
    flush: float, shortest: float
) -> None:
    pacing = Pacing(flush, lambda low, high: low)
    assert {pacing.failed() for _ in range(9)} == {shortest}
    assert pacing.done() == flush


@pytest.mark.parametrize(("asked", "given"), [(0, 20), (30, 50), (1e9, 620)])
def test_what_the_store_asks_for_comes_on_top(asked: float, given: float) -> None:
    """Otherwise all agents that were told the same would come back at the same moment."""
    assert Pacing(10, longest).failed(asked) == given


def test_a_backlog_is_sent_with_leisure_and_the_rest_without() -> None:
    pacing = Pacing(10, longest)
    assert pacing.sent(0.01) == pytest.approx(2 * LEISURE * 0.01)  # left by an earlier agent
    assert pacing.sent(30) == 600
    assert pacing.done() == 10
    assert pacing.sent(0.01) == 0
    pacing.failed()
    assert pacing.sent(0.01) > 0


@dataclass
class Server:
    """One queue, worked off in order; what its clients gave up is worked on all the same.

    Attributes:
        first: seconds of work in the small segment that an agent begins with.
        each: seconds of work in a full one: 256 KiB, which influxd takes in about 5 ms.

    """

    back_at: float
    first: float = 0.0005
    each: float = 0.005
    busy_until: float = 0.0
    worked: float = 0.0
    contacts: Counter[int] = field(default_factory=Counter)

    def answer_after(self, now: float, work: float) -> float:
        self.contacts[int(now)] += 1
        self.worked += work
        self.busy_until = max(self.busy_until, now) + work
        return self.busy_until - now


def recover(server: Server, backlog: int, *, leisurely: bool) -> tuple[float, int]:
    """Return when the last of 10,000 agents had sent its backlog, and how many requests failed."""
    numbers = random.Random(1)
    pacings = [Pacing(FLUSH_SECONDS, numbers.uniform) for _ in range(AGENTS)]
    left, timeouts, now = [backlog] * AGENTS, 0, 0.0
    events = [(numbers.uniform(0, FLUSH_SECONDS), agent) for agent in range(AGENTS)]
    heapq.heapify(events)
    while events:
        now, agent = heapq.heappop(events)
        pacing = pacings[agent]
        if now < server.back_at:
            heapq.heappush(events, (now + pacing.failed(), agent))
            continue
        work = server.first if left[agent] == backlog else server.each
        took = server.answer_after(now, work)
        if took > TIMEOUT_SECONDS:
            timeouts += 1
            heapq.heappush(events, (now + TIMEOUT_SECONDS + pacing.failed(), agent))
            continue
        left[agent] -= 1
        if left[agent]:
            pause = pacing.sent(took) if leisurely else 0.0
            heapq.heappush(events, (now + took + pause, agent))
    return now, timeouts


def test_ten_thousand_agents_do_not_trample_a_server_that_comes_back() -> None:
    """After half an hour, each with eleven full segments: 555 s of work for the server."""
    server = Server(back_at=1800.0)
    ended, timeouts = recover(server, backlog=12, leisurely=True)
    assert timeouts == 0
    assert server.worked == pytest.approx(555)
    assert ended - server.back_at < 1.2 * server.worked  # nor is it idle while they wait
    assert max(server.contacts.values()) < AGENTS / FLUSH_SECONDS  # as many as on any other day


def test_without_leisure_they_would() -> None:
    """The test above can fail: the same agents without pauses in their backlog."""
    _, timeouts = recover(Server(back_at=1800.0), backlog=4, leisurely=False)
    assert timeouts > AGENTS


def test_a_single_agent_is_not_held_up_by_thoughts_of_others() -> None:
    pacing, numbers = Pacing(10, longest), random.Random(1)
    pauses = [pacing.sent(numbers.uniform(0.005, 0.02)) for _ in range(60)]  # 15 MiB: a day
    assert sum(pauses) < 60
