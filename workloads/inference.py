"""What prefill, decode and serve have in common: a model that only reads, a cache, a count."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workloads import counting
from workloads.attention import ATTENTIONS, Attention
from workloads.counting import Count, Tokens
from workloads.device import TORCH_DTYPES
from workloads.kvcache import CACHES, KVCache
from workloads.paging import MOVED
from workloads.placement import Placement, birthplace, placed
from workloads.quantization import element_bytes, native_embedding, quantize_linears
from workloads.setting import Setting
from workloads.transformer import Transformer, build


@contextmanager
def open_model(
    setting: Setting, attention: Attention | None = None
) -> Iterator[tuple[Transformer, Placement]]:
    """Build the model and put its weights where the setting wants them, until the context ends.

    `attention` is used instead of the setting's.
    """
    kernel = attention or ATTENTIONS[setting.attention]
    dtype = TORCH_DTYPES[setting.dtype]
    model = build(setting.shape, birthplace(setting), dtype, attention=kernel)
    quantize_linears(model, setting)
    with placed(model, setting) as placement:
        yield model, placement


def new_cache(setting: Setting, capacity: int) -> KVCache:
    """Return an empty cache for `capacity` tokens of each sequence."""
    device, dtype = torch.device(setting.device), TORCH_DTYPES[setting.dtype]
    return CACHES[setting.cache](setting.shape, setting.batch, capacity, device, dtype)


def pass_count(setting: Setting, tokens: Tokens) -> Count:
    """Count one pass that makes the logits of each sequence's last token."""
    size = element_bytes(setting)
    count = counting.forward(
        setting.shape, tokens, size, logits=tokens.batch, attention=setting.attention
    )
    return (
        count
        + native_embedding(setting, tokens)
        + MOVED[setting.cache](setting.shape, tokens, size.cache)
    )
