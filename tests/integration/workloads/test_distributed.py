"""Two ranks on this machine do what one does, and exchange what the formulas say."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from workloads import exchange, sharding
from workloads.attention import sdpa
from workloads.ceilings import MIB, Sweep
from workloads.collectives import CollectiveCounter
from workloads.counting import Trained
from workloads.decode import decode, next_token
from workloads.device import TORCH_DTYPES
from workloads.distributed import MODES, RUNS, launch, run_decode
from workloads.flopcounter import count_flops
from workloads.inference import new_cache
from workloads.phase import Phase, Recorder
from workloads.prefill import random_prompt
from workloads.ranks import Rank, spawn
from workloads.roofline import Bound
from workloads.setting import TOKENS_PER_STEP, Progress, Setting, SettingError, silent
from workloads.shapes import SIZES
from workloads.training import Learner, build_learner, learn, training_spans
from workloads.transformer import build

pytestmark = pytest.mark.workloads

REPOSITORY = Path(__file__).parents[3]
RANKS = 2
SETTING = Setting("tiny", batch=2, prompt=16, steps=2)
SWEEP = Sweep(((128, 128, 128),), 4 * MIB, repeats=3)
TOKENS = torch.arange(2 * 12).reshape(2, 12)


@dataclass
class Found:
    """What one rank saw of one workload: exchanged bytes of the last call of each phase."""

    result: object = None
    seen: dict[str, float] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)


@dataclass
class Story:
    """What one rank saw of all that the tests below ask about."""

    training: dict[str, Found] = field(default_factory=dict)
    decode: Found = field(default_factory=Found)
    logits: dict[str, list[object]] = field(default_factory=dict)
    flops: int = 0


def recorder_watching(found: Found) -> Recorder:
    @contextmanager
    def watched(name: str) -> Iterator[None]:
        with CollectiveCounter() as counter:
            yield
        found.seen[name] = counter.bytes

    clock = time.perf_counter
    mark: Callable[[str], AbstractContextManager[object]] = watched
    return Recorder("any", SETTING.dtype, lambda: None, clock=clock, wall=clock, mark=mark)


def tell_story(rank: Rank, progress: Progress) -> Story:
    story = Story()
    for mode, runs in RUNS.items():
        found = story.training[mode] = Found()
        recorder = recorder_watching(found)
        found.result = runs["train"](rank, SETTING, recorder, progress)
        found.phases = recorder.phases
    recorder = recorder_watching(story.decode)
    story.decode.result = run_decode(rank, SETTING, recorder, progress).tolist()
    story.decode.phases = recorder.phases
    for mode in MODES:
        model = MODES[mode].spread(build_learner(SETTING), rank)
        with torch.no_grad():
            story.logits[mode] = model(TOKENS, torch.arange(12)).tolist()
    sharded = sharding.shard_layers(build_learner(SETTING), rank)
    places = torch.arange(SETTING.prompt)
    prompts = torch.zeros(SETTING.batch, SETTING.prompt, dtype=torch.int64)
    story.flops = count_flops(lambda: sharded(prompts, places))
    return story


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    return spawn(tell_story, RANKS, "cpu")


def alone(setting: Setting) -> list[float]:
    recorder = Recorder("train", "fp32", lambda: None, clock=lambda: 0.0, wall=lambda: 0.0)
    spans = training_spans("train", setting, Trained.ALL)
    return learn(Learner("train", build_learner(setting), setting, recorder, spans), silent)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_ranks_learn_as_one_does_from_the_doubled_batch(
    stories: list[Story], mode: str
) -> None:
    """Fp32 sums in another order: the losses of three steps agree to 1e-5 of themselves."""
    losses = torch.tensor([story.training[mode].result for story in stories]).mean(dim=0)
    expected = alone(replace(SETTING, batch=RANKS * SETTING.batch))
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]


def test_tensor_parallel_ranks_learn_as_one_does_from_the_same_batch(stories: list[Story]) -> None:
    for story in stories:
        assert story.training["tp"].result == pytest.approx(alone(SETTING), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_logits_are_those_of_one_rank(stories: list[Story], mode: str) -> None:
    model = build(SIZES["tiny"], torch.device("cpu"), TORCH_DTYPES["fp32"], attention=sdpa)
    with torch.no_grad():
        expected = model(TOKENS, torch.arange(12))
    for story in stories:
        assert torch.allclose(torch.tensor(story.logits[mode]), expected, atol=1e-5)


def test_tensor_parallel_decode_ends_in_the_token_that_one_rank_finds(
    stories: list[Story],
) -> None:
    model = build_learner(SETTING)
    capacity = SETTING.prompt + TOKENS_PER_STEP
    cache = new_cache(SETTING, capacity)
    places = torch.arange(capacity)
    with torch.inference_mode():
        first = next_token(model, random_prompt(SETTING), places[: SETTING.prompt], cache)
        expected = decode(model, first, places, cache, TOKENS_PER_STEP)
    for story in stories:
        assert story.decode.result == expected.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_each_phase_exchanges_to_the_byte_what_was_counted(stories: list[Story], mode: str) -> None:
    for story in stories:
        found = story.training[mode]
        counted = {name: phase.link_bytes / phase.calls for name, phase in found.phases.items()}
        assert counted == found.seen
        assert counted["train.backward"] > 0


def test_decode_exchanges_to_the_byte_what_was_counted(stories: list[Story]) -> None:
    for story in stories:
        phase = story.decode.phases["decode"]
        assert story.decode.seen["decode"] == phase.link_bytes / phase.calls > 0


def test_flops_of_a_tensor_parallel_rank_are_those_that_torch_dispatched(
    stories: list[Story],
) -> None:
    phase = stories[0].training["tp"].phases["train.forward"]
    assert [story.flops for story in stories] == [phase.flops / phase.calls] * RANKS


def test_launch_reports_phases_under_roofs_of_the_same_process_group() -> None:
    told: list[str] = []

    def progress(words: str, done: float = 0.0, /) -> None:
        told.append(words)
        assert 0.0 <= done <= 1.0

    report = launch(SETTING, ("train", "decode"), "tp", RANKS, progress, SWEEP)
    assert report is not None
    assert not report.partial
    names = [item.phase.name for item in report.phases]
    assert {"train.forward", "train.backward", "train.optimizer", "decode"} <= set(names)
    links = {item.phase.name: item.label.fractions.link for item in report.phases}
    assert links["train.forward"] is not None
    assert links["train.optimizer"] is None
    roof = next(ceiling for ceiling in report.ceilings if ceiling.kind == "all-reduce")
    assert "2 ranks, gloo" in roof.size
    assert any("train: step" in words for words in told)


def test_ranks_join_under_torchrun_and_the_first_one_reports() -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "tests.integration.workloads.torchrun_main"),
    ]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    bounds = json.loads(done.stdout.splitlines()[-1])  # torch 2.9's gloo prints before it
    assert set(bounds) == {"train.data", "train.forward", "train.backward", "train.optimizer"}
    assert set(bounds.values()) <= {bound.value for bound in Bound}


@pytest.mark.parametrize(
    ("setting", "names", "mode", "ranks", "message"),
    [
        (SETTING, ("train",), "pipeline", 2, "unknown way to run in parallel 'pipeline': one of"),
        (SETTING, ("decode",), "ddp", 2, "decode does not run with ddp, only: train"),
        (SETTING, ("train",), "tp", 3, "3 ranks cannot share 4 heads"),
        (SETTING, ("train",), "tp", 4, "4 ranks cannot share 2 key-value heads"),
        (SETTING, ("train",), "ddp", 0, "ranks must be at least 1, not 0"),
        (
            replace(SETTING, checkpointing=True),
            ("train",),
            "ddp",
            2,
            "with checkpointing False only",
        ),
        (replace(SETTING, dtype="fp4"), ("train",), "ddp", 2, "unknown dtype 'fp4'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_process_starts(
    setting: Setting, names: tuple[str, ...], mode: str, ranks: int, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        launch(setting, names, mode, ranks)


def work_until_interrupted(rank: Rank, progress: Progress) -> str:
    try:
        progress("at work")
        time.sleep(60)
    except KeyboardInterrupt:
        return f"what rank {rank.index} had"
    return "never"


def test_after_an_interrupt_ranks_hand_in_what_they_have() -> None:
    def interrupt(words: str, _: float = 0.0, /) -> None:
        assert words == "at work"
        raise KeyboardInterrupt

    found = spawn(work_until_interrupted, RANKS, "cpu", progress=interrupt)
    assert found[0] == "what rank 0 had"


def test_ddp_and_fsdp_exchange_as_much_as_the_papers_say() -> None:
    weights = SETTING.shape.parameters * 4
    assert exchange.data_parallel(SETTING, 4) == {"backward": 2 * 3 / 4 * weights}
    sharded = exchange.fully_sharded(replace(SETTING, size="8b"), 4)
    whole = SIZES["8b"].parameters * 4 * 3 / 4
    assert sum(sharded.values()) == pytest.approx(3 * whole, rel=0.05)
    assert exchange.data_parallel(SETTING, 1) == {"backward": 0.0}
