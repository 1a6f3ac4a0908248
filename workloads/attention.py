"""Attention kernels with one signature, so that the model can be run with each."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """softmax(Q K^T / sqrt(head)) V."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Mix values by how well queries and keys agree.

        `query` is (batch, heads, queries, head), as is the result; `key` and `value` are (batch,
        kv_heads, context, head). `visible`, true where a query may look, spreads to (batch, heads,
        queries, context), alike for all heads; without it, attention is causal and the last query
        sees everything.
        """


def sdpa(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attend with torch's fused kernel: flash on CUDA and on the CPU.

    The heads of a single query that share a key head become queries of that head, so that their
    keys are read once: on the CPU in bf16 that takes a tenth of the time.
    """
    queries, context = query.shape[2], key.shape[2]
    if queries == 1:
        grouped = query.reshape(len(query), key.shape[1], -1, query.shape[3])
        return F.scaled_dot_product_attention(grouped, key, value, attn_mask=visible).view_as(query)
    causal = visible is None and queries == context and queries > 1
    if visible is None and not causal:
        visible = _causal_mask(queries, context, query.device)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, is_causal=causal, enable_gqa=True
    )


def naive(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attend as the formula reads: scores and probabilities go through memory.

    The query heads that share a key head become rows of one product, so that no key is repeated.
    """
    batch, heads, queries, head = query.shape
    kv_heads, context = key.shape[1:3]
    grouped = query.reshape(batch, kv_heads, -1, head)
    scores = (grouped * head**-0.5 @ key.transpose(2, 3)).view(batch, heads, queries, context)
    if visible is None:
        visible = _causal_mask(queries, context, query.device)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    weights = scores.softmax(dim=-1).view(batch, kv_heads, -1, context)
    mixed: Tensor = weights @ value
    return mixed.view(batch, heads, queries, head)


def _causal_mask(queries: int, context: int, device: torch.device) -> Tensor | None:
    """Return (queries, context), true where a query may look; None for one, which sees all."""
    if queries == 1:
        return None
    seen = torch.ones(queries, context, dtype=torch.bool, device=device)
    return seen.tril(diagonal=context - queries)


class Ragged:
    """Attention over sequences of unequal lengths, padded at the end to the longest."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self._visible: Tensor | None = None

    def see(self, lengths: Tensor, longest: int) -> None:
        """Show one new token of sequence i its `lengths[i]` tokens, until `see_all`."""
        places = torch.arange(longest, device=lengths.device)
        self._visible = (places < lengths[:, None])[:, None, None]

    def see_all(self) -> None:
        """Attend as usual: no sequence is padded."""
        self._visible = None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Attend to what `see` has shown, unless `visible` says otherwise."""
        shown = self._visible if visible is None else visible
        return self._attention(query, key, value, shown)


ATTENTIONS: dict[str, Attention] = {"sdpa": sdpa, "naive": naive}
