"""Prefill and decode beside Hugging Face transformers: the same shape, device, dtype and lengths.

    .venv/bin/python -m tests.benchmarks.against_transformers --size small

One round of ours, one of theirs, and so on, so that a machine that drifts slows both; the ratio is
the median of the rounds' ratios. Ours are the workloads as `rooflight workload run` runs them.
Theirs is the model called token by token with each of its two caches, without `generate`, which
would only add to its time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers import __version__ as their_version

from workloads.decode import run_decode
from workloads.device import TORCH_DTYPES, synchronizer
from workloads.phase import Recorder
from workloads.prefill import random_prompt, run_prefill
from workloads.runner import Run
from workloads.setting import TOKENS_PER_STEP, Setting, silent
from workloads.shapes import Shape
from workloads.transformer import NORM_EPSILON, Transformer

CACHES = {"dynamic": DynamicCache, "static": StaticCache}
OURS: Mapping[str, Run] = {"prefill": run_prefill, "decode": run_decode}


def config(shape: Shape) -> LlamaConfig:
    """Return their configuration of our shape."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def same_llama(model: Transformer) -> LlamaForCausalLM:
    """Return their model with the weights of ours: the names are the same."""
    theirs = LlamaForCausalLM(config(model.shape))
    weights = model.state_dict()
    named = {name if name == "lm_head.weight" else f"model.{name}" for name in weights}
    assert named == set(theirs.state_dict())
    theirs.lm_head.load_state_dict({"weight": weights.pop("lm_head.weight")})
    theirs.model.load_state_dict(weights)
    return theirs.eval()


class Theirs:
    """Their model, timed as ours is: a warm-up, then one recorded run."""

    def __init__(self, setting: Setting, cache: str) -> None:
        device, dtype = torch.device(setting.device), TORCH_DTYPES[setting.dtype]
        self._config = config(setting.shape)
        with device:
            self._model = LlamaForCausalLM(self._config).to(dtype).eval()
        self._cache = cache
        self._setting = setting
        self._prompt = random_prompt(setting)
        self._wait = synchronizer(device)

    @torch.inference_mode()
    def seconds(self, phase: str) -> float:
        """Return the time of one prompt, or of `TOKENS_PER_STEP` tokens after it."""
        return self._prefill() if phase == "prefill" else self._decode()

    def _prefill(self) -> float:
        self._next(self._prompt, self._new_cache())
        cache = self._new_cache()
        return self._timed(lambda: self._next(self._prompt, cache))

    def _decode(self) -> float:
        cache = self._new_cache()
        token = self._tokens(self._next(self._prompt, cache), cache)
        return self._timed(lambda: self._tokens(token, cache))

    def _new_cache(self) -> DynamicCache | StaticCache:
        room = self._setting.prompt + 2 * TOKENS_PER_STEP
        if self._cache == "static":
            return StaticCache(config=self._config, max_cache_len=room)
        return DynamicCache(config=self._config)

    def _next(self, tokens: Tensor, cache: object) -> Tensor:
        result = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token: Tensor = result.logits.argmax(dim=-1)
        return token

    def _tokens(self, token: Tensor, cache: object) -> Tensor:
        for _ in range(TOKENS_PER_STEP):
            token = self._next(token, cache)
        return token

    def _timed(self, run: Callable[[], Tensor]) -> float:
        self._wait()
        begin = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - begin


def our_seconds(setting: Setting, phase: str) -> float:
    """Return the mean time of one recorded run of our workload."""
    wait = synchronizer(torch.device(setting.device))
    recorder = Recorder(phase, setting.dtype, wait, clock=time.perf_counter, wall=time.time)
    OURS[phase](setting, recorder, silent)
    return recorder.phases[phase].seconds / recorder.phases[phase].calls


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over rounds; a ratio above 1 says that ours is faster."""

    phase: str
    cache: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]


def compare(setting: Setting, rounds: int) -> Iterator[Comparison]:
    """Measure every phase with each of their caches, in interleaved rounds."""
    for cache in CACHES:
        theirs = Theirs(setting, cache)
        for phase in OURS:
            pairs = [(our_seconds(setting, phase), theirs.seconds(phase)) for _ in range(rounds)]
            ratios = [other / own for own, other in pairs]
            own, other = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(ratios)
            yield Comparison(phase, cache, own, other, ratio, (min(ratios), max(ratios)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=TORCH_DTYPES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = vars(parser.parse_args())
    rounds = chosen.pop("rounds")
    setting = Setting(**chosen, steps=1)
    print(f"torch {torch.__version__}, transformers {their_version}; {setting}")
    print("phase    their cache    ours ms theirs ms  ratio (lowest, highest)")
    for row in compare(setting, rounds):
        low, high = row.spread
        times = f"{row.ours * 1e3:9.1f} {row.theirs * 1e3:9.1f}"
        print(f"{row.phase:<8} {row.cache:<12} {times} {row.ratio:6.2f} ({low:.2f}, {high:.2f})")


if __name__ == "__main__":
    main()
