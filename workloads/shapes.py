"""Sizes of the reference model, and what follows from them by arithmetic. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-style decoder: grouped-query attention, SwiGLU, untied embedding and head."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    rope_base: float = 10_000.0

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def kv_hidden(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Width in and out of the seven linear maps of one layer, by name."""
        hidden, kv_hidden, mlp = self.hidden, self.kv_hidden, self.mlp
        return {
            "q_proj": (hidden, hidden),
            "k_proj": (hidden, kv_hidden),
            "v_proj": (hidden, kv_hidden),
            "o_proj": (hidden, hidden),
            "gate_proj": (hidden, mlp),
            "up_proj": (hidden, mlp),
            "down_proj": (mlp, hidden),
        }

    @property
    def layer_linear_parameters(self) -> int:
        """Weights of the seven linear maps of one layer."""
        return sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def linear_parameters(self) -> int:
        """Weights that take part in matrix products: all layers and the head, no embedding."""
        return self.layers * self.layer_linear_parameters + self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear_parameters + self.vocabulary * self.hidden + norms

    def lora_parameters(self, rank: int) -> int:
        """Weights of low-rank updates beside all linear maps of all layers (arXiv 2106.09685)."""
        return self.layers * rank * sum(map(sum, self.linears.values()))


SIZES: Mapping[str, Shape] = {
    "tiny": Shape(vocabulary=1024, hidden=128, layers=4, heads=4, kv_heads=2, mlp=384),
    # 158 million weights: many times a desktop's last-level cache, yet a training step in seconds;
    # wide and shallow, so that products take the time and not the many small operators
    "small": Shape(vocabulary=16384, hidden=2048, layers=2, heads=16, kv_heads=4, mlp=5632),
    # TinyLlama 1.1B
    "1b": Shape(vocabulary=32000, hidden=2048, layers=22, heads=32, kv_heads=4, mlp=5632),
    # Llama-2-7B
    "7b": Shape(vocabulary=32000, hidden=4096, layers=32, heads=32, kv_heads=32, mlp=11008),
    # Llama-3-8B
    "8b": Shape(
        vocabulary=128256,
        hidden=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        mlp=14336,
        rope_base=500_000.0,
    ),
}
