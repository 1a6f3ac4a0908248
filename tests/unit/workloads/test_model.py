"""The model computes what it should, with and without a cache."""

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from workloads.attention import sdpa
from workloads.kvcache import ContiguousCache
from workloads.shapes import SIZES
from workloads.transformer import INITIAL_DEVIATION, Transformer, build, rotary_table, rotate

pytestmark = pytest.mark.workloads

CPU = torch.device("cpu")
TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return build(TINY, CPU, torch.float32)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(TINY.vocabulary, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("parts", [[24], [16, 8], [20, 1, 1, 2], [1] * 24])
def test_logits_are_the_same_whole_and_in_parts_from_the_cache(
    model: Transformer, tokens: Tensor, parts: list[int]
) -> None:
    cache = ContiguousCache(TINY, 2, 24, CPU, torch.float32)
    places = torch.arange(24)
    with torch.inference_mode():
        whole = model(tokens, places)
        pieces = [
            model(part, place, cache)
            for part, place in zip(
                torch.split(tokens, parts, dim=1), torch.split(places, parts), strict=True
            )
        ]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)
    assert cache.length == 24


def test_a_token_does_not_see_those_after_it(model: Transformer, tokens: Tensor) -> None:
    changed = tokens.clone()
    changed[:, 12:] = 0
    places = torch.arange(24)
    with torch.inference_mode():
        one, other = model(tokens, places), model(changed, places)
    assert torch.equal(one[:, :12], other[:, :12])
    assert not torch.allclose(one[:, 12:], other[:, 12:])


def test_attention_is_softmax_of_scaled_products_over_what_is_visible() -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 4, 3, 8, generator=generator)
    key, value = (torch.randn(1, 2, 5, 8, generator=generator) for _ in range(2))
    wide_key, wide_value = (held.repeat_interleave(2, dim=1) for held in (key, value))
    scores = query @ wide_key.transpose(2, 3) / 8**0.5
    hidden = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    expected = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ wide_value
    assert torch.allclose(sdpa(query, key, value), expected, atol=1e-6)


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(1, 1, 1, TINY.head, generator=generator) for _ in range(2))

    def at(vector: Tensor, place: int) -> Tensor:
        return rotate(vector, rotary_table(TINY, torch.tensor([place]), torch.float32))

    assert torch.allclose(at(query, 7).norm(), query.norm())
    near, far = (at(query, 9) * at(key, 4)).sum(), (at(query, 105) * at(key, 100)).sum()
    assert torch.allclose(near, far, atol=1e-3)


def test_a_full_cache_is_an_error(model: Transformer, tokens: Tensor) -> None:
    cache = ContiguousCache(TINY, 2, 23, CPU, torch.float32)
    with pytest.raises(ValueError, match="holds 23 tokens, 24 wanted"):
        model(tokens, torch.arange(24), cache)


def test_the_same_seed_gives_the_same_weights(model: Transformer) -> None:
    again = build(TINY, CPU, torch.float32)
    other = build(TINY, CPU, torch.float32, seed=1)
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_seed_gives_the_same_weights_in_any_dtype(
    model: Transformer, dtype: torch.dtype
) -> None:
    narrow = build(TINY, CPU, dtype)
    for weight, rounded in zip(model.parameters(), narrow.parameters(), strict=True):
        assert torch.equal(weight.to(dtype), rounded)


def test_weights_are_normal_with_their_tails(model: Transformer) -> None:
    """Of 131,072 draws 61 should be above 3.5 deviations; that none is has a chance of e^-61."""
    drawn = model.lm_head.weight / INITIAL_DEVIATION
    assert drawn.mean().abs() < 5 / drawn.numel() ** 0.5
    assert (drawn.std() - 1).abs() < 5 / (2 * drawn.numel()) ** 0.5
    assert drawn.abs().max() > 3.5
