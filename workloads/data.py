"""Training data: a text that can be learned, in a file, read through a memory map."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from workloads.counting import Count
from workloads.pagecache import evict
from workloads.phase import Span
from workloads.setting import Setting

ALPHABET = 64
"""Different tokens of the text."""

SURPRISES = 0.1
"""Part of the text that does not follow from the token before it."""

IN_FILE = torch.int32
IN_MODEL = torch.int64


def toy_text(vocabulary: int, length: int, seed: int = 0) -> Tensor:
    """Return tokens that go round a fixed cycle of `ALPHABET` tokens, jumping now and then.

    A model that has learned it loses about 0.7 nats per token, one that knows nothing
    ln(vocabulary).
    """
    generator = torch.Generator().manual_seed(seed)
    cycle = torch.randperm(vocabulary, generator=generator)[:ALPHABET]
    jumps = torch.randint(ALPHABET, (length,), generator=generator)
    jumps[torch.rand(length, generator=generator) > SURPRISES] = 0
    return cycle[(torch.arange(length) + jumps.cumsum(0)) % ALPHABET]


def open_batches(setting: Setting, count: int, folder: Path) -> Iterator[Tensor]:
    """Write a text to a file of `folder`; return `count` batches (batch, prompt + 1) read from it.

    The file is out of the page cache then, and every token of it is read once.
    """
    path = folder / "tokens.bin"
    length = count * tokens_per_batch(setting)
    path.write_bytes(toy_text(setting.shape.vocabulary, length).to(IN_FILE).numpy().tobytes())
    evict(path)
    text = torch.from_file(str(path), shared=False, size=length, dtype=IN_FILE)
    return _batches(text.view(count, setting.batch, setting.prompt + 1), setting.device)


def _batches(text: Tensor, device: str) -> Iterator[Tensor]:
    for batch in text:
        yield batch.to(IN_MODEL).to(device)


def tokens_per_batch(setting: Setting) -> int:
    """Return how many tokens one batch reads: every sequence has one more than it trains on."""
    return setting.batch * (setting.prompt + 1)


def data_span(setting: Setting) -> Span:
    """Count the loading of one batch: read from the file, written wide, sent to a GPU."""
    tokens = tokens_per_batch(setting)
    stored, wide = tokens * IN_FILE.itemsize, tokens * IN_MODEL.itemsize
    sent = 0 if setting.device == "cpu" else wide
    return Span(Count(0, stored + wide), tokens, "batch", link_bytes=sent, io_bytes=stored)
