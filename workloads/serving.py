"""Serve: prompts come in while others are answered, so that prefill and decode alternate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from workloads.attention import ATTENTIONS, Ragged
from workloads.counting import Count, Tokens, prompt
from workloads.decode import next_token
from workloads.device import TORCH_DTYPES
from workloads.inference import open_model, pass_count
from workloads.kvcache import BlockPool, PagedCache, PagedSequence
from workloads.paging import blocks_for
from workloads.phase import Recorder, Span
from workloads.placement import Placement
from workloads.setting import LONGEST_ANSWER, TOKENS_PER_STEP, Progress, Setting
from workloads.transformer import Transformer

REQUESTS_PER_STEP = 2
"""Requests for each sequence of the batch and each step of the setting."""


@torch.inference_mode()
def run_serve(setting: Setting, recorder: Recorder, progress: Progress) -> None:
    """Answer requests, `setting.batch` at once; one request comes before, as warm-up."""
    progress(f"serve: building {setting.size}")
    paged = replace(setting, cache="paged")
    attention = Ragged(ATTENTIONS[setting.attention])
    count = REQUESTS_PER_STEP * setting.batch * setting.steps

    def tell(answered: int) -> None:
        progress(f"serve: {answered} of {count} requests answered", answered / count)

    with open_model(paged, attention) as (model, placement):
        server = Server(paged, model, attention, placement, recorder)
        server.answer(random_requests(setting, 1), tell)
        recorder.forget()
        server.answer(random_requests(setting, count), tell)


@dataclass
class Request:
    """A prompt, and the state of the answer to it.

    Attributes:
        token: the prompt (1, length), then the last token of the answer (1, 1).
        left: tokens of the answer that are still to come.
        sequence: where keys and values are.

    """

    token: Tensor
    left: int
    sequence: PagedSequence = field(default_factory=PagedSequence)


def random_requests(setting: Setting, count: int) -> list[Request]:
    """Return prompts of one length that want answers of different lengths; always the same."""
    generator = torch.Generator().manual_seed(0)
    size = (count, setting.prompt)
    prompts = torch.randint(setting.shape.vocabulary, size, generator=generator)
    lengths = torch.randint(TOKENS_PER_STEP, LONGEST_ANSWER + 1, (count,), generator=generator)
    split = prompts.to(setting.device).chunk(count)
    return [Request(tokens, left) for tokens, left in zip(split, lengths.tolist(), strict=True)]


class Server:
    """Answers requests with continuous batching (Yu et al., "Orca", OSDI 2022).

    A request joins the running ones as soon as one of them is answered: its prompt is prefilled
    alone, then all running ones decode together.
    """

    def __init__(
        self,
        setting: Setting,
        model: Transformer,
        attention: Ragged,
        placement: Placement,
        recorder: Recorder,
    ) -> None:
        self._setting = setting
        self._model = model
        self._attention = attention
        self._placement = placement
        self._recorder = recorder
        self._device = torch.device(setting.device)
        blocks = setting.batch * blocks_for(setting.prompt + LONGEST_ANSWER)
        dtype = TORCH_DTYPES[setting.dtype]
        self.pool = BlockPool(setting.shape, blocks, self._device, dtype)

    def answer(self, requests: Sequence[Request], tell: Callable[[int], None]) -> None:
        """Answer all requests; tells how many are answered."""
        waiting, running = list(requests), list[Request]()
        while waiting or running:
            tell(len(requests) - len(waiting) - len(running))
            while waiting and len(running) < self._setting.batch:
                running.append(waiting.pop(0))
                self._prefill(running[-1])
            self._decode(running, min(request.left for request in running))
            for request in running:
                if not request.left:
                    self.pool.give_back(request.sequence.blocks)
            running = [request for request in running if request.left]

    def _prefill(self, request: Request) -> None:
        """Read the prompt and make the first token of the answer."""
        length = request.token.shape[1]
        cache = PagedCache(self.pool, [request.sequence])
        positions = torch.arange(length, device=self._device)
        span = Span(pass_count(self._setting, prompt(1, length)), length, "prompt")
        self._placement.begin()
        with self._recorder.phase("serve.prefill", self._placement.span(span, passes=1)):
            request.token = next_token(self._model, request.token, positions, cache)
        request.left -= 1

    def _decode(self, running: Sequence[Request], count: int) -> None:
        """Make `count` more tokens of each answer."""
        cache = PagedCache(self.pool, [request.sequence for request in running])
        token = torch.cat([request.token for request in running])
        span = self._placement.span(self._decode_span(running, cache.length, count), passes=count)
        self._placement.begin()
        with self._recorder.phase("serve.decode", span):
            for _ in range(count):
                token = self._next_token(running, token, cache)
        self._attention.see_all()
        for request, last in zip(running, token.chunk(len(running)), strict=True):
            request.token = last
            request.left -= count

    def _next_token(self, running: Sequence[Request], token: Tensor, cache: PagedCache) -> Tensor:
        held = torch.tensor([each.sequence.length for each in running], device=self._device)
        self._attention.see(held + 1, cache.length + 1)
        return next_token(self._model, token, held[:, None, None], cache)

    def _decode_span(self, running: Sequence[Request], held: int, count: int) -> Span:
        """Count `count` tokens of each answer; the shorter sequences are padded to the longest."""
        contexts = range(held + 1, held + 1 + count)
        passes = (Tokens(len(running), 1, context) for context in contexts)
        total = sum((pass_count(self._setting, tokens) for tokens in passes), Count(0, 0.0))
        tokens = len(running) * count
        return Span(total, tokens, "step", units=count, mostly_reads=True)
