"""Prefill: push whole prompts through the model in parallel and fill the KV cache."""

import torch

from workloads import counting
from workloads.inference import new_cache, open_model, pass_count
from workloads.phase import Recorder, Span
from workloads.setting import Progress, Setting

WARMUP = 1


@torch.inference_mode()
def run_prefill(setting: Setting, recorder: Recorder, progress: Progress) -> None:
    """Run one warm-up prompt and `setting.steps` recorded ones; logits of the last token only."""
    progress(f"prefill: building {setting.size}")
    cache = new_cache(setting, setting.prompt)
    tokens = random_prompt(setting)
    positions = torch.arange(setting.prompt, device=setting.device)
    steps = WARMUP + setting.steps
    with open_model(setting) as (model, placement):
        span = placement.span(prefill_span(setting), passes=1)
        for step in range(steps):
            if step == WARMUP:
                recorder.forget()
            progress(f"prefill: prompt {step + 1} of {steps}", step / steps)
            cache.truncate(0)
            placement.begin()
            with recorder.phase("prefill", span):
                model(tokens, positions, cache, last_only=True)


def random_prompt(setting: Setting) -> torch.Tensor:
    """Return tokens (batch, prompt), the same ones in every run."""
    generator = torch.Generator().manual_seed(0)
    size = (setting.batch, setting.prompt)
    tokens = torch.randint(setting.shape.vocabulary, size, generator=generator)
    return tokens.to(setting.device)


def prefill_span(setting: Setting) -> Span:
    """Count one prefill of the whole batch."""
    tokens = counting.prompt(setting.batch, setting.prompt)
    return Span(pass_count(setting, tokens), tokens.new, "prompt", units=setting.batch)
