"""Keys and values of the tokens so far, so that decoding does not compute them again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from workloads.paging import BLOCK, blocks_for
from workloads.shapes import Shape


class KVCache(Protocol):
    """What the model needs of a cache."""

    @property
    def length(self) -> int:
        """Tokens held."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values and return all it holds, the new ones included.

        In: (batch, kv_heads, new, head); out: (batch, kv_heads, length + new, head).
        """

    def advance(self, tokens: int) -> None:
        """Count `tokens` as held, once every layer has appended them."""

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first `length`."""


class ContiguousCache:
    """One preallocated tensor per layer for keys and one for values; reading is a view, no copy."""

    def __init__(
        self, shape: Shape, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        size = (shape.layers, 2, batch, shape.kv_heads, capacity, shape.head)
        # Zeros rather than empty: the pages are then really there before the clock starts.
        self._tensor = torch.zeros(size, device=device, dtype=dtype)
        self._capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens held."""
        return self._length

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store and return keys and values as `KVCache.append` says; ValueError when full."""
        end = self._length + keys.shape[2]
        if end > self._capacity:
            raise ValueError(f"cache holds {self._capacity} tokens, {end} wanted")
        held = self._tensor[layer, :, :, :, :end]
        held[0, :, :, self._length :] = keys
        held[1, :, :, self._length :] = values
        return held[0], held[1]

    def advance(self, tokens: int) -> None:
        """Count `tokens` as held."""
        self._length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self._length = min(self._length, length)


class BlockPool:
    """Memory for keys and values in blocks of `BLOCK` tokens, handed out in any order."""

    def __init__(
        self,
        shape: Shape,
        blocks: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        order: Iterable[int] | None = None,
    ) -> None:
        size = (shape.layers, 2, blocks, BLOCK, shape.kv_heads, shape.head)
        self.tensor = torch.zeros(size, device=device, dtype=dtype)
        self._free = list(range(blocks) if order is None else order)

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def take(self) -> int:
        """Return a block that nobody holds; ValueError when there is none."""
        if not self._free:
            raise ValueError(f"all {self.tensor.shape[2]} blocks of the cache are taken")
        return self._free.pop()

    def give_back(self, blocks: Iterable[int]) -> None:
        """Let others take `blocks`."""
        self._free.extend(blocks)


@dataclass
class PagedSequence:
    """Which blocks hold a sequence, in the order of its tokens, and how many tokens."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0


class PagedCache:
    """Sequences whose blocks lie anywhere in a pool, found by a block table.

    Kwon et al., "PagedAttention" (arXiv 2309.06180). Where their kernel reads through the table,
    this gathers each layer's blocks into one tensor first: `paging.gathering` counts that.
    Sequences may differ in length; what is returned for the shorter ones is padded at the end.
    """

    def __init__(self, pool: BlockPool, sequences: Sequence[PagedSequence]) -> None:
        self._pool = pool
        self._sequences = sequences
        self._reach = 0
        self._table = self._slots = torch.empty(0)

    @property
    def length(self) -> int:
        """Tokens held by the longest sequence."""
        return max(sequence.length for sequence in self._sequences)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store and return keys and values as `KVCache.append` says; ValueError when full."""
        if layer == 0:
            self._make_room(keys.shape[2])
        tokens = self._pool.tensor[layer].flatten(1, 2)  # (2, tokens of all blocks, kv_heads, head)
        tokens[0, self._slots] = keys.transpose(1, 2)
        tokens[1, self._slots] = values.transpose(1, 2)
        return self._gather(layer, 0), self._gather(layer, 1)

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as held by each sequence."""
        for sequence in self._sequences:
            sequence.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first `length` of each sequence; give their blocks back."""
        for sequence in self._sequences:
            sequence.length = min(sequence.length, length)
            kept = blocks_for(sequence.length)
            self._pool.give_back(sequence.blocks[kept:])
            del sequence.blocks[kept:]

    def _make_room(self, new: int) -> None:
        """Take the blocks that `new` tokens per sequence need and write the table down.

        Sets the block table (batch, blocks) and the places of the new tokens (batch, new).
        """
        for sequence in self._sequences:
            while len(sequence.blocks) < blocks_for(sequence.length + new):
                sequence.blocks.append(self._pool.take())
        device = self._pool.tensor.device
        self._reach = self.length + new
        width = blocks_for(self._reach)
        rows = [each.blocks + [0] * (width - len(each.blocks)) for each in self._sequences]
        self._table = torch.tensor(rows, device=device)
        lengths = torch.tensor([each.length for each in self._sequences], device=device)
        places = lengths[:, None] + torch.arange(new, device=device)
        self._slots = self._table.gather(1, places // BLOCK) * BLOCK + places % BLOCK

    def _gather(self, layer: int, half: int) -> Tensor:
        """Copy one layer's keys (half 0) or values (1) together in the order of the tokens."""
        blocks = self._pool.tensor[layer, half][self._table]
        return blocks.flatten(1, 2)[:, : self._reach].transpose(1, 2)


def paged_cache(
    shape: Shape, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
) -> PagedCache:
    """Return an empty paged cache with just enough blocks for `batch` sequences of `capacity`."""
    pool = BlockPool(shape, batch * blocks_for(capacity), device, dtype)
    return PagedCache(pool, [PagedSequence() for _ in range(batch)])


NewCache = Callable[[Shape, int, int, torch.device, torch.dtype], KVCache]

CACHES: Mapping[str, NewCache] = {"contiguous": ContiguousCache, "paged": paged_cache}
"""Makers of caches: (shape, batch, capacity, device, dtype), by the name in `Setting.cache`."""
