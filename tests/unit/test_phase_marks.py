"""Phase marks of users' programs: what is sent, how often, and that nothing ever raises."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.messages import PointMessage
from rooflight._marks import LONGEST_NAME, MOST_NAMES, OTHERS, Marks
from tests.listening import Listener

START = 1_700_000_000.0


class Clock:
    """Time that passes only when told to; wall and monotonic alike."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(tmp_path / "agent.sock")
    yield listening
    listening.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def marks(tmp_path: Path, agent: Listener, clock: Clock) -> Marks:
    environment = {
        "ROOFLIGHT_SOCKET": str(tmp_path / "agent.sock"),
        "ROOFLIGHT_JOBID": "run-1",
        "LOCAL_RANK": "3",
    }
    return Marks(environment, clock=clock, wall=clock)


def spend(marks: Marks, clock: Clock, name: str, seconds: float) -> None:
    with marks.phase(name):
        clock.now += seconds


def test_a_phase_is_told_at_once_with_its_start(
    marks: Marks, agent: Listener, clock: Clock
) -> None:
    spend(marks, clock, "load", 0.25)
    assert agent.phases() == {
        "load": PointMessage(
            measurement="phase",
            tags={"jobid": "run-1", "workload": "user", "phase": "load", "device": "rank 3"},
            fields={"duration_seconds": 0.25, "calls_total": 1.0, "bound": "unknown"},
            time_ms=int(START * 1000),
        )
    }


def test_ten_thousand_calls_in_ten_seconds_are_ten_datagrams(
    marks: Marks, agent: Listener, clock: Clock
) -> None:
    for _ in range(10_000):
        spend(marks, clock, "step", 1 / 1024)
    marks.flush()
    last = agent.phases()["step"]
    assert 9 <= agent.datagrams <= 12
    assert last.fields["calls_total"] == 10_000
    assert last.fields["duration_seconds"] == pytest.approx(10_000 / 1024)
    assert last.time_ms == int(START * 1000)


def test_what_a_deaf_agent_missed_is_told_again(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "late.sock"
    marks = Marks({"ROOFLIGHT_SOCKET": str(path)}, clock=clock, wall=clock)
    spend(marks, clock, "load", 2.0)
    late = Listener(path)
    spend(marks, clock, "train", 1.0)
    told = late.phases()
    late.close()
    assert {name: point.fields["duration_seconds"] for name, point in told.items()} == {
        "load": 2.0,
        "train": 1.0,
    }


def test_nothing_new_is_not_told_again(marks: Marks, agent: Listener, clock: Clock) -> None:
    spend(marks, clock, "load", 2.0)
    agent.phases()
    marks.flush()
    assert agent.phases() == {}


def test_a_block_that_raises_counts_and_its_error_passes(
    marks: Marks, agent: Listener, clock: Clock
) -> None:
    def fail() -> None:
        with marks.phase("bad"):
            clock.now += 1.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert agent.phases()["bad"].fields["duration_seconds"] == 1.0


def test_a_program_that_makes_up_names_gets_a_bounded_number(
    marks: Marks, agent: Listener, clock: Clock
) -> None:
    told: dict[str, PointMessage] = {}
    for number in range(3 * MOST_NAMES):
        spend(marks, clock, f"step {number}", 1.0)
        told |= agent.phases()
    assert len(told) == MOST_NAMES + 1
    assert told[OTHERS].fields["calls_total"] == 2 * MOST_NAMES


@pytest.mark.parametrize("name", ["", "\udcff", "a,b=c \\\n\t;", "x" * 100_000, 7, None])
def test_odd_names_never_raise(marks: Marks, clock: Clock, name: str) -> None:
    spend(marks, clock, name, 2.0)
    spend(marks, clock, "next", 2.0)
    marks.flush()


def test_a_long_name_is_cut(marks: Marks, agent: Listener, clock: Clock) -> None:
    spend(marks, clock, "x" * 100_000, 1.0)
    assert list(agent.phases()) == ["x" * LONGEST_NAME]


def test_no_descriptor_left_never_raises(
    marks: Marks, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(socket, "socket", full)
    spend(marks, clock, "load", 2.0)


def test_outside_of_a_job_nothing_is_kept_or_sent(clock: Clock) -> None:
    marks = Marks({}, clock=clock, wall=clock)
    spend(marks, clock, "load", 2.0)
    assert marks._totals == {}


def test_a_fork_within_a_block_leaves_the_count_to_the_parent(
    marks: Marks, agent: Listener, clock: Clock
) -> None:
    with marks.phase("load"):
        clock.now += 1.0
        marks.forget()  # what a child does after the fork
    marks.flush()
    assert agent.phases() == {}
