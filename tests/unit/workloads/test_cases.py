"""LLM-Viewer's table of Llama-2-7B (arXiv 2402.16363), operator by operator.

FLOPs of products are equal to the last digit, so are bytes, and every label is the same. Where that
source is known to count otherwise, the quirk is named here and mended before the comparison.
Two more of its quirks cannot show in these cases: fused attention writes S x S (no case is fused),
and the query is read at the width of the key heads (Llama-2-7B has as many of both).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.unit.workloads.published import cases, viewer_shape
from workloads.counting import (
    ElementBytes,
    Kind,
    Operator,
    Tokens,
    forward,
    layer_operators,
    outer_operators,
    prompt,
)
from workloads.hardware import find_peaks
from workloads.roofline import Ceilings, Work, label

Case = dict[str, Any]

OUR_NAMES = {
    "out_proj": "o_proj",
    "attn_norm": "attention_norm",
    "attn_add": "attention_add",
}


@dataclass(frozen=True)
class Published:
    """What the source says of one operator."""

    flops: float
    bytes: float
    bound: str


def _lm_head_multiplies_without_adding(published: Published, _: Case) -> Published:
    """It counts B d V: a multiplication for each weight, and no addition."""
    return replace(published, flops=2 * published.flops)


def _lm_head_moves_one_sequence(published: Published, case: Case) -> Published:
    """Its head reads and writes activations of one sequence, whatever the batch."""
    shape = viewer_shape(case)
    missing = (case["batchsize"] - 1) * (shape.hidden + shape.vocabulary) * case["a_bit"] / 8
    return replace(published, bytes=published.bytes + missing)


def _activation_is_as_narrow_as_the_residual_stream(published: Published, case: Case) -> Published:
    """Its SwiGLU works on vectors of the hidden width, not of the MLP's."""
    shape = viewer_shape(case)
    wider = shape.mlp / shape.hidden
    return replace(published, flops=published.flops * wider, bytes=published.bytes * wider)


def _add_reads_one_operand(published: Published, _: Case) -> Published:
    """Its residual adds read one vector and write one; a sum has two operands."""
    return replace(published, bytes=published.bytes * 3 / 2)


Mend = Callable[[Published, Case], Published]
QUIRKS: dict[str, tuple[Mend, ...]] = {
    "lm_head": (_lm_head_multiplies_without_adding, _lm_head_moves_one_sequence),
    "mlp_act": (_activation_is_as_narrow_as_the_residual_stream,),
    "attn_add": (_add_reads_one_operand,),
    "mlp_add": (_add_reads_one_operand,),
}


def _mended(case: Case, phase: str) -> dict[str, Published]:
    """Return the source's operators of one phase under our names, quirks mended."""
    found = {}
    for name, entry in case[phase].items():
        published = Published(entry["OPs"], entry["memory_access"], entry["bound"])
        for mend in QUIRKS.get(name, ()):
            published = mend(published, case)
        found[OUR_NAMES.get(name, name)] = published
    return found


def _tokens(case: Case, phase: str) -> Tokens:
    if phase == "prefill":
        return prompt(case["batchsize"], case["seqlen"])
    return Tokens(case["batchsize"], 1, case["seqlen"])


def _element_bytes(case: Case) -> ElementBytes:
    return ElementBytes(case["w_bit"] / 8, case["a_bit"] / 8, case["kv_bit"] / 8)


def _ours(case: Case, phase: str) -> dict[str, Operator]:
    """Return our operators by name: those of one layer, and those that run once."""
    shape, tokens, size = viewer_shape(case), _tokens(case, phase), _element_bytes(case)
    layer = layer_operators(shape, tokens, size, "naive")
    outer = outer_operators(shape, tokens, size, logits=tokens.batch)
    return {operator.name: operator for operator in (*layer, *outer)}


def _bound(flops: float, moved: float, case: Case) -> str:
    """Label work that takes the time its nearer roof asks for."""
    peak, bandwidth = case["max_OPS_used"], case["hardware_params"]["bandwidth"]
    seconds = max(flops / peak, moved / bandwidth)
    return label(Work(flops, moved, seconds, "any"), Ceilings({"any": peak}, bandwidth)).bound


def _every_phase() -> Iterator[Any]:
    for case in cases("roofline-cases"):
        device = case["hardware"].removeprefix("nvidia_")
        bits = f"w{case['w_bit']}a{case['a_bit']}kv{case['kv_bit']}"
        for phase in ("prefill", "decode"):
            yield pytest.param(case, phase, id=f"{device}-b{case['batchsize']}-{bits}-{phase}")


every_phase = pytest.mark.parametrize(("case", "phase"), list(_every_phase()))


@every_phase
def test_each_operator_is_counted_and_labelled_as_published(case: Case, phase: str) -> None:
    published, ours = _mended(case, phase), _ours(case, phase)
    assert set(ours) == {*published, "embedding", "norm"}
    for name, theirs in published.items():
        assert (name, ours[name].flops) == (name, theirs.flops)
        assert (name, ours[name].bytes) == (name, theirs.bytes)
        bound = _bound(ours[name].flops, ours[name].bytes, case)
        assert (name, bound) == (name, theirs.bound)


@every_phase
def test_operators_without_a_quirk_have_the_published_intensity(case: Case, phase: str) -> None:
    ours = _ours(case, phase)
    for name, entry in case[phase].items():
        if name not in QUIRKS:
            operator = ours[OUR_NAMES.get(name, name)]
            intensity = operator.flops / operator.bytes
            assert intensity == pytest.approx(entry["arithmetic_intensity"], rel=0.01), name


@every_phase
def test_each_phase_adds_up_and_is_labelled_as_published(case: Case, phase: str) -> None:
    shape, tokens, size = viewer_shape(case), _tokens(case, phase), _element_bytes(case)
    published, ours = _mended(case, phase), _ours(case, phase)
    head = published.pop("lm_head")
    products = [name for name in published if ours[name].kind is not Kind.ELEMENTWISE]
    found = forward(shape, tokens, size, logits=tokens.batch, attention="naive")
    assert found.flops == head.flops + shape.layers * sum(published[n].flops for n in products)
    # the source leaves out what is before the first layer, and the norm after the last
    around = ours["embedding"].bytes + ours["norm"].bytes
    layers = shape.layers * sum(operator.bytes for operator in published.values())
    assert found.bytes == head.bytes + layers + around
    total = case["total_all_layers_plus_lm_head"][phase]
    assert _bound(found.flops, found.bytes, case) == total["bound_of_total"]


def test_every_quirk_is_one() -> None:
    """Without its correction, each operator in the table differs from ours."""
    case = cases("roofline-cases")[1]
    ours = _ours(case, "prefill")
    for name in QUIRKS:
        operator, entry = ours[OUR_NAMES.get(name, name)], case["prefill"][name]
        assert (operator.flops, operator.bytes) != (entry["OPs"], entry["memory_access"])


def test_our_datasheet_of_the_a100_is_the_one_that_the_source_labels_with() -> None:
    peaks = find_peaks("NVIDIA A100-SXM4-80GB")
    case = next(case for case in cases("roofline-cases") if case["hardware"] == "nvidia_A100_80G")
    assert peaks is not None
    assert peaks.flops_per_second["fp16"] == case["max_OPS_used"]
    assert peaks.bytes_per_second == case["hardware_params"]["bandwidth"]
