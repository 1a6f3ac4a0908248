"""Bytes that ranks exchange, in closed form, as one rank's link carries them. No torch.

A ring moves 2 (n - 1) / n of the buffer through each link for an all-reduce, (n - 1) / n for an
all-gather or a reduce-scatter (Patarasuk and Yuan, "Bandwidth optimal all-reduce", 2009). A library
may choose other ways; bus bandwidth, to which these bytes are held, is defined by the ring's.
"""

from collections.abc import Mapping
from dataclasses import replace

from workloads.counting import (
    ElementBytes,
    Operator,
    Tokens,
    cached_linear,
    layer_operators,
    linear,
)
from workloads.setting import Setting, SettingError
from workloads.shapes import Shape

ROW_WISE = ("o_proj", "down_proj")
"""Linear maps whose inputs are shared out under tensor parallelism; of the others, the outputs."""

CACHED = ("k_proj", "v_proj")
WHOLE = ("attention_norm", "attention_add", "mlp_norm", "mlp_add")
ALL_REDUCES_PER_LAYER = 2
"""One after attention, one after the MLP; as many in the backward pass, before them."""


def all_reduced(size: float, ranks: int) -> float:
    """Return what a link carries to sum a buffer of `size` bytes over all ranks."""
    return 2 * size * (ranks - 1) / ranks


def gathered(size: float, ranks: int) -> float:
    """Return what a link carries to gather or to scatter a buffer of `size` bytes."""
    return size * (ranks - 1) / ranks


def data_parallel(setting: Setting, ranks: int) -> dict[str, float]:
    """Count DDP: all gradients are summed once, while the backward pass runs."""
    gradients = setting.shape.parameters * setting.element_bytes
    return {"backward": all_reduced(gradients, ranks)}


def fully_sharded(setting: Setting, ranks: int) -> dict[str, float]:
    """Count FSDP2: all weights are gathered forwards, those of the layers again backwards.

    Embedding, last norm and head stay gathered in between, as `fully_shard` does with the root.
    Gradients are scattered. Zhao et al., "PyTorch FSDP" (arXiv 2304.11277).
    """
    shape, size = setting.shape, setting.element_bytes
    weights = shape.parameters * size
    layers = shape.layers * (shape.layer_linear_parameters + 2 * shape.hidden) * size
    return {
        "forward": gathered(weights, ranks),
        "backward": gathered(layers, ranks) + gathered(weights, ranks),
    }


def tensor_parallel(setting: Setting, tokens: int, ranks: int) -> float:
    """Count the all-reduces of the activations of `tokens` new tokens in one pass.

    Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3.
    """
    activations = tokens * setting.shape.hidden * setting.element_bytes
    reduces = ALL_REDUCES_PER_LAYER * setting.shape.layers
    return reduces * all_reduced(activations, ranks)


def check_divisible(shape: Shape, ranks: int) -> None:
    """Refuse with a `SettingError` a number of ranks that does not divide heads and MLP."""
    widths = {"heads": shape.heads, "key-value heads": shape.kv_heads, "MLP columns": shape.mlp}
    for name, width in widths.items():
        if width % ranks:
            raise SettingError(f"{ranks} ranks cannot share {width} {name}")


def sharded_widths(shape: Shape, ranks: int) -> Mapping[str, tuple[int, int]]:
    """Return inputs and outputs of one rank's part of each linear map of a layer."""
    return {
        name: (inputs // ranks, outputs) if name in ROW_WISE else (inputs, outputs // ranks)
        for name, (inputs, outputs) in shape.linears.items()
    }


def sharded_layer(
    shape: Shape, tokens: Tokens, size: ElementBytes, attention: str, ranks: int
) -> list[Operator]:
    """List what one of `ranks` ranks does of a layer: norms and sums whole, all else in part."""
    widths = sharded_widths(shape, ranks)

    def part(operator: Operator) -> Operator:
        name = operator.name
        if name in widths:
            count = cached_linear if name in CACHED else linear
            return count(name, tokens.new, widths[name], size)
        if name in WHOLE:
            return operator
        return Operator(name, operator.kind, operator.flops // ranks, operator.bytes / ranks)

    return [part(operator) for operator in layer_operators(shape, tokens, size, attention)]


def narrowed(shape: Shape, ranks: int) -> Shape:
    """Return the shape whose KV cache one rank holds: its share of the heads, as wide as before."""
    return replace(
        shape,
        hidden=shape.hidden // ranks,
        heads=shape.heads // ranks,
        kv_heads=shape.kv_heads // ranks,
    )


def held_weights(shape: Shape, ranks: int) -> int:
    """Return how many weights a rank holds under tensor parallelism."""
    shared = shape.layers * shape.layer_linear_parameters
    return shape.parameters - shared + shared // ranks
