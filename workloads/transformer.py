"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Touvron et al., "Llama 2" (arXiv 2307.09288); module names follow Hugging Face, whose checkpoints
therefore fit by name.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.attention import Attention, sdpa
from workloads.kvcache import KVCache
from workloads.linear import Linear
from workloads.shapes import Shape

NORM_EPSILON = 1e-5
INITIAL_DEVIATION = 0.02
ROWS_AT_A_TIME = 1024


class Transformer(nn.Module):
    """The whole model; tokens in, logits out."""

    def __init__(self, shape: Shape, attention: Attention = sdpa) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, index, attention) for index in range(shape.layers))
        self.norm = RMSNorm(shape.hidden)
        self.lm_head = Linear(shape.hidden, shape.vocabulary)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        *,
        last_only: bool = False,
    ) -> Tensor:
        """Return logits (batch, queries, vocabulary); of the last token alone if `last_only`.

        `tokens` is (batch, queries), `positions` (queries,), or (batch, 1, queries) where sequences
        differ. With a cache, the new tokens follow those that it holds and are held by it
        afterwards.
        """
        hidden = self.embed_tokens(tokens)
        rotation = rotary_table(self.shape, positions, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, rotation, cache)
        if cache is not None:
            cache.advance(tokens.shape[1])
        if last_only:
            hidden = hidden[:, -1:]
        logits: Tensor = self.lm_head(self.norm(hidden))
        return logits


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, shape: Shape, index: int, attention: Attention) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden)
        self.self_attn = SelfAttention(shape, index, attention)
        self.post_attention_layernorm = RMSNorm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, rotation: Tensor, cache: KVCache | None) -> Tensor:
        """Return the residual stream after this layer; shapes as they came."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotation, cache)
        changed: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return changed


class SelfAttention(nn.Module):
    """Grouped-query attention (Ainslie et al., arXiv 2305.13245) with rotary positions."""

    def __init__(self, shape: Shape, index: int, attention: Attention) -> None:
        super().__init__()
        self.head = shape.head
        self.index = index
        self.attention = attention
        self.q_proj = Linear(shape.hidden, shape.hidden)
        self.k_proj = Linear(shape.hidden, shape.kv_hidden)
        self.v_proj = Linear(shape.hidden, shape.kv_hidden)
        self.o_proj = Linear(shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor, rotation: Tensor, cache: KVCache | None) -> Tensor:
        """Mix tokens: (batch, queries, hidden) in and out."""
        query = rotate(self._heads(self.q_proj(hidden)), rotation)
        key = rotate(self._heads(self.k_proj(hidden)), rotation)
        value = self._heads(self.v_proj(hidden))
        if cache is not None:
            key, value = cache.append(self.index, key, value)
        mixed = self.attention(query, key, value)
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, projected: Tensor) -> Tensor:
        """Split (batch, queries, heads * head) into (batch, heads, queries, head)."""
        batch, queries, width = projected.shape
        return projected.view(batch, queries, width // self.head, self.head).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = Linear(shape.hidden, shape.mlp)
        self.up_proj = Linear(shape.hidden, shape.mlp)
        self.down_proj = Linear(shape.mlp, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each token: (batch, queries, hidden) in and out."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return out


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scale each vector of the last dimension to unit mean square, times the weight."""
        return F.rms_norm(hidden, list(self.weight.shape), self.weight, NORM_EPSILON)


def rotary_table(shape: Shape, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Return cosines and sines (2, *positions, head) of positions (RoFormer, arXiv 2104.09864)."""
    halves = torch.arange(0, shape.head, 2, device=positions.device, dtype=torch.float32)
    frequencies = shape.rope_base ** (-halves / shape.head)
    half = positions.float()[..., None] * frequencies
    angles = torch.cat((half, half), dim=-1)
    return torch.stack((angles.cos(), angles.sin())).to(dtype)


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs (i, i + head / 2) of each head: (batch, heads, queries, head) in and out."""
    cosine, sine = rotation
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return torch.addcmul(heads * cosine, turned, sine)


def build(
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    *,
    attention: Attention = sdpa,
    seed: int = 0,
) -> Transformer:
    """Build a model with random weights right on its device; a seed's are the same in any dtype."""
    with torch.device("meta"):
        model = Transformer(shape, attention).to(dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                fill_with_noise(parameter, generator)
    return model


def fill_with_noise(weight: Tensor, generator: torch.Generator) -> None:
    """Draw weights (out, in) in fp32, some rows at a time, and round them to their dtype.

    What torch draws in bf16 on a CPU are other numbers (2.6), without the tails (pytorch #166853).
    """
    for rows in weight.split(ROWS_AT_A_TIME):  # type: ignore[no-untyped-call]
        noise = torch.empty_like(rows, dtype=torch.float32)
        rows.copy_(noise.normal_(std=INITIAL_DEVIATION, generator=generator))
