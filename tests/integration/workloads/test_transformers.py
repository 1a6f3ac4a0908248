"""The model computes what Hugging Face's Llama computes with the same weights."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers", reason="pip install 'transformers>=5,<6' to compare with it")

from dataclasses import replace

import torch
from torch import Tensor
from transformers import DynamicCache

from tests.benchmarks.against_transformers import same_llama
from workloads.attention import ATTENTIONS
from workloads.kvcache import CACHES
from workloads.shapes import SIZES, Shape
from workloads.training import next_token_loss
from workloads.transformer import build

pytestmark = pytest.mark.workloads

CPU = torch.device("cpu")
WITHIN = 1e-4
PROMPT, NEW, BATCH = 37, 5, 2
SHAPES = {
    "grouped queries": SIZES["tiny"],
    "a key head per query head": replace(SIZES["tiny"], kv_heads=4),
    "rotary base of Llama-3": replace(SIZES["tiny"], rope_base=SIZES["8b"].rope_base),
}
TOKENS = torch.randint(1024, (BATCH, PROMPT + NEW), generator=torch.Generator().manual_seed(1))


def distance(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.inference_mode()
def test_logits_of_whole_prompts(shape: Shape, attention: str) -> None:
    model = build(shape, CPU, torch.float32, attention=ATTENTIONS[attention])
    ours = model(TOKENS, torch.arange(PROMPT + NEW))
    theirs = same_llama(model)(TOKENS).logits
    assert theirs.abs().max() > 0.1
    assert distance(ours, theirs) <= WITHIN


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.inference_mode()
def test_logits_of_prefill_and_of_each_decoded_token(shape: Shape, cache: str) -> None:
    model = build(shape, CPU, torch.float32)
    theirs = same_llama(model)
    held = CACHES[cache](shape, BATCH, PROMPT + NEW, CPU, torch.float32)
    held_by_them = DynamicCache(config=theirs.config)
    places = torch.arange(PROMPT + NEW)
    steps = [(0, PROMPT), *((place, place + 1) for place in range(PROMPT, PROMPT + NEW))]
    for begin, end in steps:
        tokens = TOKENS[:, begin:end]
        ours = model(tokens, places[begin:end], held, last_only=True)
        other = theirs(tokens, past_key_values=held_by_them, use_cache=True, logits_to_keep=1)
        assert distance(ours, other.logits) <= WITHIN


def test_loss_and_gradients_of_training() -> None:
    model = build(SIZES["tiny"], CPU, torch.float32)
    theirs = same_llama(model)
    ours = next_token_loss(model, TOKENS)
    other = theirs(TOKENS, labels=TOKENS).loss
    assert ours.item() == pytest.approx(other.item(), abs=1e-5)
    ours.backward()  # type: ignore[no-untyped-call]
    other.backward()
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in theirs.named_parameters():
        gradient = own[name.removeprefix("model.")]
        assert gradient is not None
        assert distance(gradient, parameter.grad) <= WITHIN
