"""Phase marks of users' programs: what is sent, how often, and that nothing ever raises."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent import client
from agent.messages import PointMessage
from rooflight._marks import LONGEST_NAME, MOST_NAMES, OTHERS, Marks
from rooflight._wire import jobid_of, socket_of, ways
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "(unnamed)"),
        ("\udcff", "?"),
        ("a,b=c \\\n\t;\"'", "a,b=c \\  ;\"'"),
        ("\x1b[31m\x9b\u202e", "?[31m??"),
        ("Vorwärts 前", "Vorwärts 前"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_an_odd_name_is_made_harmless(
    marks: Marks, agent: Listener, clock: Clock, name: str, shown: str
) -> None:
    spend(marks, clock, name, 2.0)
    assert list(agent.phases()) == [shown]


def test_a_long_name_is_cut(marks: Marks, agent: Listener, clock: Clock) -> None:
    spend(marks, clock, "x" * 100_000, 1.0)
    assert list(agent.phases()) == ["x" * LONGEST_NAME]


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


OWN = "root.sock" if os.getuid() == 0 else f"users/{os.getuid()}.sock"


def own_socket(folder: Path) -> Path:
    (folder / "users").mkdir()
    return folder / OWN


def test_each_user_has_a_way_of_his_own() -> None:
    public = "/run/rooflight/agent.sock"
    assert ways(public, 1000) == ("/run/rooflight/users/1000.sock", public)
    assert ways(public, 0) == ("/run/rooflight/root.sock", public)


def test_the_user_s_own_socket_comes_first(
    marks: Marks, agent: Listener, clock: Clock, tmp_path: Path
) -> None:
    own = Listener(own_socket(tmp_path))
    spend(marks, clock, "load", 2.0)
    assert list(own.phases()) == ["load"]
    own.close()  # the file stays, and nobody listens: the agent was killed
    spend(marks, clock, "train", 2.0)
    assert list(agent.phases()) == ["train"]


def test_a_full_queue_is_no_reason_to_flood_the_public_one(
    marks: Marks, agent: Listener, clock: Clock, tmp_path: Path
) -> None:
    own = Listener(own_socket(tmp_path))
    more = 10 + int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(more):
        spend(marks, clock, "step", 2.0)
    assert agent.phases() == {}
    own.phases()
    assert own.datagrams < more
    spend(marks, clock, "step", 2.0)
    assert own.phases()["step"].fields["calls_total"] == more + 1
    own.close()


def test_a_socket_deep_in_folders_is_reached(tmp_path: Path, clock: Clock) -> None:
    """Its path is longer than an address of a socket may be (107 bytes)."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    (tmp_path / "short").symlink_to(folder)
    listening = Listener(tmp_path / "short" / "agent.sock")
    marks = Marks({"ROOFLIGHT_SOCKET": str(folder / "agent.sock")}, clock=clock, wall=clock)
    spend(marks, clock, "load", 2.0)
    assert list(listening.phases()) == ["load"]
    listening.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7"},
        {"SLURM_JOB_ID": "7", "ROOFLIGHT_SOCKET": "/x/agent.sock"},
        {"ROOFLIGHT_SOCKET": "/x/agent.sock", "ROOFLIGHT_JOBID": "run-1"},
        {"ROOFLIGHT_SOCKET": "", "ROOFLIGHT_JOBID": "run-1"},
    ],
)
def test_the_commands_and_the_package_agree_on_job_and_socket(
    environment: Mapping[str, str],
) -> None:
    assert socket_of(environment) == client.socket_of(environment)
    assert jobid_of(environment) == client.jobid_of(environment)
