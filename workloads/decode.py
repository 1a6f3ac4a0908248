"""Decode: one token at a time for each sequence, from a preallocated KV cache."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from workloads import matvec
from workloads.counting import Count, Tokens
from workloads.inference import new_cache, open_model, pass_count
from workloads.kvcache import KVCache
from workloads.phase import Recorder, Span
from workloads.prefill import random_prompt
from workloads.setting import TOKENS_PER_STEP, Progress, Setting
from workloads.transformer import Transformer

WARMUP = 1


@torch.inference_mode()
def run_decode(setting: Setting, recorder: Recorder, progress: Progress) -> None:
    """Fill the cache with a prompt, then record `setting.steps` runs of `TOKENS_PER_STEP` tokens.

    One warm-up run comes first. Every run makes the same tokens after the same prompt, so that
    their times can be compared. A run is one call: the device is waited for once per run.
    """
    progress(f"decode: building {setting.size}")
    steps = WARMUP + setting.steps
    capacity = setting.prompt + TOKENS_PER_STEP
    cache = new_cache(setting, capacity)
    positions = torch.arange(capacity, device=setting.device)
    with open_model(setting) as (model, placement):
        first = next_token(model, random_prompt(setting), positions[: setting.prompt], cache)
        way = GraphedDecoding if can_graph(setting) else EagerDecoding
        decoding = way(model, first, positions, cache)
        counted = decode_span(setting, setting.prompt, decoding.note)
        span = placement.span(counted, passes=TOKENS_PER_STEP)
        for step in range(steps):
            if step == WARMUP:
                recorder.forget()
            progress(f"decode: run {step + 1} of {steps}", step / steps)
            placement.begin()
            with recorder.phase("decode", span):
                decoding.run()


def can_graph(setting: Setting) -> bool:
    """Tell whether CUDA can record the steps: nothing in them may come from the host."""
    at_hand = setting.cache == "contiguous" and setting.placement == "device"
    return setting.device.startswith("cuda") and at_hand


class Decoding(Protocol):
    """A way to decode `TOKENS_PER_STEP` tokens, over and over after the same prompt."""

    note: str
    """What a reader should know of it; empty when it is as usual."""

    def run(self) -> Tensor:
        """Return the last token of each sequence (batch, 1)."""


class EagerDecoding:
    """Every operator is launched from Python."""

    def __init__(
        self, model: Transformer, first: Tensor, positions: Tensor, cache: KVCache
    ) -> None:
        self.note = eager_note(first.device)
        self._decode = partial(decode, model, first, positions, cache, TOKENS_PER_STEP)
        self._cache = cache
        self._held = cache.length

    def run(self) -> Tensor:
        """Decode after what was held at first."""
        self._cache.truncate(self._held)
        return self._decode()


class GraphedDecoding:
    """One CUDA graph per token, launched as a whole: Python is not in the way of small kernels.

    A graph has its tensors' addresses and shapes for good, so each length of the cache needs its
    own, and the token passes from one to the next through one tensor.
    """

    note = "CUDA graphs"

    def __init__(
        self, model: Transformer, first: Tensor, positions: Tensor, cache: KVCache
    ) -> None:
        self._first = first
        self._token = first.clone()
        held = cache.length
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            # unrecorded, cuBLAS and Triton make ready
            decode(model, first, positions, cache, TOKENS_PER_STEP)
        torch.cuda.synchronize()
        cache.truncate(held)
        self._graphs: list[torch.cuda.CUDAGraph] = []
        for _ in range(TOKENS_PER_STEP):
            self._graphs.append(torch.cuda.CUDAGraph())
            pool = self._graphs[0].pool() if len(self._graphs) > 1 else None
            with torch.cuda.graph(self._graphs[-1], pool=pool):
                self._token.copy_(decode(model, self._token, positions, cache, 1))

    def run(self) -> Tensor:
        """Replay all graphs; the cache's own count of tokens stays where they end."""
        self._token.copy_(self._first)
        for graph in self._graphs:
            graph.replay()
        return self._token


def decode(
    model: Transformer, token: Tensor, positions: Tensor, cache: KVCache, count: int
) -> Tensor:
    """Decode `count` tokens greedily, beginning after `token` (batch, 1); return the last."""
    for _ in range(count):
        here = positions[cache.length : cache.length + 1]
        token = next_token(model, token, here, cache)
    return token


def next_token(model: Transformer, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
    """Return the likeliest token (batch, 1) after `tokens` (batch, new)."""
    logits: Tensor = model(tokens, positions, cache, last_only=True)
    return logits.argmax(dim=-1)


def eager_note(device: torch.device) -> str:
    """Say what keeps eager decoding from full speed; nothing does on a CPU with a C compiler."""
    if device.type != "cpu":
        return "eager: CUDA graphs want a contiguous cache and all weights on the device"
    return matvec.build().note


def decode_span(setting: Setting, held: int, note: str = "") -> Span:
    """Count a run of `TOKENS_PER_STEP` tokens that begins with `held` tokens in the cache."""
    contexts = range(held + 1, held + 1 + TOKENS_PER_STEP)
    passes = (Tokens(setting.batch, 1, context) for context in contexts)
    count = sum((pass_count(setting, tokens) for tokens in passes), Count(0, 0.0))
    unit = "token" if setting.batch == 1 else f"step of {setting.batch} tokens"
    tokens = setting.batch * TOKENS_PER_STEP
    return Span(count, tokens, unit, units=TOKENS_PER_STEP, mostly_reads=True, note=note)
