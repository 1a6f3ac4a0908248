"""Bytes as dispatched: by hand for single operators, and what fusion saves of the whole model."""

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from workloads import counting
from workloads.attention import ATTENTIONS, naive, sdpa
from workloads.counting import ElementBytes
from workloads.dispatched import dispatched_bytes
from workloads.shapes import SIZES
from workloads.transformer import build

pytestmark = pytest.mark.workloads

CPU = torch.device("cpu")
TINY = SIZES["tiny"]
SQUARE = torch.ones(16, 16)
SIZE = 4 * 16 * 16


def test_single_operators_by_hand() -> None:
    other = torch.ones(16, 16)
    assert dispatched_bytes(lambda: SQUARE @ other) == 3 * SIZE
    assert dispatched_bytes(lambda: SQUARE + 1) == 2 * SIZE
    assert dispatched_bytes(lambda: other.add_(SQUARE)) == 3 * SIZE
    assert dispatched_bytes(lambda: torch.add(SQUARE, SQUARE, out=other)) == 3 * SIZE
    assert dispatched_bytes(lambda: other.copy_(SQUARE)) == 2 * SIZE
    assert dispatched_bytes(lambda: other.zero_()) == SIZE
    assert dispatched_bytes(lambda: torch.cat((SQUARE, other))) == 4 * SIZE


def test_views_and_empty_tensors_move_nothing() -> None:
    assert dispatched_bytes(lambda: SQUARE.t()[:4].reshape(2, 2, 16).detach()) == 0
    assert dispatched_bytes(lambda: torch.empty(1000)) == 0


def test_repeated_elements_count_once() -> None:
    row = torch.ones(16).expand(16, 16)
    assert dispatched_bytes(lambda: SQUARE + row) == 2 * SIZE + 4 * 16


def test_a_lookup_reads_rows_and_not_the_table() -> None:
    rows = torch.tensor([1, 2, 3])
    read, written, places = 4 * 3 * 16, 4 * 3 * 16, 8 * 3
    assert dispatched_bytes(lambda: F.embedding(rows, SQUARE)) == read + written + places


def test_the_backward_pass_is_counted() -> None:
    weight = torch.ones(16, 16, requires_grad=True)
    forward = dispatched_bytes(lambda: SQUARE @ weight)
    both = dispatched_bytes(lambda: (SQUARE @ weight).backward(SQUARE))  # type: ignore[no-untyped-call]
    assert both >= forward + 3 * SIZE


def test_naive_attention_dispatches_the_scores_and_sdpa_does_not() -> None:
    batch, heads, length, head = 2, 4, 96, 32
    query, key, value = (torch.randn(batch, heads, length, head) for _ in range(3))
    fused = dispatched_bytes(lambda: sdpa(query, key, value))
    plain = dispatched_bytes(lambda: naive(query, key, value))
    logsumexp = 4 * batch * heads * length
    assert fused == 4 * 4 * query.numel() + logsumexp
    scores = 4 * batch * heads * length * length
    # product, mask and softmax write them, and mask, softmax and product read them
    assert plain - fused >= 6 * scores


@pytest.mark.parametrize("attention", ["sdpa", "naive"])
def test_a_prefill_dispatches_what_the_model_states_and_what_is_not_fused(attention: str) -> None:
    model = build(TINY, CPU, torch.float32, attention=ATTENTIONS[attention])
    tokens, places = torch.zeros(1, 128, dtype=torch.long), torch.arange(128)
    with torch.inference_mode():
        dispatched = dispatched_bytes(lambda: model(tokens, places))
    size = ElementBytes.same(4)
    stated = counting.forward(TINY, counting.prompt(1, 128), size, attention=attention).bytes
    assert stated < dispatched < 3 * stated
