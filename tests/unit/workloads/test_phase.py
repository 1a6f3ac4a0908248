"""The recorder adds up what it is told and times with the clock it is given."""

import itertools

import pytest

from workloads.counting import Count
from workloads.phase import Phase, Recorder, Span


def test_calls_add_up_and_the_device_is_waited_for_around_each() -> None:
    ticks = itertools.count(0.0, 2.0)
    waits: list[str] = []
    recorder = Recorder(
        "decode", "bf16", lambda: waits.append("wait"), clock=ticks.__next__, wall=lambda: 1e9
    )
    span = Span(Count(10, 20.0), tokens=4, unit="token", units=2, mostly_reads=True)
    for _ in range(3):
        with recorder.phase("decode", span):
            waits.append("work")
    phase = recorder.phases["decode"]
    assert (phase.calls, phase.units, phase.tokens, phase.seconds) == (3, 6, 12, 6.0)
    assert (phase.flops, phase.bytes, phase.started) == (30, 60.0, 1e9)
    assert waits == ["wait", "work", "wait"] * 3
    assert phase.work.mostly_reads
    assert phase.work.units == 6


def test_a_call_that_fails_and_warm_up_are_not_counted() -> None:
    recorder = Recorder("x", "fp32", lambda: None, clock=lambda: 0.0, wall=lambda: 0.0)
    span = Span(Count(1, 1.0), tokens=1, unit="step")
    with recorder.phase("x", span):
        pass
    recorder.forget()
    with pytest.raises(KeyboardInterrupt), recorder.phase("x", span):
        raise KeyboardInterrupt
    assert recorder.phases == {}


def timed(*seconds: float, spans: tuple[Span, ...]) -> Phase:
    phase = Phase("x", "x", "fp32", "step", mostly_reads=False, started=0.0)
    for took, span in zip(seconds, spans, strict=True):
        phase.add(span, took)
    return phase


ONE, TWO = (Span(Count(n, 10.0 * n), tokens=n, unit="step") for n in (1, 2))


def test_a_disturbed_call_changes_the_total_and_not_the_rates() -> None:
    phase = timed(1.0, 1.0, 40.0, spans=(ONE, ONE, ONE))
    assert (phase.seconds, phase.typical_seconds) == (42.0, 3.0)
    assert (phase.flops_per_second, phase.bytes_per_second, phase.tokens_per_second) == (1, 10, 1)
    assert (phase.work.seconds, phase.seconds_per_unit) == (3.0, 1.0)


def test_only_calls_that_do_the_same_are_compared() -> None:
    phase = timed(1.0, 5.0, 1.0, 9.0, spans=(ONE, TWO, ONE, ONE))
    assert phase.typical_seconds == 3 * 1.0 + 5.0


def test_calls_beyond_the_kept_ones_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.phase.MOST_CALLS", 3)
    phase = timed(1.0, 1.0, 40.0, 2.0, spans=(ONE,) * 4)
    assert phase.typical_seconds == 5.0
    assert phase.seconds == 44.0
