"""Attention kernels and caches: the same logits by every way, and counts of what each way moves."""

import itertools
from contextlib import _GeneratorContextManager

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from workloads.attention import ATTENTIONS, Ragged, naive, sdpa
from workloads.counting import Tokens
from workloads.flopcounter import count_flops
from workloads.inference import open_model, pass_count
from workloads.kvcache import BlockPool, ContiguousCache, KVCache, PagedCache, PagedSequence
from workloads.paging import BLOCK, gathering
from workloads.phase import Recorder, Span
from workloads.serving import Server, random_requests, run_serve
from workloads.setting import LONGEST_ANSWER, Setting, silent
from workloads.shapes import SIZES
from workloads.transformer import Transformer, build

pytestmark = [pytest.mark.workloads, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return build(TINY, CPU, torch.float32)


def random_tokens(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(TINY.vocabulary, (batch, length), generator=generator)


def shuffled_pool(blocks: int) -> BlockPool:
    order = torch.randperm(blocks, generator=torch.Generator().manual_seed(4)).tolist()
    assert order != sorted(order)
    return BlockPool(TINY, blocks, CPU, torch.float32, order=order)


def logits_in_parts(model: Transformer, tokens: Tensor, cache: KVCache, parts: list[int]) -> Tensor:
    ends = list(itertools.accumulate(parts))
    pieces = [
        model(tokens[:, end - new : end], torch.arange(end - new, end), cache)
        for new, end in zip(parts, ends, strict=True)
    ]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("parts", [[40], [32, 8], [15, 1, 1, 16, 7], [33, 1, 1, 1, 4]])
@torch.inference_mode()
def test_shuffled_blocks_hold_what_a_contiguous_cache_holds(
    model: Transformer, parts: list[int]
) -> None:
    tokens = random_tokens(3, 40)
    paged = PagedCache(shuffled_pool(9), [PagedSequence() for _ in range(3)])
    contiguous = ContiguousCache(TINY, 3, 40, CPU, torch.float32)
    from_blocks = logits_in_parts(model, tokens, paged, parts)
    whole = model(tokens, torch.arange(40))
    assert torch.equal(from_blocks, logits_in_parts(model, tokens, contiguous, parts))
    assert torch.allclose(from_blocks, whole, atol=1e-5)
    assert paged.length == 40


@torch.inference_mode()
def test_blocks_are_given_back_and_taken_again(model: Transformer) -> None:
    pool = shuffled_pool(4)
    sequences = [PagedSequence(), PagedSequence()]
    cache = PagedCache(pool, sequences)
    tokens = random_tokens(2, 2 * BLOCK)
    first = model(tokens, torch.arange(2 * BLOCK), cache)
    assert pool.free == 0
    assert sorted(sequences[0].blocks + sequences[1].blocks) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="all 4 blocks of the cache are taken"):
        model(tokens[:, :1], torch.tensor([2 * BLOCK]), cache)
    cache.truncate(BLOCK + 1)
    assert pool.free == 0
    cache.truncate(BLOCK)
    assert pool.free == 2
    again = model(tokens[:, BLOCK:], torch.arange(BLOCK, 2 * BLOCK), cache)
    assert torch.allclose(again, first[:, BLOCK:], atol=1e-5)


@pytest.mark.parametrize("queries", [1, 3, 7])
def test_naive_attention_does_what_sdpa_does(queries: int) -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(2, 4, queries, 8, generator=generator)
    key, value = (torch.randn(2, 2, 7, 8, generator=generator) for _ in range(2))
    assert torch.allclose(naive(query, key, value), sdpa(query, key, value), atol=1e-6)
    visible = torch.rand(2, 1, 1, 7, generator=generator) > 0.4
    visible[..., 0] = True
    one, other = (kernel(query, key, value, visible) for kernel in (naive, sdpa))
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kernel", ATTENTIONS)
@pytest.mark.parametrize("cache", ["contiguous", "paged"])
@torch.inference_mode()
def test_flops_are_those_that_torch_dispatches(kernel: str, cache: str) -> None:
    setting = Setting("tiny", batch=2, attention=kernel, cache=cache)
    one = build(TINY, CPU, torch.float32, attention=ATTENTIONS[kernel])
    held = PagedCache(shuffled_pool(6), [PagedSequence(), PagedSequence()])
    places, tokens = torch.arange(40), random_tokens(2, 40)
    prefill = count_flops(lambda: one(tokens, places, held, last_only=True))
    decode = count_flops(lambda: one(tokens[:, :1], places[-1:] + 1, held, last_only=True))
    assert prefill == pass_count(setting, Tokens(2, 40, 40)).flops
    assert decode == pass_count(setting, Tokens(2, 1, 41)).flops


def test_gathering_reads_and_writes_whole_blocks_once() -> None:
    setting = Setting("tiny", batch=2)
    tokens = Tokens(2, 1, 33)  # three blocks for each sequence
    keys = 4 * 6 * 16 * 64 * 4  # layers, blocks, tokens, width of two heads, bytes: values as many
    table = 4 * 2 * 6 * 8  # layers, for keys and for values, blocks, bytes
    assert gathering(TINY, tokens, 4).bytes == 2 * 2 * keys + table
    paged = pass_count(Setting("tiny", batch=2, cache="paged"), tokens)
    plain = pass_count(setting, tokens)
    assert paged.bytes - plain.bytes == 2 * 2 * keys + table
    assert paged.flops == plain.flops


@torch.inference_mode()
def test_sequences_of_unequal_length_decode_as_if_alone() -> None:
    attention = Ragged(sdpa)
    model = build(TINY, CPU, torch.float32, attention=attention)
    tokens = random_tokens(2, 40)
    lengths = [37, 18]
    sequences = [PagedSequence(), PagedSequence()]
    pool = shuffled_pool(6)
    for row, length in enumerate(lengths):
        alone = PagedCache(pool, [sequences[row]])
        model(tokens[row : row + 1, :length], torch.arange(length), alone)
    held = torch.tensor(lengths)
    attention.see(held + 1, 38)
    new = torch.stack([tokens[0, 37], tokens[1, 18]])[:, None]
    together = model(new, held[:, None, None], PagedCache(pool, sequences))
    attention.see_all()
    for row, length in enumerate(lengths):
        expected = model(tokens[row : row + 1, : length + 1], torch.arange(length + 1))[:, -1:]
        assert torch.allclose(together[row : row + 1], expected, atol=1e-5)


class Diary(Recorder):
    """A recorder that also keeps the order of the phases and their FLOPs."""

    def __init__(self) -> None:
        super().__init__("serve", "fp32", lambda: None, clock=lambda: 0.0, wall=lambda: 0.0)
        self.order: list[str] = []

    def forget(self) -> None:
        super().forget()
        self.order.clear()

    def phase(self, name: str, span: Span) -> _GeneratorContextManager[None]:
        self.order.append(name)
        return super().phase(name, span)


def test_serving_alternates_and_answers_every_request_in_full() -> None:
    setting = Setting("tiny", batch=2, prompt=20, steps=2)
    diary = Diary()
    run_serve(setting, diary, silent)
    assert set(diary.order) == {"serve.prefill", "serve.decode"}
    changes = sum(one != other for one, other in itertools.pairwise(diary.order))
    assert changes >= 8
    prefill, decode = diary.phases["serve.prefill"], diary.phases["serve.decode"]
    wanted = sum(request.left for request in random_requests(setting, 8))
    assert prefill.calls == 8
    assert prefill.tokens == 8 * 20
    assert decode.tokens == wanted - 8  # prefill makes the first token of each answer
    assert decode.mostly_reads


@torch.inference_mode()
def test_an_answer_is_that_of_greedy_decoding_and_all_blocks_come_back() -> None:
    setting = Setting("tiny", batch=2, prompt=20, steps=1, cache="paged")
    attention = Ragged(sdpa)
    with open_model(setting, attention) as (model, placement):
        server = Server(setting, model, attention, placement, Diary())
        asked = random_requests(setting, 3)
        prompts, wanted = [each.token for each in asked], [each.left for each in asked]
        server.answer(asked, lambda _: None)
        for request, tokens, count in zip(asked, prompts, wanted, strict=True):
            for _ in range(count):
                logits = model(tokens, torch.arange(tokens.shape[1]), last_only=True)
                tokens = torch.cat((tokens, logits.argmax(dim=-1)), dim=1)
            assert request.token.item() == tokens[0, -1].item()
            assert request.left == 0
    assert server.pool.free == 2 * -(-(20 + LONGEST_ANSWER) // BLOCK)
