"""The model as torch dispatches it does exactly the FLOPs that the closed forms say."""

import pytest

pytest.importorskip("torch")

from collections.abc import Callable

import torch
from torch import Tensor

from workloads import counting
from workloads.counting import ElementBytes, Tokens, Trained
from workloads.finetuning import FINETUNES
from workloads.flopcounter import count_flops
from workloads.kvcache import ContiguousCache
from workloads.setting import Setting
from workloads.shapes import SIZES
from workloads.training import build_learner, next_token_loss
from workloads.transformer import Transformer, build

pytestmark = pytest.mark.workloads

CPU = torch.device("cpu")
FP32 = ElementBytes.same(4)
TINY = SIZES["tiny"]


def train_head(model: Transformer, _: Setting) -> None:
    model.requires_grad_(requires_grad=False)
    model.lm_head.requires_grad_(requires_grad=True)


def train_all(model: Transformer, _: Setting) -> None:
    assert all(parameter.requires_grad for parameter in model.parameters())


FREEZE = {**FINETUNES, "head": train_head, "all": train_all}


@pytest.mark.parametrize("attention", ["sdpa", "naive"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("trained", list(Trained))
@pytest.mark.parametrize(("batch", "length", "rank"), [(3, 17, 4)])
def test_training_step(
    batch: int, length: int, rank: int, trained: Trained, attention: str, *, checkpointing: bool
) -> None:
    setting = Setting(
        "tiny",
        batch=batch,
        prompt=length,
        rank=rank,
        checkpointing=checkpointing,
        attention=attention,
    )
    model = build_learner(setting)
    FREEZE[trained](model, setting)
    tokens = torch.zeros(batch, length + 1, dtype=torch.long)
    counted = count_flops(lambda: next_token_loss(model, tokens).backward())  # type: ignore[no-untyped-call]
    counts = counting.training_step(
        TINY,
        counting.prompt(batch, length),
        FP32,
        trained=trained,
        rank=rank,
        checkpointing=checkpointing,
        attention=attention,
    )
    assert counted == (counts["forward"] + counts["backward"]).flops
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learning == counting.trained_parameters(TINY, trained, rank)


@pytest.mark.parametrize("batch", [1, 4])
def test_prefill_with_the_head_on_the_last_token_then_decode(batch: int) -> None:
    model = build(TINY, CPU, torch.float32)
    cache = ContiguousCache(TINY, batch, 33, CPU, torch.float32)
    tokens = torch.zeros(batch, 32, dtype=torch.long)
    places = torch.arange(33)
    with torch.inference_mode():
        prefill = count_flops(lambda: model(tokens, places[:32], cache, last_only=True))
        decode = count_flops(lambda: model(tokens[:, :1], places[32:], cache))
    assert prefill == counting.forward(TINY, counting.prompt(batch, 32), FP32, logits=batch).flops
    assert decode == counting.forward(TINY, Tokens(batch, 1, 33), FP32).flops


def int8(rows: int, columns: int) -> Tensor:
    return torch.randint(-100, 100, (rows, columns), dtype=torch.int8)


def int4_linear(inputs: Tensor, outputs: int) -> Tensor:
    weights = torch.randint(0, 16, (outputs, inputs.shape[1]), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weights, 2)
    scales = torch.ones(inputs.shape[1] // 32, outputs, 2, dtype=inputs.dtype)
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, packed, 32, scales)
    return out


HALF = torch.ones(3, 128, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "linear",
    [
        lambda: torch._int_mm(int8(3, 128), int8(64, 128).t()),
        lambda: torch.ops.aten._weight_int8pack_mm(HALF, int8(64, 128), HALF.new_ones(64)),
        lambda: int4_linear(HALF, 64),
    ],
    ids=["int8 by int8", "int8 weights", "int4 weights"],
)
def test_quantized_products_are_not_free(linear: Callable[[], Tensor]) -> None:
    assert linear().shape == (3, 64)
    assert count_flops(linear) == 2 * 3 * 128 * 64
