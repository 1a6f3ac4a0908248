"""The label: worked examples, and properties that hold for all work and ceilings."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workloads.roofline import (
    LATENCY_BELOW,
    Bound,
    Ceilings,
    Fractions,
    Work,
    classify,
    label,
    scaled,
)

A100 = Ceilings({"fp16": 312e12, "fp32": 19.5e12}, 2039e9)
amounts = st.floats(1e-3, 1e18)
shares = st.floats(0.0, 2.0)
powers = st.integers(-20, 20).map(lambda exponent: 2.0**exponent)


def test_decode_of_a_7b_model_on_an_a100_is_memory_bound() -> None:
    work = Work(1.335e10, 1.35e10, 0.0095, "fp16", mostly_reads=True, unit="token")
    found = label(work, A100)
    assert found.bound is Bound.MEMORY
    assert found.fractions.memory == pytest.approx(13.5 / 0.0095 / 2039)
    assert found.explanation == "reads 13.5 GB per token; 0.99 FLOP/byte against a ridge of 153"


def test_prefill_is_compute_bound() -> None:
    found = label(Work(2.875e13, 6.586e10, 0.15, "fp16", unit="prompt"), A100)
    assert found.bound is Bound.COMPUTE
    assert found.intensity == pytest.approx(436.5, rel=1e-3)
    assert found.explanation.startswith("computes 28.8 TFLOP per prompt; 437 FLOP/byte")


def test_low_fractions_keep_their_side_of_the_ridge_with_less_confidence() -> None:
    near, near_confidence = classify(Fractions(compute=0.08, memory=0.8))
    far, far_confidence = classify(Fractions(compute=0.04, memory=0.4))
    assert near is far is Bound.MEMORY
    assert far_confidence < near_confidence


def test_far_from_every_roof_is_latency() -> None:
    assert classify(Fractions(compute=0.01, memory=0.05))[0] is Bound.LATENCY


def test_nearly_equal_fractions_are_balanced_and_undecided() -> None:
    bound, confidence = classify(Fractions(compute=0.5, memory=0.55))
    assert bound is Bound.BALANCED
    assert confidence < 0.1


def test_explanations_name_what_each_label_rests_on() -> None:
    ceilings = Ceilings({"fp32": 100e9}, 10e9, link_bytes_per_second=5e9, io_bytes_per_second=1e9)

    def sentence(work: Work) -> str:
        return label(work, ceilings).explanation

    slow = Work(4e6, 8e6, 0.1, mostly_reads=True, units=2, unit="token")
    assert sentence(slow) == (
        "reads 4 MB per token, 0.8% of the nearest roof; 0.5 FLOP/byte against a ridge of 10"
    )
    even = Work(80e9, 7.6e9, 1.0, unit="step")
    assert sentence(even) == (
        "computes 80 GFLOP and moves 7.6 GB per step; 10.5 FLOP/byte against a ridge of 10"
    )
    sent = Work(10e9, 4e9, 1.0, unit="step", link_bytes=2.4e9)
    assert sentence(sent).startswith("sends 2.4 GB over the link per step; 2.5 FLOP/byte")
    assert sentence(replace(sent, bytes=4.6e9)).startswith(
        "sends 2.4 GB over the link and moves 4.6 GB per step; "
    )
    loaded = Work(10e9, 4e9, 1.0, unit="run", io_bytes=0.9e9)
    assert sentence(loaded).startswith("moves 900 MB of storage per run; ")
    assert sentence(replace(slow, seconds=0.0)).startswith("no label: ")


def test_a_link_or_a_disk_can_lead() -> None:
    ceilings = replace(A100, link_bytes_per_second=25e9, io_bytes_per_second=2e9)
    offloaded = Work(1.4e10, 1.4e10, 0.6, "fp16", link_bytes=1.3e10)
    assert label(offloaded, ceilings).bound is Bound.LINK
    assert label(replace(offloaded, link_bytes=0.0, io_bytes=1.1e9), ceilings).bound is Bound.IO


def test_reading_is_held_against_the_roof_of_reading() -> None:
    ceilings = Ceilings({"fp32": 160e9}, 44e9, read_bytes_per_second=32e9)
    work = Work(1.6e8, 3.2e8, 0.0125, mostly_reads=True)
    assert label(work, ceilings).fractions.memory == pytest.approx(0.8)
    mixed = label(replace(work, mostly_reads=False), ceilings)
    assert mixed.fractions.memory == pytest.approx(0.8 * 32 / 44)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("what", ["flops", "bytes", "seconds"])
def test_no_label_from_a_broken_count(what: str, bad: float) -> None:
    counts = {"flops": 1e12, "bytes": 1e9, "seconds": 1.0} | {what: bad}
    work = Work(counts["flops"], counts["bytes"], counts["seconds"], "fp16")
    assert label(work, A100).bound is Bound.UNKNOWN


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_no_label_from_a_broken_ceiling(bad: float) -> None:
    work = Work(1e12, 1e9, 1.0, "fp16")
    assert label(work, Ceilings({"fp16": bad}, 2e12)).bound is Bound.UNKNOWN
    assert label(work, Ceilings({"fp16": 1e14}, bad)).bound is Bound.UNKNOWN
    assert label(work, Ceilings({"fp32": 1e14}, 2e12)).bound is Bound.UNKNOWN


@given(amounts, amounts, amounts, powers)
def test_label_does_not_depend_on_how_much_work_is_taken(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    work = Work(flops, moved, seconds)
    more = Work(flops * factor, moved * factor, seconds * factor)
    ceilings = Ceilings({"fp32": 1e12}, 1e11)
    one, other = label(work, ceilings), label(more, ceilings)
    assert (one.bound, one.confidence) == (other.bound, other.confidence)
    assert one.fractions == other.fractions


@given(amounts, amounts, amounts, powers)
def test_label_does_not_depend_on_the_unit_of_flops(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    one = label(Work(flops, moved, seconds), Ceilings({"fp32": 1e12}, 1e11))
    other = label(Work(flops * factor, moved, seconds), Ceilings({"fp32": 1e12 * factor}, 1e11))
    assert (one.bound, one.confidence) == (other.bound, other.confidence)


FOUR_ROOFS = Ceilings({"fp32": 1e12}, 1e11, link_bytes_per_second=2e10, io_bytes_per_second=2e9)
LOADS: dict[Bound, Callable[[Work, float], Work]] = {
    Bound.LINK: lambda work, traffic: replace(work, link_bytes=traffic),
    Bound.IO: lambda work, traffic: replace(work, io_bytes=traffic),
}


@given(amounts, amounts, amounts, amounts, amounts, powers)
def test_label_under_four_roofs_does_not_depend_on_how_much_work_is_taken(
    flops: float, moved: float, sent: float, stored: float, seconds: float, factor: float
) -> None:
    work = Work(flops, moved, seconds, link_bytes=sent, io_bytes=stored)
    more = Work(
        flops * factor,
        moved * factor,
        seconds * factor,
        link_bytes=sent * factor,
        io_bytes=stored * factor,
    )
    one, other = label(work, FOUR_ROOFS), label(more, FOUR_ROOFS)
    assert (one.bound, one.confidence, one.fractions) == (
        other.bound,
        other.confidence,
        other.fractions,
    )


@given(amounts, amounts, amounts, powers)
def test_label_does_not_depend_on_the_speed_of_the_machine(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    faster = Ceilings({"fp32": 1e12 * factor}, 1e11 * factor)
    one = label(Work(flops, moved, seconds), Ceilings({"fp32": 1e12}, 1e11))
    other = label(Work(flops, moved, seconds / factor), faster)
    assert (one.bound, one.confidence) == (other.bound, other.confidence)


@given(amounts, amounts, amounts, amounts, st.floats(1.0, 1e6))
def test_more_traffic_on_a_link_or_a_disk_never_takes_their_label_away(
    flops: float, moved: float, traffic: float, seconds: float, factor: float
) -> None:
    work = Work(flops, moved, seconds)
    for bound, load in LOADS.items():
        before = label(load(work, traffic), FOUR_ROOFS)
        after = label(load(work, traffic * factor), FOUR_ROOFS)
        assert before.bound is not bound or after.bound is bound


@given(amounts, amounts, amounts, st.floats(1.0, 1e6))
def test_more_of_what_leads_never_lowers_the_confidence(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    work = Work(flops, moved, seconds)
    before = label(work, FOUR_ROOFS)
    grown = {
        Bound.COMPUTE: replace(work, flops=flops * factor),
        Bound.MEMORY: replace(work, bytes=moved * factor),
    }
    assume(before.bound in grown)
    after = label(grown[before.bound], FOUR_ROOFS)
    assert after.bound is before.bound
    assert after.confidence >= before.confidence


@given(shares, shares, shares, shares)
def test_the_label_of_four_fractions_is_the_highest_unless_two_are_close_or_all_low(
    compute: float, memory: float, link: float, io: float
) -> None:
    fractions = Fractions(compute, memory, link, io)
    bound, confidence = classify(fractions)
    (top, highest), (second, _) = fractions.known()[:2]
    assert 0.0 <= confidence <= 1.0
    if top < LATENCY_BELOW:
        assert bound is Bound.LATENCY
    elif top < second * 1.15:
        assert bound is Bound.BALANCED
    else:
        assert bound is highest


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("bound", LOADS)
def test_broken_traffic_of_a_link_or_a_disk_is_left_out(bound: Bound, bad: float) -> None:
    work = Work(1e11, 9e10, 1.0)
    assert label(LOADS[bound](work, bad), FOUR_ROOFS) == label(work, FOUR_ROOFS)


ORDER = {Bound.MEMORY: 0, Bound.BALANCED: 1, Bound.COMPUTE: 2}


@given(amounts, amounts, amounts, st.floats(1.0, 1e6))
def test_more_flops_never_move_a_label_towards_memory(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    ceilings = Ceilings({"fp32": 1e12}, 1e11)
    before = label(Work(flops, moved, seconds), ceilings).bound
    after = label(Work(flops * factor, moved, seconds), ceilings).bound
    assume(before in ORDER and after in ORDER)
    assert ORDER[after] >= ORDER[before]


@given(amounts, amounts, amounts, st.floats(1.0, 1e6))
def test_more_bytes_never_move_a_label_towards_compute(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    ceilings = Ceilings({"fp32": 1e12}, 1e11)
    before = label(Work(flops, moved, seconds), ceilings).bound
    after = label(Work(flops, moved * factor, seconds), ceilings).bound
    assume(before in ORDER and after in ORDER)
    assert ORDER[after] <= ORDER[before]


@given(amounts, amounts, amounts, st.floats(1.0, 1e6))
def test_higher_ceilings_lower_their_fraction_and_move_the_label_away_from_them(
    flops: float, moved: float, seconds: float, factor: float
) -> None:
    work = Work(flops, moved, seconds)
    before = label(work, Ceilings({"fp32": 1e12}, 1e11))
    compute = label(work, Ceilings({"fp32": 1e12 * factor}, 1e11))
    memory = label(work, Ceilings({"fp32": 1e12}, 1e11 * factor))
    assert (compute.fractions.compute or 0) <= (before.fractions.compute or 0)
    assert (memory.fractions.memory or 0) <= (before.fractions.memory or 0)
    if {before.bound, compute.bound, memory.bound} <= set(ORDER):
        assert ORDER[compute.bound] <= ORDER[before.bound] <= ORDER[memory.bound]


@given(shares, shares)
def test_the_leading_fraction_is_the_side_of_the_ridge(compute: float, memory: float) -> None:
    bound, confidence = classify(Fractions(compute, memory))
    assert 0.0 <= confidence <= 1.0
    if bound is Bound.COMPUTE:
        assert compute > memory
    elif bound is Bound.MEMORY:
        assert memory > compute
    elif bound is Bound.LATENCY:
        assert max(compute, memory) < LATENCY_BELOW
    else:
        assert bound is Bound.BALANCED


@given(*[st.floats(allow_nan=True, allow_infinity=True)] * 5)
def test_any_number_gives_a_label_and_a_confidence(
    flops: float, moved: float, seconds: float, peak: float, bandwidth: float
) -> None:
    found = label(Work(flops, moved, seconds), Ceilings({"fp32": peak}, bandwidth))
    assert 0.0 <= found.confidence <= 1.0
    broken = not all(math.isfinite(v) and v > 0 for v in (flops, moved, seconds, peak, bandwidth))
    assert not broken or found.bound is Bound.UNKNOWN


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.35e10, "13.5 GB"), (0.5, "0.5 B"), (123456.0, "123 kB"), (9.996e2, "1000 B")],
)
def test_amounts_are_written_with_three_digits(value: float, written: str) -> None:
    assert scaled(value, "B") == written
