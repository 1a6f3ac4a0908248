"""The loop while somebody sets the wall clock."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.encoder import Encoder
from agent.jobs import JobTable
from agent.lineprotocol import parse
from agent.loop import Loop, Pace
from agent.vitals import TickTimes, Vitals
from probes.catalogue import Database
from probes.roots import Roots
from probes.sample import Sample

INTERVAL = 0.05
STEP_MS = 50


class SteppedClock:
    """The machine's clocks, the wall clock shifted."""

    offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def monotonic(self) -> float:
        return time.monotonic()


class Tick(NamedTuple):
    time_ms: int
    arrived: float
    replaced: float


class Sink:
    def __init__(self, clock: SteppedClock) -> None:
        self.ticks: list[Tick] = []
        self._clock = clock

    def append(self, database: Database, lines: bytes) -> None:
        (point,) = parse(lines.decode())
        replaced = float(point.fields["ticks_replaced_total"])
        self.ticks.append(Tick(point.time_ms, self._clock.time(), replaced))


def own_samples(vitals: Vitals) -> Sequence[Sample]:
    return [Sample("agent", (), {"ticks_replaced_total": float(vitals.replaced)})]


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, -1.0])
def test_a_tick_that_waits_while_the_clock_is_set_gets_the_new_time(
    tmp_path: Path, seconds: float
) -> None:
    clock = SteppedClock()
    sink = Sink(clock)
    loop = Loop(
        pace=Pace(interval=INTERVAL, heartbeat=30.0, deadline=0.2),
        encoder=Encoder("c", "h"),
        host="h",
        runners=[],
        jobs=JobTable(tmp_path / "jobs", Roots(proc=tmp_path, cgroup=tmp_path)),
        sink=sink,
        clock=clock,
        own_samples=own_samples,
    )
    loop.open()
    stepped = os.eventfd(1)

    def step() -> None:  # in the loop's thread, while it waits for its first tick
        os.eventfd_read(stepped)
        clock.offset = seconds

    loop.watch(stepped, step)
    begun = time.time() + seconds
    loop.run(1.0)
    loop.forget(stepped)
    os.close(stepped)
    loop.close()
    assert sink.ticks
    for tick in sink.ticks:
        assert tick.time_ms % STEP_MS == 0
        assert begun <= tick.time_ms / 1000 <= tick.arrived
    times = [tick.time_ms for tick in sink.ticks]
    assert times == sorted(set(times))


def test_second_ticks_of_a_moment_are_counted_and_no_others() -> None:
    times = TickTimes()
    plan = [
        *((each, False) for each in (10, 20, 30, 50)),  # one skipped
        *((each, False) for each in (3600, 3610, 3620)),  # an hour ahead, wrongly
        *((60, False), (70, False)),  # set right
        *((60, True), (70, True), (80, False), (90, False)),  # a little too far
        *((30, True), (40, False), (50, True), (60, True), (70, True), (80, True), (90, True)),
        *((100, False), (3600, True), (3610, True), (3620, True), (3630, False)),
    ]
    assert [times.add(moment, 10) for moment, _ in plan] == [again for _, again in plan]


def test_what_an_earlier_agent_may_have_ticked_is_counted() -> None:
    times = TickTimes(before_ms=100)
    assert [times.add(moment, 10) for moment in (90, 100, 110)] == [True, True, False]
