"""Decoding: every run the same tokens, eager here; what CUDA can record is asked beforehand."""

import time

import pytest

pytest.importorskip("torch")

import torch

from workloads import decode as decoding
from workloads import matvec
from workloads.decode import EagerDecoding, can_graph, next_token, run_decode
from workloads.inference import new_cache, open_model
from workloads.phase import Recorder
from workloads.prefill import random_prompt
from workloads.setting import TOKENS_PER_STEP, Setting, silent

pytestmark = pytest.mark.workloads


def record(setting: Setting) -> Recorder:
    recorder = Recorder(
        "decode", setting.dtype, lambda: None, clock=time.perf_counter, wall=time.time
    )
    run_decode(setting, recorder, silent)
    return recorder


@pytest.mark.parametrize(
    ("weights", "cache"), [("native", "contiguous"), ("int4", "contiguous"), ("int8", "paged")]
)
def test_each_run_makes_the_tokens_of_a_whole_pass(weights: str, cache: str) -> None:
    setting = Setting("tiny", batch=2, prompt=8, cache=cache, weights=weights)
    held, prompt = new_cache(setting, 8 + TOKENS_PER_STEP), random_prompt(setting)
    positions = torch.arange(8 + TOKENS_PER_STEP)
    with torch.inference_mode(), open_model(setting) as (model, _):
        first = next_token(model, prompt, positions[:8], held)
        eager = EagerDecoding(model, first, positions, held)
        last = eager.run()
        assert torch.equal(eager.run(), last)
        sequence = torch.cat((prompt, first), dim=1)
        for _ in range(TOKENS_PER_STEP):
            logits = model(sequence, torch.arange(sequence.shape[1]), last_only=True)
            sequence = torch.cat((sequence, logits.argmax(dim=-1)), dim=1)
    assert torch.equal(sequence[:, -1:], last)


def test_runs_are_alike_so_that_their_median_counts() -> None:
    phase = record(Setting("tiny", prompt=8, steps=3)).phases["decode"]
    assert (phase.calls, phase.tokens) == (3, 3 * TOKENS_PER_STEP)
    assert len(phase._alike) == 1


def test_graphs_are_for_cuda_with_everything_at_hand() -> None:
    assert can_graph(Setting(device="cuda:1"))
    assert not can_graph(Setting(device="cpu"))
    assert not can_graph(Setting(device="cuda", cache="paged"))
    assert not can_graph(Setting(device="cuda", placement="host"))


def test_the_note_says_when_no_compiler_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA graphs want" in decoding.eager_note(torch.device("cuda"))
    monkeypatch.setattr(matvec, "build", lambda: matvec.Build(None, "products by torch"))
    note = record(Setting("tiny", prompt=4, steps=1)).phases["decode"].note
    assert note == "products by torch"
