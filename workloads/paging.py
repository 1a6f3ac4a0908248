"""Blocks of a paged KV cache, and what gathering them moves, by arithmetic. No torch."""

from collections.abc import Callable, Mapping

from workloads.counting import Count, Tokens
from workloads.shapes import Shape

BLOCK = 16
"""Tokens per block, as in vLLM."""

TABLE_ENTRY = 8
"""Bytes per entry of a block table."""


def blocks_for(tokens: int) -> int:
    """Return how many blocks hold so many tokens."""
    return -(-tokens // BLOCK)


def reading_in_place(shape: Shape, tokens: Tokens, element_bytes: float) -> Count:
    """Count nothing: attention reads a contiguous cache itself."""
    return Count(0, 0.0)


def gathering(shape: Shape, tokens: Tokens, element_bytes: float) -> Count:
    """Count one pass's gathering of a paged cache: whole blocks read and written, the table read.

    Attention then reads the gathered copy, which its own count holds already.
    """
    blocks = tokens.batch * blocks_for(tokens.context)
    copied = 2 * blocks * BLOCK * shape.kv_hidden * element_bytes
    return Count(0, 2 * shape.layers * (copied + blocks * TABLE_ENTRY))


MOVED: Mapping[str, Callable[[Shape, Tokens, float], Count]] = {
    "contiguous": reading_in_place,
    "paged": gathering,
}
"""What one pass moves for its cache beside what attention reads, by the name in `Setting.cache`."""
