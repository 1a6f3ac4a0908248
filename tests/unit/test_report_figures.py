"""Scales, phases on the clock, rooflines: where things lie, before a browser draws them."""

import itertools
import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inspect.model import Phase
from agent.inspect.report import overtime, roofline
from agent.inspect.report.scales import mark_words, scale, time_marks, time_words
from agent.inspect.report.spans import Span, spans, stretches
from agent.inspect.series import Fraction, Timelines
from tests.unit import reports
from workloads.roofline import Bound

UNITS = ("B", "B/s", "W")
SECOND = 1000


@given(st.floats(1e-3, 1e18), st.sampled_from(UNITS))
def test_a_scale_holds_the_highest_value_with_a_few_round_marks(highest: float, unit: str) -> None:
    found = scale(highest, unit)
    assert highest <= found.top <= max(1.0, 2 * highest)
    assert 2 <= len(found.marks) <= 6
    assert found.share(highest) <= 1
    assert all(len(mark_words(mark, unit)) <= 9 for mark in found.marks)


def test_scales_by_hand() -> None:
    assert scale(0.02, "ratio").marks == (0.0, 0.5, 1.0)
    assert [mark_words(each, "ratio") for each in scale(1, "ratio").marks] == ["0", "50%", "100%"]
    gibi = float(1 << 30)
    assert [mark_words(each, "B") for each in scale(5 * gibi, "B").marks] == [
        *("0", "2 GiB", "4 GiB", "6 GiB")
    ]
    assert [mark_words(each, "W") for each in scale(690, "W").marks] == [
        *("0", "200 W", "400 W", "600 W", "800 W")
    ]
    assert scale(0.0, "W").top == scale(math.nan, "W").top == scale(math.inf, "W").top == 1.0


@given(st.floats(0.05, 1e8))
def test_moments_are_few_and_within_the_job(seconds: float) -> None:
    marks = time_marks(seconds)
    assert marks[0] == 0
    assert marks[-1] <= seconds
    assert len(marks) <= 5


def test_moments_by_hand() -> None:
    assert [time_words(each) for each in time_marks(44.6)] == ["0", "15 s", "30 s"]
    assert [time_words(each) for each in time_marks(7200)] == [
        *("0", "30:00", "1:00:00", "1:30:00", "2:00:00")
    ]


def phase(name: str, begin: float, seconds: float, bound: str = "compute", **more: object) -> Phase:
    found = Phase("n1", "train", name, "cpu", bound, seconds, round(SECOND * begin))
    return msgspec.structs.replace(found, **more)


def on_clock(seconds: float = 100, **more: object) -> Timelines:
    return Timelines(0, round(SECOND * seconds), SECOND)._replace(**more)  # type: ignore[arg-type]


def times(found: list[Span]) -> list[tuple[str, float, float]]:
    return [(span.name, span.begin_ms / SECOND, span.end_ms / SECOND) for span in found]


def test_phases_that_took_turns_are_one_stretch_of_all_their_time() -> None:
    phases = [
        phase("forward", 10, 6),
        phase("backward", 10.5, 12),
        phase("optimizer", 11, 1, "memory"),
        phase("prefill", 40, 5, workload="prefill"),
    ]
    found = spans(phases, on_clock())
    assert times(found) == [("train", 10, 29), ("prefill", 40, 45)]
    assert [part.phase for part in found[0].parts] == ["forward", "backward", "optimizer"]
    assert [span.bound for span in found] == [Bound.COMPUTE, Bound.COMPUTE]


def test_a_phase_that_begins_in_the_time_that_others_took_belongs_to_them() -> None:
    phases = [phase("a", 0, 4), phase("b", 1, 4), phase("c", 7, 1)]
    assert times(spans(phases, on_clock())) == [("train", 0, 9)]


def test_phases_of_many_ranks_are_drawn_once_and_end_with_the_job() -> None:
    phases = [
        phase("load", 1 + rank / 10, 5 + rank, "unknown", workload="user", device=f"rank {rank}")
        for rank in range(8)
    ]
    found = spans(phases, on_clock(10))
    assert times(found) == [("load", 1, 10)]
    assert len(found[0].parts) == 1


def under(*bounds: Bound) -> dict[int, dict[Bound, float]]:
    return {SECOND * (number + 1): {bound: 1.0} for number, bound in enumerate(bounds)}


def test_a_marked_phase_takes_its_bound_from_the_gpus_that_were_busy() -> None:
    bounds = {
        "gpu 0": under(*[Bound.COMPUTE] * 5, *[Bound.MEMORY] * 5),
        "gpu 1": under(*[Bound.IDLE] * 10),
    }
    marked = [
        phase("prefill", 0, 5, "unknown", workload="user"),
        phase("decode", 5, 5, "unknown", workload="user"),
    ]
    found = spans(marked, on_clock(10, bounds=bounds))
    assert [span.words() for span in found] == [
        "prefill: compute by the GPUs' counters",
        "decode: memory by the GPUs' counters",
    ]
    named = [phase("decode", 5, 5, "latency")]
    assert spans(named, on_clock(10, bounds=bounds))[0].words() == "decode: latency"


def test_a_phase_that_took_turns_has_no_bound_from_counters() -> None:
    marked = [phase("a", 0, 5, "unknown", workload="user"), phase("b", 1, 5, "unknown")]
    (found,) = spans(marked, on_clock(10, bounds={"gpu 0": under(*[Bound.COMPUTE] * 10)}))
    assert found.bound is Bound.UNKNOWN


def test_without_phases_the_gpus_say_what_is_behind_the_lines() -> None:
    bounds = {"gpu 0": under(Bound.COMPUTE, Bound.COMPUTE, Bound.IDLE, Bound.MEMORY)}
    found = stretches(on_clock(4, bounds=bounds))
    assert [(span.begin_ms, span.end_ms, span.bound) for span in found] == [
        (0, 2000, Bound.COMPUTE),
        (2000, 3000, Bound.IDLE),
        (3000, 4000, Bound.MEMORY),
    ]
    flicker = under(*[Bound.COMPUTE, Bound.MEMORY] * 50)
    assert stretches(on_clock(100, bounds={"gpu 0": flicker})) == []
    assert stretches(on_clock()) == []


def test_the_strip_of_a_gpu_joins_windows_alike() -> None:
    bounds = {"gpu 0": under(*[Bound.COMPUTE] * 3, Bound.MEMORY, *[Bound.COMPUTE] * 2)}
    text = overtime.strips(bounds, overtime.Clock(on_clock(6)))
    assert re.findall(r"<title>(.*?)</title>", text) == [
        "gpu 0: compute, 0 s to 3.00 s",
        "gpu 0: memory, 3.00 s to 4.00 s",
        "gpu 0: compute, 4.00 s to 6.00 s",
    ]
    assert 'aria-label="gpu 0 over time: compute 83%, memory 17%"' in text


def test_many_gpus_are_shares_above_each_other() -> None:
    bounds = {f"gpu {number}": under(Bound.COMPUTE, Bound.MEMORY) for number in range(9)}
    bounds["gpu 9"] = under(Bound.IDLE, Bound.IDLE)
    text = overtime.strips(bounds, overtime.Clock(on_clock(2)))
    heights = re.findall(r'height="([\d.]+)%" class="(\w+)"', text)
    assert heights == [("90", "compute"), ("10", "idle"), ("90", "memory"), ("10", "idle")]


def test_a_gpu_is_placed_by_its_shares_of_both_roofs_and_once_for_each_bound() -> None:
    prefill = [Fraction(SECOND * number, 0.8, 0.4) for number in range(1, 6)]
    decode = [Fraction(SECOND * number, 0.05, 0.8) for number in range(6, 11)]
    idle = [Fraction(SECOND * 11, 0.3, 0.3)]
    drawn = on_clock(
        11,
        roofs={"gpu 0": [*prefill, *decode, *idle]},
        bounds={"gpu 0": under(*[Bound.COMPUTE] * 5, *[Bound.MEMORY] * 5, Bound.IDLE)},
    )
    found = roofline.of_gpus(drawn)
    assert found is not None
    points = [(each.point.intensity, each.point.flops_per_second) for each in found.reached]
    assert points == [pytest.approx((2.0, 0.8)), pytest.approx((0.0625, 0.05))]
    assert found.reached[0].words == (
        "compute, 80% of the compute roof, 40% of the memory roof, for 50% of the busy time"
    )
    assert len(found.dots) == 10
    assert roofline.of_gpus(on_clock()) is None


def test_roofs_are_the_best_that_was_measured_for_the_formats_in_use() -> None:
    report = reports.report("fp32")
    found = roofline.of_phases(report)
    assert found is not None
    assert found.flats == {"fp32 200 GFLOP/s": 200e9}
    assert [slope.words for slope in found.slopes] == [
        "memory 50.0 GB/s",
        "reading memory 40.0 GB/s",
    ]
    assert roofline.of_phases(msgspec.structs.replace(report, ceilings=[])) is None
    assert roofline.of_phases(msgspec.structs.replace(report, phases=[])) is None


@given(st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(1e8, 1e13)), min_size=1, max_size=12))
def test_no_number_in_a_roofline_covers_another(points: list[tuple[float, float]]) -> None:
    report = reports.report("fp32")
    phases = [
        msgspec.structs.replace(
            report.phases[0], intensity_flops_per_byte=intensity, flops_per_second=rate
        )
        for intensity, rate in points
    ]
    found = roofline.of_phases(msgspec.structs.replace(report, phases=phases))
    assert found is not None
    text = roofline.figure("Phases", found, "", "FLOP/s")
    badge = r'x="([\d.]+)%" y="([\d.]+)%" class="at"><path d="M0,0L(-?\d+),(-?\d+)"'
    places = [
        (float(x) / 100 * roofline.NARROW + int(dx), float(y) / 100 * roofline.HEIGHT + int(dy))
        for x, y, dx, dy in re.findall(badge, text)
    ]
    assert len(places) == len(points)
    for one, other in itertools.combinations(places, 2):
        assert math.dist(one, other) > 0.8 * roofline.BADGE
