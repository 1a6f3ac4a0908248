"""Decode over batch sizes: by the formulas, and by running it."""

import pytest

pytest.importorskip("torch")

from dataclasses import replace

from workloads.ceilings import Sweep
from workloads.roofline import Bound, Ceilings
from workloads.runner import Runner, RunReport
from workloads.setting import Setting, SettingError, silent
from workloads.sweep import BATCHES, crossing, decode_rows

pytestmark = pytest.mark.workloads

LLAMA = Setting("7b", dtype="fp16", prompt=2047)
A100 = Ceilings({"fp16": 312e12}, 2039e9)
SMALL_SWEEP = Sweep(((64, 64, 64),), 1 << 16, repeats=2)


def test_intensity_of_the_linear_maps_grows_with_the_batch() -> None:
    rows = decode_rows(LLAMA)
    assert [row.batch for row in rows] == list(BATCHES)
    shape, d, f = LLAMA.shape, LLAMA.shape.hidden, LLAMA.shape.mlp
    # elements in and out: 4 maps of the attention, 3 of the MLP, 2 norms, 2 adds, 1 product
    per_layer = 8 * d + 3 * (d + f) + 4 * d + 6 * d + 3 * f
    per_token = shape.layers * per_layer + 2 * d + 2 * d + (d + shape.vocabulary)
    weights = shape.linear_parameters
    for row in rows:
        expected = 2 * row.batch * weights / (2 * weights + 2 * row.batch * per_token)
        assert row.linear_intensity == pytest.approx(expected, rel=1e-12)
    assert rows[0].linear_intensity == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("size", "dtype", "expected"), [("7b", "fp16", 1.0), ("8b", "fp16", 4.0), ("8b", "fp32", 2.0)]
)
def test_intensity_of_attention_is_query_heads_per_byte_of_key(
    size: str, dtype: str, expected: float
) -> None:
    rows = decode_rows(replace(LLAMA, size=size, dtype=dtype, prompt=8191))
    intensities = [row.attention_intensity for row in rows]
    assert intensities == pytest.approx([intensities[0]] * len(rows))
    assert intensities[0] == pytest.approx(expected, rel=1e-3)


def test_a_long_context_keeps_decode_memory_bound_at_any_batch() -> None:
    assert {row.predicted for row in decode_rows(LLAMA, ceilings=A100)} == {Bound.MEMORY}
    assert crossing(LLAMA, A100.flops_per_second["fp16"] / 2039e9) is None


def test_the_label_changes_where_the_ridge_is_crossed() -> None:
    ceilings = Ceilings({"fp32": 150e9}, 44e9, read_bytes_per_second=30e9)
    setting = Setting("small", prompt=256)
    batches = range(1, 129)
    rows = decode_rows(setting, batches, ceilings=ceilings)
    first = next(row.batch for row in rows if row.intensity >= 5)
    assert crossing(setting, ridge=5) == first
    bounds = [row.predicted for row in rows]
    assert (bounds[0], bounds[-1]) == (Bound.MEMORY, Bound.COMPUTE)
    order = (Bound.MEMORY, Bound.BALANCED, Bound.COMPUTE)
    assert bounds == sorted(bounds, key=lambda bound: order.index(Bound(bound or "unknown")))
    assert bounds[first - 1] is Bound.BALANCED


@pytest.mark.parametrize("ridge", [0.3, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("cache", ["contiguous", "paged"])
def test_crossing_is_the_first_of_all_batches(ridge: float, cache: str) -> None:
    setting = Setting("tiny", prompt=31, cache=cache)
    rows = decode_rows(setting, range(1, 300))
    beyond = [row.batch for row in rows if row.intensity >= ridge]
    assert crossing(setting, ridge) == (beyond[0] if beyond else None)


def test_unknown_ceilings_predict_nothing() -> None:
    assert {row.predicted for row in decode_rows(LLAMA)} == {None}
    assert {row.predicted for row in decode_rows(LLAMA, ceilings=Ceilings())} == {Bound.UNKNOWN}


def test_measured_rows_hold_the_phase_and_refused_ones_the_reason() -> None:
    def measure(setting: Setting) -> RunReport:
        if setting.batch == 4:
            raise SettingError("too big")
        return Runner(setting, progress=silent, sweep=SMALL_SWEEP).run(["decode"])

    setting = Setting("tiny", prompt=8, steps=1)
    rows = decode_rows(setting, (1, 2, 4), measure=measure, measured=(2, 4))
    assert [row.measured is not None for row in rows] == [False, True, False]
    assert [row.refused for row in rows] == ["", "", "too big"]
    phase = rows[1].measured.phase if rows[1].measured else None
    assert phase is not None
    assert phase.flops / phase.bytes == pytest.approx(rows[1].intensity, rel=0.05)
