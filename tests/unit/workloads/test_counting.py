"""Closed forms: against torch's counter to the last FLOP, and against arithmetic done by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workloads.published import cases, torch_shape
from workloads.counting import (
    ElementBytes,
    Kind,
    Tokens,
    Trained,
    adamw_step,
    forward,
    gradients,
    layer_operators,
    prompt,
    total,
    trained_parameters,
    training_step,
)
from workloads.shapes import SIZES, Shape

FP16 = ElementBytes.same(2)
FP32 = ElementBytes.same(4)

shapes = st.builds(
    lambda heads, groups, halves, **widths: Shape(
        hidden=2 * halves * heads * groups, heads=heads * groups, kv_heads=heads, **widths
    ),
    heads=st.integers(1, 4),
    groups=st.integers(1, 4),
    halves=st.integers(1, 32),
    vocabulary=st.integers(2, 5000),
    layers=st.integers(1, 6),
    mlp=st.integers(1, 500),
)


@pytest.fixture(params=cases("torch-flopcounter-cases"), ids=lambda case: str(case["model"]))
def counted(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What torch's counter found on naive attention, batch 1."""
    case: dict[str, Any] = request.param
    return case


def test_inference_flops_equal_those_that_torch_counts(counted: dict[str, Any]) -> None:
    shape, length = torch_shape(counted), counted["seq"]
    assert shape.linear_parameters == counted["analytic"]["linear_params"]
    assert shape.parameters == counted["params_total"]
    assert forward(shape, prompt(1, length), FP16).flops == counted["prefill_fwd_naive"]
    decode = counted[f"decode_one_token_ctx_{length + 1}"]
    assert forward(shape, Tokens(1, 1, length + 1), FP16).flops == decode


@pytest.mark.parametrize(
    ("trained", "checkpointing", "key"),
    [
        (Trained.ALL, False, "train_full_fwd_bwd_naive"),
        (Trained.ALL, True, "train_full_fwd_bwd_naive_ckpt"),
        (Trained.LORA, False, "train_lora_r8_fwd_bwd_naive"),
        (Trained.HEAD, False, "train_head_only_fwd_bwd"),
        (Trained.LAST, False, "train_last_block_and_head_fwd_bwd"),
    ],
)
def test_training_flops_equal_those_that_torch_counts(
    counted: dict[str, Any], trained: Trained, key: str, *, checkpointing: bool
) -> None:
    counts = training_step(
        torch_shape(counted),
        prompt(1, counted["seq"]),
        FP16,
        trained=trained,
        rank=8,
        checkpointing=checkpointing,
        attention="naive",
    )
    assert counts["forward"].flops + counts["backward"].flops == counted[key]


def test_lora_trains_as_many_weights_as_torch_counts(counted: dict[str, Any]) -> None:
    trainable = counted["lora_r8_trainable"]
    assert trained_parameters(torch_shape(counted), Trained.LORA, rank=8) == trainable


@given(shapes, st.integers(1, 4), st.integers(1, 300), st.integers(1, 64))
def test_training_flops_follow_the_closed_forms_for_any_shape(
    shape: Shape, batch: int, length: int, rank: int
) -> None:
    def flops(trained: str, *, checkpointing: bool = False) -> int:
        counts = training_step(
            shape,
            prompt(batch, length),
            FP16,
            trained=trained,
            rank=rank,
            checkpointing=checkpointing,
            attention="naive",
        )
        return (counts["forward"] + counts["backward"]).flops

    tokens, weights, hidden = batch * length, shape.linear_parameters, shape.hidden
    attention = 4 * shape.layers * hidden * length * tokens
    head = hidden * shape.vocabulary
    full, ahead = 6 * weights * tokens + 3 * attention, 2 * weights * tokens + attention
    assert flops("all") == full
    again = 2 * (weights - head) * tokens + attention
    down = 2 * shape.layers * hidden * shape.mlp * tokens
    assert flops("all", checkpointing=True) == full + again - down
    first = 2 * tokens * (hidden * hidden + 2 * hidden * shape.kv_hidden)
    adapters = 6 * shape.lora_parameters(rank) * tokens - 6 * tokens * hidden * rank
    assert flops("lora") == 4 * weights * tokens + adapters + 3 * attention - first
    assert flops("head") == ahead + 2 * head * tokens
    block = 4 * shape.layer_linear_parameters * tokens
    last = ahead + 4 * head * tokens + block + 2 * attention // shape.layers
    assert flops("last") == last


@pytest.mark.parametrize(
    ("size", "parameters"), [("1b", 1100048384), ("7b", 6738415616), ("8b", 8030261248)]
)
def test_weights_are_as_many_as_published(size: str, parameters: int) -> None:
    assert SIZES[size].parameters == parameters


def test_bytes_of_one_layer_by_hand() -> None:
    shape = Shape(vocabulary=10, hidden=8, layers=1, heads=4, kv_heads=2, mlp=16)
    found = {op.name: op.bytes for op in layer_operators(shape, Tokens(1, 1, 5), FP16)}
    assert found["q_proj"] == 2 * (64 + 8 + 8)
    assert found["k_proj"] == 2 * (32 + 8 + 4)
    assert found["attention"] == 2 * (8 + 8 + 5 * 4 + 5 * 4)  # Q, O, then K and V of 5 tokens
    assert found["down_proj"] == 2 * (128 + 16 + 8)
    assert found["mlp_act"] == 2 * 3 * 16
    assert found["attention_add"] == 2 * 3 * 8


def test_decode_intensity_grows_with_the_batch_but_that_of_attention_does_not() -> None:
    shape = SIZES["7b"]
    one = {op.name: op for op in layer_operators(shape, Tokens(1, 1, 2048), FP16)}
    many = {op.name: op for op in layer_operators(shape, Tokens(16, 1, 2048), FP16)}
    assert one["q_proj"].flops / one["q_proj"].bytes == pytest.approx(1, rel=1e-3)
    assert many["q_proj"].flops / many["q_proj"].bytes == pytest.approx(16, rel=1e-2)
    intensity = one["attention"].flops / one["attention"].bytes
    assert intensity == pytest.approx(1, rel=1e-3)
    assert many["attention"].flops / many["attention"].bytes == pytest.approx(intensity)


def test_naive_attention_does_the_same_flops_and_moves_the_scores_as_well() -> None:
    shape, tokens = SIZES["7b"], prompt(1, 2048)
    fused, naive = (
        [op for op in layer_operators(shape, tokens, FP16, kind) if "proj" not in op.name]
        for kind in ("sdpa", "naive")
    )
    assert total(naive).flops == total(fused).flops
    scores = 32 * 2048 * 2048
    assert total(naive).bytes - total(fused).bytes == 4 * scores * 2


def test_elementwise_flops_are_not_part_of_a_phase() -> None:
    shape, tokens = SIZES["tiny"], prompt(2, 64)
    operators = layer_operators(shape, tokens, FP32)
    assert any(op.flops > 0 for op in operators if op.kind is Kind.ELEMENTWISE)
    products = [op for op in operators if op.kind is not Kind.ELEMENTWISE]
    assert total(operators).flops == total(products).flops


def test_adamw_moves_28_bytes_per_fp32_weight() -> None:
    count = adamw_step(1000, 4)
    assert count.bytes == 28_000
    assert count.flops / count.bytes == 0.5


def test_bytes_of_a_backward_pass_by_hand() -> None:
    shape = Shape(vocabulary=10, hidden=8, layers=1, heads=4, kv_heads=2, mlp=16)
    operators = {op.name: op for op in layer_operators(shape, prompt(1, 5), FP16)}
    down, attention = [operators["down_proj"]], [operators["attention"]]
    # by the input: dY and W read, dX written; by the weight: dY and X read, dW written
    by_input = 2 * (5 * 8 + 16 * 8 + 5 * 16)
    by_weight = 2 * (5 * 8 + 5 * 16 + 16 * 8)
    assert gradients(down, weights=False).bytes == by_input
    assert gradients(down, inputs=False).bytes == by_weight
    assert gradients(down).bytes == by_input + by_weight
    # Q, K, V, O and the gradients of all four
    assert gradients(attention).bytes == 2 * (2 * 5 * 8 + 2 * 5 * 4) * 2
    assert gradients(attention, inputs=False).bytes == 0


def test_freezing_saves_bytes_and_checkpointing_costs_them() -> None:
    shape, tokens = SIZES["7b"], prompt(1, 2048)

    def moved(trained: str, *, checkpointing: bool = False) -> float:
        counts = training_step(shape, tokens, FP16, trained=trained, checkpointing=checkpointing)
        return counts["backward"].bytes

    assert moved("head") < moved("last") < moved("all")
    assert moved("all") < moved("all", checkpointing=True)
    assert moved("head") == moved("head", checkpointing=True)
