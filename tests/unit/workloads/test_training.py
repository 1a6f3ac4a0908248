"""Training and fine-tuning: the right weights change, memory holds what it should, loss falls."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from workloads.counting import Trained
from workloads.data import ALPHABET, data_span, open_batches, tokens_per_batch, toy_text
from workloads.finetuning import FINETUNES
from workloads.flopcounter import count_flops
from workloads.memory import required_bytes
from workloads.phase import Recorder
from workloads.setting import Setting, silent
from workloads.training import Learner, build_learner, learn, next_token_loss, training_spans

pytestmark = [pytest.mark.workloads, pytest.mark.usefixtures("one_thread")]


def learner(setting: Setting, finetune: bool = True) -> Learner:
    torch.manual_seed(0)  # LoRA matrices are drawn from it
    model = build_learner(setting)
    if finetune:
        FINETUNES[setting.finetune](model, setting)
    recorder = Recorder("x", "fp32", lambda: None, clock=lambda: 0.0, wall=lambda: 0.0)
    trained = setting.finetune if finetune else Trained.ALL
    return Learner("x", model, setting, recorder, training_spans("x", setting, trained))


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def changed_names(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    after = model.named_parameters()
    return {name for name, weight in after if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("finetune", ["lora", "last"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_what_should_has_gradients_and_moments_and_changes(
    finetune: str, checkpointing: bool
) -> None:
    setting = Setting("tiny", prompt=16, finetune=finetune, rank=4, checkpointing=checkpointing)
    one = learner(setting)
    before = {name: weight.detach().clone() for name, weight in one.model.named_parameters()}
    gradients: dict[str, bool] = {}

    def look(*_: object) -> None:
        found = one.model.named_parameters()
        gradients.update({name: weight.grad is not None for name, weight in found})

    one.optimizer.register_step_pre_hook(look)
    learn(one, silent)
    expected = trained_names(one.model)
    assert {name for name, has in gradients.items() if has} == expected
    assert changed_names(one.model, before) == expected
    assert expected
    if finetune == "lora":
        assert all(".lora_" in name for name in expected)
        assert len(expected) == 4 * 7 * 2
    else:
        assert all(name.startswith(("layers.3.", "norm.", "lm_head.")) for name in expected)
        assert len(expected) == 9 + 1 + 1


@pytest.mark.parametrize("finetune", ["lora", "last"])
def test_memory_holds_moments_of_what_trains_and_of_nothing_else(finetune: str) -> None:
    setting = Setting("tiny", prompt=16, finetune=finetune, rank=4)
    one = learner(setting)
    learn(one, silent)
    states = one.optimizer.state.values()
    moments = sum(state[name].nbytes for state in states for name in ("exp_avg", "exp_avg_sq"))
    weights = sum(weight.nbytes for weight in one.model.parameters())
    needed = required_bytes("finetune", setting)
    assert needed.gradients_and_moments == moments * 1.5  # gradients are a third of it
    assert needed.weights == weights
    whole = required_bytes("train", setting)
    assert needed.gradients_and_moments < 0.4 * whole.gradients_and_moments


def test_an_update_begins_as_nothing() -> None:
    setting = Setting("tiny", prompt=16)
    plain, adapted = build_learner(setting), learner(setting).model
    tokens, places = torch.arange(12)[None], torch.arange(12)
    assert torch.equal(plain(tokens, places), adapted(tokens, places))


@pytest.mark.parametrize("finetune", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_are_those_that_torch_dispatches(finetune: bool, checkpointing: bool) -> None:
    setting = Setting(
        "tiny", prompt=24, batch=2, attention="naive", checkpointing=checkpointing, rank=4
    )
    one = learner(setting, finetune)
    tokens = torch.randint(1024, (2, 25), generator=torch.Generator().manual_seed(5))
    spans = training_spans("x", setting, setting.finetune if finetune else Trained.ALL)
    counted = spans["x.forward"].count.flops + spans["x.backward"].count.flops

    def step() -> None:
        next_token_loss(one.model, tokens).backward()  # type: ignore[no-untyped-call]

    assert count_flops(step) == counted


def test_checkpointing_changes_no_gradient() -> None:
    tokens = torch.randint(1024, (2, 25), generator=torch.Generator().manual_seed(5))
    gradients = []
    for checkpointing in (False, True):
        model = build_learner(Setting("tiny", checkpointing=checkpointing))
        next_token_loss(model, tokens).backward()  # type: ignore[no-untyped-call]
        gradients.append([weight.grad for weight in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None
        assert again is not None
        assert torch.allclose(plain, again, atol=1e-7)


def test_accumulated_gradients_are_those_of_one_large_batch() -> None:
    tokens = torch.randint(1024, (4, 17), generator=torch.Generator().manual_seed(6))
    large = learner(Setting("tiny", batch=4, prompt=16), finetune=False)
    small = learner(Setting("tiny", batch=1, prompt=16, accumulation=4), finetune=False)
    losses = [large.step(iter([tokens])), small.step(iter(tokens.chunk(4)))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert small.recorder.phases["x.backward"].calls == 4
    assert small.recorder.phases["x.optimizer"].calls == 1
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)  # AdamW's first step is the gradient's sign
    moments = [
        [state["exp_avg"] for state in each.optimizer.state.values()] for each in (large, small)
    ]
    for one, other in zip(*moments, strict=True):
        assert torch.allclose(one, other, atol=1e-7)


@pytest.mark.parametrize(("finetune", "fall"), [(None, 1.5), ("lora", 0.3), ("last", 0.8)])
def test_loss_falls_on_a_text_that_can_be_learned(finetune: str | None, fall: float) -> None:
    setting = Setting("tiny", batch=4, prompt=32, steps=39, finetune=finetune or "lora", rank=32)
    losses = learn(learner(setting, finetune is not None), silent)
    assert losses[0] == pytest.approx(torch.tensor(1024.0).log().item(), rel=0.05)
    assert sum(losses[-3:]) / 3 < losses[0] - fall


def test_the_text_follows_its_cycle_most_of_the_time() -> None:
    text = toy_text(1024, 20_000).tolist()
    assert len(set(text)) == ALPHABET
    pairs = Counter(itertools.pairwise(text))
    usual = {one: (other, count) for (one, other), count in reversed(pairs.most_common())}
    assert {other for other, _ in usual.values()} == set(text)  # one cycle through all of them
    share = sum(count for _, count in usual.values()) / pairs.total()
    assert 0.89 < share < 0.92


def test_batches_are_the_text_in_order_and_their_bytes_those_of_the_file(tmp_path: Path) -> None:
    setting = Setting("tiny", batch=2, prompt=8)
    batches = list(open_batches(setting, 5, tmp_path))
    assert [batch.shape for batch in batches] == [(2, 9)] * 5
    text = toy_text(1024, 90)
    assert torch.equal(torch.stack(batches).flatten(), text)
    span = data_span(setting)
    assert 5 * span.io_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert span.tokens == tokens_per_batch(setting) == 18
    assert span.count.bytes == 18 * (4 + 8)
    assert span.link_bytes == 0
